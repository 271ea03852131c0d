"""The next token from logits: temperature, top-k, top-p; each row has a random generator of its own."""

import math
import sys

import torch
from torch import Tensor

from puna.errors import UserError

# Below it 1 / temperature is infinite. Differences of float32 logits (1e-45 at least) over it are, too, or
# large enough that only the largest logit has a probability.
COLDEST = sys.float_info.min


def probabilities(logits: Tensor, temperature: float, top_p: float, top_k: int) -> Tensor:
    """Probabilities [b, vocabulary] to draw a token from; temperature 0 puts all on the largest logit.

    top_k: only the k likeliest (0: all). top_p: only the smallest set of likeliest tokens whose probability
    reaches top_p (Holtzman et al. 2019), after temperature and top_k. Raises UserError for logits that are
    not numbers, or infinite; -inf is a token that is never drawn.
    """
    largest = _largest(logits, temperature)
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    # The largest becomes 0 before the division, so that no temperature makes it overflow.
    scaled = (logits.double() - largest.double()) / max(temperature, COLDEST)
    values, order = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k:
        values[..., top_k:] = 0
        values = values / values.sum(-1, keepdim=True)
    if top_p < 1:  # the rounded sums of a whole row may reach 1 before its last tokens
        before = values.cumsum(-1) - values
        values = values.where(before < top_p, 0)
    values = values / values.sum(-1, keepdim=True)
    return torch.zeros_like(values).scatter_(-1, order, values)


def sample(
    logits: Tensor, temperature: float, top_p: float, top_k: int, generators: list[torch.Generator]
) -> Tensor:
    """Draw one token a row, [b], on the logits' device.

    generators: of the CPU, one a row, so that no row depends on the other rows.
    """
    if temperature == 0:
        _largest(logits, temperature)
        return logits.argmax(-1)
    pairs = zip(probabilities(logits, temperature, top_p, top_k).cpu(), generators, strict=True)
    drawn = torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in pairs])
    return drawn.to(logits.device)


def _largest(logits: Tensor, temperature: float) -> Tensor:
    """Each row's largest logit, [b, 1], a finite number. Raises UserError where there is none."""
    if not 0 <= temperature < math.inf:
        raise UserError(f"a temperature is a number from 0 on, not {temperature}")
    largest = logits.amax(-1, keepdim=True)
    if not largest.isfinite().all():
        raise UserError("the model's logits are not finite numbers: its weights are damaged, or it diverged")
    return largest
