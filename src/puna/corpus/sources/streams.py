"""Compressed files as streams of bytes, with an error a person understands where one breaks off."""

import bz2
import codecs
import contextlib
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from puna.errors import UserError

CHUNK = 1 << 20  # most bytes unpacked at once, so that a bomb of zeros stays small
# Most bytes of one record, in every reader: a page, a line, a row, a post, a book; longer ones are skipped.
LARGEST_RECORD = 64_000_000
TOO_LARGE = "record over 64 MB"  # the reason to skip such a record
PARSED_CHUNK = 1 << 16  # bytes of XML; the parser keeps about twice that
COMPRESSED_CHUNK = 1 << 16  # what follows a member of gzip is copied once a member: keep it short
# Errors of XML that cost more than a character.
LOSSES = ("ERR_GT_REQUIRED", "ERR_TAG_NAME_MISMATCH", "ERR_DOCUMENT_END")
# Ends a text or an attribute that was cut; a character for private use, three times.
CUT, CUT_BYTES = "\uf8ff\uf8ff\uf8ff", b"&#xF8FF;&#xF8FF;&#xF8FF;"
SAMPLE_BYTES = 100_000  # of a text, from which its encoding is guessed
ASCII = bytes(range(128))
LZ4 = b"\x04\x22\x4d\x18"
# A frame, and a skippable one: settings, tables, dictionaries, which some writers put first (RFC 8878).
ZSTANDARD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
DICTIONARY = b"\x5d\x2a\x4d\x18"  # the skippable frame of a dictionary in web archives (.warc.zst)


class Damaged(UserError):
    """A compressed stream that cannot be read on. member: byte of the file where the damaged member starts;
    early: the stream just ends."""

    def __init__(self, message: str, member: int, early: bool) -> None:
        super().__init__(message)
        self.member, self.early = member, early


def chunks(path: Path) -> Iterator[bytes]:
    """Read a plain, gzip, bzip2, zstandard or LZ4 file, piece by piece, whatever its name says.

    Raises UserError, after everything that can be read, when a compressed stream breaks off or is damaged.
    """
    for _, piece in members(path):
        yield piece


def read_all(path: Path, limit: int) -> bytes | None:
    """Read a file as `chunks` does; None where it is longer than `limit` bytes."""
    pieces: list[bytes] = []
    for chunk in chunks(path):
        pieces.append(chunk)
        limit -= len(chunk)
        if limit < 0:
            return None
    return b"".join(pieces)


def members(path: Path, start: int = 0) -> Iterator[tuple[int | None, bytes]]:
    """Read a file as `chunks` does, each piece with the byte where its gzip or bzip2 member starts.

    That is None in other files. start: byte where the first member wanted starts. Raises Damaged.
    """
    with path.open("rb") as file:
        file.seek(start)
        magic = file.read(4)
        file.seek(start)
        if ZSTANDARD.match(magic) or magic == LZ4:
            if magic != LZ4 and _needs_dictionary(file):
                raise UserError(
                    "zstandard with a dictionary, which is not read here: unpack the file with "
                    "`zstd -d -D DICTIONARY` (in a .warc.zst the first frame is the dictionary)"
                )
            kind = "LZ4" if magic == LZ4 else "zstandard"
            yield from ((None, piece) for piece in _by_arrow(path, kind))
            return
        kind = next((kind for kind, (mark, _) in _KINDS.items() if magic.startswith(mark)), "")
        if kind:
            yield from _decompressed(file, kind, start, path.stat().st_size)
            return
        while raw := file.read(CHUNK):
            yield None, raw


def _decompressed(file: Any, kind: str, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    decoder: Any = None
    member = start
    while raw := file.read(COMPRESSED_CHUNK):
        while raw or (decoder is not None and not getattr(decoder, "needs_input", True)):
            if decoder is None:
                if raw[:1] == b"\0" and not raw.strip(b"\0"):
                    break  # zeros behind the last member are padding
                decoder, member = _KINDS[kind][1](), file.tell() - len(raw)
            try:
                piece = decoder.decompress(raw, CHUNK)
            except (OSError, ValueError, EOFError, zlib.error) as error:
                where = f"before byte {file.tell():,} of {size:,}"
                raise Damaged(f"the {kind} stream is damaged {where}", member, False) from error
            if piece:
                yield member, piece
            if decoder.eof:
                raw, decoder = decoder.unused_data, None
            else:
                raw = getattr(decoder, "unconsumed_tail", b"")  # bzip2 keeps what it has not unpacked yet
    if decoder is not None:
        raise Damaged(f"the {kind} stream ends early, at byte {size:,}", member, True)


def _needs_dictionary(file: Any) -> bool:
    """Tell whether the first frame of zstandard with content, from the file's place on, has a dictionary."""
    for _ in range(100):
        head = file.read(8)
        if head[:4] == DICTIONARY:
            return True
        if head[:1] == b"\x28" or len(head) < 8:
            return len(head) > 4 and head[4] & 3 != 0  # the size of the dictionary's number (3.1.1.1.1.6)
        file.seek(int.from_bytes(head[4:], "little"), 1)
    return False


def _by_arrow(path: Path, kind: str) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.OSFile(str(path)), "lz4" if kind == "LZ4" else "zstd") as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except OSError as error:
        size = path.stat().st_size
        raise Damaged(f"the {kind} stream of {size:,} bytes is damaged or ends early", 0, True) from error


_KINDS: dict[str, tuple[bytes, Callable[[], Any]]] = {
    "gzip": (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    "bzip2": (b"BZh", bz2.BZ2Decompressor),
}


def lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Read the lines of a file: (byte offset in the unpacked file, line without its end).

    A line over LARGEST_RECORD bytes is None; it is not held in memory.
    """
    rest: list[bytes] = []  # pieces of a line that has not ended yet
    length = offset = 0  # of that line, its pieces or not
    for chunk in chunks(path):
        *others, last = chunk.split(b"\n")
        for piece in others:
            whole = length + len(piece)
            line = b"".join([*rest, piece]) if whole <= LARGEST_RECORD else None
            yield offset, line if line is None else line.removesuffix(b"\r")
            offset += whole + 1
            rest, length = [], 0
        length += len(last)
        rest = [*rest, last] if length <= LARGEST_RECORD else []
    if length:
        yield offset, b"".join(rest) if length <= LARGEST_RECORD else None


def xml_elements(path: Path, names: tuple[str, ...], only_last: str = "") -> Iterator[Any]:
    """Read the elements of these names, in the order in which they end.

    Each is emptied after its turn, so that memory stays small. only_last: a name of elements inside them, of
    which each holds the last one alone, as the revisions of a page. A character that XML forbids is passed
    over, and so is what a text or a tag has over LARGEST_RECORD bytes; CUT ends it then.
    Raises UserError, after every element that can be read, where the document breaks off, is damaged, or
    cannot be decoded.
    """
    from lxml import etree

    parser: Any = etree.XMLPullParser(
        events=("end",),
        tag=[f"{{*}}{name}" for name in (*names, *filter(None, [only_last]))],
        huge_tree=True,
        resolve_entities=False,
        no_network=True,
        recover=True,
    )
    head = tail = b""
    try:
        for chunk in _cut_runs(chunks(path)):
            for at in range(0, len(chunk), PARSED_CHUNK):
                parser.feed(chunk[at : at + PARSED_CHUNK])
                yield from _finished(parser, only_last)
            head = head if len(head) > 4096 else head + chunk[:8192]
            tail = (tail + chunk)[-400:]
        with contextlib.suppress(etree.XMLSyntaxError):
            parser.close()
        yield from _finished(parser, only_last)  # what waited for the end of a reference
    except etree.XMLSyntaxError as error:
        raise UserError("this is no XML") from error
    finally:  # else its memory stays until Python looks for objects that hold each other
        with contextlib.suppress(etree.XMLSyntaxError):
            parser.close()
    _check(parser.feed_error_log, head.replace(b"\0", b""), tail.replace(b"\0", b""), b"\0" in head)


def _cut_runs(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Cut what stands between two "<" to LARGEST_RECORD bytes: a text, or a tag with its attributes."""
    length, ends_as, cutting = 0, b"", False
    for piece in pieces:
        at = piece.rfind(b"<")
        if at < 0 and length + len(piece) > LARGEST_RECORD:
            if not cutting:
                cutting = True
                quote = ends_as[-1:] if ends_as[-1:] in (b'"', b"'") else b'"'
                yield CUT_BYTES + (b"" if b">" in ends_as else quote + b"/>")
            length += len(piece)
            continue
        if cutting:  # up to the next tag, what is left of this one was closed
            piece = piece[piece.find(b"<") :]
            cutting = False
            at = piece.rfind(b"<")
        if at >= 0:
            length, ends_as = len(piece) - at, _start(piece[at:])
        else:
            length += len(piece)
            ends_as = ends_as or _start(piece)
        yield piece


def _start(piece: bytes) -> bytes:
    """Return the ">" of a tag that ends in a piece, else the quote that its open attribute began with."""
    if b">" in re.sub(rb"\"[^\"]*\"|'[^']*'", b"", piece):
        return b">"
    quotes = re.findall(rb"=\s*([\"'])", piece)
    return quotes[-1] if quotes else b'"'


def _finished(parser: Any, only_last: str) -> Iterator[Any]:
    for _, element in parser.read_events():
        if only_last and element.tag.rpartition("}")[2] == only_last:
            before = element.getprevious()
            if before is not None and before.tag == element.tag:
                element.getparent().remove(before)
            continue
        yield element
        element.clear()
        while element.getprevious() is not None and (parent := element.getparent()) is not None:
            del parent[0]


def _check(errors: Any, head: bytes, tail: bytes, utf16: bool) -> None:
    """Raise UserError where a document was not read to its end.

    head, tail: its first and last bytes without zeros, which decodes the names of UTF-16.
    """
    kinds = {error.type_name for error in errors}
    if not head.strip() or "ERR_DOCUMENT_EMPTY" in kinds:
        raise UserError(
            "this is no XML, or in an encoding that is neither UTF-8, UTF-16 nor what it says"
            if head
            else "nothing in it"
        )
    root = re.search(rb"</([\w:.-]+)\s*>\s*(?:<!--[^>]*-->\s*)*\Z", tail)
    opened = re.search(rb"<([A-Za-z_][\w:.-]*)", head)
    first = opened[1] if opened else b"?"
    if root is None or root[1] != first:
        raise UserError(f"the XML breaks off before the end of <{first.decode('ascii', 'replace')}>")
    if utf16 and "ERR_INVALID_ENCODING" in kinds:
        raise UserError("the XML is UTF-16 with damage in it, behind which it cannot be read")
    for error in errors:  # the parser goes on behind others
        no_name = error.type_name == "ERR_NAME_REQUIRED" and error.message.startswith("StartTag")
        if no_name or error.type_name in LOSSES:
            raise UserError(
                f"the XML is damaged at line {error.line:,}, column {error.column:,}: "
                "what stands behind may be lost"
            )


def decode(raw: bytes, encoding: str = "") -> str | None:
    """Decode UTF-8 with or without a byte order mark, UTF-16 and UTF-32 with one, else `encoding`.

    Where none is named it is guessed; what cannot be decoded so is Latin-1. None for what is not text.
    """
    if raw[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return raw.decode("utf-32", "replace")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        return None
    iso_2022 = ["iso2022_jp"] if b"\x1b$" in raw and raw.isascii() else []
    for candidate in (*iso_2022, "utf-8-sig", *filter(None, [encoding])):
        with contextlib.suppress(UnicodeError):
            return raw.decode(candidate)
    guessed = "cp1252" if encoding else _guess_encoding(raw)
    try:
        return raw.decode(guessed, "strict" if guessed == "cp1252" else "replace")
    except UnicodeError:
        return raw.decode("latin-1")


def _guess_encoding(raw: bytes) -> str:
    """Guess the encoding of bytes that are not UTF-8; Windows-1252 where too few are beyond ASCII."""
    letters = raw[:SAMPLE_BYTES].translate(None, b" \t\r\n")
    if len(letters.translate(None, ASCII)) < max(20, 0.05 * len(letters)):
        return "cp1252"
    from resiliparse.parse.encoding import detect_encoding

    detected = detect_encoding(raw[:SAMPLE_BYTES]) or "cp1252"
    try:
        name = codecs.lookup(detected).name
    except LookupError:
        return "cp1252"
    return "cp949" if name == "utf-8" else name  # the detector takes cp949, which it does not know, for UTF-8
