"""What the bytes of a page are, whatever their declared type: packed, HTML, or something else."""

import bz2
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any

from puna.corpus.sources import streams

MAX_LAYERS = 3  # a page packed by the writer, by a proxy, and by the server
# The first are skippable frames (RFC 8878).
ZSTANDARD = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18|\x28\xb5\x2f\xfd")
# First bytes of what is declared as a page, from lists of magic numbers (WHATWG, "MIME Sniffing"; file(1)).
OTHERS = re.compile(
    rb"%PDF-|%!PS|\xff\xd8\xff|\x89PNG\r|GIF8[79]a|PK(?:\x03\x04|\x05\x06)|Rar!\x1a|7z\xbc\xaf|\x7fELF"
    rb"|MSCF\0|\xca\xfe\xba\xbe|\xd0\xcf\x11\xe0|OggS\0|ID3[\x02-\x04]"
    rb"|RIFF.{4}(?:WEBP|WAVE|AVI )|wOF[F2]|\0\x01\0\0|[FCZ]WS[\x01-\x2f]|II\*\0|MM\0\*|.{4}ftyp"
    rb"|\xed\xab\xee\xdb|\x1aE\xdf\xa3|!<arch>\n|SQLite format|\{\\rtf|fLaC|FLV\x01"
    rb"|\xff[\xfb\xf3\xf2]|ITSF|BEGIN:V(?:CARD|CALENDAR)|-----BEGIN ",
    re.DOTALL,
)
# Documents in XML that are no pages: feeds, site maps, drawings.
XML_ROOT = re.compile(
    rb"(?:<\?xml[^>]{0,200}\?>|<\?[^>]{0,300}\?>|<!--[^>]{0,500}-->|<!DOCTYPE\s+(?!html)[^>]{0,300}>|\s)*"
    rb"<(?:rss|feed|rdf:RDF|urlset|sitemapindex|opml|kml|gpx|svg|soap:Envelope|OpenSearchDescription)[\s>]",
    re.IGNORECASE,
)
# No control characters of text, but for those of ISO-2022 (ESC, SO, SI).
CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\t\n\f\r\v\x1b\x0e\x0f"})
MAX_CONTROLS = 0.02  # share of the bytes; a random byte is one with .09
SAMPLE_BYTES = 4096  # at the start, in the middle, at the end
MAX_UNDECODABLE = 0.05  # share of the characters


def unpack(body: bytes) -> bytes | None:
    """Return a body without what packs it, all members; None where nothing of it can be unpacked.

    What is damaged or cut is unpacked as far as it goes.
    """
    for _ in range(MAX_LAYERS):
        packing = _packing(body)
        if packing is None:
            break
        unpacked = packing(body)
        if not unpacked:
            return None
        body = unpacked
    return body


def is_packed(body: bytes) -> bool:
    """Tell whether a body begins like packed bytes."""
    return _packing(body) is not None


def _packing(body: bytes) -> Callable[[bytes], bytes] | None:
    """Return what unpacks a body, by its first bytes; None where it is not packed."""
    if body[:2] == b"\x1f\x8b":
        return lambda packed: members(packed, lambda: zlib.decompressobj(31))
    if ZSTANDARD.match(body):
        return lambda packed: frames(packed, "zstd")
    if body[:4] == b"\x04\x22\x4d\x18":
        return lambda packed: frames(packed, "lz4")
    if body[:3] == b"BZh" and body[4:10] == b"1AY&SY":
        return lambda packed: members(packed, bz2.BZ2Decompressor)
    if body[:6] == b"\xfd7zXZ\0":
        return lambda packed: members(packed, lzma.LZMADecompressor)
    # zlib's header is a multiple of 31, and may be text: "x" and a sign.
    if body[:2] in (b"x\x01", b"x\x9c", b"x\xda", b"x\x5e") and _is_zlib(body):
        return lambda packed: members(packed, zlib.decompressobj)
    return None


def _is_zlib(body: bytes) -> bool:
    try:
        return len(zlib.decompressobj().decompress(body[:4096], 64)) > 0
    except zlib.error:
        return False


def members(body: bytes, new_decoder: Callable[[], Any]) -> bytes:
    """Unpack all members of a body, one behind the other, up to streams.LARGEST_RECORD."""
    parts: list[bytes] = []
    room = streams.LARGEST_RECORD
    while body and room > 0:
        decoder = new_decoder()
        try:
            part = decoder.decompress(body, room)
        except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
            if not parts or not _is_other_end(body):
                parts.append(_before_damage(body, new_decoder()))
            break
        parts.append(part)
        room -= len(part)
        body = decoder.unused_data if decoder.eof else b""
    return b"".join(parts)


def _is_other_end(body: bytes) -> bool:
    """Tell whether what follows a member is padding, no member."""
    return not body.strip(b"\0\r\n ")


def _before_damage(body: bytes, decoder: Any) -> bytes:
    """Unpack what comes before damage, a little at a time."""
    parts: list[bytes] = []
    stream, room = io.BytesIO(body), streams.LARGEST_RECORD
    try:
        while (piece := stream.read(512)) and sum(map(len, parts)) < room and not decoder.eof:
            parts.append(decoder.decompress(piece))
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
        pass
    return b"".join(parts)


def frames(body: bytes, codec: str) -> bytes:
    """Unpack all frames of zstandard or LZ4, up to streams.LARGEST_RECORD; what comes before damage stays."""
    import pyarrow as pa

    parts: list[bytes] = []
    room = streams.LARGEST_RECORD
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
            while room > 0 and (piece := stream.read(min(room, 1 << 20))):
                parts.append(piece)
                room -= len(piece)
    except OSError:
        pass
    return b"".join(parts)


def is_html(body: bytes) -> bool:
    """Tell whether an unpacked body may be a page: no known other format, and text by its bytes.

    Its encoding need not be known: only UTF-16 and UTF-32 have bytes of zero.
    """
    start = body[:2048].lstrip(b"\xef\xbb\xbf \t\r\n\f\0")
    if OTHERS.match(body) or OTHERS.match(start) or XML_ROOT.match(start):
        return False
    if start[:1] in (b"{", b"[") and _is_json(body):
        return False
    middle = len(body) // 2
    sample = body[:SAMPLE_BYTES]
    if len(body) > 3 * SAMPLE_BYTES:
        sample += body[middle : middle + SAMPLE_BYTES] + body[-SAMPLE_BYTES:]
    allowed = sample.count(0) if _has_wide_characters(body) else 0
    controls = len(sample) - len(sample.translate(None, CONTROLS)) - allowed
    return controls <= MAX_CONTROLS * len(sample)


def _has_wide_characters(body: bytes) -> bool:
    head = body[:400]
    zeros = [head[start::2].count(0) for start in (0, 1)]
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or body[:4] == b"\0\0\xfe\xff":
        return True
    return max(zeros) > 0.35 * len(head) and min(zeros) < 0.3 * len(head)


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        return False


def is_decoded(text: str) -> bool:
    """Tell whether the characters of a page could be decoded, all but a few."""
    return text.count("\ufffd") <= MAX_UNDECODABLE * len(text)
