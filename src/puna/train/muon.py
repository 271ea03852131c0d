"""Muon: orthogonalized momentum for the matrices of the layers (Jordan et al. 2024), AdamW for the others."""

import math
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximate U V^T of a matrix U S V^T by five Newton-Schulz iterations.

    X <- a X + b X X^T X + c (X X^T)^2 X from X = matrix / |matrix|. a, b, c are those of Jordan et al. 2024,
    steep at zero: singular values above 0.003 of the Frobenius norm |matrix| end between 0.68 and 1.21,
    smaller ones below. In the matrix's own precision: torch.optim.Muon iterates in bfloat16, which is wrong
    by 1% and slow on CPUs without units for it.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # so that X X^T is the smaller of the two
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.AdamW):
    """AdamW, except in parameter groups with `"muon": True`. There, for a matrix W [n, m] with gradient G:

    M <- 0.95 M + G, W <- W - rate (weight_decay W + 0.2 sqrt(max(n, m)) orthogonal(G + 0.95 M))

    That is Nesterov's momentum (Jordan et al. 2024), and a factor that makes updates as large as AdamW's
    usually are, 0.2 in root mean square, so that rate and weight decay carry over (Liu et al. 2025, section
    2.2).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step: Muon's in its groups, AdamW's in the others."""
        groups = self.param_groups
        for group in groups:
            if group.get("muon"):
                self._muon_step(group)
        self.param_groups = [group for group in groups if not group.get("muon")]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _muon_step(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            state, gradient = self.state[weight], weight.grad
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].mul_(MOMENTUM).add_(gradient)
            direction = orthogonal(gradient.add(momentum, alpha=MOMENTUM))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))
