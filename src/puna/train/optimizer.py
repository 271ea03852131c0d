"""AdamW and the learning-rate schedule of the paper (section 2.3)."""

import math

import torch

from puna.model.llama import Llama
from puna.train.settings import TrainSettings


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Rate of step `step` (from 0): a linear warm-up, then a cosine down to `minimum_learning_rate` of the peak at the last step."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - 1 - settings.warmup_steps)
    floor = settings.minimum_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def adamw(model: Llama, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices (the embedding and the head included) and none on the gains of the norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), eps=1e-8, fused=True)


def update(model: Llama, optimizer: torch.optim.AdamW, step: int, settings: TrainSettings) -> float:
    """Clip the gradients, take one step at the schedule's rate, clear the gradients; the global gradient norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm.item()
