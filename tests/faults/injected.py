"""`puna` with a fault in it: `-m tests.faults.injected run RECIPE ...`, under torchrun or alone.

FAULT is the name of one of the functions below, the rank of a process or `all`, and a step (from 1). A run
that torchrun has started again has none.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from puna.cli.main import main
from puna.run.artifact import Artifact
from puna.train import checkpoint, stage
from puna.train.checkpoint import Saver
from puna.train.pretraining import Pretraining


def die(*arguments: Any) -> NoReturn:
    print("the fault", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def from_step(step: int, do: Callable[..., Any], usual: Callable[..., Any]) -> Callable[..., Any]:
    """`do` instead of `usual` from the save of a step on."""

    def called(*arguments: Any) -> Any:
        return (do if saving >= step else usual)(*arguments)

    return called


saving = 0  # the step that is saved


def noted(usual: Callable[..., None]) -> Callable[..., None]:
    def save(self: Saver, folder: Path, progress: checkpoint.Progress, **options: Any) -> None:
        global saving
        saving = progress.step
        usual(self, folder, progress, **options)

    return save


def at_steps(do: Callable[[int], None]) -> None:
    """Do something in every step, given its number, when its gradients are there."""
    usual = Pretraining.step

    def step(self: Pretraining, number: int) -> Any:
        outcome = usual(self, number)
        do(number + 1)
        return outcome

    Pretraining.step = step  # type: ignore[method-assign]


def step(number: int) -> None:
    """A kill in the middle of a step."""
    at_steps(lambda now: die() if now == number else None)


def slow(number: int) -> None:
    """Half a second more for each step."""
    at_steps(lambda now: time.sleep(0.5) if now >= number else None)


def rot(number: int) -> None:
    """Files that change without a trace in what the file system tells."""
    Artifact.verify = lambda self, read=True: None  # type: ignore[method-assign]


def staged(number: int) -> None:
    """A kill while the state is copied for a checkpoint."""
    checkpoint._Snapshot.take = from_step(number, die, checkpoint._Snapshot.take)  # type: ignore[method-assign]


def written(number: int) -> None:
    """A kill when all files of a checkpoint are there, but its index."""
    Saver._finish = from_step(number, die, Saver._finish)  # type: ignore[method-assign]


def renamed(number: int) -> None:
    """A kill where a checkpoint would have been given its name."""
    usual = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(target).name == f"step-{number:08d}":
            die()
        usual(source, target)

    os.replace = replace  # type: ignore[assignment]


def failing(number: int) -> None:
    """A disk that fails when a checkpoint is synced."""
    usual = os.fsync

    def fsync(file: int) -> None:
        if saving >= number and "/.saving/" in str(Path(f"/proc/self/fd/{file}").readlink()):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        usual(file)

    os.fsync = fsync  # type: ignore[assignment]


def clock(number: int) -> None:
    """A clock that jumps a day ahead, and back two steps later."""
    usual, usual_ns = time.time, time.time_ns
    ahead = 0

    def jump(now: int) -> None:
        nonlocal ahead
        ahead = 86_400 if number <= now < number + 2 else 0

    time.time = lambda: usual() + ahead
    time.time_ns = lambda: usual_ns() + 10**9 * ahead
    at_steps(jump)


def recipe(number: int) -> None:
    """Another recipe in this process."""
    sys.argv += ["-s", "train.learning_rate=0.02"]


def version(number: int) -> None:
    """Another version of the training's code."""
    stage.VERSIONS["train"] += 1


FAULTS = {function.__name__: function for function in (
    step, slow, staged, written, renamed, failing, rot, clock, recipe, version
)}  # fmt: skip


if __name__ == "__main__":
    name, rank, number = os.environ.get("FAULT", "none 0 0").split()
    here = rank in ("all", os.environ.get("RANK", "0"))
    if name in FAULTS and here and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        Saver.save = noted(Saver.save)  # type: ignore[method-assign]
        FAULTS[name](int(number))
    main()
