"""Rows of the embedding, and their gradient, which is summed in float32 whatever the precision."""

from typing import Any

import torch
from torch import Tensor

from puna.model.kernels import upcast
from puna.model.tensor_parallel import TensorParallelGroup, all_gather, reduce_scatter


class Embedding(torch.autograd.Function):
    """Rows of a table [V, d] in `dtype` for tokens int64 [n, ...]: [n, ..., d].

    Under tensor parallelism table is this process's range of the vocabulary [V / p, d], tokens [n] are equal
    in every process, and each gets its n / p of the rows. The gradient of a row is the sum over the places of
    its token, of which the most frequent has thousands: in bfloat16, which counts 256 + 1 as 256, most of
    them would be lost.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, table: Tensor, dtype: torch.dtype, group: TensorParallelGroup | None
    ) -> Tensor:
        ctx.group, ctx.rows, ctx.dtype = group, len(table), table.dtype
        if group is None:
            ctx.save_for_backward(tokens, None)
            return torch.nn.functional.embedding(tokens, table).to(dtype)
        row = tokens - group.rank * len(table)
        here = (row >= 0) & (row < len(table))
        row = row.where(here, 0)
        ctx.save_for_backward(row, here)
        return reduce_scatter(table[row].to(dtype) * here[:, None], group)()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        row, here = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        gradient = upcast(all_gather(gradients[0], ctx.group))
        if here is not None:
            gradient = gradient * here[:, None]
        # On CUDA it sorts the tokens, where index_add_ takes atomic additions in any order.
        total = torch.ops.aten.embedding_dense_backward(gradient, row, ctx.rows, -1, False)
        return None, total.to(ctx.dtype), None, None
