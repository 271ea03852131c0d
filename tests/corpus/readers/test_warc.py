"""Web archives made by hand: every kind of record, every encoding, damage at any place."""

import gzip
import zlib
from pathlib import Path

import brotli
import pytest

from puna.corpus.document import Found, Skipped
from puna.corpus.readers import warc
from puna.errors import UserError

WORDS = "The llama grazes on the high plain. " * 12
PAGE = f"<html><head><title>On  llamas</title></head><body><p>{WORDS}</p></body></html>"


def record(payload: bytes, kind: str = "response", url: str = "http://a.example/x", content_type: str = "application/http") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
    head += f"WARC-Target-URI: {url}\r\nContent-Type: {content_type}\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload + b"\r\n\r\n"


def response(body: bytes, headers: str = "Content-Type: text/html; charset=utf-8\r\n", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body


def read(tmp_path: Path, *records: bytes) -> list[Found | Skipped]:
    path = tmp_path / "archive.warc"
    path.write_bytes(b"".join(records))
    return list(warc.read(path))


def reasons(found: list[Found | Skipped]) -> list[str]:
    return [item.reason if isinstance(item, Skipped) else "" for item in found]


def test_a_page_has_its_title_text_url_and_place(tmp_path: Path) -> None:
    first, second = read(tmp_path, record(response(PAGE.encode())), record(response(PAGE.encode()), url="http://b.example/"))
    assert isinstance(first, Found) and isinstance(second, Found)
    assert (first.title, first.text, first.url) == ("On llamas", WORDS.strip(), "http://a.example/x")
    assert second.offset == len(record(response(PAGE.encode())))
    assert first.raw_digest == second.raw_digest


PACKED = {
    "gzip": gzip.compress(PAGE.encode()),
    "deflate": zlib.compress(PAGE.encode()),
    "br": brotli.compress(PAGE.encode()),
    "identity": PAGE.encode(),
}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("undone", [False, True])
def test_content_encodings_whether_the_archive_undid_them_or_not(tmp_path: Path, encoding: str, undone: bool) -> None:
    body = PAGE.encode() if undone else PACKED[encoding]
    (found,) = read(tmp_path, record(response(body, f"Content-Type: text/html\r\nContent-Encoding: {encoding}\r\n")))
    assert isinstance(found, Found) and found.text == WORDS.strip()


@pytest.mark.parametrize("undone", [False, True])
def test_chunked_bodies(tmp_path: Path, undone: bool) -> None:
    body = PAGE.encode()
    sent = body if undone else b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (100, body[:100], len(body) - 100, body[100:])
    (found,) = read(tmp_path, record(response(sent, "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n")))
    assert isinstance(found, Found) and found.text == WORDS.strip()


def test_the_charset_of_header_then_page_decides(tmp_path: Path) -> None:
    words = "Die Größe der Weide überrascht. " * 10
    named = f"<html><meta charset=iso-8859-1><body><p>{words}</p></body></html>".encode("latin-1")
    plain = f"<html><body><p>{words}</p></body></html>"
    found = read(
        tmp_path,
        record(response(named, "Content-Type: text/html\r\n")),
        record(response(plain.encode("utf-16-le"), "Content-Type: text/html; charset=utf-16le\r\n")),
        record(response(plain.encode(), "Content-Type: text/html; charset=no-such-thing\r\n")),
    )
    assert [item.text for item in found if isinstance(item, Found)] == [words.strip()] * 3


def test_what_is_no_page_is_skipped_with_its_reason(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        record(b"software: x", "warcinfo", content_type="application/warc-fields"),
        record(b"GET / HTTP/1.1\r\n\r\n", "request"),
        record(response(b"gone", status="404 Not Found")),
        record(response(b"%PDF", "Content-Type: application/pdf\r\n")),
        record(b"", "revisit"),
        record(b"hello", content_type="application/http"),
        record(response(b"\x01\x02\x03", "Content-Type: text/html\r\nContent-Encoding: br\r\n")),
        record(response(b"<html><body></body></html>")),
        record(WORDS.encode(), "conversion", content_type="text/plain"),
        record(PAGE.encode(), "resource", content_type="text/html"),
    )
    expected = ["HTTP status not 200", "not HTML", "revisit", "no HTTP response", "cannot be decoded", "no text", "", ""]
    assert reasons(found) == expected


def test_records_behind_a_malformed_one_are_still_read(tmp_path: Path) -> None:
    good = record(response(PAGE.encode()))
    found = read(tmp_path, good, b"WARC/1.0\r\nthis is no header at all\r\n\r\nxxx\r\n\r\n", good)
    assert [item.url for item in found if isinstance(item, Found)] == ["http://a.example/x"] * 2


def test_a_packed_archive_that_breaks_off_is_damaged_after_what_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "archive.warc.gz"
    one = gzip.compress(record(response(PAGE.encode())))
    path.write_bytes(one + one[: len(one) // 2])
    seen = []
    with pytest.raises(UserError, match=r"gzip stream ends early|is damaged"):
        for item in warc.read(path):
            seen.append(item)
    assert isinstance(seen[0], Found)


def test_a_plain_archive_that_breaks_off_says_so(tmp_path: Path) -> None:
    whole = record(response(PAGE.encode()))
    path, found = tmp_path / "x.warc", []
    path.write_bytes(whole + whole[:-100])
    with pytest.raises(UserError, match=f"breaks off inside the record at byte {len(whole):,}"):
        for item in warc.read(path):
            found.append(item)
    assert reasons(found) == ["", "record ends early"]


def test_a_body_is_split_from_its_headers_at_the_first_blank_line(tmp_path: Path) -> None:
    body = PAGE.replace("</body>", "\r\n\r\n<p>" + WORDS + "</p></body>")
    (found,) = read(tmp_path, record(b"HTTP/1.0 200 OK\nContent-Type: text/html\n\n" + body.encode()))
    assert isinstance(found, Found) and found.text.count("llama") == 24


def test_arc_records(tmp_path: Path) -> None:
    body = response(PAGE.encode(), "Content-Type: text/html\r\n")
    arc = b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain 4\n1 0\n\n"
    arc += b"http://a.example/ 1.2.3.4 20080101000000 text/html %d\n" % len(body) + body + b"\n"
    arc += b"nonsense\n" + b"http://b.example/ 1.2.3.4 20080101000000 text/html %d\n" % len(body) + body[:50]
    path = tmp_path / "x.arc.gz"
    path.write_bytes(gzip.compress(arc))
    found = []
    with pytest.raises(UserError, match="breaks off inside the record at byte"):
        for item in warc.read(path):
            found.append(item)
    assert reasons(found) == ["", "malformed record", "record ends early"]
    assert isinstance(found[0], Found) and found[0].text == WORDS.strip()


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"
    path.write_bytes(b"PK\x03\x04 something")
    with pytest.raises(UserError, match="neither a WARC nor an ARC"):
        list(warc.read(path))
