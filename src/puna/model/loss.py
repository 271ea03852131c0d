"""The head's loss without ever holding all logits: linear layer and cross-entropy in chunks, gradients in the
forward pass."""

from typing import Any

import torch
from torch import Tensor

from puna.model import kernels
from puna.model.remat import add_by_weight
from puna.model.tensor_parallel import Split, gather, scatter

CHUNK_FLOATS = 1 << 24  # logits of 64 MB in float32 at once


class HeadLoss(torch.autograd.Function):
    """scale * sum of (cross-entropy + z lse^2) over the targets that are not ignored.

    With p = softmax(h W') of a chunk and its one-hot targets o: dlogits = scale (p (1 + 2 z lse) - o), dh =
    dlogits W and dW += dlogits' h. They are made at once, so a chunk's logits live no longer than its turn,
    and backward only multiplies. Where the vocabulary is split over processes, each makes its columns of the
    logits, and log-sums and parts of dh are added up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: float,
        z: float,
        wanted: bool,
        split: Split | None,
    ) -> Tensor:
        whole, matrix = gather(hidden, split), weight.to(hidden.dtype)
        rows = max(1, CHUNK_FLOATS // len(weight))
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        dhidden = torch.empty_like(whole) if wanted else None
        dweight = torch.zeros_like(weight) if wanted else None
        room = hidden.new_empty(
            min(rows, len(whole)), len(weight)
        )  # one piece of memory for the logits of every chunk
        for start in range(0, len(whole), rows):
            part, aims = whole[start : start + rows], targets[start : start + rows]
            logits = torch.mm(part, matrix.t(), out=room[: len(part)])
            loss, slope = (
                kernels.cross_entropy(logits, aims, scale, z, wanted)
                if split is None
                else _split(logits, aims, scale, z, split)
            )
            total += loss
            if dhidden is not None and dweight is not None:
                torch.mm(slope, matrix, out=dhidden[start : start + rows])
                add_by_weight(dweight, slope, part)
        if dhidden is not None:
            ctx.save_for_backward(scatter(dhidden, split)(), dweight)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dweight = ctx.saved_tensors
        given = gradients[0]
        if given.device.type != "cpu" or given.item() != 1.0:
            dhidden, dweight = dhidden * given, dweight * given
        return dhidden, dweight, None, None, None, None, None


def _split(logits: Tensor, targets: Tensor, scale: float, z: float, split: Split) -> tuple[Tensor, Tensor]:
    """`kernels.cross_entropy` of columns [n, V / p] of the logits, the same loss in every process."""
    wide = kernels.wide_of(logits)
    places = targets - split.rank * wide.shape[1]
    here = ((places >= 0) & (places < wide.shape[1]))[:, None]
    places = places[:, None].where(here, 0)
    top = split.sum(wide.max(-1, keepdim=True).values, largest=True)
    chosen = wide.gather(-1, places) * here
    powers = (wide - top).exp()
    sums, chosen = split.sum(torch.stack((powers.sum(-1, keepdim=True), chosen)))
    log_sums, known = top + sums.log(), (targets >= 0)[:, None]
    gradient = powers * ((1 + 2 * z * log_sums) / sums)
    gradient.scatter_add_(-1, places, -here.to(wide.dtype))
    return ((log_sums - chosen + z * log_sums.square()) * known).double().sum(), (
        gradient * (known * scale)
    ).to(logits.dtype)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: float = 1.0,
    z: float = 0.0,
    split: Split | None = None,
) -> Tensor:
    """Scaled sum of losses, float64 []. hidden [n, d], weight [V, d], targets int64 [n], below zero where
    there is none; under a split hidden [n / p, d], weight [V / p, d]."""
    return HeadLoss.apply(hidden, weight, targets, scale, z, torch.is_grad_enabled(), split)
