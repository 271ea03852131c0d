"""Five steps on one of two processes under FSDP2; prints the losses. Run by test_distributed through torchrun's variables."""

import json

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from puna.model.llama import Llama
from tests.train.small import CONFIG, batches


def main() -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    mesh = init_device_mesh("cpu", (world,))
    model = Llama(CONFIG)
    model.init_weights(1)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "loss")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for step in range(5):
        whole, mine = batches().batch(step), batches().batch(step, rank, world)
        tokens, targets, segments = (torch.from_numpy(array) for array in (mine.tokens, mine.targets, mine.segments))
        # FSDP2 averages gradients over processes, so each multiplies its share of the global mean by their number.
        loss = model.loss(tokens, targets, segments=segments, scale=world / whole.target_count, remat="llama")
        loss.backward()
        total = loss.detach() / world
        dist.all_reduce(total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total.item())
    if rank == 0:
        print(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
