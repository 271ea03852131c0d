"""Digests are taken once a file, and again when it changes."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from puna.run import digests


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read, with a cache of this test's own."""
    read: list[Path] = []
    whole = digests.file_digest

    def counted(path: Path) -> str:
        read.append(path)
        return whole(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "file_digest", counted)
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)  # no test waits for a file to settle
    digests._database.cache_clear()
    yield read
    digests._database.cache_clear()


def written(path: Path, content: bytes, age: float = 10.0) -> Path:
    """Write a file whose content changed so many seconds ago."""
    path.write_bytes(content)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_a_file_is_read_once(tmp_path: Path, reads: list[Path]) -> None:
    path = written(tmp_path / "file", b"one")
    for _ in range(3):
        assert digests.cached_digest(path) == hashlib.sha256(b"one").hexdigest()
    assert reads == [path]
    digests._database.cache_clear()  # as another process has it
    digests.cached_digest(path)
    assert reads == [path]


@pytest.mark.parametrize("change", ["size", "time", "other file", "same inode"])
def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[Path], change: str) -> None:
    path = written(tmp_path / "file", b"one")
    digests.cached_digest(path)
    before = path.stat()
    if change == "other file":
        os.replace(written(tmp_path / "other", b"two"), path)
    elif change == "same inode":  # as an archive unpacked over it gives, with its time set back
        path.write_bytes(b"two")
    else:
        path.write_bytes(b"three" if change == "size" else b"two")
    if change != "time":
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    if change == "same inode":
        assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert digests.cached_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(reads) == 2


def test_a_change_while_it_is_digested_is_not_recorded(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "file", b"one")
    whole = digests.file_digest

    def changed_behind(other: Path) -> str:
        digest = whole(other)
        other.write_bytes(b"changed")
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(digests, "file_digest", changed_behind)
        digests.cached_digest(path)
    assert digests.cached_digest(path) == hashlib.sha256(b"changed").hexdigest()


def test_a_path_that_is_not_utf_8(tmp_path: Path, reads: list[Path]) -> None:
    path = written(Path(os.fsdecode(os.fsencode(tmp_path / "f") + b"\xff")), b"one")
    for _ in range(2):
        assert digests.cached_digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 1


def test_a_file_of_this_moment_is_read_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change once more without another time stamp."""
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 60.0)
    path = written(tmp_path / "file", b"one")
    digests.cached_digest(path)
    digests.cached_digest(path)
    assert len(reads) == 2
    digests.remember(path, "known")
    assert digests.cached_digest(path) == "known"


def test_a_cache_that_cannot_be_written_costs_no_result(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "occupied"))
    path = written(tmp_path / "file", b"one")
    assert digests.cached_digest(path) == digests.cached_digest(path) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 2
    (tmp_path / "cache" / "puna").mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache" / "puna" / "file-digests.sqlite").write_bytes(b"no database at all, of no use")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digests._database.cache_clear()
    assert digests.cached_digest(path) == hashlib.sha256(b"one").hexdigest()
