"""One block of the decoder, in two forms of the same lines.

With n1 = norm(x) and n2 = norm(h), a block is

    q, k, v = rope(Wq n1), rope(Wk n1), Wv n1
    h = x + Wo attention(q, k, v)
    y = h + W2(silu(W1 n2) * W3 n2)

`Block.plain` says so to autograd; caches and exact references take that form. `Block.by_hand`, for training,
has a backward written by hand, because autograd keeps more than it must: the paper (section 2.4) saves "the
activations that are expensive to compute, such as the outputs of linear layers", and computes the others
again. It is cut at the attention into two functions:

    QKVProjection           x -> q, k, v     saves x
                                             computes n1 again
    (attention)                              saves q, k, v, out, log-sums
                                             computes nothing twice but scores, block by block
    AttentionOutputAndFFN   x, out -> y      saves out (shared), h, W1 n2, W3 n2
                                             computes n2 and the SwiGLU product again

x, h and y are sums of outputs of linear layers, so in floats a token and layer: x (d), q, k, v (d + 2 k e),
out (d), log-sums (h), h (d), W1 n2 and W3 n2 (2 f): for as many key and value heads as heads

    6 d + 2 f + heads,

see `saved_floats`. No matrix product and no attention is computed twice. That is the policy `llama`; `none`
keeps n1 and n2 too (the SwiGLU product comes with its gradient in one pass over W1 n2 and W3 n2, so to keep
it would save nothing), and `full` keeps x alone and, before a block's backward, runs its forward again up to
W3 n2, as `none` does. The operations and their order are the same: the three give the same bits.

What nothing asks for is not computed: the gradient of a frozen weight, those of activations below the lowest
weight that is trained, and in the last layer all behind the attention of positions that the head does not
read. Weights may be of a higher precision than activations (bfloat16 beside float32 on GPUs): they are
rounded where they are multiplied, and their gradients come out in their own. Under tensor and sequence
parallelism (`tensor_parallel`) x, h and y are this process's tokens, q, k, v, out, W1 n2 and W3 n2 its heads
and columns of all tokens.

Shapes: b rows, t positions, n = b t tokens, d width, h heads, k heads of keys and values, e width of a head
(d / h where no other is named), f width of the SwiGLU.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from puna.model import kernels
from puna.model.config import LlamaConfig, RopeScaling
from puna.model.tensor_parallel import TensorParallelGroup, all_gather, all_reduce, local, reduce_scatter

T = TypeVar(
    "T"
)  # of inputs of a function: Tensor, of their gradients: Tensor or None, of what needs one: bool

POLICIES = ("none", "llama", "full")


def saved_floats(config: LlamaConfig, policy: str = "llama") -> int:
    """Floats that a block saves per token for backward; llama: 6 d + 2 f + heads without grouped queries."""
    if policy == "full":
        return config.dim
    heads = 2 * config.q_dim + 2 * config.n_kv_heads * config.head_dim  # q, out, k, v
    saved = 2 * config.dim + heads + 2 * config.ffn_dim + config.n_heads
    return saved + (2 * config.dim if policy == "none" else 0)


_rounded_weights: dict[int, Tensor] | None = None  # by the id of the weight


@contextlib.contextmanager
def rounded_once() -> Iterator[None]:
    """While this lasts, round each weight on a processor at its first use alone; none may change."""
    global _rounded_weights
    outer, _rounded_weights = _rounded_weights, {}
    try:
        yield
    finally:
        _rounded_weights = outer


def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight in the precision of activations."""
    kept = _rounded_weights
    on_cpu = type(weight) is nn.Parameter and weight.device.type == "cpu"
    if weight.dtype == dtype or kept is None or not on_cpu or torch.compiler.is_compiling():
        return weight.to(dtype)
    if id(weight) not in kept:
        kept[id(weight)] = weight.detach().to(dtype)
    return kept[id(weight)]


def weight_gradient(gradient: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """gradient' x, the gradient of a linear layer's weight: on CUDA in the weight's dtype, in which bfloat16
    products are summed there; else in that of x, with sums in float32 that are rounded at their end."""
    if gradient.dtype != dtype and gradient.device.type == "cuda":
        return torch.mm(gradient.t(), x, out_dtype=dtype)
    return torch.mm(gradient.t(), x)


def accumulate_weight_gradient(
    needed: bool, gradient: Tensor, x: Tensor | None, weight: Tensor
) -> Tensor | None:
    """Return gradient' x for autograd, or add it to `weight.grad` where that exists, and return None.

    Added in place, it takes no memory of its own. So gradients are for `.backward()`: torch.autograd.grad
    finds None for weights that have one. Under the policy `full` weights come without theirs. needed: the
    weight is trained; if not, None. A weight that an adapter has changed (`puna.model.lora`) carries on its
    storage, which views and saved copies share, what takes gradient and x instead.
    """
    if not needed or x is None:
        return None
    if not torch.compiler.is_compiling() and (take := getattr(weight.untyped_storage(), "low_rank", None)):
        return take(gradient, x)
    total = gradient_of(weight)
    if total is None:
        return weight_gradient(gradient, x, weight.dtype).to(weight.dtype)
    add_weight_gradient(total, gradient, x)
    return None


def gradient_of(weight: Tensor) -> Tensor | None:
    """A weight's gradient so far, if more can be added to it in place."""
    if torch.compiler.is_compiling() or not (weight.is_leaf and weight.requires_grad):
        return None
    return weight.grad


def add_weight_gradient(total: Tensor, gradient: Tensor, x: Tensor) -> None:
    """total += gradient' x."""
    if gradient.dtype == total.dtype:
        total.addmm_(gradient.t(), x)
    else:
        kernels.accumulate(total, weight_gradient(gradient, x, total.dtype))


def linear(x: Tensor, weight: Tensor, addend: Tensor | None = None) -> Tensor:
    """x weight' + addend, in the precision of x."""
    return kernels.linear(x, rounded(weight, x.dtype), addend)


def input_gradient(gradient: Tensor, weight: Tensor, addend: Tensor | None = None) -> Tensor:
    """gradient weight + addend: the gradient of a linear layer's input."""
    return kernels.linear(gradient, rounded(weight, gradient.dtype).t(), addend)


def row_parallel_linear(
    x: Tensor, weight: Tensor, addend: Tensor, group: TensorParallelGroup | None
) -> Tensor:
    """`linear`, where each process of the group holds some of the inputs."""
    if group is None:
        return linear(x, weight, addend)
    return addend + group.reduce_scatter(linear(x, weight))()


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019), in float32 or better."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.rms_norm(x, self.weight, self.eps)


class Norm(torch.autograd.Function):
    """RMSNorm of x [..., d]; saves x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, group: TensorParallelGroup | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.group = eps, group
        return kernels.rms_norm(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx, dweight = kernels.rms_norm_backward(x, weight, gradients[0].contiguous(), None, ctx.eps)
        needs_dx, needs_dweight, _, _ = ctx.needs_input_grad
        summed = all_reduce(dweight, ctx.group)() if needs_dweight else None
        return dx if needs_dx else None, summed, None, None


def rotary_divisors(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """What Llama 3.1 divides rotary frequencies by, [e / 2]: high ones by 1, low ones by `factor`."""
    wavelengths = 2 * math.pi / frequencies
    waves = scaling.original_max_position_embeddings / wavelengths  # in a context of the first training
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((waves - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - kept) / scaling.factor + kept)


def rotary_frequencies(
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """theta^(-2i / e), scaled where there is a scaling: radians a position, float64 [e / 2]."""
    even = torch.arange(0, head_dim, 2, dtype=torch.float64, device=device)
    frequencies = theta ** (-even / head_dim)
    return frequencies if scaling is None else frequencies / rotary_divisors(frequencies, scaling)


def rotary_cos_sin(
    positions: Tensor,
    head_dim: int,
    theta: float,
    dtype: torch.dtype,
    scaling: RopeScaling | None = None,
) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta^(-2i / e), each [*positions.shape, 1, e / 2]; angles in float64."""
    frequencies = rotary_frequencies(head_dim, theta, scaling, positions.device)
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


class AttentionLayout:
    """Positions and documents of the tokens of one forward pass: computed once, used by every layer.

    rows: b. tensor_parallel: the processes that share the model, None where there is one. dtype: of
    activations. positions: [b or 1, t], from 0 in each document. cos, sin: of the rotary angles at these
    positions, in float32 or better. document_starts: None
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
        self.rows, self.tensor_parallel, self.dtype = len(tokens), tensor_parallel, dtype
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
                self.cu_seqlens = kernels.to_device(kernels.cu_seqlens_of(document_starts), device)
            document_starts = kernels.to_device(document_starts, device)
            self.positions = steps - document_starts
            self.document_starts = document_starts.int()
        # Rounded to bfloat16 they would be no rotation any more.
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        theta, scaling = config.rope_theta, config.rope_scaling
        self.cos, self.sin = rotary_cos_sin(self.positions, config.head_dim, theta, exact, scaling)


class Attention(nn.Module):
    """Weights of causal self-attention; query heads may share heads of keys and values."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        kv_dim = config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, config.q_dim, bias=False)
        self.wk = nn.Linear(config.dim, kv_dim, bias=False)
        self.wv = nn.Linear(config.dim, kv_dim, bias=False)
        self.wo = nn.Linear(config.q_dim, config.dim, bias=False)


class FeedForward(nn.Module):
    """Weights of SwiGLU (Shazeer 2020)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.ffn_dim, bias=False)
        self.w2 = nn.Linear(config.ffn_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.ffn_dim, bias=False)


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then the same with the feed-forward network."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self,
        x: Tensor,
        layout: AttentionLayout,
        cache: Cache | None = None,
        remat: str | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """y of x: [b, t, d] without a policy `remat`, else [n, d], or this process's [n / p, d]; with one, of
        the positions `kept` [m] alone where they are given."""
        if remat is None:
            return self.plain(x, layout, cache)
        if remat != "full" or not torch.is_grad_enabled():
            return self.by_hand(x, layout, kept, save_norms=remat == "none")
        runs = itertools.count()

        def run(x: Tensor) -> Tensor:
            """The block; from the second time on for its backward alone, which does not need y."""
            with_output = torch.compiler.is_compiling() or next(runs) == 0
            return self.by_hand(x, layout, kept, save_norms=True, with_output=with_output)

        return checkpoint(run, x, use_reentrant=False)

    def plain(self, x: Tensor, layout: AttentionLayout, cache: Cache | None) -> Tensor:
        """Of x [b, t, d]; the backward is autograd's."""
        attention, ffn, heads = self.attention, self.feed_forward, (-1, self.head_dim)

        n1 = self.attention_norm(x)
        q, k, v = attention.wq(n1), attention.wk(n1), attention.wv(n1)
        q, k, v = q.unflatten(-1, heads), k.unflatten(-1, heads), v.unflatten(-1, heads)  # [b, t, h or k, e]
        q = kernels.apply_rotary(q, layout.cos, layout.sin)
        k = kernels.apply_rotary(k, layout.cos, layout.sin)

        if cache is None:
            attended = kernels.attention(q, k, v, layout.document_starts, layout.cu_seqlens)
        else:
            attended = cache.attend(self.layer, q, k, v)

        h = x + attention.wo(attended.flatten(2))
        n2 = self.ffn_norm(h)
        gate, up = ffn.w1(n2), ffn.w3(n2)
        return h + ffn.w2(F.silu(gate) * up)

    def by_hand(
        self,
        x: Tensor,
        layout: AttentionLayout,
        kept: Tensor | None,
        *,
        save_norms: bool,
        with_output: bool = True,
    ) -> Tensor:
        """Of x [n, d]; the backward is that of the two functions below. save_norms: keep n1 and n2 for it.
        with_output: without, what comes back means nothing."""
        attention, ffn = self.attention, self.feed_forward
        how = How(layout.rows, self.attention_norm.eps, save_norms, with_output, layout.tensor_parallel)

        # FSDP2 rounds the weights of norms, too; what computes with them, and their gradients, is in float32.
        qkv_inputs = QKVInputs(
            x=x,
            attention_norm=kernels.upcast(local(self.attention_norm.weight)),
            wq=local(attention.wq.weight),
            wk=local(attention.wk.weight),
            wv=local(attention.wv.weight),
            cos=layout.cos,
            sin=layout.sin,
        )
        q, k, v, x = QKVProjection.apply(how, *qkv_inputs)

        attended = kernels.attention(q, k, v, layout.document_starts, layout.cu_seqlens)
        if kept is not None:
            x = x.index_select(0, kept)
            attended = attended.flatten(0, 1).index_select(0, kept)[None]

        ffn_inputs = FFNInputs(
            x=x,
            attended=attended,
            wo=local(attention.wo.weight),
            ffn_norm=kernels.upcast(local(self.ffn_norm.weight)),
            w1=local(ffn.w1.weight),
            w2=local(ffn.w2.weight),
            w3=local(ffn.w3.weight),
        )
        return AttentionOutputAndFFN.apply(how, *ffn_inputs)


class How(NamedTuple):
    """What the two functions must know beside their tensors. rows: b. eps: of the norms. The others: see
    `Block.by_hand`; group: the processes that share the model."""

    rows: int
    eps: float
    save_norms: bool
    with_output: bool
    group: TensorParallelGroup | None


class QKVInputs(NamedTuple, Generic[T]):
    """Of QKVProjection: tensors, or their gradients, or which of these are needed."""

    x: T
    attention_norm: T
    wq: T
    wk: T
    wv: T
    cos: T
    sin: T


class QKVProjection(torch.autograd.Function):
    """q [b, t, h, e], k and v [b, t, k, e] of x: the first lines of `Block.plain`. And x itself, so that the
    gradient of its other use comes here and is added where its own is made."""

    @staticmethod
    def forward(ctx: Any, how: How, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, attention_norm, wq, wk, wv, cos, sin = inputs

        n1 = all_gather(kernels.rms_norm(x, attention_norm, how.eps), how.group)()
        q, k, v = linear(n1, wq), linear(n1, wk), linear(n1, wv)
        heads = (how.rows, len(n1) // how.rows, -1, 2 * cos.shape[-1])
        q, k, v = q.view(heads), k.view(heads), v.view(heads)
        q = kernels.apply_rotary(q, cos, sin, in_place=True)
        k = kernels.apply_rotary(k, cos, sin, in_place=True)

        ctx.how = how
        ctx.save_for_backward(*inputs, n1 if how.save_norms else None)
        return q, k, v, x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, attention_norm, wq, wk, wv, cos, sin, n1 = ctx.saved_tensors
        how, needs = ctx.how, QKVInputs(*ctx.needs_input_grad[1:])
        dq, dk, dv, dx = (gradient.contiguous() for gradient in gradients)

        dq = kernels.apply_rotary(dq, cos, sin, backward=True)
        dk = kernels.apply_rotary(dk, cos, sin, backward=True)
        dq, dk, dv = (gradient.flatten(2).flatten(0, 1) for gradient in (dq, dk, dv))
        gathering = reducing = None
        if n1 is None and (needs.wq or needs.wk or needs.wv):
            gathering = all_gather(kernels.rms_norm(x, attention_norm, how.eps), how.group)
        if needs.x or needs.attention_norm:
            dn1 = input_gradient(dk, wk, input_gradient(dq, wq))
            reducing = reduce_scatter(input_gradient(dv, wv, dn1), how.group)
            del dn1
        if gathering is not None:
            n1 = gathering()
        dwq = accumulate_weight_gradient(needs.wq, dq, n1, wq)
        dwk = accumulate_weight_gradient(needs.wk, dk, n1, wk)
        dwv = accumulate_weight_gradient(needs.wv, dv, n1, wv)
        dnorm = None
        if reducing is not None:
            dx, dnorm = kernels.rms_norm_backward(x, attention_norm, reducing(), dx, how.eps)
            dnorm = all_reduce(dnorm, how.group)() if needs.attention_norm else None
        return None, *QKVInputs(
            x=dx if needs.x else None, attention_norm=dnorm, wq=dwq, wk=dwk, wv=dwv, cos=None, sin=None
        )


class FFNInputs(NamedTuple, Generic[T]):
    """Of AttentionOutputAndFFN: tensors, or their gradients, or which of these are needed."""

    x: T
    attended: T
    wo: T
    ffn_norm: T
    w1: T
    w2: T
    w3: T


class AttentionOutputAndFFN(torch.autograd.Function):
    """y of x and attended [b, t, h, e]: the last lines of `Block.plain`."""

    @staticmethod
    def forward(ctx: Any, how: How, *inputs: Tensor) -> Tensor:
        x, attended, wo, ffn_norm, w1, w2, w3 = inputs

        h = row_parallel_linear(attended.flatten(2).flatten(0, 1), wo, x, how.group)
        n2 = all_gather(kernels.rms_norm(h, ffn_norm, how.eps), how.group)()
        gate, up = linear(n2, w1), linear(n2, w3)
        y = h.new_empty(0)
        if how.with_output:
            y = row_parallel_linear(kernels.swiglu(gate, up), w2, h, how.group)

        ctx.how = how
        ctx.save_for_backward(*inputs[1:], h, n2 if how.save_norms else None, gate, up)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        attended, wo, ffn_norm, w1, w2, w3, h, n2, gate, up = ctx.saved_tensors
        how, needs = ctx.how, FFNInputs(*ctx.needs_input_grad[1:])
        needs_dh = needs.x or needs.attended or needs.wo
        dy = gradients[0].contiguous()

        gathered = all_gather(dy, how.group)()
        if needs_dh or needs.ffn_norm or needs.w1 or needs.w3:
            product = input_gradient(gathered, w2)
        else:
            product = torch.zeros_like(gate)
        product, dgate, dup = kernels.swiglu_backward(gate, up, product)
        dw2 = accumulate_weight_gradient(needs.w2, gathered, product, w2)
        del product, gathered
        gathering = reducing = None
        if n2 is None and (needs.w1 or needs.w3):
            gathering = all_gather(kernels.rms_norm(h, ffn_norm, how.eps), how.group)
        if needs_dh or needs.ffn_norm:
            dn2 = input_gradient(dgate, w1)
            reducing = reduce_scatter(input_gradient(dup, w3, dn2), how.group)
            del dn2
        if gathering is not None:
            n2 = gathering()
        dw1 = accumulate_weight_gradient(needs.w1, dgate, n2, w1)
        del dgate
        dh = dnorm = dattended = dwo = gathering = summing = None
        if reducing is not None:
            dh, dnorm = kernels.rms_norm_backward(h, ffn_norm, reducing(), dy, how.eps)
            gathering = all_gather(dh, how.group) if needs.attended or needs.wo else None
            summing = all_reduce(dnorm, how.group) if needs.ffn_norm else None
        dw3 = accumulate_weight_gradient(needs.w3, dup, n2, w3)
        del dup, n2
        if gathering is not None:
            gathered = gathering()
            dattended = input_gradient(gathered, wo).view_as(attended) if needs.attended else None
            dwo = accumulate_weight_gradient(needs.wo, gathered, attended.flatten(2).flatten(0, 1), wo)
        dnorm = None if summing is None else summing()
        return None, *FFNInputs(x=dh, attended=dattended, wo=dwo, ffn_norm=dnorm, w1=dw1, w2=dw2, w3=dw3)
