"""What SIGINT and SIGTERM do to a run, and how a stopped process ends."""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from puna.cli import output
from puna.errors import STOPS, Ended, Stopped, UserError

if TYPE_CHECKING:
    from puna.cli.view import ConsoleView
    from puna.run.artifact import Artifact
    from puna.run.build import Build

# Signals this close are one: some programs send two, and a terminal sends to all that run in it.
TOGETHER_SECONDS = 0.5
ALARM_SECONDS = 1.0
ONCE_SECONDS = 10.0  # for torchrun to end a process after the one that says why


class Signals:
    """Turns SIGINT, SIGTERM and SIGUSR1, which Slurm may send before it ends a job, into a polite stop inside
    `pausable`, elsewhere into an interrupt.

    A second signal is an interrupt everywhere. An interrupt may get lost: Python drops what is raised in a
    finalizer, and libraries what is raised while they call back. So an alarm raises it again, each second
    until the run ends.
    """

    def __init__(self) -> None:
        self.received, self.together_seconds = 0, TOGETHER_SECONDS
        self._when = 0.0
        self._again = self._polite = False
        for number in STOPS:
            signal.signal(number, self._handle)
        signal.signal(signal.SIGALRM, self._remind)
        sys.unraisablehook = _report_lost

    def _handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.received and now - self._when < self.together_seconds:
            return
        number = signal.SIGTERM if number == signal.SIGUSR1 else number
        self._again, self.received, self._when = bool(self.received), number, now
        if self._again or not self._polite:
            set_alarm(ALARM_SECONDS)
            raise KeyboardInterrupt

    def _remind(self, number: int, frame: Any) -> None:
        if self._again or not self._polite:
            set_alarm(ALARM_SECONDS)
            if not _is_ending():
                raise KeyboardInterrupt

    def end(self) -> None:
        """Take no more signals: the run has stopped, and says so."""
        set_alarm(0)
        for number in (*STOPS, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)

    def should_stop(self) -> bool:
        return bool(self.received)

    @contextlib.contextmanager
    def pausable(self) -> Iterator[None]:
        """A block that looks at `should_stop` itself and so is not interrupted by the first signal."""
        self._polite = True
        try:
            yield
        finally:
            self._polite = False
            if self.received:  # for what was done before the block noticed
                set_alarm(ALARM_SECONDS)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """What is wrong in the block is wrong in every process that torchrun started: the first one of each
    machine says it, and torchrun ends the others, which only wait for that."""
    try:
        yield
    except UserError:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        time.sleep(ONCE_SECONDS)
        leave(2)


def run(build: "Build", view: "ConsoleView", signals: Signals) -> "dict[str, Artifact]":
    """Run a build. Where a signal stops it, print how to go on and end the process with 128 + its number."""
    try:
        return build.run(view)
    except Stopped as stopped:
        signals.end()
        signals.received = stopped.signal or signals.received
        message = f"stopped and saved at step {stopped.step}; the same command goes on from there"
        message += f" ({stopped.told})" if stopped.told else ""
    except KeyboardInterrupt:
        signals.end()
        message = "stopped; the same command goes on from the last finished part"
    except Ended as ended:
        view.close()
        leave(ended.code)
    except Exception as error:
        if build.processes.world == 1:
            raise
        view.close()
        _fail(error)
    finally:
        view.close()
    if build.processes.rank == 0:
        view.console.print(message, soft_wrap=True)
    leave(128 + (signals.received or signal.SIGINT))


def _fail(error: Exception) -> NoReturn:
    """Say what was wrong and end at once: an orderly end of one of several processes takes seconds in torch,
    or is aborted there."""
    reason = str(error) if isinstance(error, UserError) else output.disk_problem(error)
    if reason is None:
        traceback.print_exception(error)
    else:
        print(f"puna: {reason}", file=sys.stderr)
    leave(1 if reason is None else 2)


def leave(code: int) -> NoReturn:
    """End at once: engines that were interrupted may abort the process while the interpreter winds down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def set_alarm(seconds: float) -> None:
    """Send SIGALRM to this process in so many seconds; 0: not at all."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _is_ending() -> bool:
    """Whether an interrupt is on its way out, through a `finally` or the end of a `with`."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt | Stopped):
        error = error.__context__
    return error is not None


def _report_lost(lost: Any) -> None:
    if lost.exc_type is not KeyboardInterrupt:  # which comes again
        sys.__unraisablehook__(lost)
