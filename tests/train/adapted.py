"""Five steps of an adapter and rows of new tokens, alone or on one of several gloo processes under FSDP2;
prints the losses. Run by test_parallel under torchrun's variables.

python -m tests.train.adapted FOLDER     under the policies llama and full; the first process writes adapters
                                         under FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from puna.model import lora
from puna.model.llama import Llama
from puna.model.weights import peft
from puna.model.weights.source import Source
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.parallel import ALONE, parallelize
from tests.train.small import CONFIG, batches, settings


def train(policy: str, folder: Path, processes: int = 1) -> list[float]:
    model = Llama(CONFIG)
    model.init_weights(1)
    base = peft.Base.of(Source.of(model))
    lora.grow(model, [39, 40])
    lora.apply(model, lora.Adapter(rank=2, rows=(39, 40)), seed=2)
    parallel, first = ALONE, True
    if processes > 1:
        parallel = parallelize(model, init_device_mesh("cpu", (processes,), mesh_dim_names=("shard",)))
        first = dist.get_rank() == 0
    options = settings(learning_rate=1e-2, warmup_steps=0)
    optimizer = build(model, options)
    losses = []
    for step in range(5):
        batch = batches().batch(step, parallel.rank, parallel.world)
        part = loss_and_gradients(model, batch, 1, NextToken(policy, 1e-3), parallel)
        losses.append(parallel.total(part.clone()).item())
        update(model, optimizer, step, options, losses[-1], parallel=parallel, part=part)
    peft.save(model, folder, base, write=first)
    return losses


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    folder, size = Path(sys.argv[1]), dist.get_world_size()
    print(json.dumps([train(policy, folder / policy, size) for policy in ("llama", "full")]), flush=True)
    dist.destroy_process_group()
    os._exit(0)  # see processes.py
