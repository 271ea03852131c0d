"""Write or load a checkpoint on one of several gloo processes; prints the digest of all that it holds. Run by
test_checkpoint under torchrun's variables.

python -m tests.train.reshard write | load | full DATAxTENSOR | replicate FOLDER

What is written is written by torch's DCP, too, and compared with it where it is loaded. With `full`, the last
process finds the disk full in a second save; prints what that raises.
"""

import hashlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from puna.model.llama import Llama
from puna.train import checkpoint
from puna.train.checkpoint import Kept, Progress, Saver
from puna.train.losses import Losses
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.parallel import parallelize
from tests.train.small import CONFIG, batches, settings


def mesh_of(layout: str) -> Any:
    if layout == "replicate":
        return init_device_mesh("cpu", (2, 2, 1), mesh_dim_names=("replicate", "shard", "tensor"))
    data, tensor = map(int, layout.split("x"))
    return init_device_mesh("cpu", (1, data, tensor), mesh_dim_names=("replicate", "shard", "tensor"))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def digest(state: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode() + whole(state[name].detach()).contiguous().numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    do, layout, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    model = Llama(CONFIG)
    model.init_weights(2 if do == "load" else 1)
    parallel = parallelize(model, mesh_of(layout))
    options = settings(learning_rate=1e-2, warmup_steps=0)
    optimizer, losses = build(model, options), Losses(folder / "losses.jsonl")
    if do != "load":
        if dist.get_rank() == 0:
            losses.begin()
        dist.barrier()
        for step in range(4):
            batch = batches().batch(step, parallel.rank, parallel.world)
            part = loss_and_gradients(model, batch, 4, NextToken("llama"), parallel)
            update(model, optimizer, step, options, parallel.total(part.clone()), None, parallel, part)
            if dist.get_rank() == 0:
                losses.append({"step": step + 1})
    if do == "full":
        with Saver(model, optimizer, losses, parallel) as saver:
            saver.save(folder, Progress(4))
            saver.wait()
            if parallel.team.rank == parallel.team.size - 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            saver.save(folder, Progress(5), kept=Kept(1))
            try:
                saver.wait()
            except OSError as error:
                end(error.strerror)
    trainable = checkpoint.trainable_of(model)
    if do == "write":
        with Saver(model, optimizer, losses, parallel) as saver:
            saver.save(folder, Progress(4))
        state = checkpoint.state_of(trainable, optimizer)
        dcp.save({name: value.detach() for name, value in state.items()}, checkpoint_id=folder / "dcp")
    else:
        progress, passed = checkpoint.resume(folder, model, optimizer, losses, 9, parallel)
        assert progress.step == 4 and not passed, passed
        state = checkpoint.state_of(trainable, optimizer)
        oracle = {name: torch.zeros_like(value.detach()) for name, value in state.items()}
        dcp.load(oracle, checkpoint_id=folder / "dcp")
        for name, value in oracle.items():
            assert torch.equal(whole(value), whole(state[name].detach())), name
    end(digest(state))


def end(found: str) -> NoReturn:
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()
    os._exit(0)  # see `processes`


if __name__ == "__main__":
    main()
