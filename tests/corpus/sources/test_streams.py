"""Compressed streams: whatever packs them, whole, in several pieces, padded, cut and damaged."""

import bz2
import ctypes
import gc
import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.corpus.sources import streams
from puna.errors import UserError


def lz4(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(raw)
    return sink.getvalue().to_pybytes()


PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstandard": lambda raw: pa.compress(raw, "zstd", asbytes=True),
    "LZ4": lz4,
}
TEXT = b"".join(b"line %d of a text\n" % number for number in range(5000))


@pytest.mark.parametrize("kind", PACKERS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
def test_packed_parts_come_back_whole(tmp_path: Path, kind: str, parts: list[bytes]) -> None:
    path = tmp_path / "file"
    parts = [b"x" + part for part in parts]  # a plain file must not look like a packed one
    path.write_bytes(b"".join(PACKERS[kind](part) for part in parts))
    assert b"".join(streams.chunks(path)) == b"".join(parts)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("gzip", "cut"),
        ("gzip", "changed"),
        ("bzip2", "cut"),
        ("bzip2", "changed"),
        ("zstandard", "cut"),
        ("LZ4", "cut"),
        ("LZ4", "changed"),
    ],  # zstandard has no checksum here
)
def test_a_damaged_stream_is_named(tmp_path: Path, kind: str, damage: str) -> None:
    packed = bytearray(PACKERS[kind](TEXT))
    middle = len(packed) // 2
    if damage == "cut":
        packed = packed[:middle]
    else:
        packed[middle : middle + 8] = bytes(255 - byte for byte in packed[middle : middle + 8])
    path = tmp_path / "file"
    path.write_bytes(packed)
    with pytest.raises(UserError, match=f"the {kind} stream .*(ends early|damaged)"):
        assert not TEXT.startswith(b"".join(streams.chunks(path)) + b"!")


@pytest.mark.parametrize("kind", PACKERS)
def test_no_piece_is_larger_than_a_chunk(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKERS[kind](bytes(20_000_000)))
    sizes = [len(piece) for piece in streams.chunks(path)]
    assert sum(sizes) == 20_000_000 and max(sizes) <= streams.CHUNK


@pytest.mark.parametrize("kind", ["gzip", "bzip2"])
def test_members_start_where_they_start_in_the_file(tmp_path: Path, kind: str) -> None:
    parts = [PACKERS[kind](b"%d" % number * 70_000) for number in range(5)]
    path = tmp_path / "file"
    path.write_bytes(b"".join(parts))
    starts = [sum(map(len, parts[:number])) for number in range(5)]
    assert sorted({member for member, _ in streams.members(path) if member is not None}) == starts
    assert b"".join(piece for _, piece in streams.members(path, starts[3])) == b"3" * 70_000 + b"4" * 70_000


def test_zeros_behind_the_last_stream_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(TEXT) + bytes(512))
    assert b"".join(streams.chunks(path)) == TEXT


def test_lines_tell_where_they_start(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\r\n\ntwo\nlast")
    assert list(streams.lines(path)) == [(0, b"one"), (5, b""), (6, b"two"), (10, b"last")]


def test_what_a_parser_held_is_given_back_with_the_file(tmp_path: Path) -> None:
    """lxml's parser is part of a cycle of objects: without a word it keeps its buffers until Python looks for
    such."""
    path = tmp_path / "rows.xml"
    path.write_bytes(b"<rows>" + b'<row a="%s"/>' % (b"x" * 5000) * 400 + b"</rows>")
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("only glibc tells what is allocated")
    libc.mallinfo2.restype = type(
        "mallinfo2", (ctypes.Structure,), {"_fields_": [("figures", ctypes.c_size_t * 10)]}
    )

    def used() -> int:
        figures = libc.mallinfo2().figures
        return int(figures[4] + figures[7])  # in blocks mapped one by one, and in the heap

    assert sum(1 for _ in streams.xml_elements(path, ("row",))) == 400
    gc.collect()
    gc.disable()
    try:
        before = used()
        for _ in range(20):
            assert sum(1 for _ in streams.xml_elements(path, ("row",))) == 400
        whole = used()
        for _ in range(20):
            next(streams.xml_elements(path, ("row",)))  # and leave it there
        assert whole - before < 500_000 and used() - whole < 5_000_000
    finally:
        gc.enable()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
@pytest.mark.parametrize("shift", range(0, 40, 3))
def test_elements_across_the_pieces_that_the_parser_is_fed(tmp_path: Path, encoding: str, shift: int) -> None:
    """The same as a parser that is given all at once finds."""
    from lxml import etree

    path, letter = tmp_path / "rows.xml", "é" if encoding == "iso-8859-1" else "𝒳中"
    rows = "".join(f'<row a="{number}{letter}&amp;">{letter}&lt;</row>' for number in range(4000))
    path.write_bytes(
        f'<?xml version="1.0" encoding="{encoding}"?><rows><!--{"x" * shift}-->{rows}</rows>'.encode(encoding)
    )
    expected = [(row.get("a"), row.text) for row in etree.fromstring(path.read_bytes())[1:]]
    assert [(row.get("a"), row.text) for row in streams.xml_elements(path, ("row",))] == expected and len(
        expected
    ) == 4000


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("<rows><row/></rows>".encode("utf-32"), "this is no XML"),
        (b"plain text", "this is no XML"),
        (
            ("<rows>" + "<row/>" * 9 + "\ud800" + "<row/>" * 9 + "</rows>").encode("utf-16", "surrogatepass"),
            "UTF-16 with damage in it",
        ),
        (b"<rows><row/><row/>", "the XML breaks off"),
        (b"", "nothing in it"),
        (b"<rows>\n<row/>\n<row <a='1'/>\n<row/></rows>", "damaged at line 3"),
        (b"<rows>\n<row/>\n<row a='1\n<row/></rows>", "the XML breaks off|damaged at line"),
        (b"<rows>\n<row>A < B</row>\n<row/></rows>", "damaged at line 2"),
        (b"<rows><row/></rows>\n<rows><row/></rows>", "damaged at line 2"),
    ],
)
def test_xml_that_cannot_be_read_to_its_end_is_told(tmp_path: Path, raw: bytes, told: str) -> None:
    path = tmp_path / "rows.xml"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=told):
        list(streams.xml_elements(path, ("row",)))


@pytest.mark.parametrize("odd", ["A & B", "&nbsp;", "\x01", "&#2;", "<!-- a -- b -->", "&amp"])
def test_what_xml_forbids_costs_no_element(tmp_path: Path, odd: str) -> None:
    """A bare & makes the parser wait for the end of a reference: what it holds till then comes at the end."""
    path = tmp_path / "rows.xml"
    path.write_text("<rows>" + "<row>e</row>" * 5 + f"<row>{odd}</row>" + "<row>e</row>" * 20_000 + "</rows>")
    assert sum(1 for _ in streams.xml_elements(path, ("row",))) == 20_006


def test_a_comment_before_the_root(tmp_path: Path) -> None:
    path = tmp_path / "page.xml"
    path.write_bytes(b"<!-- by hand --><page><title>x</title></page>")
    assert len(list(streams.xml_elements(path, ("page",)))) == 1


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Größe".encode(), "Größe"),
        ("\ufeffGröße".encode(), "Größe"),
        ("Größe".encode("utf-16"), "Größe"),
        ("Größe – “so”".encode("cp1252"), "Größe – “so”"),
        (b"\x81\xe9", "\x81é"),
        (b"MZ\0\0", None),
    ],
)
def test_text_of_any_encoding(raw: bytes, text: str | None) -> None:
    assert streams.decode(raw) == text


SAMPLES = {
    "лама спит на высоком холме, и никто не знает, когда она проснётся ": [
        "cp1251",
        "koi8-r",
        "iso8859-5",
        "cp866",
    ],
    "他慢慢地走過我們的村子，天上沒有雲，山上也沒有人，只有羊駝在吃草。": ["gb18030", "big5"],
    "山の上では風が一日中吹いていて、ラマは草を食べ、だれもそれを不思議に思わない。": [
        "shift_jis",
        "euc_jp",
        "iso2022_jp",
    ],
    "높은 산에는 하루 종일 바람이 불고 라마는 풀을 뜯고 아무도 이상하게 생각하지 않는다 ": ["cp949"],
    "บนภูเขาสูงมีลมพัดตลอดทั้งวันและไม่มีใครแปลกใจเลย ": ["cp874"],
    "στο ψηλό βουνό φυσάει όλη μέρα και κανείς δεν απορεί γι' αυτό ": ["cp1253"],
    "źródło rzeki leży wysoko w górach, gdzie pasą się lamy, a ścieżka jest wąska i kręta ": ["cp1250"],
    "sur le haut plateau, le vent souffle toute la journée et personne ne s'en étonne guère ": ["cp1252"],
}


@pytest.mark.parametrize(
    ("sample", "encoding"),
    [(sample, encoding) for sample, encodings in SAMPLES.items() for encoding in encodings],
)
def test_an_encoding_that_is_not_named_is_guessed(sample: str, encoding: str) -> None:
    text = sample * 10
    assert streams.decode(text.encode(encoding)) == text


def test_skippable_frames_are_passed_over_and_dictionaries_named(tmp_path: Path) -> None:
    def skippable(number: int, body: bytes) -> bytes:
        return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(body).to_bytes(4, "little") + body

    one, two = (pa.compress(text, "zstd", asbytes=True) for text in (b"one ", b"two"))
    path = tmp_path / "a.warc.zst"
    path.write_bytes(skippable(4, b"settings") + one + skippable(15, b"") + two)
    assert b"".join(streams.chunks(path)) == b"one two"
    path.write_bytes(skippable(13, b"a dictionary") + one)
    with pytest.raises(UserError, match="dictionary"):
        list(streams.chunks(path))
