"""The loop and its checkpoints: stopped, killed, damaged or whole, the same weights bit for bit."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.errors import Stopped, UserError
from puna.run.settings import ExecutionSettings
from puna.train import checkpoint
from puna.train.trainer import Event, Notice, StepEvent, ValidationEvent, train

from .small import CONFIG, batches, execution, held_out, settings


def run(
    folder: Path, events: list[Event] | None = None, before_decay: Path | None = None, **changes: Any
) -> tuple[dict[str, torch.Tensor], checkpoint.Progress]:
    stop = changes.pop("should_stop", lambda: False)
    how = {name: changes.pop(name) for name in list(changes) if name in ExecutionSettings.model_fields}
    model, progress = train(
        CONFIG,
        batches(),
        held_out(),
        settings(**changes),
        execution(**how),
        seed=1,
        checkpoints=folder,
        before_decay=before_decay,
        should_stop=stop,
        on_event=(events if events is not None else []).append,
    )
    return model.state_dict(), progress


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def stop_after(steps: int) -> Any:
    calls = itertools.count(1)
    return lambda: next(calls) >= steps


def test_events_losses_and_learning(tmp_path: Path) -> None:
    events: list[Event] = []
    _, progress = run(tmp_path, events, steps=60, validation_steps=20)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert [event.step for event in steps] == list(range(1, 61))
    assert [event.loss for event in steps] == [entry["loss"] for entry in progress.losses]
    assert steps[-1].tokens == 60 * 4 * 16
    validations = [event for event in events if isinstance(event, ValidationEvent)]
    assert [event.step for event in validations] == [20, 40, 60]
    assert validations[-1].losses["s"] < validations[0].losses["s"] - 0.1
    assert progress.losses[-1]["loss"] < progress.losses[0]["loss"] - 0.5


@pytest.mark.parametrize("policy", ["none", "full"])
def test_policies_give_the_same_curve(tmp_path: Path, policy: str) -> None:
    _, one = run(tmp_path / "a", steps=40, remat="llama")
    _, other = run(tmp_path / "b", steps=40, remat=policy)
    assert [entry["loss"] for entry in one.losses] == pytest.approx(
        [entry["loss"] for entry in other.losses], rel=1e-5
    )


def test_z_loss_draws_the_log_sums_to_zero(tmp_path: Path) -> None:
    def mean_square(z: float) -> float:
        model, _ = train(
            CONFIG, batches(), held_out(), settings(steps=60, z_loss=z), seed=1, checkpoints=tmp_path / str(z)
        )
        with torch.no_grad():
            return float(model(torch.from_numpy(held_out()["s"].tokens)).logsumexp(-1).square().mean())

    assert mean_square(1.0) < 0.5 * mean_square(0.0)


@pytest.mark.parametrize("after", [1, 5, 7, 11])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, after: int) -> None:
    whole, done = run(tmp_path / "whole")
    with pytest.raises(Stopped, match=f"step {after}"):
        run(tmp_path / "cut", should_stop=stop_after(after))
    events: list[Event] = []
    resumed, progress = run(tmp_path / "cut", events)
    assert equal(whole, resumed) and vars(progress) == vars(done)
    assert isinstance(events[0], Notice) and f"step {after}" in events[0].text


def test_only_the_last_checkpoints_stay(tmp_path: Path) -> None:
    for kept, left in ((2, ["step-00000008", "step-00000010"]), (1, ["step-00000010"])):
        run(tmp_path / str(kept), checkpoint_steps=2, checkpoints_kept=kept)
        assert sorted(path.name for path in (tmp_path / str(kept)).glob("step-*")) == left


def half_way(folder: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Stopped after half the steps and gone on with under other settings: weights and losses."""
    with pytest.raises(Stopped, match="step 20"):
        run(folder, steps=40, should_stop=stop_after(20))
    weights, progress = run(folder, steps=40, **changes)
    return weights, [entry["loss"] for entry in progress.losses]


@pytest.mark.parametrize(
    "change",
    [
        {"remat": "full"},
        {"remat": "none"},
        {"checkpoint_steps": 3},
        {"checkpoints_kept": 1},
        {"validation_steps": 4},
        {"validation_tokens": 64},
    ],
    ids=str,
)
def test_how_may_change_half_way_bit_for_bit(tmp_path: Path, change: dict[str, Any]) -> None:
    whole, progress = run(tmp_path / "whole", steps=40)
    weights, losses = half_way(tmp_path / "changed", **change)
    assert equal(whole, weights) and losses == [entry["loss"] for entry in progress.losses]


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_the_micro_batch_may_change_half_way(tmp_path: Path, micro_batch: int) -> None:
    _, progress = run(tmp_path / "whole", steps=40)
    whole = [entry["loss"] for entry in progress.losses]
    _, losses = half_way(tmp_path / "changed", micro_batch_sequences=micro_batch)
    assert losses[:20] == whole[:20]
    assert losses[20] == pytest.approx(whole[20], rel=1e-6) and losses[-1] == pytest.approx(
        whole[-1], rel=1e-4
    )


WSD = {"schedule": "wsd", "decay_fraction": 0.25}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_more_steps_go_on_from_where_the_decay_begins(tmp_path: Path, optimizer: str) -> None:
    shared = tmp_path / "shared"
    run(tmp_path / "short", before_decay=shared, steps=16, optimizer=optimizer, **WSD)
    assert [path.name for path in shared.glob("step-*")] == ["step-00000012"]
    events: list[Event] = []
    longer, progress = run(
        tmp_path / "longer", events, before_decay=shared, steps=32, optimizer=optimizer, **WSD
    )
    assert isinstance(events[0], Notice)
    assert events[0].text == "going on from step 12, where the decay of an earlier training began"
    assert [event.step for event in events if isinstance(event, StepEvent)] == list(range(13, 33))
    whole, expected = run(tmp_path / "whole", steps=32, optimizer=optimizer, **WSD)
    assert equal(whole, longer) and vars(progress) == vars(expected)
    assert sorted(path.name for path in shared.glob("step-*")) == ["step-00000012", "step-00000024"]


def test_fewer_steps_take_none_from_behind_their_decay(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    run(tmp_path / "long", before_decay=shared, steps=32, **WSD)
    short, _ = run(tmp_path / "short", before_decay=shared, steps=16, **WSD)
    whole, _ = run(tmp_path / "whole", steps=16, **WSD)
    assert equal(whole, short)


def test_its_own_checkpoint_goes_before_that_of_another(tmp_path: Path) -> None:
    shared, events = tmp_path / "shared", []
    run(tmp_path / "short", before_decay=shared, steps=16, **WSD)
    with pytest.raises(Stopped):
        run(tmp_path / "own", before_decay=shared, steps=32, should_stop=stop_after(3), **WSD)
    run(tmp_path / "own", events, before_decay=shared, steps=32, **WSD)
    assert events[0].text == "going on from the checkpoint of step 15"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", should_stop=stop_after(11))
    last = tmp_path / "cut" / "step-00000011"
    path = last / ("artifact.json" if damage == "manifest" else "optimizer.safetensors")
    raw = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(raw[:-10])
    elif damage == "missing":
        path.unlink()
    else:
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    events: list[Event] = []
    resumed, _ = run(tmp_path / "cut", events)
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert (
        "passed over" in notices[0]
        and "step-00000011" in notices[0]
        and "going on from the checkpoint of step 10" in notices[1]
    )
    assert equal(whole, resumed)


def test_a_save_that_was_killed_half_way_leaves_no_checkpoint(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", should_stop=stop_after(6))
    shutil.copytree(tmp_path / "cut" / "step-00000006", tmp_path / "cut" / ".saving")
    (tmp_path / "cut" / ".saving" / "artifact.json").unlink()
    (
        tmp_path / "cut" / "step-00000006" / "artifact.json"
    ).unlink()  # removed first when a folder is taken away
    resumed, _ = run(tmp_path / "cut")
    assert equal(whole, resumed)


def test_divergence_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training diverged: .* at step \d+; lower train\.learning_rate"):
        run(tmp_path, learning_rate=1e30, warmup_steps=0)


def test_a_batch_that_does_not_fit_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        )

    monkeypatch.setattr("puna.train.trainer.loss_and_gradients", full)
    with pytest.raises(UserError, match="a batch of 4 sequences of 16 tokens does not fit in memory"):
        run(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # of torch.compile's own looking around
def test_compiled_blocks_give_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    events: list[Event] = []
    _, one = run(tmp_path / "a", steps=6)
    _, other = run(tmp_path / "b", events, steps=6, compile=True)
    assert [entry["loss"] for entry in one.losses] == pytest.approx(
        [entry["loss"] for entry in other.losses], rel=1e-5
    )
    assert isinstance(events[0], Notice) and "compiled the blocks in" in events[0].text
    whole = [entry["loss"] for entry in run(tmp_path / "whole", steps=40)[1].losses]
    _, losses = half_way(tmp_path / "changed", compile=True)
    assert losses[20] == pytest.approx(whole[20], rel=1e-6) and losses[-1] == pytest.approx(
        whole[-1], rel=1e-4
    )
    assert any((tmp_path / "cache").rglob("*.so"))


def test_bfloat16_learns_as_float32_does(tmp_path: Path) -> None:
    _, exact = run(tmp_path / "a", steps=40, precision="float32")
    _, rounded = run(tmp_path / "b", steps=40, precision="bfloat16")
    ends = [sum(entry["loss"] for entry in progress.losses[-5:]) for progress in (exact, rounded)]
    assert ends[0] != ends[1] and ends[1] == pytest.approx(ends[0], rel=0.02)
