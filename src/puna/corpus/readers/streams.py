"""Compressed files as streams of bytes, with an error for a person where one breaks off."""

import bz2
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from puna.errors import UserError

CHUNK = 1 << 20
ZSTANDARD = b"\x28\xb5\x2f\xfd"


def chunks(path: Path) -> Iterator[bytes]:
    """The content of a plain, gzip, bzip2 or zstandard file, piece by piece, whatever its name says.

    Raises UserError, after everything readable was given, when a compressed stream breaks off or is damaged.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic == ZSTANDARD:
            yield from _zstandard(path)
            return
        kind = next((kind for kind, (mark, _) in _KINDS.items() if magic.startswith(mark)), "")
        decoder: Any = _KINDS[kind][1]() if kind else None
        fresh = True
        while raw := file.read(CHUNK):
            while kind and raw:
                if fresh and not raw.strip(b"\0"):
                    break  # zeros behind the last stream are padding
                try:
                    piece = decoder.decompress(raw)
                except (OSError, ValueError, EOFError, zlib.error) as error:
                    raise UserError(f"the {kind} stream is damaged before byte {file.tell():,} of {path.stat().st_size:,}") from error
                fresh, raw = False, b""
                if decoder.eof:
                    raw, decoder, fresh = decoder.unused_data, _KINDS[kind][1](), True
                if piece:
                    yield piece
            if not kind:
                yield raw
        if kind and not fresh:
            raise UserError(f"the {kind} stream ends early, at byte {path.stat().st_size:,}")


def _zstandard(path: Path) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except OSError as error:
        raise UserError(f"the zstandard stream of {path.stat().st_size:,} bytes is damaged or ends early") from error


_KINDS: dict[str, tuple[bytes, Callable[[], Any]]] = {
    "gzip": (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    "bzip2": (b"BZh", bz2.BZ2Decompressor),
}


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(byte offset in the unpacked file, line without its end) of a file."""
    rest, offset = b"", 0
    for chunk in chunks(path):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield offset, line.removesuffix(b"\r")
            offset += len(line) + 1
    if rest:
        yield offset, rest


def xml_elements(path: Path, names: tuple[str, ...]) -> Iterator[Any]:
    """Finished elements of these names, in the order in which they end; each is emptied after its turn, so memory stays small.

    A character that XML forbids is passed over. Raises UserError, after every whole element, where the document breaks off.
    """
    from lxml import etree

    parser: Any = etree.XMLPullParser(
        events=("end",), tag=[f"{{*}}{name}" for name in names], huge_tree=True, resolve_entities=False, no_network=True, recover=True
    )
    tail = b""
    for chunk in chunks(path):
        parser.feed(chunk)
        tail = (tail + chunk)[-200:]
        for _, element in parser.read_events():
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    root = re.search(rb"</([\w:.-]+)\s*>\s*(?:<!--[^>]*-->\s*)*\Z", tail)
    first = _root_name(path)
    if root is None or root[1] != first:
        raise UserError(f"the XML breaks off before the end of <{first.decode('ascii', 'replace')}>")


def _root_name(path: Path) -> bytes:
    """Name of a document's outermost element."""
    head = next(chunks(path), b"")
    found = re.search(rb"<([A-Za-z_][\w:.-]*)", head)
    return found[1] if found else b"?"


def text_of(raw: bytes) -> str | None:
    """Bytes as text: UTF-8 with or without a mark, UTF-16 with one, else Windows-1252 or Latin-1; None for what is no text."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        return None
    for encoding in ("utf-8-sig", "cp1252", "latin-1"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None
