"""The decoder of the paper (section 2.2): pre-norm with RMSNorm, rotary positions, causal attention, SwiGLU.
Names are Meta's.

Shapes: b rows, t positions, d width, h heads, k heads of keys and values, e = d / h.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from puna.model import kernels
from puna.model import remat as by_hand
from puna.model.config import LlamaConfig
from puna.model.loss import linear_cross_entropy
from puna.model.tensor_parallel import Embedding, Split, local


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019), in float32 or better."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.rms_norm(x, self.weight, self.eps)


def rotations(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta^(-2i / e), each [*positions.shape, 1, e / 2]; angles are computed in
    float64."""
    frequencies = theta ** (
        -torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    )
    angles = positions.double()[..., None, None] * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


class KVCache:
    """Keys and values of what was read so far: [layers, b, k, room, e] each. Rows may hold different numbers
    of tokens.

    Row r holds `lengths[r]` tokens at places 0 .. lengths[r] - 1, and its next token goes to the next place.
    """

    def __init__(
        self,
        config: LlamaConfig,
        rows: int,
        room: int,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        shape = (config.n_layers, rows, config.n_kv_heads, room, config.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)

    def extend(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [b, k, t, e] at `places` [b, t]; all of the layer up to the last place in
        use."""
        used = int(places.max()) + 1
        index = places[:, None, :, None].expand_as(keys)
        self.keys[layer].scatter_(2, index, keys)
        self.values[layer].scatter_(2, index, values)
        return self.keys[layer, :, :, :used], self.values[layer, :, :, :used]


class Attention(nn.Module):
    """Causal self-attention with rotary positions; several query heads may share one head of keys and
    values."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        narrow = config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, config.dim, bias=False)
        self.wk = nn.Linear(config.dim, narrow, bias=False)
        self.wv = nn.Linear(config.dim, narrow, bias=False)
        self.wo = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, where: "Where", cache: KVCache | None) -> Tensor:
        heads = (-1, self.config.head_dim)
        q = kernels.rotate(self.wq(x).unflatten(-1, heads), where.cos, where.sin)  # [b, t, h, e]
        k = kernels.rotate(self.wk(x).unflatten(-1, heads), where.cos, where.sin)  # [b, t, k, e]
        v = self.wv(x).unflatten(-1, heads)
        if cache is None:
            return self.wo(kernels.attention(q, k, v, where.starts, where.bounds).flatten(-2))
        k, v = cache.extend(self.layer, where.positions, k.transpose(1, 2), v.transpose(1, 2))
        groups = self.config.n_heads // self.config.n_kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k, v, attn_mask=where.mask, is_causal=where.mask is None
        )
        return self.wo(out.transpose(1, 2).flatten(-2))


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
    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self, x: Tensor, where: "Where", cache: KVCache | None = None, remat: str | None = None
    ) -> Tensor:
        if remat == "full" and torch.is_grad_enabled():
            return checkpoint(self._by_hand, x, where, use_reentrant=False)
        if remat is not None:
            return self._by_hand(x, where, keep=remat == "none")
        x = x + self.attention(self.attention_norm(x), where, cache)
        return x + self.feed_forward(self.ffn_norm(x))

    def _by_hand(self, x: Tensor, where: "Where", keep: bool = False) -> Tensor:
        """The same with the backward of `remat`. Under a split x holds this process's tokens, [n / p, d]."""
        at, ff, eps = self.attention, self.feed_forward, self.attention_norm.eps
        norms = (local(self.attention_norm.weight), local(self.ffn_norm.weight))
        wq, wk, wv, wo, w1, w3, w2 = (
            local(linear.weight) for linear in (at.wq, at.wk, at.wv, at.wo, ff.w1, ff.w3, ff.w2)
        )
        q, k, v = by_hand.Projections.apply(
            x, norms[0], wq, wk, wv, where.cos, where.sin, where.rows, eps, keep, where.split
        )
        attended = kernels.attention(q, k, v, where.starts, where.bounds)
        return by_hand.Outputs.apply(x, attended, wo, norms[1], w1, w3, w2, eps, keep, where.split)


class Where:
    """Where the tokens of one forward pass stand: made once, used by every layer.

    rows: b; split: the processes that share the model, None where it is whole; positions: [b or 1, t], from 0
    in each document; cos, sin: their rotations; starts: None where every row is one document, else int32 [b,
    t], where each position's document begins, and bounds the same for devices with flash attention; mask:
    with a cache, bool [b, 1, t, t'] of what each position looks at.
    """

    def __init__(
        self,
        config: LlamaConfig,
        tokens: Tensor,
        segments: Tensor | None,
        cache: KVCache | None,
        dtype: torch.dtype,
        split: Split | None,
    ) -> None:
        self.rows, self.split = len(tokens), split
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        self.positions = steps[None]
        self.mask: Tensor | None = None
        self.starts: Tensor | None = None
        self.bounds: Tensor | None = None
        if cache is not None:
            self.positions = cache.lengths[:, None] + steps
            if cache.lengths.any() or len(steps) == 1:
                places = torch.arange(int(self.positions.max()) + 1, device=tokens.device)
                self.mask = (places <= self.positions[..., None])[:, None]
        elif segments is not None and not torch.equal(segments, segments[:, :1].expand_as(segments)):
            begins = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0))
            starts = (steps * begins).cummax(1).values
            self.positions = steps - starts
            self.starts = starts.int()
            self.bounds = kernels.bounds_of(starts) if starts.device.type == "cuda" else None
        self.cos, self.sin = rotations(self.positions, config.head_dim, config.rope_theta, dtype)


class Llama(nn.Module):
    """The whole decoder. Weights are left as torch makes them until `init_weights` or a loader fills them."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.split: Split | None = None  # set by whoever distributes the weights, see `placement`
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.output.weight = self.tok_embeddings.weight

    def hidden(
        self, tokens: Tensor, *, segments: Tensor | None = None, cache: KVCache | None = None, remat: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:  # fmt: skip
        """What the head reads: [b, t, d] for tokens [b, t]; under a split this process's tokens, [b t / p,
        d].

        segments: [b, t], the document each position belongs to, in runs; attention stays inside a document
        and positions restart with it, so packed documents give what each gives alone. cache: what each row
        has read before; it is extended by `tokens`.
        remat: the hand-written backward and what is kept for it, see `puna.model.remat`; None: autograd on
        plain operations, as a cache needs it. dtype: of activations and products, default: that of the
        weights. Raises ValueError for another dtype than bfloat16 beside float32, and for what these do not
        allow together.
        """
        if self.split is None:
            x = self.tok_embeddings(tokens)
        elif remat is None:
            raise ValueError("a split model needs a policy and no cache: call `loss` or `hidden` with remat")
        elif tokens.numel() % self.split.size:
            raise ValueError(
                f"{tokens.numel()} tokens do not divide by {self.split.size} processes: change the rows or their length"
            )
        else:
            x = Embedding.apply(tokens.flatten(), local(self.tok_embeddings.weight), self.split)
        if remat is not None and cache is not None:
            raise ValueError("a cache is for reading on: it goes with remat None")
        if dtype not in (None, x.dtype) and (
            remat is None or (x.dtype, dtype) != (torch.float32, torch.bfloat16)
        ):
            raise ValueError(
                f"activations in {dtype} beside weights in {x.dtype}: a policy allows bfloat16 beside float32, no other two"
            )
        x = x if dtype is None else x.to(dtype)
        where = Where(self.config, tokens, segments, cache, x.dtype, self.split)
        for layer in self.layers:
            x = layer(x, where, cache, remat)
        if cache is not None:
            cache.lengths = cache.lengths + tokens.shape[1]
        return (
            self.norm(x)
            if remat is None
            else by_hand.Norm.apply(x, local(self.norm.weight), self.norm.eps, self.split)
        )

    def forward(
        self,
        tokens: Tensor,
        *,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits [b, t, vocabulary], or [b, 1, vocabulary] of the last position alone. See `hidden` for the
        arguments."""
        x = self.hidden(tokens, segments=segments, cache=cache)
        return self.output(x[:, -1:] if last_only else x)

    def loss(
        self, tokens: Tensor, targets: Tensor, *, segments: Tensor | None = None, scale: float = 1.0, remat: str | None = None,
        z: float = 0.0, dtype: torch.dtype | None = None,
    ) -> Tensor:  # fmt: skip
        """scale * sum over the targets (below zero where there is none) of cross-entropy + z lse^2, float64
        []; see `head`."""
        hidden = self.hidden(tokens, segments=segments, remat=remat, dtype=dtype)
        return linear_cross_entropy(
            hidden.view(-1, self.config.dim),
            local(self.output.weight),
            targets.flatten(),
            scale,
            z,
            self.split,
        )

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Normal weights of deviation 0.02, those that write to the residual stream divided by sqrt(2
        layers); norms at one.

        Drawn from a generator of its own, parameter by parameter in order: equal seeds give equal weights,
        whatever else is drawn.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            residual = name.endswith(("wo.weight", "w2.weight"))
            deviation = 0.02 / math.sqrt(2 * self.config.n_layers) if residual else 0.02
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
