"""The head's loss without ever holding all logits: linear layer and cross-entropy in chunks, gradients in the forward pass."""

from typing import Any

import torch
from torch import Tensor

from puna.model import kernels

CHUNK_FLOATS = 1 << 24  # logits of 64 MB in float32 at once


class HeadLoss(torch.autograd.Function):
    """scale * sum of (cross-entropy + z lse^2) over the targets that are not ignored.

    With p = softmax(h W') of a chunk and its one-hot targets o: dlogits = scale (p (1 + 2 z lse) - o), dh = dlogits W and
    dW += dlogits' h. They are made at once, so a chunk's logits live no longer than its turn, and backward only multiplies.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, z: float, wanted: bool) -> Tensor:
        rows = max(1, CHUNK_FLOATS // weight.shape[0])
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        dhidden = torch.empty_like(hidden) if wanted else None
        dweight = torch.zeros_like(weight) if wanted else None
        room = hidden.new_empty(min(rows, len(hidden)), weight.shape[0])  # one piece of memory for the logits of every chunk
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            logits = torch.mm(part, weight.t(), out=room[: len(part)])
            loss, slope = kernels.cross_entropy(logits, targets[start : start + rows], scale, z, wanted)
            total += loss
            if dhidden is not None and dweight is not None:
                torch.mm(slope, weight, out=dhidden[start : start + rows])
                dweight.addmm_(slope.t(), part)
        if wanted:
            ctx.save_for_backward(dhidden, dweight)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dweight = ctx.saved_tensors
        given = gradients[0]
        if given.device.type != "cpu" or given.item() != 1.0:
            dhidden, dweight = dhidden * given, dweight * given
        return dhidden, dweight, None, None, None, None


def loss(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0, z: float = 0.0) -> Tensor:
    """Scaled sum of losses, float64 []. hidden [n, d], weight [V, d], targets int64 [n], below zero where there is none."""
    return HeadLoss.apply(hidden, weight, targets, scale, z, torch.is_grad_enabled())
