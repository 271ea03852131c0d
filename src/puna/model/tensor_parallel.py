"""Tensor and sequence parallelism: which part of each weight a process holds, and what the processes that
share one model exchange.

The paper (section 2.4) splits the model and the sequence as Korthikanti et al. 2022 do. With p processes, n
tokens of a forward pass and a weight [outputs, inputs]:

    wq, wk, wv, w1, w3, output    outputs split (column-parallel): each process has whole heads, columns of
                                  the SwiGLU, a range of the vocabulary
    tok_embeddings                a range of the vocabulary
    wo, w2                        inputs split (row-parallel): each process computes one term of the sum
    norms                         replicated; between the matrix products each process holds n / p of the
                                  tokens, so the gradients of the norms are summed

Tokens are gathered before a product whose outputs are split (`all_gather`), and the terms of the sum are
added up and scattered again after one whose inputs are split (`reduce_scatter`); backward does the same the
other way round.

What starts an exchange returns a function that waits for its result. In the backward of `block`, where there
is other work, that is done in between: a reduce-scatter runs beside the gradients of weights, and so does a
gather, or beside the gradients of inputs. In the forward each product needs what was exchanged before it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Waiting = Callable[[], Tensor]  # the result of what was started

OUTPUTS = ("wq", "wk", "wv", "w1", "w3", "output", "tok_embeddings")
INPUTS = ("wo", "w2")


class TensorParallelGroup:
    """The processes of one group of torch.distributed that share a model, seen from one of them.

    Its methods start an exchange, and return a function that waits for what comes of it.
    """

    def __init__(self, group: Any) -> None:
        import torch.distributed as dist

        self.group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)

    def all_gather(self, shard: Tensor) -> Waiting:
        """Concatenate the shards [n / p, ...] of all processes: [n, ...]."""
        import torch.distributed as dist

        gathered = shard.new_empty(len(shard) * self.size, *shard.shape[1:])
        if is_gloo(self.group, shard.device.type):
            return gloo_all_gather(gathered, shard, self.group)
        handle = dist.all_gather_into_tensor(gathered, shard.contiguous(), group=self.group, async_op=True)
        return _waiting([handle], lambda: gathered)

    def reduce_scatter(self, value: Tensor) -> Waiting:
        """Sum the values [n, ...] of all processes: this process's rows [n / p, ...] of it."""
        import torch.distributed as dist

        value = value.contiguous()
        shard = value.new_empty(len(value) // self.size, *value.shape[1:])
        if is_gloo(self.group, value.device.type):
            return gloo_reduce_scatter(shard, value, self.group)
        handle = dist.reduce_scatter_tensor(shard, value, group=self.group, async_op=True)
        return _waiting([handle], lambda: shard)

    def all_reduce(self, value: Tensor, largest: bool = False) -> Waiting:
        """Sum the values of all processes, or take the largest, in place."""
        import torch.distributed as dist

        operation = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
        handle = dist.all_reduce(value, operation, group=self.group, async_op=True)
        return _waiting([handle], lambda: value)


def _waiting(handles: list[Any], finish: Waiting) -> Waiting:
    """A function that waits for exchanges, and then finishes."""

    def wait() -> Tensor:
        for handle in handles:
            handle.wait()
        return finish()

    return wait


def is_gloo(group: Any, device: str) -> bool:
    """Whether gloo exchanges a group's tensors on a device."""
    import torch.distributed as dist

    return device == "cpu" and "gloo" in dist.get_backend(group)


def gloo_all_gather(gathered: Tensor, shard: Tensor, group: Any) -> Waiting:
    """Start to fill `gathered` with the shards of all processes; shard: may be its part of it.

    Gloo's own gathers into memory that it allocates, and copies that.
    """
    import torch.distributed as dist

    parts = gathered.view(-1).view(torch.uint8).chunk(dist.get_world_size(group))
    own = parts[dist.get_rank(group)]
    if own.data_ptr() != shard.data_ptr():
        own.copy_(shard.reshape(-1).view(torch.uint8))
    handles = [
        dist.broadcast(part, group_src=rank, group=group, async_op=True) for rank, part in enumerate(parts)
    ]
    return _waiting(handles, lambda: gathered)


def gloo_reduce_scatter(shard: Tensor, value: Tensor, group: Any) -> Waiting:
    """Start to sum this process's part of the values of all, two or more, processes into `shard`, in the
    order of their ranks.

    Gloo's own sums everything in all processes, which sends twice as much, and copies it before.
    """
    import torch.distributed as dist

    rank, parts = dist.get_rank(group), list(value.view(-1).chunk(dist.get_world_size(group)))
    handles: list[Any] = []
    for other, part in enumerate(list(parts)):
        if other != rank:
            parts[other] = torch.empty_like(part)
            handles.append(dist.irecv(parts[other].view(torch.uint8), group_src=other, group=group))
            handles.append(dist.isend(part.view(torch.uint8), group_dst=other, group=group))

    def finish() -> Tensor:
        summed = torch.add(parts[0], parts[1], out=shard.view(-1))
        for part in parts[2:]:
            summed.add_(part)
        return shard

    return _waiting(handles, finish)


def all_gather(shard: Tensor, group: TensorParallelGroup | None) -> Waiting:
    """Start to gather over a group; without one there is nothing but the value itself."""
    return (lambda: shard) if group is None else group.all_gather(shard)


def reduce_scatter(value: Tensor, group: TensorParallelGroup | None) -> Waiting:
    """Start to reduce and scatter over a group; without one there is nothing but the value itself."""
    return (lambda: value) if group is None else group.reduce_scatter(value)


def all_reduce(value: Tensor, group: TensorParallelGroup | None) -> Waiting:
    """Start to sum over a group, in place; without one there is nothing but the value itself."""
    return (lambda: value) if group is None else group.all_reduce(value)


def local(parameter: Tensor) -> Tensor:
    """Return the part of a parameter that this process holds; its gradient goes back to the parameter."""
    if type(parameter) in (Tensor, nn.Parameter):
        return parameter
    from torch.distributed.tensor import DTensor

    if isinstance(parameter, DTensor):
        return parameter.to_local(grad_placements=parameter.placements)
    return parameter


def distribute(model: nn.Module, mesh: Any) -> None:
    """Split the parameters of a model, equal in every process, over a one-dimensional mesh, in place.

    They become DTensors. Raises ValueError when heads, ffn_dim or the vocabulary are not multiples of the
    number of processes.
    """
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    config, size = model.config, mesh.size()
    for name in ("n_heads", "n_kv_heads", "ffn_dim", "vocab_size"):
        if (value := getattr(config, name)) % size:
            raise ValueError(
                f"tensor parallelism over {size} processes: {name} {value} does not divide by {size}"
            )
    placements = {**dict.fromkeys(OUTPUTS, Shard(0)), **dict.fromkeys(INPUTS, Shard(1))}
    distributed: dict[nn.Parameter, nn.Parameter] = {}  # a tied head stays tied
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter not in distributed:
                placement = placements.get(name.rpartition(".")[2], Replicate())
                tensor = distribute_tensor(parameter.detach(), mesh, [placement])
                distributed[parameter] = nn.Parameter(tensor)
            setattr(module, key, distributed[parameter])
