"""The decoder of the paper (section 2.2): pre-norm with RMSNorm, rotary positions, causal attention, SwiGLU.
Names are Meta's. Its layers stand in `puna.model.block`.

Shapes: b rows, t positions, d width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from puna.model.block import AttentionLayout, Block, Cache, Norm, RMSNorm
from puna.model.config import LlamaConfig
from puna.model.initial_weights import BLOCK_ROWS, initial_rows
from puna.model.kernels import to_device, upcast
from puna.model.loss import HeadTargets, linear_cross_entropy
from puna.model.tensor_parallel import TensorParallelGroup, all_gather, local, reduce_scatter


class Llama(nn.Module):
    """The whole decoder. Weights are left as torch makes them until `init_weights` or a loader fills them."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        # Set by `puna.train.parallel`, which distributes the weights.
        self.tensor_parallel: TensorParallelGroup | None = None
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self._tie()

    @classmethod
    def empty(
        cls, config: LlamaConfig, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Llama":
        """Build a model whose weights are memory that is not filled in yet."""
        with torch.device("meta"):
            model = cls(config)
        model = model.to(dtype).to_empty(device=device)
        model._tie()  # each name was given memory of its own
        return model

    def _tie(self) -> None:
        if self.config.tie_embeddings:
            self.output.weight = self.tok_embeddings.weight

    def hidden(
        self,
        tokens: Tensor,
        *,
        document_ids: Tensor | None = None,
        cache: Cache | None = None,
        remat: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Inputs of the head for tokens [b, t]: [b, t, d], or this process's [b t / p, d] of them.

        document_ids: [b, t], the document each position belongs to, in runs; attention stays inside a
        document and positions restart with it, so packed documents give what each gives alone. cache: what
        each row has read before; it is extended by `tokens`. remat: a policy of the hand-written backward,
        see `puna.model.block`; None: autograd on plain operations, as a cache needs it. dtype: of activations
        and products, default: that of the weights. Tokens and document_ids may be on the CPU whatever the
        model's device. Raises ValueError for another dtype than bfloat16 beside float32, and for what these
        do not allow together.
        """
        if remat is not None and cache is not None:
            raise ValueError("a cache is for reading on: it goes with remat None")
        layout = self._layout(tokens, document_ids, cache, remat, dtype)
        hidden = self._hidden(to_device(tokens, layout.cos.device), layout, cache, remat)
        return hidden if self.tensor_parallel is not None else hidden.view(*tokens.shape, -1)

    def _layout(
        self,
        tokens: Tensor,
        document_ids: Tensor | None,
        cache: Cache | None,
        remat: str | None,
        dtype: torch.dtype | None,
    ) -> AttentionLayout:
        """Check what was asked for, see `hidden`, and lay it out on the model's device."""
        table, group = self.tok_embeddings.weight, self.tensor_parallel
        dtype = dtype or table.dtype
        if group is not None and remat is None:
            raise ValueError("a split model needs a policy and no cache: call `loss` or `hidden` with remat")
        if group is not None and tokens.numel() % group.size:
            raise ValueError(
                f"{tokens.numel()} tokens do not divide by {group.size} processes: "
                "change the rows or their length"
            )
        mixed = (table.dtype, dtype) == (torch.float32, torch.bfloat16) and remat is not None
        if dtype != table.dtype and not mixed:
            raise ValueError(
                f"activations in {dtype} beside weights in {table.dtype}: "
                "a policy allows bfloat16 beside float32, no other two"
            )
        return AttentionLayout(
            self.config,
            tokens,
            document_ids=document_ids,
            cache=cache,
            dtype=dtype,
            device=table.device,
            tensor_parallel=group,
        )

    def _hidden(
        self,
        tokens: Tensor,
        layout: AttentionLayout,
        cache: Cache | None,
        remat: str | None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """[b, t, d] without a policy, else [b t, d] or this process's [b t / p, d], or [m, d] of the
        positions `kept` alone: no view of another tensor, after which FSDP2 could not hang its hooks."""
        table, group = local(self.tok_embeddings.weight), self.tensor_parallel
        x = Embedding.apply(tokens if remat is None else tokens.flatten(), table, layout.dtype, group)
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, layout, cache, remat, kept if number == len(self.layers) else None)
        if remat is None:
            return self.norm(x)
        return Norm.apply(x, local(self.norm.weight), self.norm.eps, group)

    def forward(
        self, tokens: Tensor, *, document_ids: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Logits [b, t, vocabulary]. See `hidden` for the arguments."""
        return self.output(self.hidden(tokens, document_ids=document_ids, cache=cache))

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        document_ids: Tensor | None = None,
        remat: str | None = None,
        z: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Sum over the positions with a target of weight * (cross-entropy + z lse^2), float64 [].

        targets: int64 [b, t], below zero where there is none. weights: float32 [b, t], default: 1. The head
        runs only where there is a target and its weight is not 0; without any, the loss and its gradients
        are 0. The other arguments are those of `hidden`. Whatever the model's device, give these four as they
        are on the CPU: then nothing waits for the device, neither here nor before the sum is looked at.
        """
        layout = self._layout(tokens, document_ids, None, remat, dtype)
        device = layout.cos.device
        selected = HeadTargets.select(targets, weights, device)
        return self.summed_loss(to_device(tokens, device), selected, layout, remat, z)

    def summed_loss(
        self,
        tokens: Tensor,
        selected: HeadTargets,
        layout: AttentionLayout,
        remat: str | None,
        z: float,
    ) -> Tensor:
        """`loss` of what lies on the model's device: what FSDP2 wraps, since it moves what it is given."""
        kept, compiled = None, self.layers[-1]._compiled_call_impl is not None  # anew for each size
        if remat is not None and self.tensor_parallel is None and not compiled:
            # Of the last layer's output the head reads no other positions.
            kept, selected = selected.positions, selected._replace(positions=None)
        hidden = self._hidden(tokens, layout, None, remat, kept).view(-1, self.config.dim)
        return linear_cross_entropy(
            hidden, local(self.output.weight), selected, z=z, group=self.tensor_parallel
        )

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill in the weights of `initial_rows` in place: equal seeds give equal weights, whatever else is
        drawn."""
        for name, parameter in self.named_parameters():
            for start in range(0, len(parameter), BLOCK_ROWS):
                rows = parameter[start : start + BLOCK_ROWS]
                rows.copy_(initial_rows(self.config, seed, name, start, start + len(rows)))


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
        gradient = upcast(all_gather(gradients[0], ctx.group)())
        if here is not None:
            gradient = gradient * here[:, None]
        # On CUDA it sorts the tokens, where index_add_ takes atomic additions in any order.
        total = torch.ops.aten.embedding_dense_backward(gradient, row, ctx.rows, -1, False)
        return None, total.to(ctx.dtype), None, None
