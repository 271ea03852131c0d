"""Threads that compute one thing together: how long they wait awake for each other, how many are worth it.

Work in pieces of their own, such as files and texts, goes best on all cores; beside other programs each piece
gets its share of time. A product of matrices is cut into a part a thread, and all wait for the last one:
beside a program that keeps every core busy the others wait for one that does not run. So they are soon
asleep, and few where products are small. (A training of large products goes best on all cores even then.)
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from puna.run import machine

# Turns of libgomp's waiting loop before a thread sleeps; by itself some hundred thousand, milliseconds in
# which it takes a core from the thread that it waits for.
SPINS = "10000"


def bound_spinning() -> None:
    """Have OpenMP's threads sleep soon where they wait. For a program to call before it imports torch; a
    user's own settings stay."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def used_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Seconds of work that this process's cores have done for all programs since the machine started; 0 where
    that cannot be read."""
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    try:
        lines = [line.split() for line in stat.read_text().splitlines()]
        ticks = sum(
            int(user) + int(system)
            for name, user, _, system, *_ in (line for line in lines if line and line[0] in cores)
        )
    except (OSError, ValueError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")


class Cores:
    """How many cores other programs leave, by what they used since the last look."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = used_seconds,
        own: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock, self._used, self._own = clock, used, own
        self._seen = self._look()

    def _look(self) -> tuple[float, float]:
        return self._clock(), self._used() - self._own()

    def seconds(self) -> float:
        """Since the last look."""
        return self._clock() - self._seen[0]

    def free(self) -> int:
        """Cores that are worth a thread, at least one. Looks again; give it a tenth of a second between."""
        (before, others_before), (now, others) = self._seen, self._look()
        self._seen = now, others
        busy = (others - others_before) / max(now - before, 1e-9)
        return max(1, machine.cores() - round(busy))
