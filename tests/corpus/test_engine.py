"""Jobs run once each, in one process or several, and what went wrong comes back as it was."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from puna.corpus import engine
from puna.corpus.engine import Engine
from puna.errors import UserError


def note(path: Path) -> None:
    path.write_text(str(os.getpid()))


def wait(path: Path) -> None:
    note(path)
    time.sleep(200)


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


def test_workers_end_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom tests.corpus import test_engine\n"
        "from puna.corpus.engine import Engine\n"
        f"list(Engine(2).each(test_engine.wait, [Path({str(tmp_path)!r}) / name for name in 'ab']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        assert eventually(lambda: len(list(tmp_path.iterdir())) == 2, 60)
    finally:
        process.kill()
    process.wait()
    workers = [Path("/proc", path.read_text()) for path in tmp_path.iterdir()]
    try:
        assert eventually(lambda: not any(map(runs, workers)), 10)
    finally:
        for worker in filter(runs, workers):
            os.kill(int(worker.name), signal.SIGKILL)


def die_alone(path: Path) -> None:
    if path.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    note(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_is_killed_is_told(tmp_path: Path) -> None:
    """Also that the same command goes on: each job's result is a file."""
    jobs = [tmp_path / name for name in "abcd"]
    with pytest.raises(
        UserError, match=r"was ended from outside.*the same command goes on from what is done"
    ):
        list(Engine(2).each(die_alone, jobs))
    assert not (tmp_path / "b").exists()
    list(Engine(2).each(note, jobs))
    assert len(list(tmp_path.iterdir())) == 4


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def runs(process: Path) -> bool:
    """Whether a process is there and no zombie. process: its folder in /proc."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"):
        list(Engine(1, "local").each(refuse, [1]))


def test_nothing_to_do_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("an engine was started for no job")

    monkeypatch.setattr(Engine, "_on_daft", refuse)
    monkeypatch.setattr(engine, "prepare", refuse)
    assert list(Engine(ray="local").each(print, [])) == list(Engine(workers=2).each(print, [])) == []
