"""Five steps on one of several gloo processes; prints the losses and the gradient norms. Run by test_parallel
under torchrun's variables.

python -m tests.train.processes DATA TENSOR POLICY TIED [DTYPE | skip | muon | replicate]

With `skip`, the first process finds a NaN in its part of one gradient of the third step.
"""

import json
import math
import os
import sys
import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from puna.model.llama import Llama
from puna.model.tensor_parallel import local
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.parallel import parallelize
from tests.train.small import CONFIG, batches, settings


def main() -> None:
    data, tensor, policy, tied = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "tied"
    warnings.filterwarnings("error", message="FSDP2-wrapped module")
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    names = ("replicate" if sys.argv[5:] == ["replicate"] else "shard", "tensor")
    mesh = init_device_mesh("cpu", (data, tensor), mesh_dim_names=names)
    if names[0] == "replicate":
        names = ("replicate", "shard", "tensor")
        mesh = init_device_mesh("cpu", (data, 1, tensor), mesh_dim_names=names)
    model = Llama(CONFIG.model_copy(update={"tie_embeddings": tied}))
    model.init_weights(1)
    dtype = torch.bfloat16 if sys.argv[5:] == ["bfloat16"] else None
    parallel = parallelize(model, mesh, dtype)
    kind = "muon" if sys.argv[5:] == ["muon"] else "adamw"
    options = settings(learning_rate=1e-2, warmup_steps=0, optimizer=kind)
    optimizer = build(model, options)
    results = []
    for step in range(5):
        batch = batches().batch(step, parallel.rank, parallel.world)
        loss = loss_and_gradients(model, batch, 1, NextToken(policy, 1e-3, dtype), parallel)
        if sys.argv[5:] == ["skip"] and step == 2 and dist.get_rank() == 0:
            local(model.layers[0].attention.wq.weight.grad).view(-1)[1] = float("nan")
        norm = update(model, optimizer, step, options, loss).norm.item()
        results.append([loss.item(), norm if math.isfinite(norm) else None])
    print(json.dumps(results), flush=True)
    dist.destroy_process_group()
    # Gloo's threads outlive the group and may hold the last tensors: a thread that frees them while the
    # interpreter shuts down is stopped inside a destructor and aborts the process, one time in thirty. All
    # work is done, so exit without that shutdown.
    os._exit(0)


if __name__ == "__main__":
    main()
