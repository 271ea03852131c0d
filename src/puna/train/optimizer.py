"""AdamW and the learning-rate schedule of the paper (section 2.3), and a newer alternative to each: Muon, and
warm-up-stable-decay."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from puna.model.tensor_parallel import local
from puna.train.health import Judge, Judged
from puna.train.parallel import ALONE, Parallel, box_of
from puna.train.settings import OptimizerSettings

MOMENTUM = 0.95  # of Muon


def learning_rate(step: int, settings: OptimizerSettings) -> float:
    """Rate of step `step` (from 0): a linear warm-up to the peak, then a decay.

    The last step has `final_learning_rate_fraction` of the peak, however long the warm-up is; so has the only
    one of a training of one step. cosine: half a period from the warm-up on. wsd: the peak first, then in the
    last `decay_steps` a straight line (warm-up-stable-decay: Hu et al. 2024, MiniCPM, whose decay is
    exponential); the peak to the end where `decay_fraction` is 0.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    floor = settings.final_learning_rate_fraction
    if settings.schedule == "wsd":
        decayed = max(0, step + 1 - (settings.steps - settings.decay_steps)) / max(1, settings.decay_steps)
        return settings.learning_rate * (1 - (1 - floor) * min(1.0, decayed))
    decaying = settings.steps - 1 - settings.warmup_steps
    progress = min(1.0, (step - settings.warmup_steps) / decaying) if decaying else 1.0
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def build(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Make AdamW with weight decay on matrices, embedding and head included, and none on the norms' weights.

    With `optimizer` muon, the matrices of the layers take Muon's step instead, with the same rate and weight
    decay. Parameters that need no gradient have no part in it. Gradients are allocated here, for the whole
    run: allocated anew in every backward they would lie
    between the activations and fragment the memory that those free.
    """
    groups: dict[str, dict[str, Any]] = {
        "matrices": {"params": [], "weight_decay": settings.weight_decay},
        "no_decay": {"params": [], "weight_decay": 0.0},
        "muon": {"params": [], "weight_decay": settings.weight_decay, "muon": True},
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        by_muon = settings.optimizer == "muon" and name.startswith("layers.")
        group = "muon" if by_muon else "matrices"
        groups[group if parameter.dim() >= 2 else "no_decay"]["params"].append(parameter)
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    optimizer = Muon if settings.optimizer == "muon" else torch.optim.AdamW
    return optimizer(
        list(groups.values()),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=1e-8,
        fused=True,
    )


def update(
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    step: int,
    settings: OptimizerSettings,
    loss: Tensor | float = 0.0,
    judge: Judge | None = None,
    parallel: Parallel = ALONE,
    part: Tensor | float = 0.0,
) -> Judged:
    """Clip the gradients, take one step at the schedule's rate, set the gradients to zero.

    loss: of this step, in nats; part: of it, what this process computed. Where the step is not to be taken,
    by the judge or since something is not finite, weights, moments and the optimizer's count of steps keep
    their bits; the host waits for nothing.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    total = torch.nn.utils.get_total_norm(gradients)
    whole = total.full_tensor() if hasattr(total, "full_tensor") else total
    several = parallel.team.size > 1
    own = torch.nn.utils.get_total_norm([local(each) for each in gradients]) if several else whole
    figures = (torch.as_tensor(value, device=whole.device).double() for value in (loss, whole, part, own))
    judged = (judge or Judge()).judge(*parallel.agreed(*figures), whole.dtype)
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), settings.gradient_clip, judged.norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.found_inf = judged.left_out  # type: ignore[attr-defined]  # the fused step reads it
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return judged


def zero_moments(optimizer: torch.optim.AdamW) -> list[torch.Tensor]:
    """Memory as large as the moments will be: two numbers a weight with AdamW, one with Muon."""
    return [
        torch.zeros_like(parameter)
        for group in optimizer.param_groups
        for parameter in group["params"]
        for _ in range(1 if group.get("muon") else 2)
    ]


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


def _orthogonal_part(matrix: Tensor) -> Tensor:
    """This process's part of `orthogonal(matrix)`, which each computes of the whole."""
    if type(matrix) is Tensor:
        return orthogonal(matrix)
    box = box_of(matrix)
    places = (slice(start, start + size) for start, size in zip(box.start, box.shape, strict=True))
    return orthogonal(matrix.full_tensor())[tuple(places)]  # type: ignore[attr-defined]


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
        left_out = self.found_inf.bool()  # type: ignore[attr-defined]
        for weight in group["params"]:
            state, gradient = self.state[weight], weight.grad
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum, held = local(state["momentum"]), local(weight)
            added = momentum.mul(MOMENTUM).add_(local(gradient))
            momentum.copy_(torch.where(left_out, momentum, added))
            direction = _orthogonal_part(gradient.add(state["momentum"], alpha=MOMENTUM))
            moved = held.mul(1 - group["lr"] * group["weight_decay"])
            moved.add_(direction, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))
            held.copy_(torch.where(left_out, held, moved))
