"""Web archives made by hand: every kind of record, every encoding, damage at any place."""

import gzip
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import brotli
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.corpus.readers.web import nature, warc
from puna.corpus.readers.web.page import Page
from puna.corpus.record import RawDocument, SkippedRecord, TruncatedFile
from puna.errors import UserError

WORDS = "The llama grazes on the high plain. " * 12
PAGE = f"<html><head><title>On  llamas</title></head><body><p>{WORDS}</p></body></html>"


def record(
    payload: bytes,
    kind: str = "response",
    url: str = "http://a.example/x",
    content_type: str = "application/http",
) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:1>\r\n"
    head += f"WARC-Date: 2020-01-01T00:00:00Z\r\nWARC-Target-URI: {url}\r\n"
    head += f"Content-Type: {content_type}\r\nContent-Length: {len(payload)}\r\n\r\n"
    return head.encode() + payload + b"\r\n\r\n"


def response(
    body: bytes, headers: str = "Content-Type: text/html; charset=utf-8\r\n", status: str = "200 OK"
) -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body


def read(tmp_path: Path, *records: bytes) -> list[RawDocument | SkippedRecord]:
    path = tmp_path / "archive.warc"
    path.write_bytes(b"".join(records))
    return list(warc.read(path))


def reasons(found: list[RawDocument | SkippedRecord]) -> list[str]:
    return [item.reason if isinstance(item, SkippedRecord) else "" for item in found]


def test_a_page_has_its_title_text_url_and_place(tmp_path: Path) -> None:
    payload = response(PAGE.encode())
    first, second = read(tmp_path, record(payload), record(payload, url="http://b.example/"))
    assert isinstance(first, RawDocument) and isinstance(second, RawDocument)
    assert (first.title, first.text, first.url) == ("On llamas", WORDS.strip(), "http://a.example/x")
    assert second.offset == len(record(payload))
    assert first.raw_digest == second.raw_digest
    assert first.date == second.date == "2020-01-01"


CHUNKED = "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n"
PACKED = {
    "gzip": gzip.compress(PAGE.encode()),
    "deflate": zlib.compress(PAGE.encode()),
    "br": brotli.compress(PAGE.encode()),
    "zstd": pa.compress(PAGE.encode(), "zstd", asbytes=True),
    "gzip, br": brotli.compress(gzip.compress(PAGE.encode())),
    "identity": PAGE.encode(),
}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("undone", [False, True])
def test_content_encodings_whether_the_archive_undid_them_or_not(
    tmp_path: Path, encoding: str, undone: bool
) -> None:
    body = PAGE.encode() if undone else PACKED[encoding]
    headers = f"Content-Type: text/html\r\nContent-Encoding: {encoding}\r\n"
    (found,) = read(tmp_path, record(response(body, headers)))
    assert isinstance(found, RawDocument) and found.text == WORDS.strip()


@pytest.mark.parametrize("undone", [False, True])
def test_chunked_bodies(tmp_path: Path, undone: bool) -> None:
    body = PAGE.encode()
    if not undone:
        chunks = (100, body[:100], len(body) - 100, body[100:])
        body = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % chunks
    (found,) = read(tmp_path, record(response(body, CHUNKED)))
    assert isinstance(found, RawDocument) and found.text == WORDS.strip()


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
    assert [item.text for item in found if isinstance(item, RawDocument)] == [words.strip()] * 3


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
    skipped = [
        "HTTP status not 200",
        "not HTML",
        "revisit",
        "no HTTP response",
        "cannot be decoded",
        "no text",
    ]
    assert reasons(found) == [*skipped, "", ""]


def test_records_behind_a_malformed_one_are_still_read(tmp_path: Path) -> None:
    good = record(response(PAGE.encode()))
    found = read(tmp_path, good, b"WARC/1.0\r\nthis is no header at all\r\n\r\nxxx\r\n\r\n", good)
    assert [item.url for item in found if isinstance(item, RawDocument)] == ["http://a.example/x"] * 2


def test_a_packed_archive_that_breaks_off_is_damaged_after_what_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "archive.warc.gz"
    one = gzip.compress(record(response(PAGE.encode())))
    path.write_bytes(one + one[: len(one) // 2])
    seen = []
    with pytest.raises(UserError, match=r"gzip stream ends early|is damaged"):
        for item in warc.read(path):
            seen.append(item)
    assert reasons(seen) == [""] and isinstance(seen[0], RawDocument)


def test_a_plain_archive_that_breaks_off_says_so(tmp_path: Path) -> None:
    whole = record(response(PAGE.encode()))
    path, found = tmp_path / "x.warc", []
    path.write_bytes(whole + whole[:-100])
    with pytest.raises(UserError, match=f"breaks off inside the record at byte {len(whole):,}"):
        for item in warc.read(path):
            found.append(item)
    assert reasons(found) == [""]


def test_a_body_is_split_from_its_headers_at_the_first_blank_line(tmp_path: Path) -> None:
    body = PAGE.replace("</body>", "\r\n\r\n<p>" + WORDS + "</p></body>")
    (found,) = read(tmp_path, record(b"HTTP/1.0 200 OK\nContent-Type: text/html\n\n" + body.encode()))
    assert isinstance(found, RawDocument) and found.text.count("llama") == 24


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
    assert reasons(found) == ["", "malformed record"]
    assert isinstance(found[0], RawDocument) and found[0].text == WORDS.strip()


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.warc"
    path.write_bytes(b"PK\x03\x04 something")
    with pytest.raises(UserError, match="neither a WARC nor an ARC"):
        list(warc.read(path))


# Forms


def test_the_order_of_headers_and_the_ends_of_their_lines_do_not_matter(tmp_path: Path) -> None:
    payload = response(PAGE.encode())
    for end in ("\r\n", "\n", "\r\r\n"):
        head = ["WARC/1.1", f"Content-Length: {len(payload)}", "warc-target-uri: <http://a.example/x>"]
        head += ["X: y", "  goes on", "WARC-Type: Response", "", ""]
        for found in read(tmp_path, *[end.join(head).encode() + payload + b"\r\n\r\n"] * 2):
            assert isinstance(found, RawDocument) and found.text == WORDS.strip()
            assert found.url == "http://a.example/x"


def test_types_missing_from_record_and_response(tmp_path: Path) -> None:
    untyped = record(response(b"<!DOCTYPE html>" + PAGE.encode(), ""))
    untyped = untyped.replace(b"Content-Type: application/http\r\n", b"")
    found, other = read(tmp_path, untyped, record(response(b"plain words", "")))
    assert isinstance(found, RawDocument) and other.reason == "not HTML"  # type: ignore[union-attr]


def test_extracted_text_and_data_about_pages(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        record(b"software: x", "warcinfo", content_type="application/warc-fields"),
        record("Überschrift\nText".encode(), "conversion", content_type="text/plain"),
        record(b"{}", "metadata", content_type="application/json"),
        record(b"via: x", "metadata", content_type="application/warc-fields"),
    )
    assert reasons(found) == ["", "metadata about a page (WAT)"]
    assert isinstance(found[0], RawDocument) and found[0].text == "Überschrift\nText"
    assert found[0].title == "Überschrift"


@pytest.mark.parametrize("codec", ["zstd", "lz4", "bz2"])
def test_whole_archives_packed_otherwise(tmp_path: Path, codec: str) -> None:
    whole = record(response(PAGE.encode())) * 3
    path = tmp_path / f"x.warc.{codec}"
    with pa.CompressedOutputStream(str(path), codec) as stream:
        stream.write(whole)
    assert reasons(list(warc.read(path))) == [""] * 3
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"ends early"):
        list(warc.read(path))


@pytest.mark.parametrize("length", [-40, 7, 100_000])
def test_a_wrong_length_costs_no_other_record(tmp_path: Path, length: int) -> None:
    good = record(response(PAGE.encode()))
    size = len(response(PAGE.encode()))
    wrong = good.replace(b"Content-Length: %d" % size, b"Content-Length: %d" % (size + length))
    wrong = wrong.replace(b"a.example", b"wrong.example")
    found = read(tmp_path, good, wrong, good, good)
    assert [item.url for item in found if isinstance(item, RawDocument)].count("http://a.example/x") == 3


@pytest.mark.parametrize("sizes", [(1000, 0), (5, 0), (0, 0)])
def test_wrong_chunks(tmp_path: Path, sizes: tuple[int, int]) -> None:
    body = b"%x\r\n%s\r\n%x\r\n\r\n" % (sizes[0] or len(PAGE), PAGE.encode(), sizes[1])
    (found,) = read(tmp_path, record(response(body, CHUNKED)))
    assert isinstance(found, RawDocument) and "The llama grazes on the high plain." in found.text


def test_a_body_that_was_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    long = f"<html><body><p>{' '.join(str(number) for number in range(9000))}</p></body></html>".encode()
    for encoding, packed in (("gzip", gzip.compress(long)), ("br", brotli.compress(long))):
        headers = f"Content-Type: text/html\r\nContent-Encoding: {encoding}\r\n"
        (found,) = read(tmp_path, record(response(packed[:-50], headers)))
        assert isinstance(found, RawDocument) and found.text.startswith("0 1 2 3")


def test_arc_of_version_2_and_addresses_with_spaces(tmp_path: Path) -> None:
    body = response(PAGE.encode(), "Content-Type: text/html\r\n")
    arc = b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain 200 - - 0 x.arc 4\n2 0\n\n"
    urls = ["http://a.example/", "http://b.example/a b"]
    for url in urls:
        rest = b"1.2.3.4 20080101000000 text/html 200 checksum - 99 x.arc %d\n" % len(body)
        arc += url.encode() + b" " + rest + body + b"\n"
    path = tmp_path / "x.arc"
    path.write_bytes(arc)
    assert [item.url for item in warc.read(path) if isinstance(item, RawDocument)] == urls


# Damage


def member(number: int) -> bytes:
    return gzip.compress(record(response(PAGE.encode()), url=f"http://a.example/{number}"))


@pytest.mark.parametrize("damage", ["body", "checksum", "header", "removed middle"])
def test_a_damaged_member_costs_only_itself(tmp_path: Path, damage: str) -> None:
    parts = [bytearray(member(number)) for number in range(4)]
    if damage == "body":
        parts[1][30:60] = bytes(255 - byte for byte in parts[1][30:60])
    elif damage == "checksum":
        parts[1][-8:-4] = struct.pack("<I", 1)
    elif damage == "header":
        parts[1][2] = 77
    else:
        del parts[1][40:-9]
    path = tmp_path / "x.warc.gz"
    path.write_bytes(b"".join(parts))
    items = list(warc.read(path))
    assert [item.url[-1] for item in items if isinstance(item, RawDocument)] == ["0", "2", "3"]
    starts = [sum(len(part) for part in parts[:number]) for number in range(4)]
    assert [item.offset for item in items] == starts
    assert reasons(items) == ["", "damaged gzip member", "", ""]


def test_an_archive_with_nothing_readable_behind_the_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.warc.gz"
    path.write_bytes(member(0) + b"\x1f\x8b\x08 and then no gzip at all" * 3)
    items = []
    with pytest.raises(UserError, match="gzip stream is damaged before byte"):
        for item in warc.read(path):
            items.append(item)
    assert reasons(items) == [""]


@pytest.mark.parametrize("damage", ["cut", "body", "checksum", "between"])
def test_the_record_in_which_a_file_ends_is_reported_by_the_error_alone(tmp_path: Path, damage: str) -> None:
    """It is counted once, as damage of the file, with its URL and offset."""
    last = bytearray(member(7))
    if damage == "cut":
        del last[-40:]
    elif damage == "body":
        last[60:90] = bytes(255 - byte for byte in last[60:90])
    elif damage == "checksum":
        last[-8:-4] = struct.pack("<I", 1)
    else:
        del last[5:]
    path = tmp_path / "x.warc.gz"
    path.write_bytes(member(0) + last)
    items = []
    with pytest.raises(TruncatedFile) as broken:
        for item in warc.read(path):
            items.append(item)
    assert reasons(items) == [""]
    assert broken.value.offset == len(member(0))
    # Nothing of the members damaged otherwise can be decompressed.
    assert broken.value.url == ("http://a.example/7" if damage == "cut" else "")


def test_memory_stays_at_a_few_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc.streams, "LARGEST_RECORD", 1_000_000)
    small = record(b"GET /", "request") * 100
    large = record(bytes(20_000_000), url="http://large.example/")
    body = response(bytes(1_000_000))
    arc = b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain 0\n"
    arc += b"http://a.example/ 1.2.3.4 20080101000000 a/b %d\n" % len(body)
    bodies = {
        "x.warc": (small + b"WARC/1.0\r\nbad\r\n\r\n" + bytes(5_000_000) + b"\n") * 3 + large + small,
        "x.arc": (arc + body) * 20,
    }
    monkeypatch.setattr(warc, "read_page", lambda body, content_type="": Page("", "text"))
    for name, content in bodies.items():
        path = tmp_path / name
        path.write_bytes(content)
        tracemalloc.start()
        assert len(list(warc.read(path))) >= 4
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8_000_000, (name, peak)


def test_a_bomb_unpacks_to_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nature.streams, "LARGEST_RECORD", 1_000_000)
    monkeypatch.setattr(warc, "read_page", lambda body, content_type="": Page("", f"{len(body)}"))
    zeros = bytes(30_000_000)
    packed = {
        "gzip": gzip.compress(zeros),
        "br": brotli.compress(zeros, quality=3),
        "zstd": pa.compress(zeros, "zstd", asbytes=True),
    }
    for encoding, body in packed.items():
        headers = f"Content-Type: text/html\r\nContent-Encoding: {encoding}\r\n"
        (found,) = read(tmp_path, record(response(body, headers)))
        assert isinstance(found, RawDocument) and int(found.text) < 4_000_000


ARC_RECORD = b"http://a.example/%d 1.2.3.4 20080101000000 text/html 60\n%s\n"
ARCHIVES = {
    "x.warc": [record(response(PAGE.encode()), url=f"http://a.example/{number}") for number in range(5)],
    "x.warc.gz": [member(number) for number in range(5)],
    "x.arc": [
        b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain 4\n1 0\n\n",
        *(ARC_RECORD % (number, response(b"x" * 20)) for number in range(5)),
    ],
}


@pytest.mark.parametrize("name", ARCHIVES)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), kind=st.sampled_from(["cut", "flip", "remove", "repeat", "noise"]))
def test_no_damage_breaks_it(tmp_path: Path, name: str, seed: int, kind: str) -> None:
    chance = random.Random(seed)
    content = bytearray(b"".join(ARCHIVES[name]))
    at, size = chance.randrange(len(content)), chance.randrange(1, 400)
    if kind == "cut":
        del content[at:]
    elif kind == "flip":
        content[at] ^= 1 << chance.randrange(8)
    elif kind == "remove":
        del content[at : at + size]
    elif kind == "repeat":
        content[at:at] = content[at : at + size]
    else:
        content[at : at + size] = chance.randbytes(size)
    path = tmp_path / name
    path.write_bytes(content)
    items: list[RawDocument | SkippedRecord] = []
    try:
        for item in warc.read(path):
            items.append(item)
    except UserError as error:
        assert str(error)
    assert all(0 <= item.offset <= len(content) for item in items)
    if kind != "cut" and name == "x.warc.gz":  # each of these damages a few neighbours at most
        assert len({item.url for item in items if isinstance(item, RawDocument)}) >= 2


@pytest.mark.parametrize("line", [b"http/1.1 200 ok", b"HTTP/2 200", b"HTTP/1.0  200 OK", b"Http/1.1 200"])
def test_status_lines_in_any_letters(tmp_path: Path, line: bytes) -> None:
    body = line + b"\r\ncontent-type: text/html\r\n\r\n<p>" + b"The ferry left at seven. " * 20
    assert [type(item) for item in read(tmp_path, record(body))] == [RawDocument]
