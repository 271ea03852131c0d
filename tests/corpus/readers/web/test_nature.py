"""What the bytes of a page are: packed, in which encoding, HTML at all."""

import bz2
import gzip
import lzma
import random
import struct
import zlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.web import charset, nature
from puna.corpus.readers.web.page import NOT_HTML, NOT_UNPACKED, read_page

PAGE = b"<html><title>Ferry</title><body><p>" + b"The ferry left at seven, and nobody saw it go. " * 30
HALF = len(PAGE) // 2


def zstd(body: bytes) -> bytes:
    return bytes(pa.compress(body, "zstd", asbytes=True))


def skippable(number: int, body: bytes) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(PAGE, mtime=0),
        gzip.compress(PAGE[:HALF], mtime=0) + gzip.compress(PAGE[HALF:], mtime=0),
        b"".join(gzip.compress(PAGE[at : at + 100], mtime=0) for at in range(0, len(PAGE), 100)),
        gzip.compress(gzip.compress(PAGE, mtime=0)),
        gzip.compress(PAGE, mtime=0) + b"\0" * 100,
        zlib.compress(PAGE),
        bz2.compress(PAGE[:HALF]) + bz2.compress(PAGE[HALF:]),
        lzma.compress(PAGE),
        zstd(PAGE),
        zstd(PAGE[:HALF]) + zstd(PAGE[HALF:]),
        skippable(3, b"settings") + zstd(PAGE[:HALF]) + skippable(15, b"") + zstd(PAGE[HALF:]),
        PAGE,
    ],
)
def test_every_member_of_what_is_packed_is_read(packed: bytes) -> None:
    assert nature.unpack(packed) == PAGE
    assert read_page(packed).text.count("ferry") == 30


def test_a_packed_page_that_is_cut_is_read_as_far_as_it_goes() -> None:
    whole = gzip.compress(PAGE, mtime=0)
    for packed in (whole, whole + whole[:20]):
        unpacked = nature.unpack(packed[:-9])
        assert unpacked is not None and PAGE.startswith(unpacked[:HALF])
    assert read_page(b"\x1f\x8b\x08\x00nothing that could be unpacked").reason == NOT_UNPACKED


def noise(start: bytes) -> bytes:
    return start + random.Random(1).randbytes(20_000)


@pytest.mark.parametrize(
    "body",
    [
        b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" * 40,
        b"\r\n%PDF-1.7\n" + PAGE,
        noise(b"\xff\xd8\xff\xe0\0\x10JFIF"),
        noise(b"\x89PNG\r\n\x1a\n"),
        noise(b"GIF89a"),
        noise(b"PK\x03\x04"),
        noise(b"MZ\x90\0"),
        noise(b"\x7fELF\x02"),
        noise(b"Rar!\x1a\x07\0"),
        noise(b"\0\0\0 ftypisom"),
        noise(b"OggS\0"),
        noise(b"RIFF1234WEBP"),
        noise(b"wOF2"),
        noise(b"<html><p>text</p>"),
        noise(PAGE),
        b"<html>" + bytes(5000),
        b'{"items": [{"title": "Ferry"}, {"title": "Pier"}]}',
        b"<?xml version='1.0'?>\n<rss version='2.0'><channel><title>Ferry</title></channel></rss>",
        b"<?xml version='1.0' encoding='UTF-8'?><!-- made by hand --><urlset xmlns='a'><url/></urlset>",
        b"{\\rtf1\\ansi The ferry left.}",
        gzip.compress(b"%PDF-1.4\n" * 100, mtime=0),
    ],
)
def test_what_is_no_page_is_told_by_its_bytes(body: bytes) -> None:
    assert read_page(body, "text/html; charset=utf-8").reason == NOT_HTML


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("content_type", ["", "text/html; charset=iso-8859-1", "text/html; charset=no-such"])
def test_unicode_is_told_by_its_bytes_whatever_the_header_says(encoding: str, content_type: str) -> None:
    text = "<html><title>Été</title><body><p>" + "La barque a été repeinte cet été, près du môle. " * 20
    assert read_page(text.encode(encoding), content_type).title == "Été"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Паром отошёл от причала в семь часов утра. "),
        ("koi8_r", "Паром отошёл от причала в семь часов утра. "),
        ("shift_jis", "船は七時に桟橋を離れた。"),
        ("euc_jp", "船は七時に桟橋を離れた。"),
        ("iso2022_jp", "船は七時に桟橋を離れた。"),
        ("gb18030", "渡轮七点离开码头。"),
        ("cp1252", "La barque a été repeinte – cet « été ». "),
        ("iso8859_7", "Το πλοίο έφυγε στις επτά. "),
    ],
)
def test_other_encodings_are_those_of_header_or_page(encoding: str, text: str) -> None:
    body = "<body><p>" + text * 20
    for declared in (f"<meta charset='{encoding}'>", f'<?xml version="1.0" encoding="{encoding}"?>', ""):
        content_type = "" if declared else f"text/html; charset={encoding}"
        assert text.strip() in charset.decode((declared + body).encode(encoding), content_type)


def test_the_charset_of_a_script_is_not_that_of_the_page() -> None:
    body = (
        b"<script charset='utf-8'></script><meta charset=windows-1251><p>" + "Паром. ".encode("cp1251") * 40
    )
    assert "Паром" in charset.decode(body)
    assert "Паром" in charset.decode(body, "text/html; charset=ISO-8859-1")  # of two, the bytes decide


def test_utf8_with_damage_or_cut_inside_a_character_stays_utf8() -> None:
    text = "L'été près du môle. " * 30
    raw = text.encode()
    assert charset.decode(raw + b"\xc3", "text/html; charset=latin-1") == text
    damaged = charset.decode(raw + b" caf\xe9 ", "text/html; charset=latin-1")
    assert damaged.startswith(text) and damaged.count("\ufffd") == 1
    assert charset.decode(b"caf\xe9 " * 50, "text/html; charset=utf-8") == "café " * 50


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x1f\x8b\x08", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd", b"x\x9c"]),
)
def test_no_bytes_break_it(body: bytes, start: bytes) -> None:
    read_page(start + body)
    nature.unpack(start + body)


def test_a_bomb_of_members_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nature.streams, "LARGEST_RECORD", 100_000)
    for packed in (
        gzip.compress(bytes(60_000), mtime=0) * 50,
        zstd(bytes(60_000)) * 50,
        bz2.compress(bytes(60_000)) * 50,
    ):
        assert len(nature.unpack(packed) or b"") <= 160_000
