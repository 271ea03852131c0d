"""One step's loss and gradient: the same number however the batch is cut, packed or padded."""

import numpy as np
import pytest
import torch

from puna.model.llama import Llama
from puna.tokens.batches import IGNORED, Batch
from puna.train.objective import NextToken, loss_and_gradients, mean_loss

from .small import CONFIG, batches, shard


def model() -> Llama:
    built = Llama(CONFIG).double()
    built.init_weights(5)
    return built


def gradients(built: Llama) -> torch.Tensor:
    present = [parameter.grad for parameter in built.parameters() if parameter.grad is not None]
    return torch.cat([gradient.flatten() for gradient in present])


def loss_by_document(built: Llama, batch: Batch) -> float:
    """Mean loss from each document of each row alone, in log-probabilities."""
    total = count = 0.0
    for row in range(len(batch.tokens)):
        for document in range(batch.document_ids[row].max() + 1):
            here = np.flatnonzero(batch.document_ids[row] == document)
            logits = built(torch.from_numpy(batch.tokens[row : row + 1, here]))[0].log_softmax(-1)
            for position, target in enumerate(batch.targets[row, here]):
                if target != IGNORED:
                    total -= logits[position, target].item()
                    count += 1
    return total / count


def test_packed_loss_is_that_of_each_document_alone() -> None:
    built, batch = model(), batches().batch(3)
    assert batch.document_ids.max() > 0
    expected = loss_by_document(built, batch)
    assert loss_and_gradients(built, batch, 4).item() == pytest.approx(expected, rel=1e-12)
    assert mean_loss(built, batch, 4) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("policy", ["none", "llama", "full"])
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_accumulation_changes_neither_loss_nor_gradient(micro_batch: int, policy: str) -> None:
    batch = batches().batch(0)
    whole, cut = model(), model()
    once = loss_and_gradients(whole, batch, 4, NextToken(policy)).item()
    assert loss_and_gradients(cut, batch, micro_batch, NextToken(policy)).item() == pytest.approx(
        once, rel=1e-13
    )
    torch.testing.assert_close(gradients(cut), gradients(whole), rtol=1e-11, atol=1e-14)


def test_gradient_against_finite_differences() -> None:
    built, batch = model(), batches().batch(1)
    loss_and_gradients(built, batch, 2)
    chance = np.random.default_rng(1)
    for name, parameter in built.named_parameters():
        flat, grad = parameter.detach().view(-1), parameter.grad.view(-1)  # type: ignore[union-attr]
        at = int(chance.integers(len(flat)))
        before = flat[at].item()
        losses = []
        for change in (1e-5, -1e-5):
            flat[at] = before + change
            losses.append(mean_loss(built, batch, 4))
        flat[at] = before
        assert grad[at].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5, abs=1e-9), name


def test_padding_changes_nothing() -> None:
    item = shard(3, 1)
    tokens = item.tokens[:9].astype(np.int64)
    short = Batch(tokens[None, :8], tokens[None, 1:], np.zeros((1, 8), np.int64))
    padded = Batch(
        np.pad(short.tokens, ((0, 0), (0, 8))),
        np.pad(short.targets, ((0, 0), (0, 8)), constant_values=IGNORED),
        np.pad(short.document_ids, ((0, 0), (0, 8)), constant_values=1),
    )
    one, other = model(), model()
    expected = loss_and_gradients(other, padded, 1).item()
    assert loss_and_gradients(one, short, 1).item() == pytest.approx(expected, rel=1e-13)
    torch.testing.assert_close(gradients(one), gradients(other), rtol=1e-11, atol=1e-14)


def test_weights_count_each_target_as_often_as_they_say() -> None:
    """A weight of two is the row twice, of zero the target left out."""
    plain = batches().batch(2)
    weights = np.ones(plain.tokens.shape, np.float32)
    weights[1], weights[2, :7] = 2, 0
    weighted = Batch(plain.tokens, plain.targets, plain.document_ids, weights)
    rows = [0, 1, 1, 2, 3]
    targets = plain.targets[rows].copy()
    targets[3, :7] = IGNORED
    repeated = Batch(plain.tokens[rows], targets, plain.document_ids[rows])
    assert weighted.weight == repeated.weight == repeated.target_count
    one, other = model(), model()
    expected = loss_and_gradients(other, repeated, 2).item()
    assert loss_and_gradients(one, weighted, 3).item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradients(one), gradients(other), rtol=1e-11, atol=1e-14)
    assert mean_loss(one, weighted, 1) == pytest.approx(expected, rel=1e-12)
