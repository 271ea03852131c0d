"""Web archives: WARC (pages), WET (extracted text), WAT (skipped) and the older ARC, versions 1 and 2.

A record that is malformed, or lies in a damaged gzip member, is skipped with its reason and offset, and
reading goes on at the next record that can be found. Memory is bounded by a few records, whatever the size of
the file.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from puna.corpus.readers.web import http
from puna.corpus.readers.web.archive import MAX_HEADER_BYTES, Archive
from puna.corpus.readers.web.nature import is_packed
from puna.corpus.readers.web.page import CUT, NO_TEXT, NOT_HTML, NOT_UNPACKED, read_page
from puna.corpus.record import RawDocument, Refuses, SkippedRecord, TruncatedFile, digest
from puna.corpus.sources import streams
from puna.errors import UserError

TRUNCATED, MALFORMED, DAMAGED = "record ends early", "malformed record", "damaged gzip member"
PAGE_TYPES = ("text/html", "application/xhtml+xml")
MAX_BYTES_READ_AGAIN = 1_000_000_000  # per file: one of nothing but wrong lengths must come to an end
HEADER_END = re.compile(rb"\n\r*\n")  # some writers end lines with \r\r\n
LINE_END = re.compile(rb"\n")
VERSION = re.compile(rb"WARC/\d\.\d+[ \t\r]*\n")
NEXT_RECORD = re.compile(rb"\n(?:WARC/\d\.\d+[ \t\r]*\n|[^ \r\n]+ [\d.:a-fA-F]+ \d{8,14} [^\r\n]* \d+\r?\n)")
RECORD_INSIDE = re.compile(rb"\n\r*\n(?=WARC/\d\.\d+[ \t\r]*\n)")


class _Page(NamedTuple):
    """HTML page whose text has not been extracted yet."""

    body: bytes
    content_type: str
    url: str
    offset: int
    date: str = ""


def read(path: Path, refuses: Refuses = None) -> Iterator[RawDocument | SkippedRecord]:
    """Yield every HTML response, HTML resource and WET text of an archive.

    Other records with content are skipped with a reason; requests and records about the archive itself are
    passed over. The offset of a record is the byte of the file where its gzip member starts, as in a CDX
    index; in a file without gzip members, its byte in the decompressed file. Raises TruncatedFile in place of
    the record in which the file ends, or is damaged with nothing readable behind, and UserError for other
    formats.
    """
    for item in _records(path):
        if not isinstance(item, _Page):
            yield item
        elif refuses and (reason := refuses(item.url)):
            yield SkippedRecord(reason, item.url, item.offset)
        else:
            page = read_page(item.body, item.content_type)
            if page.reason:
                yield SkippedRecord(page.reason, item.url, item.offset)
            else:
                where = item.url, page.text, item.offset, digest(item.body)
                yield RawDocument(*where, page.title, page.licence, page.whole, CUT, item.date)


def _document(url: str, text: str, offset: int, raw: bytes, title: str) -> RawDocument | SkippedRecord:
    if not text:
        return SkippedRecord(NO_TEXT, url, offset)
    return RawDocument(url, text, offset, digest(raw), title)


def _records(path: Path) -> Iterator[RawDocument | SkippedRecord | _Page]:
    archive = Archive(path, _starts_record)
    archive.skip_blank_lines()
    if archive.damage is None and not _starts_record(archive.peek(MAX_HEADER_BYTES)):
        raise UserError("neither a WARC nor an ARC file")
    while True:
        archive.skip_blank_lines()
        offset = archive.offset()
        item = _record(archive, offset) if archive.peek(1) else None
        if not (isinstance(item, SkippedRecord) and item.reason == TRUNCATED):
            if item is not None:
                yield item
            if archive.peek(1):
                continue
            item = None
        # The archive cannot be read on, inside `item` or behind the last record.
        damage = archive.damage
        if item is None and damage is None:
            return
        url = item.url if item is not None else ""
        damage_offset = damage.member if item is None and damage is not None else offset
        if damage is not None and archive.recover():
            yield SkippedRecord(DAMAGED, url, damage_offset)
            continue
        message = str(damage or "the archive breaks off")
        if item is not None:
            comma = "," if damage else ""
            message += f"{comma} inside the record at byte {damage_offset:,}: {url}"
        raise TruncatedFile(message, url, damage_offset)


def _starts_record(content: bytes) -> bool:
    content = content.lstrip(b"\r\n")
    return bool(VERSION.match(content)) or _arc_header(content.partition(b"\n")[0]) is not None


def _record(archive: Archive, offset: int) -> RawDocument | SkippedRecord | _Page | None:
    """Read the record at the cursor: None if it holds no content, skipped as TRUNCATED if it ends early."""
    return _warc(archive, offset) if archive.peek(5) == b"WARC/" else _arc(archive, offset)


def _warc(archive: Archive, offset: int) -> RawDocument | SkippedRecord | _Page | None:
    head = archive.read_until(HEADER_END, MAX_HEADER_BYTES)
    if head is None:
        ahead = archive.peek(MAX_HEADER_BYTES)
        if len(ahead) < MAX_HEADER_BYTES and not NEXT_RECORD.search(ahead):
            return SkippedRecord(TRUNCATED, "", offset)
    headers = _headers(head) if head is not None else {}
    length = headers.get("content-length", "")
    if head is None or not VERSION.match(head) or not re.fullmatch("[0-9]{1,15}", length):
        archive.skip_to_next_record(NEXT_RECORD, head or b"")
        return SkippedRecord(MALFORMED, headers.get("warc-target-uri", ""), offset)
    name = headers.get("warc-target-uri") or headers.get("warc-record-id") or f"{archive.path.name}#{offset}"
    url = name.strip("<>")
    size = int(length)
    if size > streams.LARGEST_RECORD:
        return _skip_large(archive, size, url, offset)
    payload = archive.read(size)
    ahead = archive.peek(16).lstrip(b"\r\n")
    if len(payload) < size or (ahead and not ahead.startswith(b"WARC/")):
        # A length that is too large takes in the records behind.
        inside = RECORD_INSIDE.search(payload + archive.peek(64))
        if inside and inside.end() <= len(payload) and archive.bytes_pushed_back < MAX_BYTES_READ_AGAIN:
            archive.push_back(payload[inside.end() :])
            payload = payload[: inside.start()]
        elif len(payload) < size:
            return SkippedRecord(TRUNCATED, url, offset)
    if not ahead and _is_member_damaged(archive, offset):
        return SkippedRecord(TRUNCATED, url, offset)
    item, day = _content(headers, payload, url, offset), headers.get("warc-date", "")[:10]
    if isinstance(item, _Page):
        return item._replace(date=day)
    return replace(item, date=day) if isinstance(item, RawDocument) else item


def _skip_large(archive: Archive, size: int, url: str, offset: int) -> SkippedRecord:
    return SkippedRecord(streams.TOO_LARGE if archive.skip(size) == size else TRUNCATED, url, offset)


def _is_member_damaged(archive: Archive, offset: int) -> bool:
    """Tell whether the gzip member of a record that was read to its end is damaged: its checksum is wrong."""
    damage = archive.damage
    return damage is not None and not damage.early and damage.member == offset


def _headers(head: bytes) -> dict[str, str]:
    """Return the fields of a WARC header by lower-case name, with continuation lines joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in head.decode("utf-8", "replace").split("\n")[1:]:
        if line[:1] in (" ", "\t") and name:
            fields[name] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        if name and name not in fields:
            fields[name] = value.strip()
    return fields


def _content(
    headers: dict[str, str], payload: bytes, url: str, offset: int
) -> RawDocument | SkippedRecord | _Page | None:
    kind, content_type = headers.get("warc-type", "").lower(), headers.get("content-type", "")
    if kind == "response":
        return _response(payload, url, offset)
    if kind == "conversion":
        text = payload.decode("utf-8", "replace")
        return _document(url, text if text.strip() else "", offset, payload, text.partition("\n")[0][:200])
    if kind == "resource":
        return _page(payload, content_type, url, offset)
    if kind in ("revisit", "continuation"):
        return SkippedRecord(kind, url, offset)
    if kind == "metadata" and "json" in content_type:
        return SkippedRecord("metadata about a page (WAT)", url, offset)
    return None


def _response(payload: bytes, url: str, offset: int) -> SkippedRecord | _Page:
    """Return the page of an HTTP response as it was sent."""
    response = http.split(payload)
    if response is None:
        return SkippedRecord("no HTTP response", url, offset)
    status, headers, encoded = response
    if status != 200:
        return SkippedRecord("HTTP status not 200", url, offset)
    if not _is_page(headers.get("content-type", ""), encoded):
        return SkippedRecord(NOT_HTML, url, offset)
    body = http.decode_body(headers, encoded)
    if body is None:
        return SkippedRecord(NOT_UNPACKED, url, offset)
    return _page(body, headers.get("content-type", ""), url, offset)


def _is_page(content_type: str, body: bytes) -> bool:
    """Tell whether a body is HTML, by its type, or without one by its start; a packed body may be."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind:
        return kind in PAGE_TYPES
    start = body[:2000].lower()
    return b"<html" in start or b"<!doctype html" in start or is_packed(body)


def _page(body: bytes, content_type: str, url: str, offset: int) -> SkippedRecord | _Page:
    if not _is_page(content_type, body):
        return SkippedRecord(NOT_HTML, url, offset)
    return _Page(body, content_type, url, offset)


def _arc_header(line: bytes) -> tuple[str, int] | None:
    """Parse (URL, length) of an ARC header line `URL IP date type [fields of version 2] length`.

    A URL may hold spaces. None if the line is no ARC header.
    """
    fields = line.rstrip(b"\r").split(b" ")
    if not re.fullmatch(rb"[0-9]{1,15}", fields[-1]):
        return None
    for index in range(2, len(fields) - 2):
        if re.fullmatch(rb"[0-9]{8,14}", fields[index]):  # the date
            url = b" ".join(fields[: index - 1])
            return (url.decode("utf-8", "replace"), int(fields[-1])) if b":" in url else None
    return None


def _arc(archive: Archive, offset: int) -> RawDocument | SkippedRecord | _Page | None:
    """Read an ARC record: its header line, then as many bytes of HTTP response as that says."""
    line = archive.read_until(LINE_END, MAX_HEADER_BYTES)
    header = _arc_header(line[:-1]) if line is not None else None
    if header is None:
        archive.skip_to_next_record(NEXT_RECORD, line or b"")
        return SkippedRecord(MALFORMED, "", offset)
    url, size = header
    if size > streams.LARGEST_RECORD:
        return _skip_large(archive, size, url, offset)
    payload = archive.read(size)
    if len(payload) < size:
        return SkippedRecord(TRUNCATED, url, offset)
    if not archive.peek(4).strip(b"\r\n") and _is_member_damaged(archive, offset):
        return SkippedRecord(TRUNCATED, url, offset)
    if url.startswith("filedesc:"):
        return None
    if not url.startswith("http"):
        return SkippedRecord(NOT_HTML, url, offset)
    return _response(payload, url, offset)
