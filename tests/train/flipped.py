"""Twelve steps on one of several gloo processes; prints the digest of the weights, or what ended them. Run by
test_health under torchrun's variables.

python -m tests.train.flipped replicate | tensor | both FOLDER STEP

In the last process, with `both` in the first one, a bit of a norm behind step STEP flips, if that is not 0.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from puna.errors import UserError
from puna.model.llama import Llama
from puna.model.tensor_parallel import local
from puna.run.settings import ClusterSettings
from puna.train.parallel import parallelize
from puna.train.pretraining import Pretraining
from puna.train.trainer import Outcome, train
from tests.train.reshard import digest, end
from tests.train.small import CONFIG, batches, execution, held_out, settings


def main() -> None:
    layout, folder, step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    size = dist.get_world_size()
    shape = {"replicate": (size, 1, 1), "tensor": (1, 1, size), "both": (2, 1, 2)}[layout]
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard", "tensor"))
    model = Llama(CONFIG)
    model.init_weights(1)
    parallel = parallelize(model, mesh)

    class Flipping(Pretraining):
        def step(self, number: int) -> Outcome:
            if step and number == step and dist.get_rank() == (0 if layout == "both" else size - 1):
                with torch.no_grad():
                    local(model.layers[0].attention_norm.weight).view(torch.int32)[3] ^= 1 << 20
            return super().step(number)

    work = Flipping(model, batches(), held_out(), settings(), execution(), parallel)
    try:
        train(
            model,
            work,
            settings(),
            execution(),
            cluster=ClusterSettings(replica_check_steps=9),
            parallel=parallel,
            checkpoints=folder,
        )
    except UserError as error:
        end(str(error))
    end(digest(dict(model.named_parameters())))


if __name__ == "__main__":
    main()
