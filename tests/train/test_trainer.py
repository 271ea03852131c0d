"""The loop and its checkpoints: stopped, killed, damaged or whole, the same weights bit for bit."""

import gc
import itertools
import json
import math
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from puna.errors import Stopped, UserError
from puna.model.llama import Llama
from puna.run.settings import ClusterSettings, ExecutionSettings
from puna.train import pretraining, trainer
from puna.train.losses import LOSSES
from puna.train.optimizer import build
from puna.train.pretraining import Pretraining
from puna.train.trainer import (
    Event,
    Notice,
    Outcome,
    SkippedStepEvent,
    StepEvent,
    ValidationEvent,
    train,
)

from .small import CONFIG, batches, execution, held_out, settings, short_first

FILE = "rank-00000.safetensors"


def start() -> Llama:
    """The model before its first step."""
    model = Llama.empty(CONFIG)
    model.init_weights(1)
    return model


def run(
    folder: Path, events: list[Event] | None = None, before_decay: Path | None = None, **changes: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Weights, and the lines of losses.jsonl."""
    stop = changes.pop("should_stop", lambda: False)
    how = {name: changes.pop(name) for name in list(changes) if name in ExecutionSettings.model_fields}
    data = changes.pop("data", None) or batches()
    model, options = start(), settings(**changes)
    train(
        model,
        Pretraining(model, data, held_out(), options, execution(**how)),
        options,
        execution(**how),
        checkpoints=folder,
        before_decay=before_decay,
        should_stop=stop,
        on_event=(events if events is not None else []).append,
    )
    return model.state_dict(), lines_of(folder)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOSSES).read_text().splitlines()]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def stop_after(steps: int) -> Any:
    calls = itertools.count(1)
    return lambda: next(calls) >= steps


def test_events_losses_and_learning(tmp_path: Path) -> None:
    events: list[Event] = []
    _, lines = run(tmp_path, events, steps=60, validation_steps=20)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert [event.step for event in steps] == list(range(1, 61))
    assert [event.loss for event in steps] == [entry["loss"] for entry in lines]
    where = itertools.product(range(60), range(4), range(16))
    assert steps[-1].tokens == sum(batches().trace(*place) is not None for place in where) < 60 * 4 * 16
    validations = [event for event in events if isinstance(event, ValidationEvent)]
    assert [event.step for event in validations] == [20, 40, 60]
    assert validations[-1].losses["s"] < validations[0].losses["s"] - 0.1
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5


def test_short_sequences_first_and_a_kill_on_either_side_of_their_end(tmp_path: Path) -> None:
    """With micro-batches of two long sequences, of which four short ones have as many tokens."""
    ways = {"data": short_first(6), "steps": 10, "micro_batch_sequences": 2}
    whole, lines = run(tmp_path / "whole", **ways)
    _, at_once = run(tmp_path / "at_once", **{**ways, "micro_batch_sequences": 4})
    _, long = run(tmp_path / "long", steps=10)
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in at_once], rel=1e-5)
    assert lines[0]["loss"] != long[0]["loss"]
    for stop in (3, 8):
        folder = tmp_path / str(stop)
        with pytest.raises(Stopped):
            run(folder, should_stop=stop_after(stop), **ways)
        assert equal(run(folder, **ways)[0], whole)


def test_a_dry_run_of_short_sequences_first_is_one_of_the_long(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(pretraining, "loss_and_gradients", lambda model, batch, *others: seen.append(batch))
    work = Pretraining(start(), short_first(6), {}, settings(), execution(micro_batch_sequences=2))
    work.dry_run()
    assert seen[0].tokens.shape == (2, 16) and work.largest == "a batch of 2 sequences of 16 tokens"


@pytest.mark.parametrize("policy", ["none", "full"])
def test_policies_give_the_same_curve(tmp_path: Path, policy: str) -> None:
    _, one = run(tmp_path / "a", steps=40, remat="llama")
    _, other = run(tmp_path / "b", steps=40, remat=policy)
    assert [entry["loss"] for entry in one] == pytest.approx([entry["loss"] for entry in other], rel=1e-5)


def test_z_loss_draws_the_log_sums_to_zero(tmp_path: Path) -> None:
    def mean_square(z: float) -> float:
        model, options = start(), settings(steps=60, z_loss=z)
        work = Pretraining(model, batches(), held_out(), options)
        train(model, work, options, checkpoints=tmp_path / str(z))
        with torch.no_grad():
            return float(model(torch.from_numpy(held_out()["s"].tokens)).logsumexp(-1).square().mean())

    assert mean_square(1.0) < 0.5 * mean_square(0.0)


@pytest.mark.parametrize("after", [1, 5, 7, 11])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, after: int) -> None:
    whole, expected = run(tmp_path / "whole")
    with pytest.raises(Stopped, match=f"step {after}"):
        run(tmp_path / "cut", should_stop=stop_after(after))
    events: list[Event] = []
    resumed, lines = run(tmp_path / "cut", events)
    assert equal(whole, resumed) and lines == expected
    assert isinstance(events[0], Notice) and f"step {after}" in events[0].text


def test_only_the_last_checkpoints_stay(tmp_path: Path) -> None:
    for kept, left in ((2, ["step-00000010", "step-00000012"]), (1, ["step-00000012"])):
        run(tmp_path / str(kept), checkpoint_steps=2, checkpoints_kept=kept)
        assert sorted(path.name for path in (tmp_path / str(kept)).glob("step-*")) == left


def test_checkpoints_of_each_so_many_steps_stay_beside_the_newest(tmp_path: Path) -> None:
    """Also those of steps that no checkpoint was due at, and behind a stop."""
    with pytest.raises(Stopped):
        run(tmp_path, checkpoint_steps=5, checkpoints_kept=1, checkpoints_every=4, should_stop=stop_after(7))
    assert sorted(path.name[5:] for path in tmp_path.glob("step-*")) == ["00000004", "00000007"]
    run(tmp_path, checkpoint_steps=5, checkpoints_kept=2, checkpoints_every=4)
    left = ["00000004", "00000008", "00000010", "00000012"]
    assert sorted(path.name[5:] for path in tmp_path.glob("step-*")) == left


def half_way(folder: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Stopped after half the steps and gone on with under other settings: weights and losses."""
    with pytest.raises(Stopped, match="step 20"):
        run(folder, steps=40, should_stop=stop_after(20))
    weights, lines = run(folder, steps=40, **changes)
    return weights, [entry["loss"] for entry in lines]


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
    whole, lines = run(tmp_path / "whole", steps=40)
    weights, losses = half_way(tmp_path / "changed", **change)
    assert equal(whole, weights) and losses == [entry["loss"] for entry in lines]


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_the_micro_batch_may_change_half_way(tmp_path: Path, micro_batch: int) -> None:
    _, lines = run(tmp_path / "whole", steps=40)
    whole = [entry["loss"] for entry in lines]
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
    longer, lines = run(
        tmp_path / "longer", events, before_decay=shared, steps=32, optimizer=optimizer, **WSD
    )
    assert isinstance(events[0], Notice)
    assert events[0].text == "going on from step 12, where the decay of an earlier training began"
    assert [event.step for event in events if isinstance(event, StepEvent)] == list(range(13, 33))
    whole, expected = run(tmp_path / "whole", steps=32, optimizer=optimizer, **WSD)
    assert equal(whole, longer) and lines == expected
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
    path = last / ("index.json" if damage == "manifest" else FILE)
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


def test_where_no_checkpoint_is_whole_the_run_begins_again_and_says_so(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", should_stop=stop_after(7))
    for path in (tmp_path / "cut").glob("step-*/rank-*"):
        path.write_bytes(path.read_bytes()[:-1])
    events: list[Event] = []
    resumed, _ = run(tmp_path / "cut", events)
    told = [event.text for event in events if isinstance(event, Notice)]
    assert [text.partition(":")[0] for text in told[:2]] == ["passed over a checkpoint"] * 2
    assert told[2] == "no checkpoint is whole: beginning with the first step"
    assert equal(whole, resumed)


def test_checkpoints_that_were_passed_over_push_no_new_one_out(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, checkpoint_steps=2, should_stop=stop_after(9))
    for path in tmp_path.glob("step-*"):
        (path / FILE).write_bytes(b"")
    events: list[Event] = []
    with pytest.raises(Stopped):
        run(tmp_path, events, checkpoint_steps=2, should_stop=stop_after(4))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004"]
    assert "no checkpoint is whole" in [event.text for event in events if isinstance(event, Notice)][-1]


def test_a_save_that_was_killed_half_way_leaves_no_checkpoint(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", should_stop=stop_after(6))
    shutil.copytree(tmp_path / "cut" / "step-00000006", tmp_path / "cut" / ".saving")
    (tmp_path / "cut" / ".saving" / "index.json").unlink()
    # Removed first when a folder is taken away.
    (tmp_path / "cut" / "step-00000006" / "index.json").unlink()
    resumed, _ = run(tmp_path / "cut")
    assert equal(whole, resumed)


def poison(monkeypatch: pytest.MonkeyPatch, bad: dict[int, str]) -> None:
    """Make the loss, the gradients or both of some steps (from 1) not finite, by the batch they are given."""
    real, given = (
        pretraining.loss_and_gradients,
        {batches().batch(step - 1).tokens.tobytes(): step for step in bad},
    )

    def poisoned(model: Any, batch: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = real(model, batch, *arguments, **options)
        kind = bad.get(given.get(batch.tokens.tobytes(), 0), "")
        if "gradient" in kind:
            model.layers[1].attention.wo.weight.grad[3, 2] = math.inf if "inf" in kind else math.nan
        return loss * math.nan if "loss" in kind else loss

    monkeypatch.setattr(pretraining, "loss_and_gradients", poisoned)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", ["loss", "gradient nan", "gradient inf"])
def test_a_step_that_is_not_finite_leaves_weights_moments_and_count_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, kind: str
) -> None:
    poison(monkeypatch, {6: kind, 7: kind})
    events: list[Event] = []
    for steps in (5, 7):
        with pytest.raises(Stopped):
            run(tmp_path / str(steps), events, should_stop=stop_after(steps), optimizer=optimizer)
    before = tmp_path / "5" / "step-00000005" / FILE
    assert before.read_bytes() == (tmp_path / "7" / "step-00000007" / FILE).read_bytes()
    skipped = [event for event in events if isinstance(event, SkippedStepEvent)]
    assert [(event.step, event.skipped) for event in skipped] == [(6, 1), (7, 2)]
    assert math.isnan(skipped[0].loss) if kind == "loss" else not math.isfinite(skipped[0].gradient_norm)
    lines = lines_of(tmp_path / "7")
    assert [line["step"] for line in lines] == list(range(1, 8))
    assert lines[5]["loss" if kind == "loss" else "gradient_norm"] is None and lines[5]["skipped"] == 1


def test_a_run_with_skipped_steps_reads_the_same_batches_and_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain = run(tmp_path / "plain")
    poison(monkeypatch, {4: "gradient nan", 5: "gradient nan", 9: "loss"})
    events: list[Event] = []
    whole, lines = run(tmp_path / "whole", events)
    assert [event.step for event in events if isinstance(event, SkippedStepEvent)] == [4, 5, 9]
    assert (
        lines[:3] == plain[:3] and lines[3]["loss"] == plain[3]["loss"] and lines[4]["gradient_norm"] is None
    )
    assert [line["learning_rate"] for line in lines] == [line["learning_rate"] for line in plain]
    assert lines[-1]["loss"] < 4.0 and all(weight.isfinite().all() for weight in whole.values())
    for after in (4, 5, 8):
        with pytest.raises(Stopped):
            run(tmp_path / str(after), should_stop=stop_after(after))
        resumed, again = run(tmp_path / str(after))
        assert equal(whole, resumed) and again == lines


@pytest.mark.parametrize("first", [1, 6])
def test_a_first_step_may_be_skipped_and_ten_in_a_row_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    nine = dict.fromkeys(range(first, first + 9), "gradient nan")
    poison(monkeypatch, nine)
    weights, _ = run(tmp_path / "nine", steps=20)
    assert all(weight.isfinite().all() for weight in weights.values())
    poison(monkeypatch, {**nine, first + 9: "gradient nan"})
    told = (
        rf"training diverged: 10 steps in a row were skipped, .*gradient norm nan at step {first + 9}; lower"
    )
    with pytest.raises(UserError, match=told):
        run(tmp_path / "ten", steps=20)
    with pytest.raises(Stopped):  # the row goes on behind a resume
        run(tmp_path / "cut", steps=20, should_stop=stop_after(first + 4))
    with pytest.raises(UserError, match=told):
        run(tmp_path / "cut", steps=20)


def test_divergence_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training diverged: .* at step \d+; lower train\.learning_rate"):
        run(tmp_path, learning_rate=1e30, warmup_steps=0)


def test_a_short_training_of_skipped_steps_alone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, dict.fromkeys(range(1, 5), "loss"))
    with pytest.raises(UserError, match="training diverged: 4 steps in a row were skipped"):
        run(tmp_path, steps=4)


CPU_FULL = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize(
    "error",
    [RuntimeError(CPU_FULL), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")],
    ids=["cpu", "cuda"],
)
def test_a_batch_that_does_not_fit_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(pretraining, "loss_and_gradients", full)
    with pytest.raises(UserError, match="a batch of 4 sequences of 16 tokens does not fit in memory"):
        run(tmp_path)


def test_what_torch_says_of_full_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60)
    assert trainer._out_of_memory(found.value)


def test_an_error_that_speaks_of_allocation_is_not_taken_for_full_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("tensor of a storage that was not allocated by this allocator")

    monkeypatch.setattr(pretraining, "loss_and_gradients", broken)
    with pytest.raises(RuntimeError, match="not allocated by this allocator"):
        run(tmp_path)
    with pytest.raises(UserError, match=r"torch\.compile fails here: tensor of a storage"):
        run(tmp_path, compile=True)


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("muon", 1)])
def test_the_dry_run_is_one_full_micro_batch_beside_the_moments_and_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, moments: int
) -> None:
    options, how = settings(optimizer=optimizer), execution(micro_batch_sequences=3)
    model = start()
    built = build(model, options)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state, real = repr(built.state_dict()), pretraining.loss_and_gradients
    matrices = [
        weight for name, weight in weights.items() if name.startswith("layers.") and weight.dim() == 2
    ]
    needed = 2 * CONFIG.parameters() - (2 - moments) * sum(weight.numel() for weight in matrices)
    seen = []

    def held() -> int:
        gc.collect()
        return sum(item.numel() for item in gc.get_objects() if type(item) is torch.Tensor)

    def watched(model: Any, batch: Any, *others: Any) -> float:
        seen.append((batch, held() - before))
        return real(model, batch, *others)

    monkeypatch.setattr(pretraining, "loss_and_gradients", watched)
    before = held()
    work = Pretraining(model, batches(), held_out(), options, how)
    trainer.dry_run(model, built, work, compiling=False)
    ((batch, extra),) = seen
    assert batch.tokens.shape == (3, 16) and batch.target_count == 3 * 16
    assert all(len(set(row)) > 1 for row in batch.document_ids.tolist())
    assert extra == needed and held() == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert repr(built.state_dict()) == state and not built.state
    assert not any(parameter.grad is None or parameter.grad.any() for parameter in model.parameters())


def test_a_checkpoint_is_as_large_after_many_steps_as_after_few(tmp_path: Path) -> None:
    """But for digits: of the step, in three files."""
    sizes = []
    for steps in (10, 400):
        with pytest.raises(Stopped):
            run(tmp_path / str(steps), steps=500, should_stop=stop_after(steps), checkpoint_steps=1000)
        (saved,) = (tmp_path / str(steps)).glob("step-*")
        sizes.append(sum(path.stat().st_size for path in saved.iterdir()))
    assert abs(sizes[1] - sizes[0]) <= 8
    assert len(lines_of(tmp_path / "400")) == 400


@pytest.mark.parametrize("tail", [b"", b'{"step": 8, "tok', b'{"step": 8}\n{"step": 9}\n{"st'])
def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path, tail: bytes) -> None:
    run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", should_stop=stop_after(7))
    with (tmp_path / "cut" / LOSSES).open("ab") as file:
        file.write(tail)
    run(tmp_path / "cut")
    assert (tmp_path / "cut" / LOSSES).read_bytes() == (tmp_path / "whole" / LOSSES).read_bytes()


def test_a_checkpoint_whose_losses_are_lost_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    whole, lines = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", should_stop=stop_after(11))
    path = tmp_path / "cut" / LOSSES
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:10]))
    events: list[Event] = []
    resumed, again = run(tmp_path / "cut", events)
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert "does not hold the losses of the steps before" in notices[0] and "of step 10" in notices[1]
    assert equal(whole, resumed) and again == lines


@pytest.mark.parametrize("limit", [300, 30_000], ids=["a line", "a checkpoint"])
def test_nothing_stays_behind_a_full_disk(tmp_path: Path, limit: int) -> None:
    """The file system's word for it: a limit on the size of files, which a line or a checkpoint goes over."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole, lines = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", should_stop=stop_after(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(Exception, match="File too large"):
            run(tmp_path / "cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [LOSSES, "step-00000001"]
    assert (tmp_path / "cut" / LOSSES).read_bytes().endswith(b"}\n")
    resumed, again = run(tmp_path / "cut")
    assert equal(whole, resumed) and again == lines


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # of torch.compile's own looking around
def test_compiled_blocks_give_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    events: list[Event] = []
    _, one = run(tmp_path / "a", steps=6)
    _, other = run(tmp_path / "b", events, steps=6, compile=True)
    assert [entry["loss"] for entry in one] == pytest.approx([entry["loss"] for entry in other], rel=1e-5)
    assert isinstance(events[0], Notice) and "compiled the blocks in" in events[0].text
    whole = [entry["loss"] for entry in run(tmp_path / "whole", steps=40)[1]]
    _, losses = half_way(tmp_path / "changed", compile=True)
    assert losses[20] == pytest.approx(whole[20], rel=1e-6) and losses[-1] == pytest.approx(
        whole[-1], rel=1e-4
    )
    assert any((tmp_path / "cache").rglob("*.so"))


def test_bfloat16_gives_the_same_bits_again_stopped_or_recomputed(tmp_path: Path) -> None:
    whole, expected = run(tmp_path / "whole", precision="bfloat16")
    again, _ = run(tmp_path / "again", precision="bfloat16", remat="full")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", precision="bfloat16", should_stop=stop_after(7))
    resumed, lines = run(tmp_path / "cut", precision="bfloat16")
    assert equal(whole, again) and equal(whole, resumed) and lines == expected


def test_bfloat16_learns_as_float32_does(tmp_path: Path) -> None:
    _, exact = run(tmp_path / "a", steps=40, precision="float32")
    _, rounded = run(tmp_path / "b", steps=40, precision="bfloat16")
    ends = [sum(entry["loss"] for entry in lines[-5:]) for lines in (exact, rounded)]
    assert ends[0] != ends[1] and ends[1] == pytest.approx(ends[0], rel=0.02)


class Regression:
    """Work that is no language model: a plane through points, two figures of its own a step."""

    largest = "one step"

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.x = model, torch.randn(64, 8, generator=torch.Generator().manual_seed(3))

    def loss(self) -> torch.Tensor:
        return (self.model(self.x)[:, 0] - self.x.sum(-1)).square().mean()

    def step(self, step: int) -> Outcome:
        loss = self.loss()
        loss.backward()
        return Outcome(loss.item(), 64 * (step + 1), {"mean": self.model(self.x).mean().item()})

    def dry_run(self) -> None:
        self.loss().backward()

    def validate(self) -> dict[str, float]:
        return {"all": self.loss().item()}


def plane() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))


def test_the_loop_knows_nothing_of_its_work(tmp_path: Path) -> None:
    options, events = settings(steps=200, learning_rate=3e-2), []
    model = plane()
    train(
        model, Regression(model), options, execution(), checkpoints=tmp_path / "whole", on_event=events.append
    )
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert steps[-1].loss < 0.01 * steps[0].loss and set(steps[0].figures) == {"mean"}
    assert lines_of(tmp_path / "whole")[7]["mean"] == steps[7].figures["mean"]
    assert [event.losses for event in events if isinstance(event, ValidationEvent)][-1]["all"] < 0.05
    again = plane()
    with pytest.raises(Stopped):
        train(
            again,
            Regression(again),
            options,
            execution(),
            checkpoints=tmp_path / "cut",
            should_stop=stop_after(77),
        )
    resumed = plane()
    train(resumed, Regression(resumed), options, execution(), checkpoints=tmp_path / "cut")
    assert equal(model.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_weights_stay_and_are_in_no_checkpoint(tmp_path: Path, optimizer: str) -> None:
    def run_frozen(folder: Path, **how: Any) -> Llama:
        model, options = start(), settings(optimizer=optimizer)
        model.requires_grad_(False)
        for name in ("wq", "w2"):
            for layer in model.layers:
                part = layer.attention if name == "wq" else layer.feed_forward
                getattr(part, name).requires_grad_(True)
        work = Pretraining(model, batches(), held_out(), options, execution())
        train(model, work, options, execution(), checkpoints=folder, **how)
        return model

    with pytest.raises(Stopped):
        run_frozen(tmp_path, should_stop=stop_after(7))
    trainable = {f"layers.{n}.{part}.weight" for n in (0, 1) for part in ("attention.wq", "feed_forward.w2")}
    saved = set(load_file(tmp_path / "step-00000007" / FILE))
    assert {name for name in saved if name.endswith(".weight")} == trainable
    assert {name.rpartition(".")[0] for name in saved - trainable} == trainable
    resumed, whole, begun = run_frozen(tmp_path), run_frozen(tmp_path / "whole"), start().state_dict()
    assert equal(resumed.state_dict(), whole.state_dict())
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, begun[name]) is (name not in trainable)
        assert (weight.grad is None) is (name not in trainable)


def test_training_starts_from_the_weights_it_is_given(tmp_path: Path) -> None:
    first, options = start(), settings()
    train(first, Pretraining(first, batches(), {}, options), options, checkpoints=tmp_path / "first")
    losses = lines_of(tmp_path / "first")
    train(first, Pretraining(first, batches(), {}, options), options, checkpoints=tmp_path / "second")
    assert lines_of(tmp_path / "second")[0]["loss"] < losses[0]["loss"] - 0.5


def test_a_run_keeps_the_threads_it_began_with(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        with pytest.raises(Stopped):
            run(tmp_path, threads=2, should_stop=stop_after(3))
        torch.set_num_threads(1)
        events: list[Event] = []
        with pytest.raises(Stopped):
            run(tmp_path, events, should_stop=stop_after(3))
        assert torch.get_num_threads() == 2
        told = [event.text for event in events if isinstance(event, Notice)]
        assert told[1] == "threads are 2 as from its start; execution.threads changes that"
        events.clear()
        run(tmp_path, events, threads=1)
        told = [event.text for event in events if isinstance(event, Notice)]
        assert told[1] == "threads are now 1, not 2 as from its start: equal within rounding from here"
    finally:
        torch.set_num_threads(before)


def test_checkpoints_by_the_clock(tmp_path: Path) -> None:
    """Every step is later than a microsecond after the last save; none is an hour later, but the last."""
    for seconds, steps in ((1e-6, [11, 12]), (3600.0, [12])):
        folder, model, options = tmp_path / str(seconds), start(), settings()
        how, cluster = execution(checkpoint_steps=100), ClusterSettings(checkpoint_seconds=seconds)
        work = Pretraining(model, batches(), {}, options, how)
        train(model, work, options, how, cluster=cluster, checkpoints=folder)
        assert sorted(int(path.name[5:]) for path in folder.glob("step-*")) == steps


def test_allocators_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: int) -> None:
        raise AssertionError(given)

    for names in ((), ("mallopt",)):  # Android has one of the two
        library = SimpleNamespace(**dict.fromkeys(names, refuse))
        monkeypatch.setattr(trainer.ctypes, "CDLL", lambda name, library=library: library)
        trainer.keep_freed_memory()
