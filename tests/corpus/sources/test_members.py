"""The files inside archives that are cut short, hostile or strange."""

import contextlib
import gzip
import io
import itertools
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from puna.corpus.readers.code import package
from puna.corpus.sources import members
from puna.errors import UserError


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """One header of a tar, its size as GNU tar writes those that have no room in octal digits."""
    entry = tarfile.TarInfo(name)
    entry.type = kind
    raw = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = (size & (1 << 96) - 1 | 1 << 95).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def tar(files: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def read(path: Path, content: bytes, most: int = 100) -> tuple[list[str], bool]:
    """(names of the files that could be read, whether the archive was told to be damaged)"""
    path.write_bytes(content)
    names = []
    try:
        for member in itertools.islice(members.members(path), most):
            member.load()
            names.append(member.name)
    except UserError:
        return names, True
    return names, False


CUTS = {
    1024: 1,
    1100: 1,
    1536: 1,
    2048: 1,
    2560: 2,
    2700: 2,
    3072: 2,
    3584: 3,
    3684: 3,
}  # bytes -> files whole


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_tar_that_is_cut_is_told_wherever_it_is(tmp_path: Path, pack: type[bytes]) -> None:
    whole = tar([("one", b"1" * 512), ("two", b"2" * 600), ("three", b"3" * 400)])
    assert read(tmp_path / "a.tar", pack(whole)) == (["one", "two", "three"], False)
    assert read(tmp_path / "a.tar", pack(whole[:4096])) == (["one", "two", "three"], False)
    for size, files in CUTS.items():
        assert read(tmp_path / "a.tar", pack(whole[:size])) == (["one", "two", "three"][:files], True), size


def test_a_header_that_is_none_before_zeros_is_damage(tmp_path: Path) -> None:
    whole = tar([("one", b"1")])
    assert read(tmp_path / "a.tar", whole[:1024] + b"\1" + whole[1025:]) == (["one"], True)


@pytest.mark.parametrize("size", [-1536, -1024, -513, -(1 << 90), 1 << 94])
@pytest.mark.parametrize(
    "kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE]
)
def test_no_size_leads_back_or_past_the_end(tmp_path: Path, size: int, kind: bytes) -> None:
    good = tar([("LICENSE", b"MIT"), ("a.py", b"pass")])[:2048]
    names, told = read(tmp_path / "a.tar", good + header("b.py", size, kind) + bytes(1024))
    assert names == ["LICENSE", "a.py"] and told
    with pytest.raises(UserError):
        list(package.read(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
@pytest.mark.parametrize("sizes", [(40_000_000,), (900_000,) * 40])
def test_what_stands_before_a_file_is_bounded(tmp_path: Path, kind: bytes, sizes: tuple[int, ...]) -> None:
    """One header that is too large, or a chain of them."""
    content = b"".join(header("x", size, kind) + b" " * (-(-size // 512) * 512) for size in sizes)
    raw = gzip.compress(tar([("one", b"1")])[:1024] + content + tar([("two", b"2")]), 1)
    tracemalloc.start()
    try:
        found = read(tmp_path / "a.tar.gz", raw)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == (["one"], True) and most < 6_000_000


def test_attributes_of_all_files_do_not_pile_up(tmp_path: Path) -> None:
    def attributes(number: int) -> bytes:
        record = b"%d k%d=" % (300_000, number)
        return (
            header("x", 300_000, tarfile.XGLTYPE)
            + record.ljust(299_999, b"x")
            + b"\n"
            + bytes(-300_000 % 512)
        )

    raw = b"".join(attributes(number) + tar([(f"{number}", b"1")])[:1024] for number in range(60)) + bytes(
        1024
    )
    (tmp_path / "a.tar").write_bytes(raw)
    tracemalloc.start()
    try:
        assert len(list(members.members(tmp_path / "a.tar"))) == 60
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()


def test_long_names_and_attributes_are_read(tmp_path: Path) -> None:
    names = [f"{'x/' * 1000}a", "é" * 3000]
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=kind) as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
        assert [member.name for member in members.members(tmp_path / "a.tar")] == names


def test_the_folder_that_was_packed_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    for name in ("dump.xml", "b/Posts.xml"):
        (tmp_path / "in" / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", ".")
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        assert "./dump.xml" in archive.getnames()
    assert sorted(member.name for member in members.members(tmp_path / "a.tar.gz")) == [
        "b/Posts.xml",
        "dump.xml",
    ]
    strange = ["./a", "././/b", "./../c", ".d", "e/./f"]
    assert read(tmp_path / "a.zip", zipped((name, b"") for name in strange)) == (
        ["a", "b", "../c", ".d", "e/./f"],
        False,
    )
    assert members.is_junk("../c")


def test_a_file_of_a_zip_without_a_name(tmp_path: Path) -> None:
    raw = bytearray(zipped([("q", b"x"), ("a.txt", b"a")]))
    for mark, place in ((b"PK\3\4", 26), (b"PK\1\2", 28)):  # the letter goes to the extra field
        at = raw.index(mark)
        raw[at + place : at + place + 4] = struct.pack("<HH", 0, 1)
    assert read(tmp_path / "a.zip", raw) == (["", "a.txt"], False)


FILES = [
    ("LICENSE", b"MIT License"),
    ("a.py", b"pass"),
    ("é.txt", b"e"),
]  # small: most of the bytes are structure


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_but_a_user_error_leaves_whatever_the_bytes(tmp_path: Path, kind: str) -> None:
    chance, whole = random.Random(1), zipped(FILES) if kind == "zip" else tar(FILES)
    path, told = tmp_path / ("a.whl" if kind == "zip" else "a.tar"), 0
    for _ in range(500):
        raw = bytearray(whole)
        for _ in range(chance.choice((1, 5, 20))):
            raw[chance.randrange(len(raw))] = chance.choice(
                (0, 255, 127, 128, *b"-9 ", chance.randrange(256))
            )
        for at in range(
            0, len(raw) - 511, 512
        ):  # sums of headers are mended, else they protect what is in them
            if kind == "tar" and raw[at + 257 : at + 262] == b"ustar" and chance.random() < 0.8:
                raw[at + 148 : at + 156] = b" " * 8
                raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
        names, damaged = read(path, raw[: chance.randrange(len(raw))] if chance.random() < 0.2 else raw)
        told += damaged
        assert len(names) < 100
        with contextlib.suppress(UserError):
            list(package.read(path))
    assert 100 < told < 500
