"""Compressed streams: whatever packs them, whole, in several pieces, padded, cut and damaged."""

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.corpus.readers import streams
from puna.errors import UserError

PACKERS = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "zstandard": lambda raw: pa.compress(raw, "zstd", asbytes=True)}
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
    [("gzip", "cut"), ("gzip", "changed"), ("bzip2", "cut"), ("bzip2", "changed"), ("zstandard", "cut")],  # zstandard has no checksum here
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


def test_zeros_behind_the_last_stream_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(TEXT) + bytes(512))
    assert b"".join(streams.chunks(path)) == TEXT


def test_lines_tell_where_they_start(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\r\n\ntwo\nlast")
    assert list(streams.lines(path)) == [(0, b"one"), (5, b""), (6, b"two"), (10, b"last")]


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
    assert streams.text_of(raw) == text
