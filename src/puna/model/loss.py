"""The head's loss without ever holding all logits: linear layer and cross-entropy in chunks, gradients in the
forward pass."""

from typing import Any

import torch
from torch import Tensor

from puna.model import kernels
from puna.model.remat import add_weight_gradient
from puna.model.tensor_parallel import TensorParallelGroup, all_gather, reduce_scatter

CHUNK_FLOATS = 1 << 24  # logits of 64 MB in float32 at once


class HeadLoss(torch.autograd.Function):
    """scale * sum of (cross-entropy + z lse^2) over the targets that are not ignored.

    With p = softmax(h W') of a chunk and its one-hot targets o: dlogits = scale (p (1 + 2 z lse) - o), dh =
    dlogits W and dW += dlogits' h. They are computed at once, so a chunk's logits live no longer than its
    turn, and backward only multiplies. Where the vocabulary is split over processes, each computes its
    columns of the logits, and log-sums and the processes' terms of dh are added up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: float,
        z: float,
        needs_gradient: bool,
        group: TensorParallelGroup | None,
    ) -> Tensor:
        hidden, matrix = all_gather(hidden, group), weight.to(hidden.dtype)
        rows = max(1, CHUNK_FLOATS // len(weight))
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        dhidden = torch.empty_like(hidden) if needs_gradient else None
        dweight = torch.zeros_like(weight) if needs_gradient else None
        buffer = hidden.new_empty(min(rows, len(hidden)), len(weight))  # for the logits of every chunk
        for start in range(0, len(hidden), rows):
            chunk, chunk_targets = hidden[start : start + rows], targets[start : start + rows]
            logits = torch.mm(chunk, matrix.t(), out=buffer[: len(chunk)])
            if group is None:
                loss, dlogits = kernels.cross_entropy(logits, chunk_targets, scale, z, needs_gradient)
            else:
                loss, dlogits = _vocab_parallel_cross_entropy(logits, chunk_targets, scale, z, group)
            total += loss
            if dhidden is not None and dweight is not None:
                torch.mm(dlogits, matrix, out=dhidden[start : start + rows])
                add_weight_gradient(dweight, dlogits, chunk)
        if dhidden is not None:
            ctx.save_for_backward(reduce_scatter(dhidden, group)(), dweight)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dweight = ctx.saved_tensors
        gradient = gradients[0]
        if gradient.device.type != "cpu" or gradient.item() != 1.0:
            dhidden, dweight = dhidden * gradient, dweight * gradient
        return dhidden, dweight, None, None, None, None, None


def _vocab_parallel_cross_entropy(
    logits: Tensor, targets: Tensor, scale: float, z: float, group: TensorParallelGroup
) -> tuple[Tensor, Tensor]:
    """`kernels.cross_entropy` of columns [n, V / p] of the logits, the same loss in every process."""
    wide = kernels.upcast(logits)
    columns = targets - group.rank * wide.shape[1]
    here = ((columns >= 0) & (columns < wide.shape[1]))[:, None]
    columns = columns[:, None].where(here, 0)
    highest = group.all_reduce(wide.max(-1, keepdim=True).values, largest=True)
    chosen = wide.gather(-1, columns) * here
    exponentials = (wide - highest).exp()
    sums, chosen = group.all_reduce(torch.stack((exponentials.sum(-1, keepdim=True), chosen)))
    log_sums, has_target = highest + sums.log(), (targets >= 0)[:, None]
    losses = (log_sums - chosen + z * log_sums.square()) * has_target
    gradient = exponentials * ((1 + 2 * z * log_sums) / sums)
    gradient.scatter_add_(-1, columns, -here.to(wide.dtype))
    return losses.double().sum(), (gradient * (has_target * scale)).to(logits.dtype)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: float = 1.0,
    z: float = 0.0,
    group: TensorParallelGroup | None = None,
) -> Tensor:
    """Scaled sum of losses, float64 [], of logits hidden weight'.

    hidden [n, d], weight [V, d], targets int64 [n], below zero where there is none; under tensor parallelism
    hidden [n / p, d], weight [V / p, d].
    """
    return HeadLoss.apply(hidden, weight, targets, scale, z, torch.is_grad_enabled(), group)
