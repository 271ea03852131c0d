"""Jobs run once each, in one process or several, and what went wrong comes back as it was."""

import errno
import os
from pathlib import Path

import pytest

from puna.corpus.engine import Engine
from puna.errors import UserError


def note(path: Path) -> None:
    path.write_text(str(os.getpid()))


def refuse(number: int) -> None:
    if number == 2:
        raise UserError("row 2: mend it")
    if number == 3:
        raise OSError("words alone")
    if number == 5:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/file")


def test_one_worker_works_in_this_process(tmp_path: Path) -> None:
    told: list[int] = []
    told += Engine(1).each(note, [tmp_path / str(number) for number in range(4)])
    assert told == [1, 2, 3, 4] and {path.read_text() for path in tmp_path.iterdir()} == {str(os.getpid())}


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Daft leaves its workers' pipes to the collector
def test_two_workers_are_processes_of_their_own(tmp_path: Path) -> None:
    list(Engine(2).each(note, [tmp_path / str(number) for number in range(4)]))
    assert (
        str(os.getpid()) not in {path.read_text() for path in tmp_path.iterdir()}
        and len(list(tmp_path.iterdir())) == 4
    )


def test_errors_come_back_as_they_were() -> None:
    with pytest.raises(UserError, match=r"^row 2: mend it$"):
        list(Engine(1).each(refuse, [1, 2, 3]))
    with pytest.raises(OSError) as found:
        list(Engine(1).each(refuse, [5]))
    assert (found.value.errno, found.value.filename) == (errno.ENOSPC, "/a/file")
    with pytest.raises(OSError, match=r"^words alone$"):
        list(Engine(1).each(refuse, [3]))
    list(Engine(2).each(refuse, []))


def test_ray_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"):
        list(Engine(1, "local").each(refuse, [1]))
