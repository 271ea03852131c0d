"""A batch whose tokens are as frequent as words are, and how far a model's gradients of it are from those in
float64."""

import functools
from collections.abc import Mapping

import numpy as np
import torch

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.train.objective import loss_and_gradients

ROWS, LENGTH = 16, 256
CONFIG = LlamaConfig(dim=64, n_layers=2, n_heads=4, ffn_dim=176, vocab_size=512, max_seq_len=LENGTH)


def batch(rank: int = 0, world: int = 1) -> Batch:
    """A rank's share of 4,096 tokens, of which token k is as frequent as 1 / (k + 1)."""
    chance, vocabulary = np.random.default_rng(1), CONFIG.vocab_size
    frequency = 1 / np.arange(1, vocabulary + 1)
    drawn = chance.choice(vocabulary, (ROWS, LENGTH + 1), p=frequency / frequency.sum())[rank::world]
    return Batch(drawn[:, :-1].copy(), drawn[:, 1:].copy(), np.zeros((len(drawn), LENGTH), np.int64))


def model(tied: bool) -> Llama:
    """A model in the middle of a training, whole in every process."""
    built = Llama(CONFIG.model_copy(update={"tie_embeddings": tied}))
    built.init_weights(1)
    chance = torch.Generator().manual_seed(2)
    for parameter in built.parameters():
        if parameter.dim() == 1:  # no number of bfloat16, as those of a training are none
            parameter.detach().normal_(1, 0.1, generator=chance)
    return built


@functools.cache
def exact(tied: bool) -> dict[str, torch.Tensor]:
    """The gradients of `batch` in float64, by the weights' names."""
    wide = model(tied).double()
    loss_and_gradients(wide, batch(), ROWS)
    return {name: parameter.grad for name, parameter in wide.named_parameters()}  # type: ignore[misc]


def errors(found: Mapping[str, torch.Tensor], tied: bool) -> dict[str, float]:
    """Relative errors of the gradients of a model that has taken `batch`."""
    assert found.keys() == exact(tied).keys()
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    return {
        name: ((found[name].double() - reference).norm() / reference.norm()).item()
        for name, reference in exact(tied).items()
    }
