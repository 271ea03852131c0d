"""Runs one function over many jobs: in this process one after the other, or on Daft in several processes or
on a Ray cluster.

A job writes its own result to a file by one atomic rename, so resuming, memory and the bytes of the result do
not depend on the engine. What comes back through Daft is only that a job is done, or why it is not.

Training follows in the process that called, so how its memory is allocated is left as it is: one heap for all
threads is a policy of the workers' own processes. Jobs in this process run in the thread that called, whose
heap is that one.
"""

import contextlib
import ctypes
import gc
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from puna.errors import UserError
from puna.run import machine

M_ARENA_MAX = -8  # of malloc.h
LOST = "UDF process closed the connection"  # Daft's word for a worker that is gone
# Daft calls a worker from several threads; memory is meant for one job.
_ONE_AT_A_TIME = threading.Lock()


def prepare() -> None:
    """Set up Arrow and Daft; call it before they are imported."""
    # Arrow's own allocator keeps what it freed: up to 70 MB in each process, at no gain in speed here.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")  # its bars and lines run into ours
    os.environ.setdefault("DAFT_SHOW_QUERY_ID", "0")


@dataclass(frozen=True)
class Engine:
    """Where jobs run.

    workers: processes at a time, 0 for one a core. ray: address of a Ray cluster, "local" for one started
    here, "" for none.
    """

    workers: int = 0
    ray: str = ""

    @property
    def processes(self) -> int:
        """How many processes work at a time, where there are jobs enough."""
        return self.workers or machine.cores()

    def each(
        self,
        function: Callable[[Any], None],
        jobs: Sequence[Any],
    ) -> Iterator[int]:
        """Call `function` with every job, in any order; both must be picklable. Yields how many are done.

        Raises UserError or OSError where a job did; jobs that are done by then stay done.
        """
        if not jobs:
            return
        prepare()
        workers = min(self.processes, len(jobs))
        if self.ray or workers > 1:
            yield from self._on_daft(function, jobs, workers)
            return
        try:
            for done, job in enumerate(jobs, 1):
                _freeze()
                function(job)
                machine.release_memory()
                yield done
        finally:
            gc.unfreeze()

    def _on_daft(self, function: Callable[[Any], None], jobs: Sequence[Any], workers: int) -> Iterator[int]:
        """`each` in processes of their own, which Daft or Ray starts and feeds."""
        import daft

        options: dict[str, Any] = {"max_concurrency": workers}
        if self.ray:
            _connect(self.ray)
        else:
            options["use_process"] = True
        call = daft.cls(_Worker, **options)(function, os.getpid())
        plan = daft.from_pydict({"job": [pickle.dumps(job) for job in jobs]})
        plan = plan.into_partitions(len(jobs)) if self.ray else plan.into_batches(1)
        plan = plan.select(call(daft.col("job")).alias("problem"))
        done = 0
        machine.release_memory()
        try:
            for row in plan.iter_rows(results_buffer_size=1):
                _raise(row["problem"])
                done += 1
                yield done
        except RuntimeError as error:
            if LOST not in str(error):
                raise
            raise UserError(
                "a process that cleans raw files was ended from outside, perhaps by the system for want of "
                "memory (execution.workers, execution.memory_bytes); the same command goes on from what is "
                "done"
            ) from error
        finally:
            gc.unfreeze()
        if done < len(jobs):  # Daft takes an interrupt for itself and ends
            raise KeyboardInterrupt


class _Worker:
    """Holds the function, made by Daft in each process. caller: the process that asked for the work."""

    def __init__(self, function: Callable[[Any], None], caller: int) -> None:
        self.function, self.caller, self.prepared = function, caller, False

    def __call__(self, job: bytes) -> str:
        if not self.prepared and os.getpid() != self.caller:
            self.prepared = True
            prepare()
            _use_one_heap()
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        try:
            with _ONE_AT_A_TIME:
                _freeze()
                self.function(pickle.loads(job))
                machine.release_memory()
        except UserError as error:
            return f"user\0{error}"
        except OSError as error:
            return f"{error.errno}\0{error.strerror or error}\0{error.filename or ''}"
        return ""


def _use_one_heap() -> None:
    """Have all threads of a worker's process share a heap: malloc_trim does not release the end of others."""
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _freeze() -> None:
    """Set aside what stays for good: modules, models.

    What a job leaves for the garbage collector is then a large part of what is counted, and collected early.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # which counts anew; it has nothing to look at


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: a killed run must not go on beside the next one."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _raise(problem: str) -> None:
    kind, _, rest = problem.partition("\0")
    if kind == "user":
        raise UserError(rest)
    if kind:
        text, _, filename = rest.rpartition("\0")
        # Libraries raise some with words alone.
        raise OSError(int(kind), text, filename or None) if kind.isdigit() else OSError(text)


def _connect(address: str) -> None:
    """Have Daft run on a Ray cluster.

    Raises UserError where Ray is not installed or the cluster cannot be reached.
    """
    import daft

    try:
        import ray
    except ImportError as error:
        raise UserError("execution.ray is set and Ray is not installed: pip install 'puna[ray]'") from error
    try:
        if not ray.is_initialized():
            ray.init(
                None if address == "local" else address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"execution.ray: no Ray cluster at {address}: {error}") from error
    daft.set_runner_ray(noop_if_initialized=True)
