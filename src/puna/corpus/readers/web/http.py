"""HTTP responses as web archives store them: status, headers, and the body without its encodings."""

import re
import zlib

from puna.corpus.readers.web import nature
from puna.corpus.sources import streams

BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# Some servers write it in small letters, or without a version.
STATUS = re.compile(rb"\s*HTTP(?:/\d(?:\.\d)?)?[ \t]+(\d{3})(?!\d)", re.IGNORECASE)
CHUNK_SIZE = re.compile(rb"\s*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


def split(payload: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """Return (status, headers by lower-case name, body as sent); None if the payload is no HTTP response."""
    status = STATUS.match(payload)
    blank = BLANK_LINE.search(payload)
    if not status or not blank:
        return None
    headers: dict[str, str] = {}
    for line in payload[: blank.start()].split(b"\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
    return int(status[1]), headers, payload[blank.end() :]


def decode_body(headers: dict[str, str], body: bytes) -> bytes | None:
    """Return a body without its transfer and content encodings; None where it cannot be decoded.

    Many archives decode a body and keep the header, so one that is not what its header says stays as it is.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _join_chunks(body)
    decoded: bytes | None = body
    for encoding in reversed(headers.get("content-encoding", "").lower().split(",")):
        decoded = None if decoded is None else _decode(decoded, encoding.strip())
    return decoded


def _join_chunks(body: bytes) -> bytes:
    """Join the chunks of a body; a body that does not start with a chunk is returned as it is."""
    parts: list[bytes] = []
    at = 0
    while size := CHUNK_SIZE.match(body, at):
        length = int(size[1], 16)
        if not length:
            return b"".join(parts)
        parts.append(body[size.end() : size.end() + length])
        at = size.end() + length
    rest = body[at:]
    if not parts or (at < len(body) and b"<" not in parts[0][:4096]):
        return body
    return b"".join(parts) + rest  # a chunk's length was wrong: the rest belongs to the text all the same


def _decode(body: bytes, encoding: str) -> bytes | None:
    """Decode one content encoding. A truncated body is decoded as far as it goes: crawlers cut long ones."""
    is_markup = body.lstrip()[:1] == b"<"
    if nature.is_packed(body):  # whatever it is called
        return nature.unpack(body)
    if encoding in ("", "identity", "none", "utf-8", "utf8", "binary", "8bit"):
        return body
    try:
        if encoding in ("gzip", "x-gzip"):
            return body
        if encoding == "deflate":
            bits = 15 if body[:1] == b"\x78" else -15
            return body if is_markup else zlib.decompressobj(bits).decompress(body, streams.LARGEST_RECORD)
        if encoding == "br" and not is_markup:
            import brotli

            try:
                return brotli.Decompressor().process(body, output_buffer_limit=streams.LARGEST_RECORD) or None
            except brotli.error:
                return None
    except zlib.error:
        return None
    return body if is_markup else None
