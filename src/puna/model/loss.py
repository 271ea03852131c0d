"""The head's loss without ever holding all logits: linear layer and cross-entropy in chunks, gradients in the
forward pass, and only where there is a target."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from puna.model import kernels
from puna.model.block import add_weight_gradient, gradient_of, input_gradient, rounded
from puna.model.kernels import to_device
from puna.model.tensor_parallel import TensorParallelGroup, all_gather, reduce_scatter


def chunk_bytes(device: str) -> int:
    """Bytes of the logits that are there at once. On processors they, and what stands around them, are less
    than 32 MiB, the first block that the allocator gives back (`train.trainer.keep_freed_memory`)."""
    return 1 << 26 if device == "cuda" else (1 << 25) - (1 << 12)


class HeadTargets(NamedTuple):
    """The m of n positions whose loss is computed.

    targets: int64 [m], each a token. weights: float32 [m], a factor of each loss, None for 1. positions:
    int64 [m], rising; None where they are all n.
    """

    targets: Tensor
    weights: Tensor | None = None
    positions: Tensor | None = None

    @classmethod
    def select(cls, targets: Tensor, weights: Tensor | None, device: torch.device) -> "HeadTargets":
        """Take the positions of targets [b, t] that have one (it is not below zero) and whose weight [b, t]
        is not 0, and move them to a device. Which they are is decided where `targets` is."""
        targets = targets.flatten()
        counted = targets >= 0
        if weights is not None:
            weights = weights.flatten().to(targets.device, torch.float32)
            counted &= weights != 0
        positions = counted.nonzero()[:, 0]
        if len(positions) == len(targets):
            return cls(to_device(targets, device), weights if weights is None else to_device(weights, device))
        if weights is not None:
            weights = to_device(weights[positions], device)
        return cls(to_device(targets[positions], device), weights, to_device(positions, device))

    def rows(self, start: int, stop: int) -> "HeadTargets":
        """Some of these positions."""
        rows = slice(start, stop)
        weights, positions = (x if x is None else x[rows] for x in (self.weights, self.positions))
        return HeadTargets(self.targets[rows], weights, positions)


class HeadLoss(torch.autograd.Function):
    """Sum over the selected positions of weight * (cross-entropy + z lse^2).

    With p = softmax(h W') of a chunk and its one-hot targets o: dlogits = weight (p (1 + 2 z lse) - o), dh =
    dlogits W and dW += dlogits' h. They are computed at once, so a chunk's logits live no longer than its
    turn, and backward only multiplies. Where the vocabulary is split over processes, each computes its
    columns of the logits, and log-sums and the processes' terms of dh are added up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        selected: HeadTargets,
        z: float,
        needs_gradient: bool,
        group: TensorParallelGroup | None,
    ) -> Tensor:
        gathering, matrix = all_gather(hidden, group), rounded(weight, hidden.dtype)
        hidden = gathering()
        rows = max(1, chunk_bytes(hidden.device.type) // (hidden.element_size() * len(weight)))
        count = len(selected.targets)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        dhidden = dweight = None
        if needs_gradient and ctx.needs_input_grad[0]:
            dhidden = torch.empty_like(hidden) if selected.positions is None else torch.zeros_like(hidden)
        if needs_gradient and ctx.needs_input_grad[1]:
            dweight = torch.zeros_like(weight)
        needs_gradient = dhidden is not None or dweight is not None
        for start in range(0, count, rows):
            targets, weights, positions = selected.rows(start, start + rows)
            chunk = hidden[start : start + rows] if positions is None else hidden[positions]
            logits = kernels.linear(chunk, matrix)
            if group is None:
                loss, dlogits = kernels.cross_entropy(logits, targets, weights, z, needs_gradient)
            else:
                loss, dlogits = _vocab_parallel_cross_entropy(logits, targets, weights, z, group)
            total += loss
            if dweight is not None:
                add_weight_gradient(dweight, dlogits, chunk)
            if dhidden is not None and positions is not None:
                dhidden.index_copy_(0, positions, input_gradient(dlogits, matrix))
            elif dhidden is not None:
                dhidden[start : start + rows] = input_gradient(dlogits, matrix)
            del logits, dlogits  # before the next ones are made
        if dhidden is not None:
            dhidden = reduce_scatter(dhidden, group)()
        ctx.save_for_backward(dhidden, dweight, weight)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dweight, weight = ctx.saved_tensors
        gradient = gradients[0]
        total = gradient_of(weight)
        if dweight is not None and total is not None and total.device.type == "cpu":
            # Scaled and added in one pass; see `accumulate_weight_gradient`.
            total.add_(dweight, alpha=gradient.item())
            dweight = None
        # In place, since dW is as large as the head; a second backward is refused by autograd.
        dhidden, dweight = (x if x is None else x.mul_(gradient) for x in (dhidden, dweight))
        return dhidden, dweight, None, None, None, None


def _vocab_parallel_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None, z: float, group: TensorParallelGroup
) -> tuple[Tensor, Tensor]:
    """`kernels.cross_entropy` of columns [n, V / p] of the logits, the same loss in every process."""
    wide = kernels.upcast(logits)
    columns = targets - group.rank * wide.shape[1]
    here = ((columns >= 0) & (columns < wide.shape[1]))[:, None]
    columns = columns[:, None].where(here, 0)
    reducing = group.all_reduce(wide.max(-1, keepdim=True).values, largest=True)
    chosen = wide.gather(-1, columns) * here
    highest = reducing()
    exponentials = (wide - highest).exp()
    sums, chosen = group.all_reduce(torch.stack((exponentials.sum(-1, keepdim=True), chosen)))()
    log_sums = highest + sums.log()
    losses = log_sums - chosen + z * log_sums.square()
    gradient = exponentials * ((1 + 2 * z * log_sums) / sums)
    gradient.scatter_add_(-1, columns, -here.to(wide.dtype))
    if weights is not None:
        losses, gradient = losses * weights[:, None], gradient * weights[:, None]
    return losses.double().sum(), gradient.to(logits.dtype)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    selected: HeadTargets,
    *,
    z: float = 0.0,
    group: TensorParallelGroup | None = None,
) -> Tensor:
    """Sum of the losses, float64 [], of logits hidden weight' at the selected positions.

    hidden [n, d], weight [V, d]; under tensor parallelism hidden [n / p, d], weight [V / p, d].
    """
    return HeadLoss.apply(hidden, weight, selected, z, torch.is_grad_enabled(), group)
