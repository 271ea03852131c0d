"""Steps that are told, passed over or undone, and processes that do not hold what they should."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import Stopped
from puna.train import pretraining, trainer
from puna.train.health import DEVIATIONS, FLOOR, LEAST, NOT_FINITE, SOUND, SPIKE, WINDOW, Judge, newest
from puna.train.trainer import Event, Notice, SkippedStepEvent, StepEvent
from tests.train.small import batches
from tests.train.test_parallel import together
from tests.train.test_trainer import equal, run, stop_after

FILE = "rank-00000.safetensors"
BAD = 50  # the step with a spike


def verdicts(judge: Judge, losses: list[float], norms: list[float]) -> list[int]:
    found = []
    for loss, norm in zip(losses, norms, strict=True):
        found.append(
            int(judge.judge(*torch.tensor([loss, norm, -1], dtype=torch.float64), torch.float64).verdict)
        )
    return found


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_verdicts_are_those_of_a_plain_count(seed: int, keeps: bool) -> None:
    chance = np.random.default_rng(seed)
    count = 2 * WINDOW
    losses = 4 - 0.01 * np.arange(count) + 0.05 * chance.standard_normal(count)
    norms = np.exp(0.3 * chance.standard_normal(count))
    for what in (losses, norms):
        odd = chance.random(count) < 0.03
        what[odd] = chance.choice([math.nan, math.inf, 9.0, 30.0, 0.0, 2.0], odd.sum())
    taken: list[list[float]] = []
    expected = []
    for loss, norm in zip(losses, norms, strict=True):
        new = [loss, math.log(max(norm, 1e-30)) if not math.isnan(norm) else math.nan]
        if not np.isfinite(new).all():
            expected.append(NOT_FINITE)
            continue
        seen = np.array(taken[-WINDOW:] or [new])
        limit = seen.mean(0) + DEVIATIONS * np.maximum(seen.std(0), FLOOR)
        expected.append(SPIKE if len(taken) >= LEAST and (np.array(new) > limit).any() else SOUND)
        if keeps or expected[-1] == SOUND:
            taken.append(new)
    assert verdicts(Judge(keeps), losses.tolist(), norms.tolist()) == expected


def test_ordinary_noise_is_no_spike_and_a_step_of_twice_the_loss_is() -> None:
    chance = np.random.default_rng(0)
    count = 4_000
    losses = 3 + 2 * np.exp(-np.arange(count) / 300) + 0.06 * chance.standard_normal(count)
    norms = np.exp(0.2 * chance.standard_normal(count))
    judge = Judge()
    assert set(verdicts(judge, losses.tolist(), norms.tolist())) == {SOUND}
    assert (
        verdicts(judge, [6.0], [1.0]) == [SPIKE] and verdicts(Judge(), [1.0] * 999, [0.0] * 999) == [0] * 999
    )


def test_a_judge_goes_on_behind_lines() -> None:
    chance = np.random.default_rng(1)
    losses, norms = chance.random(200).tolist(), chance.random(200).tolist()
    one, other = Judge(False), Judge(False)
    verdicts(one, losses, norms)
    lines = [{"loss": loss, "gradient_norm": norm} for loss, norm in zip(losses, norms, strict=True)]
    lines.insert(150, {"loss": None, "gradient_norm": 1.0, "skipped": 1})
    other.remember(newest(lines))
    assert one._seen.equal(other._seen) and one._count == other._count


def spike(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the gradients of some steps (from 1) a million times as large."""
    real = pretraining.loss_and_gradients
    given = {batches().batch(step - 1).tokens.tobytes() for step in steps}

    def spiking(model: Any, batch: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        loss = real(model, batch, *arguments, **options)
        if batch.tokens.tobytes() in given:
            for parameter in model.parameters():
                parameter.grad.mul_(1e6)
        return loss

    monkeypatch.setattr(pretraining, "loss_and_gradients", spiking)


def notices(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


def changed(folder: Path, events: list[Event] | None = None, **changes: Any) -> Any:
    return run(folder, events, **{"steps": 60, "checkpoints_kept": 20, **changes})


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_spike_is_kept_and_told_or_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    spike(monkeypatch, BAD)
    events: list[Event] = []
    _, lines = changed(tmp_path / "keep", events, optimizer=optimizer)
    assert not any("skipped" in line for line in lines)
    assert [f"step {BAD}: a spike" in text for text in notices(events)] == [True]
    events.clear()
    weights, lines = changed(
        tmp_path / "skip", events, optimizer=optimizer, spikes="skip", checkpoint_steps=1
    )
    skipped = [event for event in events if isinstance(event, SkippedStepEvent)]
    assert [(event.step, event.why, event.skipped) for event in skipped] == [(BAD, "a spike", 1)]
    assert lines[BAD - 1]["gradient_norm"] > 1e4 and lines[BAD - 1]["why"] == "a spike"
    before, after = (tmp_path / "skip" / f"step-000000{step}" / FILE for step in (BAD - 1, BAD))
    assert before.read_bytes() == after.read_bytes()  # weights, moments and their count of steps
    for stop in (BAD - 1, BAD):
        with pytest.raises(Stopped):
            changed(tmp_path / str(stop), optimizer=optimizer, spikes="skip", should_stop=stop_after(stop))
        again, repeated = changed(tmp_path / str(stop), optimizer=optimizer, spikes="skip")
        assert equal(weights, again) and repeated == lines


def test_a_spike_is_undone_with_all_since_the_state_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike(monkeypatch, BAD)
    events: list[Event] = []
    options = {"spikes": "rollback", "rollback_steps": 20}
    weights, lines = changed(tmp_path / "whole", events, checkpoint_steps=10, **options)
    told = notices(events)
    assert len(told) == 1 and "those of step 40 again, and the data of steps 41 to 50 are passed" in told[0]
    assert lines[BAD - 1]["rolled_back_to"] == 40 and lines[BAD - 1]["skipped"] == 1
    saved = [tmp_path / "whole" / name / FILE for name in ("step-00000040", "step-00000050")]
    assert saved[0].read_bytes() == saved[1].read_bytes()
    for stop, every in ((44, 7), (49, 1), (50, 100), (53, 3)):  # how often it is saved changes nothing
        with pytest.raises(Stopped):
            changed(tmp_path / str(stop), checkpoint_steps=every, should_stop=stop_after(stop), **options)
        again, repeated = changed(tmp_path / str(stop), checkpoint_steps=every, **options)
        assert equal(weights, again) and repeated == lines


def test_without_a_state_to_go_back_to_the_step_alone_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spike(monkeypatch, BAD)
    events: list[Event] = []
    weights, _ = changed(tmp_path / "back", events, spikes="rollback", rollback_steps=100)
    assert any("a spike before the first state to go back to" in text for text in notices(events))
    assert equal(weights, changed(tmp_path / "skip", spikes="skip")[0])


def test_a_verdict_that_is_read_one_step_late_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where the host never waits for the step that it has begun."""
    spike(monkeypatch, BAD, 54)
    weights, lines = changed(tmp_path / "now", spikes="skip", checkpoint_steps=7)
    real, told, computed = trainer._Run.__init__, [], []

    def late(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        self.behind = 1

    def on_batch(model: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        computed.append(len(computed) + 1)
        return loss(model, batch, *arguments, **options)

    loss = pretraining.loss_and_gradients
    monkeypatch.setattr(pretraining, "loss_and_gradients", on_batch)
    monkeypatch.setattr(trainer._Run, "__init__", late)

    class Told(list[Event]):
        def append(self, event: Event) -> None:
            if isinstance(event, StepEvent | SkippedStepEvent):
                told.append((event.step, computed[-1] - 1))  # one was the dry run's

    again, repeated = changed(tmp_path / "late", Told(), spikes="skip", checkpoint_steps=7)
    assert equal(weights, again) and repeated == lines
    settled = {*range(7, 60, 7), *range(6, 61, 6), 60}  # what is saved or validated is told at once
    assert told == [(step, step + (step not in settled)) for step in range(1, 61)]


@pytest.mark.parametrize(("layout", "processes"), [("replicate", 2), ("tensor", 2), ("both", 4)])
def test_a_bit_that_flips_in_one_process_is_found_before_the_next_checkpoint(
    tmp_path: Path, layout: str, processes: int
) -> None:
    """And the run goes on from the one before to the bits that it would have reached."""
    whole = together(processes, layout, tmp_path / "whole", 0, module="flipped")
    told = together(processes, layout, tmp_path / "flipped", 7, module="flipped")
    who = "process 0 or 2" if layout == "both" else "process 0 or 1"
    assert f"{who} holds other bits of layers.0.attention_norm.weight than" in told
    assert [path.name for path in sorted((tmp_path / "flipped").glob("step-*"))] == ["step-00000005"]
    assert together(processes, layout, tmp_path / "flipped", 0, module="flipped") == whole
