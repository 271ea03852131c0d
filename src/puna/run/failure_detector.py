"""What the processes of a training tell of themselves, judged: who is silent, who hangs, who is slow.

A state is what `watch.Watch` tells: step, phase and for how many seconds; for how many it waits for others,
and since when it knows that one is gone; and the seconds of its own in each phase, in the median step.
"""

import math
import statistics
from collections.abc import Mapping
from typing import Any

# In the order of a step; the last one is what lies between the others: losses, events, decisions.
PHASES = ("setup", "data", "forward", "reduce", "validation", "save", "bookkeeping")
LOST_SECONDS = 3.0  # of silence that show who is gone, once a process has found that somebody is
# What is slow: so many times the others' median own time a step, and so many seconds longer, at two looks
# that are so many steps apart.
RATIO, FLOOR_SECONDS, HOLD_STEPS = 2.2, 0.02, 3
NAMED_AT_ONCE = 8
GO_ON = "the same command goes on from the last checkpoint"

State = Mapping[str, Any]


class FailureDetector:
    """Of so many processes. on_gpu: GPUs compute, for which a host waits in `reduce` as for others."""

    def __init__(self, world: int, time_out_seconds: float, *, on_gpu: bool = False) -> None:
        self.world, self.time_out_seconds, self.on_gpu = world, time_out_seconds, on_gpu
        # The step since which a process looks slow in a phase; infinite: it was named.
        self._slow: dict[tuple[int, str], float] = {}

    def silent(self, states: Mapping[int, State], silence: Mapping[int, float]) -> tuple[int, str] | None:
        """(process, what to say of it) of the first one that is silent for too long; None: nobody is.
        silence: seconds, of those that were heard."""
        bound = self.time_out_seconds
        if any(state["lost"] for state in states.values()):
            bound = LOST_SECONDS
        elif any(state["waits"] >= bound for state in states.values()):
            bound = min(LOST_SECONDS, bound / 2)  # for whom they wait: rather one that is silent
        told = {
            rank: f"{name(rank, states[rank])}: silent for {seconds:.1f} s"
            for rank, seconds in sorted(silence.items())
            if seconds > bound
        }
        if not told:
            return None
        listed = "; ".join(list(told.values())[:NAMED_AT_ONCE])
        return min(told), f"{listed}. Ended, stopped or out of reach; {GO_ON}"

    def hung(self, states: Mapping[int, State]) -> tuple[int, str] | None:
        """(process, what to say of it) that others wait for: who has not begun, or else does not wait itself,
        or else is behind."""
        bound, kind = self.time_out_seconds, "seconds" if self.on_gpu else "waits"
        if all(state[kind] < bound and state["lost"] < LOST_SECONDS for state in states.values()):
            return None
        if missing := sorted(set(range(self.world)) - states.keys()):
            return missing[0], f"process {missing[0]} has not begun to train; {GO_ON}"
        busy = [rank for rank, state in states.items() if not (state["waits"] or state["lost"])]
        rank = min(busy or states, key=lambda rank: _progress(states[rank]))
        seconds = states[rank]["seconds"]
        ahead = any(_progress(state) > _progress(states[rank]) for state in states.values())
        if seconds < bound / 2 or (self.on_gpu and not ahead):
            return None
        return rank, f"{name(rank, states[rank])}: hangs for {seconds:.1f} s, and others wait for it; {GO_ON}"

    def slow(self, states: Mapping[int, State]) -> list[str]:
        """What to say of processes that have begun to take longer than the others over their part of a step;
        nothing of one alone."""
        found = []
        for phase in ("data", "forward") if self.on_gpu else ("data", "forward", "reduce"):
            own = {rank: state["own"][phase] for rank, state in states.items() if state["own"]}
            if len(own) < max(2, self.world):
                return []
            slowest = max(own, key=own.__getitem__)
            usual = statistics.median(seconds for rank, seconds in own.items() if rank != slowest)
            ratio, longer = own[slowest] / max(usual, 1e-3), own[slowest] - usual
            if ratio > RATIO and longer > FLOOR_SECONDS:
                step = states[slowest]["step"]
                if step - self._slow.setdefault((slowest, phase), step) >= HOLD_STEPS:
                    self._slow[slowest, phase] = math.inf
                    found.append(
                        f"process {slowest} on {states[slowest]['host']} is slow: {phase} takes {ratio:.1f} "
                        f"times as long as in the others, {own[slowest]:.2f} s a step instead of {usual:.2f}"
                    )
            else:
                recovered = longer < FLOOR_SECONDS / 2
                for key in [key for key in self._slow if key[1] == phase]:
                    if recovered or self._slow[key] < math.inf:
                        del self._slow[key]
        return found


def name(rank: int, state: State) -> str:
    """A process and where it is."""
    return f"process {rank} on {state['host']}, at step {state['step']:,}, phase {state['phase']}"


def _progress(state: State) -> tuple[int, int]:
    return state["step"], PHASES.index(state["phase"])
