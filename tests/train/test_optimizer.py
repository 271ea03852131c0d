"""The schedules, AdamW and Muon against their formulas in float64."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from puna.model.llama import Llama
from puna.train import checkpoint
from puna.train.health import NOT_FINITE
from puna.train.losses import Losses
from puna.train.objective import loss_and_gradients
from puna.train.optimizer import build, learning_rate, orthogonal, update

from .small import CONFIG, batches, settings

Arrays = dict[str, np.ndarray]


def test_cosine_by_its_formula() -> None:
    options = settings(steps=101, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step, options) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and rates[100] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(0, settings(warmup_steps=0)) == pytest.approx(1e-2)


def test_warm_up_stable_decay_by_its_formula() -> None:
    options = settings(
        steps=100,
        warmup_steps=10,
        learning_rate=2.0,
        schedule="wsd",
        decay_fraction=0.3,
        final_learning_rate_fraction=0.1,
    )
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:70] == [2.0] * 60
    assert rates[70:] == pytest.approx([2.0 - 1.8 * count / 30 for count in range(1, 31)])
    without_decay = options.model_copy(update={"decay_fraction": 0.0})
    assert learning_rate(99, without_decay) == 2.0
    to_zero = options.model_copy(update={"final_learning_rate_fraction": 0.0})
    assert learning_rate(99, to_zero) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 50])
def test_the_last_rate_is_the_final_one_for_any_warm_up(steps: int, schedule: str) -> None:
    for warmup in {0, 1, 2, steps - 2, steps - 1} & set(range(steps)):
        options = settings(
            steps=steps, warmup_steps=warmup, learning_rate=1.0, schedule=schedule, decay_fraction=1 / steps
        )
        rates = [learning_rate(step, options) for step in range(steps)]
        assert rates[-1] == pytest.approx(0.1), warmup
        assert rates[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
        assert warmup == steps - 1 or max(rates) == 1.0


def test_a_small_decay_is_one_step_at_least() -> None:
    short = settings(steps=2, warmup_steps=1, schedule="wsd", decay_fraction=0.2, learning_rate=1.0)
    assert (short.decay_steps, short.decay_start) == (1, 1)
    assert [learning_rate(step, short) for step in range(2)] == pytest.approx([1.0, 0.1])
    assert short.model_copy(update={"decay_fraction": 0.0}).decay_steps == 0


def test_warm_up_and_decay_may_touch_and_not_overlap() -> None:
    settings(steps=100, warmup_steps=70, schedule="wsd", decay_fraction=0.3)
    settings(steps=100, warmup_steps=71, decay_fraction=0.3)
    with pytest.raises(
        ValidationError,
        match=r"warmup_steps 71 and 30 steps of decay \(decay_fraction 0\.3\) are more than steps 100",
    ):
        settings(steps=100, warmup_steps=71, schedule="wsd", decay_fraction=0.3)


class Reference:
    """Decoupled AdamW (Loshchilov and Hutter 2019) and Muon (Jordan et al. 2024; Liu et al. 2025) written out
    in numpy."""

    def __init__(self, weights: Arrays, muon: bool) -> None:
        self.weights, self.muon = weights, muon
        self.first = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.second = {name: np.zeros_like(weight) for name, weight in weights.items()}

    def step(self, gradients: Arrays, count: int, rate: float, decay: float) -> None:
        for name, weight in self.weights.items():
            gradient, first = gradients[name], self.first[name]
            weight *= 1 - rate * (decay if weight.ndim == 2 else 0.0)
            if self.muon and weight.ndim == 2 and name not in ("tok_embeddings.weight", "output.weight"):
                first[:] = 0.95 * first + gradient
                weight -= rate * 0.2 * math.sqrt(max(weight.shape)) * newton_schulz(gradient + 0.95 * first)
                continue
            second = self.second[name]
            first[:] = 0.9 * first + 0.1 * gradient
            second[:] = 0.95 * second + 0.05 * gradient**2
            weight -= rate * first / (1 - 0.9**count) / (np.sqrt(second / (1 - 0.95**count)) + 1e-8)


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Apply the odd polynomial of Jordan et al. 2024 five times to the singular values.

    They are all that an iteration changes.
    """
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sqrt((values**2).sum())
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_update_is_clipped_and_by_its_formula(name: str) -> None:
    """Ten steps with gradients of very different size."""
    options = settings(steps=10, warmup_steps=2, gradient_clip=0.5, optimizer=name)
    model = Llama(CONFIG).double()
    model.init_weights(3)
    optimizer = build(model, options)
    weights = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    reference = Reference(weights, muon=name == "muon")
    chance = np.random.default_rng(0)
    for step in range(10):
        size = 10.0 ** (step % 3 - 2)
        gradients = {name: chance.normal(size=weight.shape) * size for name, weight in weights.items()}
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients[name].copy())
        norm = update(model, optimizer, step, options).norm.item()
        expected = math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        assert norm == pytest.approx(expected)
        assert optimizer.param_groups[0]["lr"] == learning_rate(step, options)
        scale = min(1.0, 0.5 / (expected + 1e-6))
        clipped = {name: gradient * scale for name, gradient in gradients.items()}
        reference.step(clipped, step + 1, learning_rate(step, options), 0.1)
        assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)
    for name, parameter in model.named_parameters():
        found = parameter.detach().numpy()
        np.testing.assert_allclose(found, weights[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_update_that_is_not_finite_is_not_taken(name: str, bad: float) -> None:
    options = settings(optimizer=name)
    model = Llama(CONFIG)
    model.init_weights(1)
    optimizer = build(model, options)
    loss_and_gradients(model, batches().batch(0), 4)
    update(model, optimizer, 0, options)

    def everything() -> list[bytes]:
        state = (value for entry in optimizer.state.values() for value in entry.values())
        return [value.detach().numpy().tobytes() for value in (*model.parameters(), *state)]

    before = everything()
    for loss, gradient in ((1.0, bad), (bad, 1.0)):
        loss_and_gradients(model, batches().batch(1), 4)
        weight = model.layers[0].attention.wq.weight
        assert weight.grad is not None
        weight.grad[2, 1] = gradient
        judged = update(model, optimizer, 1, options, loss)
        assert math.isfinite(judged.norm.item()) == math.isfinite(gradient)
        assert judged.left_out == 1 and judged.verdict == NOT_FINITE
        assert everything() == before
        assert not any(parameter.grad is None or parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(192, 192), (512, 192), (192, 512)])
def test_orthogonal_keeps_singular_vectors_and_evens_out_the_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix * 1e-6)
    np.testing.assert_allclose(found.numpy(), newton_schulz(matrix.double().numpy()), atol=2e-5)
    values = np.linalg.svd(found.double().numpy(), compute_uv=False)
    assert values.max() < 1.21 and abs(np.median(values) - 1) < 0.2
    square = shape[0] == shape[1]  # a square random matrix has values near zero, which stay small
    assert values.min() > 0.68 or square
    assert not orthogonal(torch.zeros(shape)).any()


def test_an_update_of_muon_is_as_large_as_adamw_s() -> None:
    """Its root mean square is 0.2 times the rate (Liu et al. 2025, section 2.2), for any shape and size of
    the gradient."""
    model = Llama(CONFIG.model_copy(update={"dim": 64, "ffn_dim": 176}))
    model.init_weights(1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (number % 4 - 4)
    options = settings(optimizer="muon", weight_decay=0.0, warmup_steps=0)
    update(model, build(model, options), 0, options)
    for name, parameter in model.named_parameters():
        if name.startswith("layers.") and parameter.dim() == 2:
            root_mean_square = (parameter - before[name]).square().mean().sqrt().item()
            assert root_mean_square == pytest.approx(0.2 * 1e-2, rel=0.2), name


def test_embedding_head_and_norms_go_on_with_adamw() -> None:
    """One step with Muon and one without give them the same bits."""
    after: dict[str, dict[str, torch.Tensor]] = {}
    for name in ("adamw", "muon"):
        model = Llama(CONFIG)
        model.init_weights(1)
        options = settings(optimizer=name)
        loss_and_gradients(model, batches().batch(0), 4)
        update(model, build(model, options), 0, options)
        after[name] = model.state_dict()
    same = {key for key, value in after["adamw"].items() if torch.equal(value, after["muon"][key])}
    shape = {key: value.dim() for key, value in after["adamw"].items()}
    assert same == {key for key in shape if shape[key] < 2 or not key.startswith("layers.")}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_run_takes_the_same_steps_bit_for_bit(tmp_path: Path, name: str) -> None:
    options = settings(optimizer=name, schedule="wsd")

    def begin(seed: int) -> tuple[Llama, Any]:
        model = Llama(CONFIG)
        model.init_weights(seed)
        return model, build(model, options)

    def steps(model: Llama, optimizer: torch.optim.AdamW, first: int, last: int) -> None:
        for step in range(first, last):
            loss_and_gradients(model, batches().batch(step), 4)
            update(model, optimizer, step, options)

    model, optimizer = begin(1)
    steps(model, optimizer, 0, 5)
    losses = Losses(tmp_path / "losses.jsonl")
    losses.begin()
    for step in range(5):
        losses.append({"step": step + 1})
    with checkpoint.Saver(model, optimizer, losses) as saver:
        saver.save(tmp_path, checkpoint.Progress(5))
    other, resumed = begin(2)
    progress, _ = checkpoint.resume(tmp_path, other, resumed, Losses(losses.path), most_steps=5)
    assert progress.step == 5
    state, again = optimizer.state_dict()["state"], resumed.state_dict()["state"]
    assert state.keys() == again.keys()
    for number, entry in state.items():
        assert entry.keys() == again[number].keys()
        assert all(torch.equal(value, again[number][key]) for key, value in entry.items())
    steps(model, optimizer, 5, 12)
    steps(other, resumed, 5, 12)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_weight_is_updated_once(name: str) -> None:
    model = Llama(CONFIG.model_copy(update={"tie_embeddings": True}))
    optimizer = build(model, settings(optimizer=name))
    listed = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())


def test_what_a_schedule_does_not_read_is_no_part_of_it() -> None:
    assert settings(decay_fraction=0.3) == settings()
    assert settings(decay_fraction=0.3, schedule="wsd") != settings(schedule="wsd")
