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
        shard = shard.contiguous()
        return _waiting(
            dist.all_gather_into_tensor(gathered, shard, group=self.group, async_op=True), gathered
        )

    def reduce_scatter(self, value: Tensor) -> Waiting:
        """Sum the values [n, ...] of all processes: this process's rows [n / p, ...] of it."""
        import torch.distributed as dist

        value = value.contiguous()
        shard = value.new_empty(len(value) // self.size, *value.shape[1:])
        return _waiting(dist.reduce_scatter_tensor(shard, value, group=self.group, async_op=True), shard)

    def all_reduce(self, value: Tensor, largest: bool = False) -> Waiting:
        """Sum the values of all processes, or take the largest, in place."""
        import torch.distributed as dist

        operation = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
        return _waiting(dist.all_reduce(value, operation, group=self.group, async_op=True), value)


def _waiting(handle: Any, result: Tensor) -> Waiting:
    """A function that waits for an exchange and returns what it filled in."""

    def wait() -> Tensor:
        handle.wait()
        return result

    return wait


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
