"""The schedule and AdamW against their formulas in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from puna.model.llama import Llama
from puna.train.optimizer import adamw, learning_rate, update

from .small import CONFIG, settings


def test_schedule_by_its_formula() -> None:
    options = settings(steps=101, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(step, options) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and rates[100] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.1 + 0.9 * 0.5)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(0, settings(warmup_steps=0)) == pytest.approx(1e-2)


def test_update_is_clipped_adamw() -> None:
    """Ten steps of decoupled AdamW (Loshchilov and Hutter 2019) written out in numpy."""
    options = settings(steps=10, warmup_steps=2, gradient_clip=0.5)
    model = Llama(CONFIG).double()
    model.init_weights(3)
    names = [name for name, _ in model.named_parameters()]
    optimizer = adamw(model, options)
    weights = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    first = {name: np.zeros_like(weight) for name, weight in weights.items()}
    second = {name: np.zeros_like(weight) for name, weight in weights.items()}
    chance = np.random.default_rng(0)
    for step in range(10):
        gradients = {name: chance.normal(size=weights[name].shape) * 10.0 ** (step % 3 - 2) for name in names}
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients[name].copy())
        norm = update(model, optimizer, step, options)
        expected = math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        assert norm == pytest.approx(expected)
        scale = min(1.0, 0.5 / (expected + 1e-6))
        rate = learning_rate(step, options)
        for name in names:
            gradient = gradients[name] * scale
            weights[name] *= 1 - rate * (0.1 if weights[name].ndim == 2 else 0.0)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            mean, deviation = first[name] / (1 - 0.9 ** (step + 1)), np.sqrt(second[name] / (1 - 0.95 ** (step + 1)))
            weights[name] -= rate * mean / (deviation + 1e-8)
        assert all(parameter.grad is None for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-9, atol=1e-12)


def test_tied_weights_are_updated_once() -> None:
    model = Llama(CONFIG.model_copy(update={"tie_embeddings": True}))
    optimizer = adamw(model, settings())
    count = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    assert count == model.config.parameters()
