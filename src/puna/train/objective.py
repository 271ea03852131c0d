"""A batch's loss and its gradients, whatever a training is for.

An objective is (model, rows) -> (summed loss, weight): the loss of some rows, summed and not averaged, and
what it is to be divided by. What is trained on is a `Batch`, or another class with `weight` and
`micro_batches`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from puna.model.block import rounded_once
from puna.model.kernels import to_device
from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.train.parallel import ALONE, Parallel


class Weighted(Protocol):
    """What an objective is computed on. weight: of all its rows; known before anything is computed, so that
    each micro-batch's gradients are added with their share."""

    @property
    def weight(self) -> float: ...

    def micro_batches(self, size: int) -> Iterator[Self]: ...


Objective = Callable[[Any, Any], tuple[Tensor, float]]


@dataclass(frozen=True)
class NextToken:
    """The loss of a language model: cross-entropy of each position's target, times its weight.

    remat: a policy of `puna.model.block`, None: autograd on plain operations. z_loss: factor of the squared
    log-sum that is added to each loss. dtype: of activations and products, default: the weights'.
    """

    remat: str | None = "none"
    z_loss: float = 0.0
    dtype: torch.dtype | None = None

    def __call__(self, model: Llama, rows: Batch) -> tuple[Tensor, float]:
        loss = model.loss(
            torch.from_numpy(rows.tokens),
            torch.from_numpy(rows.targets),
            weights=None if rows.weights is None else torch.from_numpy(rows.weights),
            document_ids=torch.from_numpy(rows.document_ids),
            remat=self.remat,
            z=self.z_loss,
            dtype=self.dtype,
        )
        return loss, rows.weight


def loss_and_gradients(
    model: Any,
    batch: Weighted,
    micro_batch: int,
    objective: Objective = NextToken(),
    parallel: Parallel = ALONE,
) -> Tensor:
    """Add the gradients of the mean loss over a batch to `.grad`; return this process's part of that loss, in
    nats per token, float64 [], on the model's device: `parallel.total` sums the parts.

    Each micro-batch's loss is summed and divided by the weight of the whole batch, so accumulation, packing,
    padding and the number of processes do not change the number. batch: this data rank's part of it.
    """
    device = next(model.parameters()).device
    total = parallel.total(to_device(torch.tensor(batch.weight, dtype=torch.float64), device))
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with rounded_once():
        pieces = list(batch.micro_batches(micro_batch))
        for number, rows in enumerate(pieces, 1):
            if hasattr(model, "set_requires_gradient_sync"):  # by FSDP2, which reduces them once a step
                model.set_requires_gradient_sync(number == len(pieces))
            summed, _ = objective(model, rows)
            mean = summed / total
            mean.backward()
            loss += mean.detach()
    return loss


@torch.no_grad()
def mean_loss(
    model: Any,
    batch: Weighted,
    micro_batch: int,
    objective: Objective = NextToken(remat="llama"),
    parallel: Parallel = ALONE,
) -> float:
    """Mean loss over a batch, without gradients, in nats per token. batch: this data rank's part of it."""
    device = next(model.parameters()).device
    loss, weight = torch.zeros((), dtype=torch.float64), 0.0
    with rounded_once():
        for rows in batch.micro_batches(micro_batch):
            summed, counted = objective(model, rows)
            loss, weight = loss + summed.cpu(), weight + counted
    loss, total = parallel.total(torch.stack((loss, torch.tensor(weight).double())).to(device)).tolist()
    return loss / total
