"""Web archives: WARC (pages), WET (text already extracted) and the older ARC."""

import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus.document import Found, Skipped, digest
from puna.corpus.readers import streams
from puna.corpus.readers.page import page_text
from puna.errors import UserError

EARLY = "record ends early"
PAGES = ("text/html", "application/xhtml+xml")
ARC_HEADER = re.compile(rb"(\S+) (\S+) (\d{8,14}) (\S+) (?:\S+ )*?(\d+)\Z")


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every HTML response, HTML resource and WET text; other records of content are skipped with their reason, while requests and
    records about the archive itself are passed over."""
    head = next(streams.chunks(path), b"") if path.suffix != ".lz4" else b"WARC/"
    if head.startswith(b"filedesc://"):
        records = _read_arc(path)
    elif head.lstrip().startswith(b"WARC/"):
        records = _read_warc(path)
    else:
        raise UserError("neither a WARC nor an ARC file")
    last: Found | Skipped | None = None
    for last in records:
        yield last
    if isinstance(last, Skipped) and last.reason == EARLY:
        raise UserError(f"the archive breaks off inside the record at byte {last.offset:,}")


def _read_warc(path: Path) -> Iterator[Found | Skipped]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    content = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion, WarcRecordType.revisit)
    last, failed = 0, None
    with path.open("rb") as file:
        try:
            for record in ArchiveIterator(file, parse_http=False):
                last = record.stream_pos
                if record.record_type in content:
                    yield _warc_record(record, 0)
        except Exception as error:  # the library raises its own kinds for what it cannot read; none of its words reach a user
            failed = error
    if failed is not None:
        raw = path.read_bytes()
        if not raw.startswith(b"WARC/"):
            raise UserError(f"the archive is damaged after byte {last:,} of {len(raw):,}") from failed
        yield from _behind_malformed(raw, last)
    for _ in _checked(path):
        pass


def _behind_malformed(raw: bytes, last: int) -> Iterator[Found | Skipped]:
    """The records of a plain archive behind the one at `last`, the last that could be read; those that cannot are skipped."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    content = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion, WarcRecordType.revisit)
    while (at := raw.find(b"\nWARC/1", last + 1)) >= 0:
        last = at = at + 1
        try:
            for record in ArchiveIterator(io.BytesIO(raw[at:]), parse_http=False):
                last = at + record.stream_pos
                if record.record_type in content:
                    yield _warc_record(record, at)
            return
        except Exception:
            if last == at:
                yield Skipped("malformed record", "", at)


def _checked(path: Path) -> Iterator[bytes]:
    """Unpack a whole gzip archive, since the library takes one that breaks off for one that ends."""
    if path.suffix != ".lz4":
        yield from streams.chunks(path)


def _warc_record(record: Any, base: int) -> Found | Skipped:
    from fastwarc.warc import WarcRecordType

    url = (record.headers.get("WARC-Target-URI") or record.record_id).strip("<>")
    offset = base + record.stream_pos
    if record.record_type == WarcRecordType.revisit:
        return Skipped("revisit", url, offset)
    payload: bytes = record.reader.read()
    if len(payload) < record.content_length:
        return Skipped(EARLY, url, offset)
    if record.record_type == WarcRecordType.conversion:
        text = payload.decode("utf-8", "replace")
        return Found(url, text, offset, digest(payload), text.partition("\n")[0][:200]) if text.strip() else Skipped("no text", url, offset)
    if record.record_type == WarcRecordType.resource:
        return _page(payload, record.headers.get("Content-Type") or "", url, offset)
    return _response(payload, url, offset)


def _response(payload: bytes, url: str, offset: int) -> Found | Skipped:
    """An HTTP response as it came over the wire."""
    blank = re.search(rb"\r?\n\r?\n", payload)
    head, separator, body = (payload[: blank.start()], True, payload[blank.end() :]) if blank else (payload, False, b"")
    first, *rest = head.decode("latin-1").splitlines() or [""]
    status = re.match(r"HTTP/\d(?:\.\d)? (\d{3})", first)
    if not status or not separator:
        return Skipped("no HTTP response", url, offset)
    if status[1] != "200":
        return Skipped("HTTP status not 200", url, offset)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _join_chunks(body)
    decoded = _decode(body, headers.get("content-encoding", "").lower())
    if decoded is None:
        return Skipped("cannot be decoded", url, offset)
    return _page(decoded, headers.get("content-type", ""), url, offset)


def _page(body: bytes, content_type: str, url: str, offset: int) -> Found | Skipped:
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in PAGES and not (not kind and b"<html" in body[:2000].lower()):
        return Skipped("not HTML", url, offset)
    title, text = page_text(body, content_type)
    return Found(url, text, offset, digest(body), title) if text else Skipped("no text", url, offset)


def _join_chunks(body: bytes) -> bytes:
    """The body of a chunked response; as it is where its chunks are no chunks (many archives unpack it and keep the header)."""
    parts: list[bytes] = []
    at = 0
    while size := re.compile(rb"\s*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n").match(body, at):
        length = int(size[1], 16)
        if not length:
            return b"".join(parts)
        parts.append(body[size.end() : size.end() + length])
        at = size.end() + length
    return b"".join(parts) if parts and at >= len(body) else body


def _decode(body: bytes, encoding: str) -> bytes | None:
    """Undo the content encoding; as it is where the archive has undone it already; None where that fails."""
    try:
        if encoding in ("gzip", "x-gzip"):
            return zlib.decompressobj(31).decompress(body) if body[:2] == b"\x1f\x8b" else body
        if encoding == "deflate":
            return zlib.decompressobj(15 if body[:1] == b"\x78" else -15).decompress(body)
        if encoding == "br":
            import brotli

            try:
                return brotli.decompress(body)
            except brotli.error:
                return body if body.lstrip()[:1] == b"<" else None
    except zlib.error:
        return body if body.lstrip()[:1] == b"<" else None
    return body if encoding in ("", "identity", "utf-8", "none") or body.lstrip()[:1] == b"<" else None


def _read_arc(path: Path) -> Iterator[Found | Skipped]:
    """ARC records: a line `URL IP date type ... length`, then so many bytes of HTTP response."""
    parts: list[bytes] = []
    broken = None
    try:
        for chunk in streams.chunks(path):
            parts.append(chunk)
    except UserError as error:
        broken = error
    stream = b"".join(parts)
    at = 0
    while at < len(stream):
        end = stream.find(b"\n", at)
        line = stream[at : end if end >= 0 else len(stream)].rstrip(b"\r")
        header = ARC_HEADER.match(line)
        if header is None or end < 0:
            if line.strip():
                yield Skipped("malformed record", line[:200].decode("latin-1"), at)
            if end < 0:
                break
            at = end + 1
            continue
        url, length = header[1].decode("latin-1"), int(header[5])
        body = stream[end + 1 : end + 1 + length]
        if not url.startswith("filedesc:"):
            if len(body) < length:
                yield Skipped(EARLY, url, at)
            elif url.startswith("http"):
                yield _response(body, url, at)
            else:
                yield Skipped("not HTML", url, at)
        at = end + 1 + length
    if broken is not None:
        raise broken
