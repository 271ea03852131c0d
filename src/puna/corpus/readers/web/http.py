"""HTTP responses as web archives keep them: status, headers and body, with transfer and content encodings
undone."""

import re
import zlib

LARGEST_BODY = 64_000_000  # bytes a body may unpack to
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
STATUS = re.compile(rb"\s*HTTP/\d(?:\.\d)? +(\d{3})")
CHUNK_SIZE = re.compile(rb"\s*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")


def split(payload: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """(status, headers by lower-case name, body as it was sent) of a response; None for what is none."""
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


def body_of(headers: dict[str, str], sent: bytes) -> bytes | None:
    """The body without its encodings; None where it cannot be decoded. Many archives undo an encoding and
    keep its header, so a body that is not what the header says is taken as it is."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        sent = _join_chunks(sent)
    body: bytes | None = sent
    for encoding in reversed(headers.get("content-encoding", "").lower().split(",")):
        body = None if body is None else _decoded(body, encoding.strip())
    return body


def _join_chunks(body: bytes) -> bytes:
    """The body of a chunked response, as far as its chunks go; as it is where it does not begin with one."""
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
    return b"".join(parts) + rest  # a wrong length: what follows it is text all the same


def _decoded(body: bytes, encoding: str) -> bytes | None:
    """One content encoding undone. A packed body that breaks off gives what there is: crawlers cut long
    ones."""
    plain = body.lstrip()[:1] == b"<"
    if encoding in ("", "identity", "none", "utf-8", "utf8", "binary", "8bit"):
        return body
    try:
        if encoding in ("gzip", "x-gzip"):
            return _inflated(body, 31) if body[:2] == b"\x1f\x8b" else body
        if encoding == "deflate":
            return body if plain else _inflated(body, 15 if body[:1] == b"\x78" else -15)
        if encoding == "br" and not plain:
            import brotli

            try:
                return brotli.Decompressor().process(body, output_buffer_limit=LARGEST_BODY) or None
            except brotli.error:
                return None
        if encoding in ("zstd", "lz4") and not plain:
            return _by_arrow(body, encoding)
    except zlib.error:
        return None
    return body if plain else None


def _inflated(body: bytes, window: int) -> bytes | None:
    return zlib.decompressobj(window).decompress(body, LARGEST_BODY)


def _by_arrow(body: bytes, codec: str) -> bytes | None:
    import pyarrow as pa

    parts: list[bytes] = []
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
            while (piece := stream.read(1 << 20)) and sum(map(len, parts)) < LARGEST_BODY:
                parts.append(piece)
    except OSError:
        pass  # what came before the damage counts
    return b"".join(parts) or None
