"""The embedding's rows and their gradient, against float64, on tokens as frequent as words are."""

import numpy as np
import pytest
import torch

from puna.model.config import LlamaConfig
from puna.model.llama import Embedding, Llama

TOKENS, VOCABULARY, DIM = 8192, 1000, 16


@pytest.mark.parametrize(
    ("table_dtype", "dtype", "tolerance"),
    [
        (torch.float64, torch.float64, 1e-12),
        (torch.float32, torch.float32, 1e-6),
        (torch.float32, torch.bfloat16, 1e-6),
        (torch.bfloat16, torch.bfloat16, 3e-3),  # rounded once, at the end
    ],
)
def test_the_gradient_is_summed_in_float32(
    table_dtype: torch.dtype, dtype: torch.dtype, tolerance: float
) -> None:
    chance = np.random.default_rng(1)
    frequency = 1 / np.arange(1, VOCABULARY + 1)
    tokens = torch.from_numpy(chance.choice(VOCABULARY, (4, TOKENS // 4), p=frequency / frequency.sum()))
    torch.manual_seed(1)
    table = torch.randn(VOCABULARY, DIM).to(table_dtype).requires_grad_()
    gradient = (torch.randn(4, TOKENS // 4, DIM) + 0.5).to(dtype)
    rows = Embedding.apply(tokens, table, dtype, None)
    assert torch.equal(rows, table[tokens].to(dtype)) and rows.dtype == dtype
    rows.backward(gradient)
    flat = gradient.double().flatten(0, 1)
    exact = torch.zeros(VOCABULARY, DIM, dtype=torch.float64).index_add_(0, tokens.flatten(), flat)
    assert table.grad is not None and table.grad.dtype == table_dtype
    assert (table.grad.double() - exact).norm() / exact.norm() < tolerance


def test_a_frozen_embedding_has_no_gradient() -> None:
    config = LlamaConfig(dim=16, n_layers=1, n_heads=2, ffn_dim=24, vocab_size=30, max_seq_len=8)
    model = Llama(config)
    model.init_weights(1)
    model.tok_embeddings.weight.requires_grad_(False)
    tokens = torch.arange(8)[None]
    model.loss(tokens, tokens, remat="llama").backward()
    assert model.tok_embeddings.weight.grad is None
    assert model.layers[0].attention.wq.weight.grad is not None
