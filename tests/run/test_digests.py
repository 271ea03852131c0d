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
    digests._database.cache_clear()
    yield read
    digests._database.cache_clear()


def written(path: Path, content: bytes, age: float = 10.0) -> Path:
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


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[Path], change: str) -> None:
    path = written(tmp_path / "file", b"one")
    digests.cached_digest(path)
    when = path.stat().st_mtime_ns
    if change == "inode":
        other = written(tmp_path / "other", b"two")
        os.replace(other, path)
        os.utime(path, ns=(when, when))
    else:
        path.write_bytes(b"three" if change == "size" else b"two")
        if change == "size":
            os.utime(path, ns=(when, when))
    assert digests.cached_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(reads) == 2


def test_a_file_of_this_moment_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    """It may change once more without another time stamp."""
    path = written(tmp_path / "file", b"one", age=-5.0)
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
    (tmp_path / "cache" / "puna" / "digests.sqlite").write_bytes(b"no database at all, of no use")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digests._database.cache_clear()
    assert digests.cached_digest(path) == hashlib.sha256(b"one").hexdigest()
