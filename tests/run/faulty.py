"""`puna` with a fault in one process: under torchrun, `-m tests.run.faulty run RECIPE ...`.

FAULT is "RANK STEP PHASE WHAT": from step STEP on (from 0, the dry run) the process RANK does WHAT in PHASE
(data, forward: before each layer, reduce, save). WHAT is a number of seconds to sleep, `stop` (SIGSTOP),
`kill`, `hang`, `memory` (there is no more), `disk` (which is full), `bug`, or `day` (the clock jumps by one).
Without FAULT nothing.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from puna.model.block import Block
from puna.tokens.batches import Batches
from puna.train import checkpoint, trainer

step = -1  # of the training, from 1
clock = time.time


def faulty(function: Callable[..., Any], phase: str, counts: bool = False) -> Callable[..., Any]:
    """A function that has the fault in one phase. counts: each call begins a step."""
    rank, since, where, what = os.environ["FAULT"].split()

    def wrapped(*arguments: Any, **options: Any) -> Any:
        global step
        step += counts
        if phase == where and step >= int(since) and int(os.environ["RANK"]) == int(rank):
            fail(what)
        return function(*arguments, **options)

    return wrapped


def fail(what: str) -> None:
    """Have the fault."""
    print(f"fault at {time.monotonic()}, step {step}", file=sys.stderr, flush=True)
    if what in ("stop", "kill"):
        os.kill(os.getpid(), signal.SIGSTOP if what == "stop" else signal.SIGKILL)
    elif what == "hang":
        time.sleep(3600)
    elif what == "memory":
        raise torch.OutOfMemoryError("can't allocate memory")
    elif what == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the checkpoint")
    elif what == "day":
        time.time = lambda: clock() + 86_400
    elif what == "bug":
        raise KeyError("nobody foresaw this")
    else:
        time.sleep(float(what))


def main() -> None:
    if "FAULT" in os.environ:
        Batches.batch = faulty(Batches.batch, "data", counts=True)  # type: ignore[method-assign]
        Block.forward = faulty(Block.forward, "forward")  # type: ignore[method-assign]
        trainer.update = faulty(trainer.update, "reduce")
        checkpoint._Snapshot.write = faulty(checkpoint._Snapshot.write, "save")  # type: ignore[method-assign]
    from puna.cli.main import main as puna

    puna()


if __name__ == "__main__":
    main()
