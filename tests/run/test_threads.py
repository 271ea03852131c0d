"""How many threads are worth it, and how long they wait awake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from puna.run import machine, threads


def looks(*values: float) -> object:
    return iter(values).__next__


@pytest.mark.parametrize(
    ("cores", "used", "own", "free"),
    [
        (2, 0.0, 0.0, 2),
        (2, 2.0, 2.0, 2),  # by this process itself
        (2, 2.0, 0.67, 1),
        (2, 2.0, 0.0, 1),
        (16, 7.4, 1.0, 10),
        (1, 1.0, 0.5, 1),
    ],
)
def test_cores_that_others_leave(
    monkeypatch: pytest.MonkeyPatch, cores: int, used: float, own: float, free: int
) -> None:
    """Over two seconds, in which all programs used `used` cores and this one `own`."""
    monkeypatch.setattr(machine, "cores", lambda: cores)
    seen = threads.Cores(looks(10.0, 12.0), looks(500.0, 500.0 + 2 * used), looks(3.0, 3.0 + 2 * own))  # type: ignore[arg-type]
    assert seen.free() == free


def test_where_nothing_can_be_read_all_cores_are_free(tmp_path: Path) -> None:
    assert threads.used_seconds(tmp_path / "none") == 0.0
    (tmp_path / "odd").write_text("cpu0 a b\n\ncpu")
    assert threads.used_seconds(tmp_path / "odd") == 0.0
    assert threads.used_seconds() > 0


def test_a_busy_program_is_seen() -> None:
    code = "import time; end = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(machine.cores())]
    try:
        seen = threads.Cores()
        while seen.seconds() < 1.0:
            pass
        assert seen.free() < max(2, machine.cores())
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, threads.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_spinning_is_bounded_unless_a_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], kept: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    threads.bound_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == kept
