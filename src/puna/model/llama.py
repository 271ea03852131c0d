"""The decoder of the paper (section 2.2): pre-norm with RMSNorm, rotary positions, causal attention, SwiGLU.
Names are Meta's.

Shapes: b rows, t positions, d width, h heads, k heads of keys and values, e = d / h.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from puna.model import kernels
from puna.model.config import LlamaConfig
from puna.model.embedding import Embedding
from puna.model.initial_weights import BLOCK_ROWS, initial_rows
from puna.model.loss import HeadTargets, linear_cross_entropy, to_device
from puna.model.remat import BlockWeights, Norm, attention_output_and_ffn, qkv_projection
from puna.model.tensor_parallel import TensorParallelGroup, local


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019), in float32 or better."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.rms_norm(x, self.weight, self.eps)


def rotary_cos_sin(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta^(-2i / e), each [*positions.shape, 1, e / 2]; angles in float64."""
    even = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device)
    frequencies = theta ** (-even / head_dim)
    angles = positions.double()[..., None, None] * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


class Cache(Protocol):
    """What a model has read before, kept by whoever generates; the model only asks it to attend."""

    def extend(self, length: int) -> Tensor:
        """Positions [b, length] of each row's next tokens, which are then read."""
        ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep a layer's k, v [b, t, k, e] of the tokens of `extend`; attention [b, t, h, e] of their q [b,
        t, h, e] over all that the rows hold up to each."""
        ...


class Attention(nn.Module):
    """Causal self-attention with rotary positions; query heads may share heads of keys and values."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        kv_dim = config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, config.dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, layout: "AttentionLayout", cache: Cache | None) -> Tensor:
        heads = (-1, self.config.head_dim)
        q = kernels.apply_rotary(self.wq(x).unflatten(-1, heads), layout.cos, layout.sin)  # [b, t, h, e]
        k = kernels.apply_rotary(self.wk(x).unflatten(-1, heads), layout.cos, layout.sin)  # [b, t, k, e]
        v = self.wv(x).unflatten(-1, heads)
        if cache is None:
            out = kernels.attention(q, k, v, layout.document_starts, layout.cu_seqlens)
        else:
            out = cache.attend(self.layer, q, k, v)
        return self.wo(out.flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): w2(silu(w1 x) * w3 x)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then the same with the feed-forward network."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self, x: Tensor, layout: "AttentionLayout", cache: Cache | None = None, remat: str | None = None
    ) -> Tensor:
        if remat == "full" and torch.is_grad_enabled():
            return checkpoint(self._with_remat, x, layout, use_reentrant=False)
        if remat is not None:
            return self._with_remat(x, layout, save_norm=remat == "none")
        x = x + self.attention(self.attention_norm(x), layout, cache)
        return x + self.feed_forward(self.ffn_norm(x))

    def _with_remat(self, x: Tensor, layout: "AttentionLayout", save_norm: bool = False) -> Tensor:
        """The same with the hand-written backward of `puna.model.remat`.

        Under tensor parallelism x holds this process's tokens, [n / p, d].
        """
        weights, group = self._local_weights(), layout.tensor_parallel
        q, k, v = qkv_projection(
            x, weights, cos=layout.cos, sin=layout.sin, rows=layout.rows, save_norm=save_norm, group=group
        )
        attended = kernels.attention(q, k, v, layout.document_starts, layout.cu_seqlens)
        return attention_output_and_ffn(x, attended, weights, save_norm=save_norm, group=group)

    def _local_weights(self) -> BlockWeights:
        attention, ffn = self.attention, self.feed_forward
        return BlockWeights(
            attention_norm=local(self.attention_norm.weight),
            wq=local(attention.wq.weight),
            wk=local(attention.wk.weight),
            wv=local(attention.wv.weight),
            wo=local(attention.wo.weight),
            ffn_norm=local(self.ffn_norm.weight),
            w1=local(ffn.w1.weight),
            w2=local(ffn.w2.weight),
            w3=local(ffn.w3.weight),
            eps=self.attention_norm.eps,
        )


class AttentionLayout:
    """Positions and documents of the tokens of one forward pass: computed once, used by every layer.

    rows: b. tensor_parallel: the processes that share the model, None where there is one. positions: [b or 1,
    t], from 0 in each document. cos, sin: of the rotary angles at these positions. document_starts: None
    where every row is one document, else int32 [b, t], where each position's document begins. cu_seqlens: the
    same for devices with flash attention. All on `device`; which rows hold several documents is decided where
    `document_ids` is.
    """

    def __init__(
        self,
        config: LlamaConfig,
        tokens: Tensor,
        *,
        document_ids: Tensor | None,
        cache: Cache | None,
        dtype: torch.dtype,
        device: torch.device,
        tensor_parallel: TensorParallelGroup | None,
    ) -> None:
        self.rows, self.tensor_parallel = len(tokens), tensor_parallel
        steps = torch.arange(tokens.shape[1], device=device)
        self.positions = steps[None]
        self.document_starts: Tensor | None = None
        self.cu_seqlens: Tensor | None = None
        if cache is not None:
            self.positions = cache.extend(tokens.shape[1])
        elif document_ids is not None and not torch.equal(
            document_ids, document_ids[:, :1].expand_as(document_ids)
        ):
            is_start = F.pad(document_ids[:, 1:] != document_ids[:, :-1], (1, 0))
            indices = torch.arange(tokens.shape[1], device=document_ids.device)
            document_starts = (indices * is_start).cummax(1).values
            if device.type == "cuda":
                self.cu_seqlens = to_device(kernels.cu_seqlens_of(document_starts), device)
            document_starts = to_device(document_starts, device)
            self.positions = steps - document_starts
            self.document_starts = document_starts.int()
        self.cos, self.sin = rotary_cos_sin(self.positions, config.head_dim, config.rope_theta, dtype)


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
        see `puna.model.remat`; None: autograd on plain operations, as a cache needs it. dtype: of activations
        and products, default: that of the weights. Tokens and document_ids may be on the CPU whatever the
        model's device. Raises ValueError for another dtype than bfloat16 beside float32, and for what these
        do not allow together.
        """
        if remat is not None and cache is not None:
            raise ValueError("a cache is for reading on: it goes with remat None")
        layout = self._layout(tokens, document_ids, cache, remat, dtype)
        return self._hidden(to_device(tokens, layout.cos.device), layout, cache, remat)

    def _layout(
        self,
        tokens: Tensor,
        document_ids: Tensor | None,
        cache: Cache | None,
        remat: str | None,
        dtype: torch.dtype | None,
    ) -> "AttentionLayout":
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
        self, tokens: Tensor, layout: "AttentionLayout", cache: Cache | None, remat: str | None
    ) -> Tensor:
        table, group = local(self.tok_embeddings.weight), self.tensor_parallel
        x = Embedding.apply(tokens if group is None else tokens.flatten(), table, layout.cos.dtype, group)
        for layer in self.layers:
            x = layer(x, layout, cache, remat)
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
        layout: "AttentionLayout",
        remat: str | None,
        z: float,
    ) -> Tensor:
        """`loss` of what lies on the model's device: what FSDP2 wraps, since it moves what it is given."""
        hidden = self._hidden(tokens, layout, None, remat).view(-1, self.config.dim)
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
