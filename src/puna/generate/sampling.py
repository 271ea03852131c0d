"""The next token from logits: temperature, top-k, top-p; each row has a random generator of its own."""

import torch
from torch import Tensor


def probabilities(logits: Tensor, temperature: float, top_p: float, top_k: int) -> Tensor:
    """Probabilities [b, vocabulary] to draw a token from; temperature 0 puts all on the largest logit.

    top_k: only the k likeliest (0: all). top_p: only the smallest set of likeliest tokens whose probability
    reaches top_p (Holtzman et al. 2019), after temperature and top_k.
    """
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    values, order = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k:
        values[..., top_k:] = 0
        values = values / values.sum(-1, keepdim=True)
    before = values.cumsum(-1) - values
    values = values.where(before < top_p, 0)
    values = values / values.sum(-1, keepdim=True)
    return torch.zeros_like(values).scatter_(-1, order, values)


def sample(
    logits: Tensor, temperature: float, top_p: float, top_k: int, generators: list[torch.Generator]
) -> Tensor:
    """Draw one token a row, [b]. generators: one a row, so that no row depends on the other rows."""
    if temperature == 0:
        return logits.argmax(-1)
    rows = probabilities(logits, temperature, top_p, top_k)
    pairs = zip(rows, generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in pairs])
