"""Five steps on one of several gloo processes; prints the losses and the gradient norms. Run by test_parallel
under torchrun's variables.

python -m tests.train.processes skip     of four, the first one finds a NaN in its part of one gradient of the
                                         third step, of which it tells the process instead of the norm
python -m tests.train.processes "skip loss"   or the last one in its part of the loss
python -m tests.train.processes POLICY   of two under FSDP2, with compiled blocks
"""

import json
import os
import sys

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
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    model = Llama(CONFIG)
    model.init_weights(1)
    skipping, size = sys.argv[1].startswith("skip"), dist.get_world_size()
    mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("shard", "tensor"))
    parallel = parallelize(model, mesh)
    if not skipping:
        for layer in model.layers:
            layer.compile(dynamic=False)  # as Pretraining does
    objective = NextToken("llama" if skipping else sys.argv[1], 1e-3)
    options = settings(learning_rate=1e-2, warmup_steps=0)
    optimizer = build(model, options)
    results = []
    for step in range(5):
        batch = batches().batch(step, parallel.rank, parallel.world)
        loss = loss_and_gradients(model, batch, 1, objective, parallel)
        if skipping and step == 2 and "loss" in sys.argv[1]:
            loss = loss * (float("nan") if dist.get_rank() == size - 1 else 1)
        elif skipping and step == 2 and dist.get_rank() == 0:
            local(model.layers[0].attention.wq.weight.grad).view(-1)[1] = float("nan")
        total = parallel.total(loss.clone())
        judged = update(model, optimizer, step, options, total, parallel=parallel, part=loss)
        source = int(judged.source)
        results.append([total.item(), judged.norm.item()] if source < 0 else [None, source])
    print(json.dumps(results), flush=True)
    dist.destroy_process_group()
    # Gloo's threads outlive the group and may hold the last tensors: a thread that frees them while the
    # interpreter shuts down is stopped inside a destructor and aborts the process, one time in thirty. All
    # work is done, so exit without that shutdown.
    os._exit(0)


if __name__ == "__main__":
    main()
