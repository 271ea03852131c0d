"""The cache against reading everything at once."""

import pytest
import torch

from puna.generate.cache import KVCache
from puna.model.config import LlamaConfig
from puna.model.llama import Llama


@pytest.mark.parametrize("pieces", [[1] * 20, [7, 13], [3, 1, 1, 15], [20]])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_cached_reading_equals_reading_at_once(kv_heads: int, pieces: list[int]) -> None:
    shape = {"dim": 48, "n_layers": 3, "n_heads": 4, "n_kv_heads": kv_heads, "ffn_dim": 80}
    model = Llama(LlamaConfig(**shape, vocab_size=97, max_seq_len=20)).double()
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3 if parameter.dim() > 1 else 1.0, generator=chance)
    read = torch.randint(0, 97, (3, 20), generator=chance)
    cache = KVCache(model.config, 3, 20, torch.float64)
    logits = torch.cat([model(piece, cache=cache) for piece in read.split(pieces, 1)], 1)
    assert (logits - model(read)).abs().max() < 1e-12
    assert cache.lengths.tolist() == [20] * 3
