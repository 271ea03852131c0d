"""Tensor and sequence parallelism: where each weight lies, and what the processes that share one model
exchange.

The paper (section 2.4) splits the model and the sequence as Korthikanti et al. 2022 do. With p processes, n
tokens of a forward pass and a weight [outputs, inputs]:

    wq, wk, wv, w1, w3, output    outputs split: each process has whole heads, columns of the SwiGLU, a range of the vocabulary
    tok_embeddings                a range of the vocabulary
    wo, w2                        inputs split: each process makes a part of the sum
    norms                         whole; between the products each process holds n / p of the tokens, so their gradients are summed

Tokens are gathered before a product whose outputs are split (`gather`), and the parts of the sums are added
up and handed out again after one whose inputs are split (`scatter`); backward does the same the other way
round. In the backward of `remat` the handing out runs while the gradients of the weights are computed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

OUTPUTS = ("wq", "wk", "wv", "w1", "w3", "output", "tok_embeddings")
INPUTS = ("wo", "w2")


class Split:
    """The processes of one group of torch.distributed that share a model, seen from one of them."""

    def __init__(self, group: Any) -> None:
        import torch.distributed as dist

        self.group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)

    def gather(self, part: Tensor) -> Tensor:
        """All processes' parts [n / p, ...], one after another: [n, ...]."""
        import torch.distributed as dist

        whole = part.new_empty(len(part) * self.size, *part.shape[1:])
        dist.all_gather_into_tensor(whole, part.contiguous(), group=self.group)
        return whole

    def scatter(self, whole: Tensor) -> Callable[[], Tensor]:
        """Start to add up all processes' [n, ...]; what is returned waits for this process's share [n / p,
        ...]."""
        import torch.distributed as dist

        whole = whole.contiguous()
        part = whole.new_empty(len(whole) // self.size, *whole.shape[1:])
        work = dist.reduce_scatter_tensor(part, whole, group=self.group, async_op=True)

        def finish() -> Tensor:
            work.wait()
            return part

        return finish

    def sum(self, value: Tensor, largest: bool = False) -> Tensor:
        """The sum, or the largest, of all processes' values, in place."""
        import torch.distributed as dist

        dist.all_reduce(value, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM, group=self.group)
        return value


def gather(part: Tensor, split: Split | None) -> Tensor:
    return part if split is None else split.gather(part)


def scatter(whole: Tensor, split: Split | None) -> Callable[[], Tensor]:
    return (lambda: whole) if split is None else split.scatter(whole)


def summed(value: Tensor, split: Split | None) -> Tensor:
    return value if split is None else split.sum(value)


def local(parameter: Tensor) -> Tensor:
    """The part of a parameter that lies in this process; its gradient goes back to the same place."""
    if type(parameter) in (Tensor, nn.Parameter):
        return parameter
    from torch.distributed.tensor import DTensor

    return (
        parameter.to_local(grad_placements=parameter.placements)
        if isinstance(parameter, DTensor)
        else parameter
    )


def distribute(model: nn.Module, mesh: Any) -> None:
    """Split the parameters of a model, the same in every process, over a mesh of one dimension, in place (as
    DTensors).

    Raises ValueError when heads, ffn_dim or the vocabulary do not divide by the number of processes.
    """
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    config, size = model.config, mesh.size()
    for what in ("n_heads", "n_kv_heads", "ffn_dim", "vocab_size"):
        if getattr(config, what) % size:
            raise ValueError(
                f"tensor parallelism over {size} processes: {what} {getattr(config, what)} does not divide by {size}"
            )
    places = {**dict.fromkeys(OUTPUTS, Shard(0)), **dict.fromkeys(INPUTS, Shard(1))}
    made: dict[nn.Parameter, nn.Parameter] = {}  # a tied head stays tied
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter not in made:
                place = places.get(name.rpartition(".")[2], Replicate())
                made[parameter] = nn.Parameter(distribute_tensor(parameter.detach(), mesh, [place]))
            setattr(module, key, made[parameter])


class Embedding(torch.autograd.Function):
    """Rows [n / p, d] of a table whose range of the vocabulary lies here, for tokens int64 [n], the same in
    every process."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, table: Tensor, split: Split) -> Tensor:
        place = tokens - split.rank * len(table)
        here = (place >= 0) & (place < len(table))
        place = place.where(here, 0)
        ctx.save_for_backward(place, here)
        ctx.split, ctx.rows = split, len(table)
        return split.scatter(table[place] * here[:, None])()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        place, here = ctx.saved_tensors
        gradient = ctx.split.gather(gradients[0]) * here[:, None]
        return None, gradient.new_zeros(ctx.rows, gradient.shape[1]).index_add_(0, place, gradient), None
