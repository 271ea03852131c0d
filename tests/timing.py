"""CPU time of calls that must not take long.

Other programs on the same machine make a call slower, never faster, so the fastest of three calls counts.
Code that is slow by itself is slow in all three.
"""

import time
from collections.abc import Callable
from typing import TypeVar

CALLS = 3
Result = TypeVar("Result")


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU seconds of the fastest of three calls."""
    return min(_timed(function)[0] for _ in range(CALLS))


def within(seconds: float, function: Callable[[], Result]) -> Result:
    """Assert that one of up to three calls takes less than so many CPU seconds; return its result.

    Each call must do all of the work: results that the code caches have to be cleared by the function.
    """
    times = []
    for _ in range(CALLS):
        taken, result = _timed(function)
        if taken < seconds:
            return result
        times.append(taken)
        if taken > 10 * seconds:  # other programs alone do not make a call that slow
            break
    listed = ", ".join(f"{taken:.2f}" for taken in times)
    raise AssertionError(f"took {listed} s of CPU time, call by call; less than {seconds:.2f} s is allowed")


def _timed(function: Callable[[], Result]) -> tuple[float, Result]:
    started = time.process_time()
    result = function()
    return time.process_time() - started, result
