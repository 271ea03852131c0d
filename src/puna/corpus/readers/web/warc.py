"""Web archives: WARC (pages), WET (text already extracted), WAT (skipped) and the older ARC, versions 1 and
2.

A record that is malformed, or lies in a damaged gzip member, is skipped with its reason and its place;
reading goes on at the next record that can be found. Memory stays at a few records, whatever the size of the
file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from puna.corpus.readers.web import http
from puna.corpus.readers.web.archive import LONGEST_HEADER, Archive
from puna.corpus.readers.web.page import page_text
from puna.corpus.record import BrokenOff, Found, Refuses, Skipped, digest
from puna.errors import UserError

EARLY, MALFORMED, DAMAGED = "record ends early", "malformed record", "damaged gzip member"
PAGES = ("text/html", "application/xhtml+xml")
LARGEST_RECORD = 64_000_000  # bytes; a longer record is no page
MOST_READ_TWICE = 1_000_000_000  # bytes of a file; a file of nothing but wrong lengths must come to an end
HEADER_END = re.compile(rb"\n\r*\n")  # some writers end lines in \r\r\n
LINE_END = re.compile(rb"\n")
VERSION = re.compile(rb"WARC/\d\.\d+[ \t\r]*\n")
NEXT_RECORD = re.compile(rb"\n(?:WARC/\d\.\d+[ \t\r]*\n|[^ \r\n]+ [\d.:a-fA-F]+ \d{8,14} [^\r\n]* \d+\r?\n)")
SWALLOWED = re.compile(rb"\n\r*\n(?=WARC/\d\.\d+[ \t\r]*\n)")


class _Page(NamedTuple):
    """An HTML page whose text has not been taken out yet."""

    body: bytes
    content_type: str
    url: str
    offset: int


def read(path: Path, refuses: Refuses = None) -> Iterator[Found | Skipped]:
    """Every HTML response, HTML resource and WET text; other records of content are skipped with their
    reason, while requests and records about the archive itself are passed over.

    offset: byte of the file where the record's gzip member starts, as in a CDX index; in a file that is
    plain, or packed otherwise, byte of the record in what it unpacks to. Raises UserError where the file
    breaks off, or is damaged with nothing readable behind, in place of the record that this happens in.
    """
    for item in _records(path):
        if not isinstance(item, _Page):
            yield item
        elif refuses and (reason := refuses(item.url)):
            yield Skipped(reason, item.url, item.offset)
        else:
            title, text = page_text(item.body, item.content_type)
            yield (
                Found(item.url, text, item.offset, digest(item.body), title)
                if text
                else Skipped("no text", item.url, item.offset)
            )


def _records(path: Path) -> Iterator[Found | Skipped | _Page]:
    archive = Archive(path, _begins)
    archive.skip_blank_lines()
    if archive.damage is None and not _begins(archive.peek(LONGEST_HEADER)):
        raise UserError("neither a WARC nor an ARC file")
    while True:
        archive.skip_blank_lines()
        offset = archive.offset()
        item = _record(archive, offset) if archive.peek(1) else None
        if not (isinstance(item, Skipped) and item.reason == EARLY):
            if item is not None:
                yield item
            if archive.peek(1):
                continue
            item = None
        damage = archive.damage
        if item is None and damage is None:
            return
        url, at = (
            (item.url, offset) if item is not None else ("", damage.member if damage is not None else offset)
        )
        if damage is not None and archive.recover():
            yield Skipped(DAMAGED, url, at)
            continue
        inside = f" inside the record at byte {at:,}: {url}" if item is not None else ""
        raise BrokenOff(
            (f"{damage}," if damage and inside else str(damage or "the archive breaks off")) + inside, url, at
        )


def _begins(content: bytes) -> bool:
    content = content.lstrip(b"\r\n")
    return bool(VERSION.match(content)) or _arc_header(content.partition(b"\n")[0]) is not None


def _record(archive: Archive, offset: int) -> Found | Skipped | _Page | None:
    """The record at the present place; None for one that holds no content. One that ends early is told as
    EARLY."""
    return _warc(archive, offset) if archive.peek(5) == b"WARC/" else _arc(archive, offset)


def _warc(archive: Archive, offset: int) -> Found | Skipped | _Page | None:
    head = archive.until(HEADER_END, LONGEST_HEADER)
    if (
        head is None
        and len(archive.peek(LONGEST_HEADER)) < LONGEST_HEADER
        and not NEXT_RECORD.search(archive.peek(LONGEST_HEADER))
    ):
        return Skipped(EARLY, "", offset)
    headers = _headers(head) if head is not None else {}
    length = headers.get("content-length", "")
    if head is None or not VERSION.match(head) or not re.fullmatch("[0-9]{1,15}", length):
        archive.next_record(NEXT_RECORD, head or b"")
        return Skipped(MALFORMED, headers.get("warc-target-uri", ""), offset)
    url = (
        headers.get("warc-target-uri") or headers.get("warc-record-id") or f"{archive.path.name}#{offset}"
    ).strip("<>")
    size = int(length)
    if size > LARGEST_RECORD:
        return Skipped("record over 64 MB" if archive.skip(size) == size else EARLY, url, offset)
    payload = archive.read(size)
    ahead = archive.peek(16).lstrip(b"\r\n")
    if len(payload) < size or (ahead and not ahead.startswith(b"WARC/")):
        # A length that is too large takes in what is behind.
        swallowed = SWALLOWED.search(payload + archive.peek(64))
        if swallowed and swallowed.end() <= len(payload) and archive.given_back < MOST_READ_TWICE:
            archive.give_back(payload[swallowed.end() :])
            payload = payload[: swallowed.start()]
        elif len(payload) < size:
            return Skipped(EARLY, url, offset)
    if (
        not ahead
        and archive.damage is not None
        and not archive.damage.early
        and archive.damage.member == offset
    ):
        return Skipped(EARLY, url, offset)  # whole to look at, but its checksum is wrong
    return _content(headers, payload, url, offset)


def _headers(head: bytes) -> dict[str, str]:
    """Fields of a WARC header by lower-case name; a line that starts with white space goes on the one
    before."""
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
) -> Found | Skipped | _Page | None:
    kind, content_type = headers.get("warc-type", "").lower(), headers.get("content-type", "")
    if kind == "response":
        return _response(payload, url, offset)
    if kind == "conversion":
        text = payload.decode("utf-8", "replace")
        return (
            Found(url, text, offset, digest(payload), text.partition("\n")[0][:200])
            if text.strip()
            else Skipped("no text", url, offset)
        )
    if kind == "resource":
        return _page(payload, content_type, url, offset)
    if kind in ("revisit", "continuation"):
        return Skipped(kind, url, offset)
    if kind == "metadata" and "json" in content_type:
        return Skipped("metadata about a page (WAT)", url, offset)
    return None


def _response(payload: bytes, url: str, offset: int) -> Skipped | _Page:
    """An HTTP response as it came over the wire."""
    response = http.split(payload)
    if response is None:
        return Skipped("no HTTP response", url, offset)
    status, headers, sent = response
    if status != 200:
        return Skipped("HTTP status not 200", url, offset)
    if not _is_page(headers.get("content-type", ""), sent):
        return Skipped("not HTML", url, offset)
    body = http.body_of(headers, sent)
    if body is None:
        return Skipped("cannot be decoded", url, offset)
    return _page(body, headers.get("content-type", ""), url, offset)


def _is_page(content_type: str, body: bytes) -> bool:
    """Whether a body is HTML, or may be once decoded: one without a type shows it in its beginning."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind:
        return kind in PAGES
    start = body[:2000].lower()
    return b"<html" in start or b"<!doctype html" in start or start[:2] == b"\x1f\x8b"


def _page(body: bytes, content_type: str, url: str, offset: int) -> Skipped | _Page:
    if not _is_page(content_type, body):
        return Skipped("not HTML", url, offset)
    return _Page(body, content_type, url, offset)


def _arc_header(line: bytes) -> tuple[str, int] | None:
    """(URL, length) of an ARC header line `URL IP date type [fields of version 2] length`; a URL may hold
    spaces."""
    fields = line.rstrip(b"\r").split(b" ")
    if not re.fullmatch(rb"[0-9]{1,15}", fields[-1]):
        return None
    for place in range(2, len(fields) - 2):
        if re.fullmatch(rb"[0-9]{8,14}", fields[place]):
            url = b" ".join(fields[: place - 1])
            return (url.decode("utf-8", "replace"), int(fields[-1])) if b":" in url else None
    return None


def _arc(archive: Archive, offset: int) -> Found | Skipped | _Page | None:
    """An ARC record: its header line, then so many bytes of HTTP response."""
    line = archive.until(LINE_END, LONGEST_HEADER)
    header = _arc_header(line[:-1]) if line is not None else None
    if header is None:
        archive.next_record(NEXT_RECORD, line or b"")
        return Skipped(MALFORMED, "", offset)
    url, size = header
    if size > LARGEST_RECORD:
        return Skipped("record over 64 MB" if archive.skip(size) == size else EARLY, url, offset)
    payload = archive.read(size)
    if len(payload) < size:
        return Skipped(EARLY, url, offset)
    if (
        not archive.peek(4).strip(b"\r\n")
        and archive.damage is not None
        and archive.damage.member == offset
        and not archive.damage.early
    ):
        return Skipped(EARLY, url, offset)
    if url.startswith("filedesc:"):
        return None
    return _response(payload, url, offset) if url.startswith("http") else Skipped("not HTML", url, offset)
