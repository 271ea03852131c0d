"""Compressed files as streams of bytes, with an error for a person where one breaks off."""

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
PARSED_CHUNK = 1 << 16  # bytes of XML; the parser keeps about twice that
PACKED_CHUNK = 1 << 16  # what follows a member of gzip is copied once a member: keep it short
LOSSES = (
    "ERR_GT_REQUIRED",
    "ERR_TAG_NAME_MISMATCH",
    "ERR_DOCUMENT_END",
)  # errors of XML that cost more than a character
GUESSED_BYTES = 100_000  # of a text that its encoding is guessed by
ASCII = bytes(range(128))
LZ4 = b"\x04\x22\x4d\x18"
ZSTANDARD = (
    b"\x28\xb5\x2f\xfd",
    b"\x50\x2a\x4d\x18",
)  # the second mark opens a frame of settings that some writers put first


class Damaged(UserError):
    """A compressed stream that cannot be read on. member: byte of the file where its broken member starts;
    early: it just ends."""

    def __init__(self, message: str, member: int, early: bool) -> None:
        super().__init__(message)
        self.member, self.early = member, early


def chunks(path: Path) -> Iterator[bytes]:
    """The content of a plain, gzip, bzip2, zstandard or LZ4 file, piece by piece, whatever its name says.

    Raises UserError, after everything readable was given, when a compressed stream breaks off or is damaged.
    """
    for _, piece in members(path):
        yield piece


def whole(path: Path, most: int) -> bytes | None:
    """The content of such a file, None where it is longer than `most` bytes. Raises UserError as `chunks`
    does."""
    parts: list[bytes] = []
    for chunk in chunks(path):
        parts.append(chunk)
        most -= len(chunk)
        if most < 0:
            return None
    return b"".join(parts)


def members(path: Path, start: int = 0) -> Iterator[tuple[int | None, bytes]]:
    """As `chunks`, each piece with the byte of the file where its gzip or bzip2 member starts (None in other
    files).

    start: byte where the first member wanted starts. Raises Damaged.
    """
    with path.open("rb") as file:
        file.seek(start)
        magic = file.read(4)
        file.seek(start)
        if magic in ZSTANDARD or magic == LZ4:
            kind = "LZ4" if magic == LZ4 else "zstandard"
            yield from ((None, piece) for piece in _by_arrow(path, kind))
            return
        kind = next((kind for kind, (mark, _) in _KINDS.items() if magic.startswith(mark)), "")
        if kind:
            yield from _unpacked(file, kind, start, path.stat().st_size)
            return
        while raw := file.read(CHUNK):
            yield None, raw


def _unpacked(file: Any, kind: str, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    decoder: Any = None
    member = start
    while raw := file.read(PACKED_CHUNK):
        while raw or (decoder is not None and not getattr(decoder, "needs_input", True)):
            if decoder is None:
                if raw[:1] == b"\0" and not raw.strip(b"\0"):
                    break  # zeros behind the last member are padding
                decoder, member = _KINDS[kind][1](), file.tell() - len(raw)
            try:
                piece = decoder.decompress(raw, CHUNK)
            except (OSError, ValueError, EOFError, zlib.error) as error:
                raise Damaged(
                    f"the {kind} stream is damaged before byte {file.tell():,} of {size:,}", member, False
                ) from error
            if piece:
                yield member, piece
            if decoder.eof:
                raw, decoder = decoder.unused_data, None
            else:
                raw = getattr(decoder, "unconsumed_tail", b"")  # bzip2 keeps what it has not unpacked yet
    if decoder is not None:
        raise Damaged(f"the {kind} stream ends early, at byte {size:,}", member, True)


def _by_arrow(path: Path, kind: str) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.OSFile(str(path)), "lz4" if kind == "LZ4" else "zstd") as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except OSError as error:
        raise Damaged(
            f"the {kind} stream of {path.stat().st_size:,} bytes is damaged or ends early", 0, True
        ) from error


_KINDS: dict[str, tuple[bytes, Callable[[], Any]]] = {
    "gzip": (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    "bzip2": (b"BZh", bz2.BZ2Decompressor),
}


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(byte offset in the unpacked file, line without its end) of a file."""
    rest: list[bytes] = []  # pieces of a line that has not ended yet
    offset = 0
    for chunk in chunks(path):
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if not others:
            continue
        others[:0] = [b"".join(rest)]
        rest = [others.pop()]
        for line in others:
            yield offset, line.removesuffix(b"\r")
            offset += len(line) + 1
    if last := b"".join(rest):
        yield offset, last


def xml_elements(path: Path, names: tuple[str, ...]) -> Iterator[Any]:
    """Finished elements of these names, in the order in which they end; each is emptied after its turn, so
    memory stays small.

    A character that XML forbids is passed over. Raises UserError, after every element that can be read, where
    the document breaks off, is damaged, or cannot be decoded.
    """
    from lxml import etree

    parser: Any = etree.XMLPullParser(
        events=("end",),
        tag=[f"{{*}}{name}" for name in names],
        huge_tree=True,
        resolve_entities=False,
        no_network=True,
        recover=True,
    )
    head = tail = b""
    try:
        for chunk in chunks(path):
            for at in range(0, len(chunk), PARSED_CHUNK):
                parser.feed(chunk[at : at + PARSED_CHUNK])
                yield from _finished(parser)
            head = head if len(head) > 4096 else head + chunk[:8192]
            tail = (tail + chunk)[-400:]
        with contextlib.suppress(etree.XMLSyntaxError):
            parser.close()
        yield from _finished(parser)  # what waited for the end of a reference
    except etree.XMLSyntaxError as error:
        raise UserError("this is no XML") from error
    finally:  # else its memory stays until Python looks for objects that hold each other
        with contextlib.suppress(etree.XMLSyntaxError):
            parser.close()
    _check(parser.feed_error_log, head.replace(b"\0", b""), tail.replace(b"\0", b""), b"\0" in head)


def _finished(parser: Any) -> Iterator[Any]:
    for _, element in parser.read_events():
        yield element
        element.clear()
        while element.getprevious() is not None and (parent := element.getparent()) is not None:
            del parent[0]


def _check(errors: Any, head: bytes, tail: bytes, utf16: bool) -> None:
    """Raise UserError where a document was not read to its end. head, tail: its beginning and end without
    zeros, as good as decoding UTF-16, for names."""
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
        if error.type_name in LOSSES or (
            error.type_name == "ERR_NAME_REQUIRED" and error.message.startswith("StartTag")
        ):
            raise UserError(
                f"the XML is damaged at line {error.line:,}, column {error.column:,}: what stands behind may be lost"
            )


def text_of(raw: bytes, otherwise: str = "") -> str | None:
    """Bytes as text: UTF-8 with or without a mark, UTF-16 and UTF-32 with one, else the encoding `otherwise`
    or, where none is named, what they look like; what is neither is Latin-1. None for what is no text."""
    if raw[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return raw.decode("utf-32", "replace")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        return None
    iso_2022 = ["iso2022_jp"] if b"\x1b$" in raw and raw.isascii() else []
    for encoding in (*iso_2022, "utf-8-sig", *filter(None, [otherwise])):
        with contextlib.suppress(UnicodeError):
            return raw.decode(encoding)
    guessed = "cp1252" if otherwise else _guessed(raw)
    try:
        return raw.decode(guessed, "strict" if guessed == "cp1252" else "replace")
    except UnicodeError:
        return raw.decode("latin-1")


def _guessed(raw: bytes) -> str:
    """The encoding that bytes which are not UTF-8 look like. Windows-1252 where those beyond ASCII are too
    few to tell."""
    letters = raw[:GUESSED_BYTES].translate(None, b" \t\r\n")
    if len(letters.translate(None, ASCII)) < max(20, 0.05 * len(letters)):
        return "cp1252"
    from resiliparse.parse.encoding import detect_encoding

    named = detect_encoding(raw[:GUESSED_BYTES]) or "cp1252"
    try:
        named = codecs.lookup(named).name
    except LookupError:
        return "cp1252"
    return "cp949" if named == "utf-8" else named  # which it does not know, and this is no UTF-8
