"""Verdicts on made-up states of processes."""

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.run.failure_detector import FLOOR_SECONDS, HOLD_STEPS, LOST_SECONDS, RATIO, FailureDetector

PLAIN = {"data": 0.01, "forward": 0.5, "reduce": 0.1}


def state(**changes: Any) -> dict[str, Any]:
    """Of a process that computes."""
    plain = {"host": "a", "step": 12, "phase": "forward", "seconds": 0.2, "waits": 0.0}
    return {**plain, "lost": 0.0, "own": {}, **changes}


def test_who_is_silent_is_named_with_host_step_phase_and_seconds() -> None:
    detector = FailureDetector(3, 60)
    states = {0: state(), 1: state(host="b", phase="save"), 2: state()}
    assert detector.silent(states, {1: 59.9, 2: 0.1}) is None
    rank, told = detector.silent(states, {1: 60.3, 2: 0.1}) or (0, "")
    assert rank == 1 and told.startswith("process 1 on b, at step 12, phase save: silent for 60.3 s")
    assert "process 2" not in told


def test_silence_of_seconds_tells_who_is_gone_once_somebody_has_noticed() -> None:
    detector, silence = FailureDetector(3, 600), {1: 0.2, 2: LOST_SECONDS + 0.1}
    assert detector.silent({0: state(), 1: state(), 2: state()}, silence) is None
    found = detector.silent({0: state(), 1: state(lost=0.5, waits=0.4), 2: state()}, silence)
    assert found is not None and found[0] == 2


def test_many_silent_processes_are_one_short_message() -> None:
    states = {rank: state() for rank in range(100)}
    rank, told = FailureDetector(100, 4).silent(states, dict.fromkeys(range(8, 72), 5.0)) or (0, "")
    assert rank == 8 and told.count("process") == 8


@pytest.mark.parametrize("phase", ["data", "forward", "reduce", "save"])
def test_who_does_not_wait_while_another_one_does_hangs(phase: str) -> None:
    waits = state(waits=61.0, seconds=61.0, phase=phase)
    states = {0: waits, 1: state(phase=phase, seconds=61.5), 2: waits}
    rank, told = FailureDetector(3, 60).hung(states) or (0, "")
    assert rank == 1 and f"at step 12, phase {phase}: hangs for 61.5 s" in told


def test_a_wait_that_moves_is_no_hang_nor_is_long_work_of_all() -> None:
    detector = FailureDetector(2, 60)
    assert detector.hung({0: state(waits=3.0, seconds=600.0), 1: state(seconds=600.0)}) is None
    assert detector.hung({0: state(seconds=100.0), 1: state(seconds=100.0)}) is None
    assert (
        FailureDetector(2, 60, on_gpu=True).hung({0: state(seconds=100.0), 1: state(seconds=100.0)}) is None
    )


def test_on_gpus_the_one_behind_hangs() -> None:
    """There the host waits for its device and not in a collective."""
    states = {0: state(phase="reduce", seconds=61.0), 1: state(seconds=62.0)}
    assert FailureDetector(2, 60).hung(states) is None
    found = FailureDetector(2, 60, on_gpu=True).hung(states)
    assert found is not None and found[0] == 1


def test_who_has_not_begun_is_named() -> None:
    rank, told = FailureDetector(3, 4).hung({0: state(lost=LOST_SECONDS + 1), 2: state(lost=4.0)}) or (0, "")
    assert rank == 1 and "process 1 has not begun" in told


def looks(detector: FailureDetector, seconds: list[list[float]], phase: str = "forward") -> list[str]:
    """What is said of a row of steps; seconds: of each process, by step."""
    found = []
    for step, own in enumerate(seconds):
        states = {
            rank: state(step=step, own={**PLAIN, phase: value}, host=f"h{rank}")
            for rank, value in enumerate(own)
        }
        found += detector.slow(states)
    return found


@pytest.mark.parametrize("phase", ["data", "forward", "reduce"])
def test_three_times_as_long_is_named_once_and_again_after_a_recovery(phase: str) -> None:
    detector, usual = FailureDetector(3, 60), 0.03
    slow, plain = [usual, 3 * usual, usual], [usual, usual, 1.1 * usual]
    (told,) = looks(detector, [slow] * 40, phase)
    assert told.startswith(f"process 1 on h1 is slow: {phase} takes 3.0 times as long")
    assert (
        not looks(detector, [plain] * 3, phase)
        and len(looks(detector, [slow] * (HOLD_STEPS + 1), phase)) == 1
    )


def test_one_slow_look_names_nobody_and_a_process_alone_nobody() -> None:
    plain, slow = [0.5, 0.5], [0.5, 5.0]
    assert not looks(FailureDetector(2, 60), [plain, slow, slow, plain] * 10)
    assert not looks(FailureDetector(1, 60), [[5.0]] * 10)


def test_on_gpus_the_waits_of_a_host_in_reduce_are_not_compared() -> None:
    assert not looks(FailureDetector(2, 60, on_gpu=True), [[0.1, 5.0]] * 10, "reduce")
    assert looks(FailureDetector(2, 60, on_gpu=True), [[0.1, 5.0]] * 10, "data")


@given(st.lists(st.floats(0, 10), min_size=2, max_size=5))
def test_who_is_named_is_slower_by_ratio_and_seconds(own: list[float]) -> None:
    found = looks(FailureDetector(len(own), 60), [own] * 10)
    slowest = max(own)
    others = sorted(own)[:-1]
    usual = statistics.median(others)
    slow = slowest / max(usual, 1e-3) > RATIO and slowest - usual > FLOOR_SECONDS
    assert len(found) == slow
    if slow:
        assert found[0].startswith(f"process {own.index(slowest)} ")
