"""Watches the processes of one training: who is silent, who hangs, who is slow, who has failed.

In each process a thread tells torchrun's store some times a second where the training is: step, phase, for
how long. The first process compares what all tell, the others look at the first one. What one finds stands in
the store once; all read it there, one process of each machine says it, and all end with one exit code. Times
are differences of monotonic clocks, and none is compared with another machine's.
"""

import contextlib
import functools
import json
import math
import os
import signal
import socket
import statistics
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from puna.errors import STOPS, Ended, Stopped, UserError
from puna.run.failure_detector import GO_ON, LOST_SECONDS, PHASES, FailureDetector, State, name
from puna.run.files import write_atomically
from puna.run.processes import Processes

BEAT_SECONDS, HEARTBEAT_SECONDS = 0.05, 3.0  # between what is told to the store, to programs outside
WINDOW_STEPS = 8  # over which the own time of a phase is taken, as a median
GRACE_SECONDS = 2.0  # for a process to end by itself after another one has failed
# What torchrun gives its processes after a signal, and the part of it after which a stop is late.
SHUTDOWN_SECONDS, LATE = float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")), 5 / 6
TOGETHER_SECONDS = 3.0  # signals this close are one: torchrun passes on what its processes get as well
# What gloo, NCCL and torch's store say where another process is gone or silent.
LOST = ("imed out", "onnection closed", "onnection reset", "pplication timeout", "wait timeout", "NCCL")
FAILURE, SIGNAL = "watch/failure", "watch/signal"


class Watch:
    """Watches this process, and the others through the store.

    heartbeat: file for programs outside, written by the first process; None: none. asked: whether a stop was
    asked for here. on_gpu: a GPU computes, and in `reduce` the host waits for it as for others.
    """

    def __init__(
        self,
        processes: Processes,
        time_out_seconds: float,
        heartbeat: Path | None = None,
        asked: Callable[[], bool] = lambda: False,
        *,
        on_gpu: bool = False,
    ) -> None:
        self.rank, self.world = processes.rank, processes.world
        self.loss: float | None = None  # of the last step
        self.failure: dict[str, Any] | None = None  # of which process, what is said of it, the exit code
        self._asked, self._heartbeat = asked, heartbeat if self.rank == 0 else None
        self._store, self._host, self._parent = processes.store(), socket.gethostname(), os.getppid()
        self._detector = FailureDetector(self.world, time_out_seconds, on_gpu=on_gpu)
        self._beat_seconds = min(BEAT_SECONDS + self.world / 1000, time_out_seconds / 8)
        self._main = threading.get_ident()
        self._step, self._phase, self._blocked = 0, PHASES[0], 0.0
        self._since, self._delayed, self._beats = time.monotonic(), 0.0, 0
        self._waiting: dict[int, float] = {}  # threads that wait for other processes, and since when
        self._waited = 0.0  # until torch gave up
        self._delays: int | None = None
        # Seconds of each phase, of this step and of the last ones, without waits for other processes.
        self._own: defaultdict[str, float] = defaultdict(float)
        self._steps: deque[dict[str, float]] = deque(maxlen=WINDOW_STEPS)
        self._written = self._lost_at = self._signalled_at = self._ends_at = 0.0
        self._number = int(signal.SIGINT)
        self._heard: dict[int, tuple[int, float]] = {}  # the last beat of each process, and when it was new
        self._notices: list[str] = []
        self._alone = self.world == 1
        if self._alone:
            self._beat_seconds = HEARTBEAT_SECONDS
        self._closed = threading.Event()
        self._signals: tuple[int, int] | None = None

    def should_stop(self) -> bool:
        """Whether a stop was asked for, or torchrun is gone, which cannot ask any more."""
        return self._asked() or (self._alone and self.world > 1)

    def notices(self) -> list[str]:
        """What was found since the last call and a person should know; in the first process."""
        found, self._notices = self._notices, []
        return found

    @contextlib.contextmanager
    def phase(self, named: str, step: int | None = None) -> Iterator[None]:
        """What the main thread does in the block; step: from 1, of this phase and those after it. What the
        block raises is told to the other processes before anything waits for them."""
        outer = self._phase if step is None else PHASES[-1]
        self._turn(named)
        if step is not None:
            if self._step:
                self._steps.append(self._own)
            self._own, self._step = defaultdict(float), step
        try:
            yield
        except Exception as error:
            self._tell(error)
            raise
        self._turn(outer)

    def _turn(self, named: str) -> None:
        now, delayed = time.monotonic(), self._delay()
        own = now - self._since - self._blocked - (delayed - self._delayed)
        self._own[self._phase] += max(0.0, own)
        self._phase, self._since, self._delayed, self._blocked = named, now, delayed, 0.0

    def _delay(self) -> float:
        """Seconds in which the main thread wanted a core and other programs had it; 0 where Linux does not
        count them."""
        return int(os.pread(self._delays, 99, 0).split()[1]) / 1e9 if self._delays is not None else 0.0

    def _timed(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        """A function that waits for other processes, with the seconds it takes counted."""

        @functools.wraps(wait)
        def timed(*arguments: Any, **options: Any) -> Any:
            thread, began, delayed = threading.get_ident(), time.monotonic(), self._delay()
            self._waiting[thread] = began
            try:
                return wait(*arguments, **options)
            finally:
                del self._waiting[thread]
                if thread == self._main:
                    self._blocked += time.monotonic() - began - (self._delay() - delayed)

        return timed

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Run the thread in the block, take signals there, and count waits: all that torch does go through
        two functions of its own."""
        with contextlib.ExitStack() as stack:
            if self.world > 1:
                from torch.distributed import _functional_collectives, distributed_c10d

                waits = ((distributed_c10d.Work, "wait"), (_functional_collectives, "wait_tensor"))
                for owner, key in waits:
                    stack.callback(setattr, owner, key, getattr(owner, key))
                    setattr(owner, key, self._timed(getattr(owner, key)))
                with contextlib.suppress(OSError):
                    path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
                    self._delays = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                for descriptor in (*self._signals, *filter(None, [self._delays])):
                    stack.callback(os.close, descriptor)
                # Python's own handlers run only when torch has done waiting.
                signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
                stack.callback(signal.set_wakeup_fd, -1)
            thread = threading.Thread(target=self._run, name="watch", daemon=True)
            thread.start()
            stack.callback(self._show_end)
            stack.callback(thread.join, GRACE_SECONDS)
            stack.callback(self._closed.set)
            yield

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Watches as long as the block lasts. Raises Ended where it fails, or another process does; Stopped
        with whose signal asked for it; and as it is what nobody foresaw here."""
        with self._watching():
            try:
                yield
            except Stopped as stopped:
                self._take_no_signals()
                if self._wait_for(SIGNAL):
                    stopped.signal, stopped.told = json.loads(self._store.get(SIGNAL))
                elif self.world > 1 and self._alone:
                    stopped.signal, stopped.told = signal.SIGTERM, "torchrun has ended"
                raise
            except BaseException as error:
                if self.world == 1:
                    raise
                self._take_no_signals()
                self._end(error)
                raise

    def _end(self, error: BaseException) -> None:
        """Find out whose failure ends the block. Raises Ended, unless it is a mistake of this process."""
        self._tell(error)
        if not self._wait_for(FAILURE):
            reason = f"another process is gone or silent: {str(error).partition(chr(10))[0]}"
            self._declare(self.rank, f"{name(self.rank, self._state())}: {reason}; {GO_ON}")
        failure = self.failure or json.loads(self._store.get(FAILURE))
        if failure["rank"] != self.rank or self._lost_at or isinstance(error, UserError):
            self._say("failure", failure["text"])
            raise Ended(failure["code"]) from error

    def _take_no_signals(self) -> None:
        """All is done: torchrun may end those that are left when the first of them has."""
        for number in (*STOPS, signal.SIGALRM) if self.world > 1 else ():
            signal.signal(number, signal.SIG_IGN)

    def _tell(self, error: BaseException) -> None:
        """Tell the others why this process ends, unless that is because of another one."""
        text = str(error) or type(error).__name__
        if self.world == 1:
            return
        if isinstance(error, RuntimeError) and any(lost in text for lost in LOST):
            self._lost_at = self._lost_at or time.monotonic()
            if "imed out" in text or "imeout" in text:
                self._waited = self._detector.time_out_seconds
        elif (notes := getattr(error, "__notes__", [f"process {self.rank}"]))[0] == "all processes":
            self._declare(self.rank, text)
        elif notes[0] == f"process {self.rank}":
            code = 128 + self._number if isinstance(error, KeyboardInterrupt) else 2
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self._declare(self.rank, f"{name(self.rank, self._state())}: {kind}{text}", code)

    def _declare(self, rank: int, text: str, code: int = 2) -> None:
        """Write down why the run ends, unless that is known."""
        failure = {"rank": rank, "text": text, "code": code}
        with contextlib.suppress(RuntimeError):
            failure = json.loads(self._store.compare_set(FAILURE, "", json.dumps(failure)))
        self.failure = self.failure or failure

    def _wait_for(self, key: str) -> bool:
        """Whether something stands in the store, after the time in which it is found who is gone."""
        end = time.monotonic() + 2 * LOST_SECONDS + 8 * self._beat_seconds
        with contextlib.suppress(RuntimeError):
            while not self._alone and time.monotonic() < end:
                if self._store.check([key]):
                    return True
                time.sleep(self._beat_seconds)
        return False

    def _say(self, what: str, text: str) -> None:
        """Print a message, once on each machine."""
        first = True
        with contextlib.suppress(RuntimeError):
            first = self._store.add(f"watch/said/{what}/{self._host}", 1) == 1
        if first:
            print(f"puna: {text}", file=sys.stderr, flush=True)

    def _run(self) -> None:
        """What the thread does."""
        before = failing = time.monotonic()
        while not self._closed.wait(self._beat_seconds):
            now, state = time.monotonic(), self._state()
            self._show(now, state)
            try:
                if not self._alone:
                    self._beat(now, now - before, state)
                failing = now
            except RuntimeError:  # of the store
                gone = os.getppid() != self._parent or now - failing > LOST_SECONDS
                self._alone = gone and not self._closed.is_set()
            before = now

    def _state(self) -> State:
        """What the others are told of this process."""
        now, steps = time.monotonic(), list(self._steps)
        # The main thread, or the one that saves, for which it waits then.
        main = [since for thread, since in list(self._waiting.items()) if thread == self._main]
        waiting = list(self._waiting.values()) if self._phase == "save" else main
        phases = PHASES if len(steps) > WINDOW_STEPS // 2 else ()
        return {
            "beat": self._beats,
            "host": self._host,
            "step": self._step,
            "phase": self._phase,
            "seconds": now - self._since,
            "waits": now - min(waiting) if waiting else self._waited,
            "lost": now - self._lost_at if self._lost_at else 0.0,
            "own": {phase: statistics.median(own.get(phase, 0.0) for own in steps) for phase in phases},
        }

    def _show(self, now: float, state: State) -> None:
        """Write the file for programs outside; a full disk is no reason to end."""
        if self._heartbeat is not None and now - self._written >= HEARTBEAT_SECONDS:
            self._written = now
            told = {key: state[key] for key in ("step", "phase", "seconds", "host")}
            loss = self.loss if self.loss is not None and math.isfinite(self.loss) else None
            line = json.dumps({**told, "loss": loss, "pid": os.getpid()})
            with contextlib.suppress(OSError):
                write_atomically(self._heartbeat, line + "\n")

    def _show_end(self) -> None:
        """Tell programs outside that no more is to be expected."""
        self._phase, self._written = "ended", 0.0
        self._show(time.monotonic(), self._state())

    def _beat(self, now: float, seconds: float, state: State) -> None:
        """Tell where this process is, look at others, end where one has failed. seconds: since the last
        time."""
        self._beats += 1
        self._store.set(f"watch/{self.rank}", json.dumps(state))
        self._alone = os.getppid() != self._parent
        self._take_signals(now)
        if seconds > 1 + 8 * self._beat_seconds:  # this process was stopped: nobody was silent then
            self._heard = {rank: (beat, since + seconds) for rank, (beat, since) in self._heard.items()}
        if self.failure is None and self._store.check([FAILURE]):
            self.failure = json.loads(self._store.get(FAILURE))
        if self.failure is None:
            self._compare(now, {**self._states(now), self.rank: state})
        elif not self._ends_at:
            self._ends_at = now + GRACE_SECONDS * (1 + (self.failure["rank"] == self.rank))
        elif now > self._ends_at:
            self._say("failure", self.failure["text"])
            os._exit(self.failure["code"])

    def _take_signals(self, now: float) -> None:
        """Write down the first signal, end at a second one, say where a stop takes long."""
        numbers = b""
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(self._signals[0], 64) if self._signals else b""
        for number in set(numbers) & set(STOPS):
            self._number = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
            if not self._signalled_at:
                self._signalled_at = now
                told = f"{signal.Signals(number).name}, first seen by process {self.rank} on {self._host}"
                self._store.compare_set(SIGNAL, "", json.dumps([self._number, told]))
            elif now - self._signalled_at > TOGETHER_SECONDS:
                told = f"{name(self.rank, self._state())}: told twice to end; {GO_ON}"
                self._declare(self.rank, told, 128 + self._number)
                self._ends_at = self._ends_at or now + GRACE_SECONDS / 2
        if self._signalled_at and now - self._signalled_at > LATE * SHUTDOWN_SECONDS:
            told = f"nothing is saved yet {LATE * SHUTDOWN_SECONDS:g} s after the first signal to end"
            where = f"{name(self.rank, self._state())}: {told}"
            self._say("late", f"{where}; torchrun kills after {SHUTDOWN_SECONDS:g} s: then {GO_ON}")

    def _states(self, now: float) -> dict[int, State]:
        """What others have told, by rank: all of them in the first process, it alone in the others."""
        ranks = range(1, self.world) if self.rank == 0 else (0,)
        begun = [rank for rank in ranks if rank in self._heard or self._store.check([f"watch/{rank}"])]
        told = self._store.multi_get([f"watch/{rank}" for rank in begun]) if begun else []
        states = dict(zip(begun, map(json.loads, told), strict=True))
        for rank, state in states.items():
            if rank not in self._heard or state["beat"] != self._heard[rank][0]:
                self._heard[rank] = state["beat"], now
        return states

    def _compare(self, now: float, states: Mapping[int, State]) -> None:
        """Find who is silent; in the first process also who hangs, and who is slow."""
        found = self._detector.silent(states, {rank: now - since for rank, (_, since) in self._heard.items()})
        if self.rank == 0:
            found = found or self._detector.hung(states)
            self._notices += self._detector.slow(states)
        if found:
            self._declare(*found)
