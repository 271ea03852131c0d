"""Muon: momentum made orthogonal, for the matrices of the layers (Jordan et al. 2024), beside AdamW for all
else."""

import math

import torch
from torch import Tensor

MOMENTUM = 0.95


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix U S V^T: five Newton-Schulz iterations X <- a X + b X X^T X + c (X X^T)^2 X
    from X = matrix / |matrix|.

    a, b, c are those of Jordan et al. 2024, steep at zero: singular values above 0.003 of the Frobenius norm
    |matrix| end between 0.68 and 1.21, smaller ones below. In the matrix's own precision: torch.optim.Muon
    iterates in bfloat16, which is wrong by 1% and slow on processors without units for it.
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

    That is Nesterov's momentum (Jordan et al. 2024), and a factor with which an update is as large as AdamW's
    usually are, 0.2 in root mean square, so that rate and weight decay carry over (Liu et al. 2025, section
    2.2).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step: Muon's groups here, the others AdamW's."""
        groups = self.param_groups
        for group in groups:
            for weight in group["params"] if group.get("muon") else ():
                state, gradient = self.state[weight], weight.grad
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(MOMENTUM).add_(gradient)
                direction = orthogonal(gradient.add(momentum, alpha=MOMENTUM))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))
        self.param_groups = [group for group in groups if not group.get("muon")]
        try:
            super().step()
        finally:
            self.param_groups = groups
