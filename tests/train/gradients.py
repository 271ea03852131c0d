"""Gradients in bfloat16 against one process's in float64, on tokens as frequent as words are; run by
test_parallel under torchrun's variables.

python -m tests.train.gradients DATA TENSOR TIED  prints the relative error of each weight's gradient
"""

import json
import os
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.parallel import Parallel, parallelize

ROWS, LENGTH = 16, 256
CONFIG = LlamaConfig(dim=64, n_layers=2, n_heads=4, ffn_dim=176, vocab_size=512, max_seq_len=LENGTH)


def batch(rank: int = 0, world: int = 1) -> Batch:
    """A rank's share of 4,096 tokens, of which token k is as frequent as 1 / (k + 1)."""
    chance, vocabulary = np.random.default_rng(1), CONFIG.vocab_size
    frequency = 1 / np.arange(1, vocabulary + 1)
    drawn = chance.choice(vocabulary, (ROWS, LENGTH + 1), p=frequency / frequency.sum())[rank::world]
    return Batch(drawn[:, :-1].copy(), drawn[:, 1:].copy(), np.zeros((len(drawn), LENGTH), np.int64))


def model(tied: bool) -> Llama:
    built = Llama(CONFIG.model_copy(update={"tie_embeddings": tied}))
    built.init_weights(1)
    return built


def errors(ours: Llama, tied: bool) -> dict[str, float]:
    """Relative errors of the gradients of a model that has taken `batch`, by the weights' names."""
    exact = model(tied).double()
    loss_and_gradients(exact, batch(), ROWS)
    found = {}
    for (name, parameter), reference in zip(ours.named_parameters(), exact.parameters(), strict=True):
        assert parameter.grad is not None and reference.grad is not None
        whole = getattr(parameter.grad, "full_tensor", lambda gradient=parameter.grad: gradient)()
        assert whole.dtype == torch.float32
        found[name] = ((whole.double() - reference.grad).norm() / reference.grad.norm()).item()
    return found


def main() -> None:
    data, tensor, tied = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "tied"
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (data, tensor), mesh_dim_names=("shard", "tensor"))
    ours = model(tied)
    parallel: Parallel = parallelize(ours, mesh, torch.bfloat16)
    rows = batch(parallel.rank, parallel.world)
    loss_and_gradients(ours, rows, len(rows.tokens), NextToken("llama", dtype=torch.bfloat16), parallel)
    print(json.dumps(errors(ours, tied)), flush=True)
    dist.destroy_process_group()
    os._exit(0)  # see tests.train.processes


if __name__ == "__main__":
    main()
