"""The parts of the decoder between its matrix products, each in two forms: torch's operations, and on
processors a C++ kernel.

The kernels (`kernels.cpp`) are built once with the machine's own C++ compiler and kept in the user's cache
folder. Where there is no compiler, on other devices and in other precisions, torch's operations do the same.
Arguments are contiguous; shapes are b rows, t positions, h heads, k heads of keys and values, e = width of a
head, n tokens, d width, f width of the SwiGLU.
"""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.model import KERNELS
from puna.run import compiled

SIGNATURES = {
    "rms_norm": "pppnnf",
    "rms_norm_backward": "pppppppnnnf",
    "swiglu": "pppn",
    "swiglu_backward": "pppppn",
    "rotate": "ppppnnnnf",
    "attention": "ppppppnnnnnf",
    "attention_backward": "ppppppppppnnnnnf",
    "cross_entropy": "pppnnffi",
}


@functools.cache
def library() -> Any:
    """The built kernels; None where they cannot be built or are switched off."""
    return compiled.load(KERNELS, SIGNATURES)


def _ours(*tensors: Tensor) -> bool:
    """Whether a kernel takes these: plain float32 on a processor, outside of autograd's and the compiler's
    sight."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return library() is not None and all(
        x.device.type == "cpu" and x.dtype == torch.float32 and type(x) in (Tensor, torch.nn.Parameter)
        for x in tensors
    )


def _call(name: str, *arguments: Any) -> None:
    """Tensors go as pointers, None as a null pointer."""
    getattr(library(), name)(
        *(argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments)
    )


def wide_of(x: Tensor) -> Tensor:
    """Norms are computed in float32 or better."""
    return x if x.dtype == torch.float64 else x.float()


@functools.cache
def _onednn_is_faster() -> bool:
    """On AMD's processors MKL, which torch.mm calls, keeps to its AVX2 code; oneDNN's AVX-512 products take
    12% less time there."""
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    return (
        amd and torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def product(x: Tensor, weight: Tensor, beside: Tensor | None = None) -> Tensor:
    """A linear layer without bias: x [n, inputs] times weight' [inputs, outputs], plus `beside` [n,
    outputs]."""
    if (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and _onednn_is_faster()
    ):
        if beside is None:
            return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, beside, weight, None, "add")
    return torch.mm(x, weight.t()) if beside is None else torch.addmm(beside, x, weight.t())


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, x [n, d] (Zhang and Sennrich 2019)."""
    if _ours(x, weight):
        out = torch.empty_like(x)
        _call("rms_norm", x, weight, out, x.numel() // x.shape[-1], x.shape[-1], eps)
        return out
    wide = wide_of(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def rms_norm_backward(
    x: Tensor, weight: Tensor, gradient: Tensor, residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(gradient by x, plus `residual` where there is one; gradient by weight).

    With s = (mean(x^2) + eps)^(-1/2) and g = gradient * weight: dx = s g - x s^3 mean(x g), dw = sum over n
    of gradient * x s.
    """
    if _ours(x, weight):
        by_x, by_weight = torch.empty_like(x), torch.empty_like(weight)
        threads = torch.get_num_threads()
        partial = torch.zeros(threads, x.shape[-1])
        _call(
            "rms_norm_backward",
            x,
            weight,
            gradient,
            residual,
            by_x,
            by_weight,
            partial,
            threads,
            x.numel() // x.shape[-1],
            x.shape[-1],
            eps,
        )
        return by_x, by_weight
    wide, given = wide_of(x), wide_of(gradient)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    weighted = given * weight
    by_x = weighted * scale - wide * scale**3 * (wide * weighted).mean(-1, keepdim=True)
    by_x = by_x.to(x.dtype)
    return by_x if residual is None else residual + by_x, (given * wide * scale).flatten(0, -2).sum(0).to(
        weight.dtype
    )


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020)."""
    if _ours(gate):
        out = torch.empty_like(gate)
        _call("swiglu", gate, up, out, gate.numel())
        return out
    return F.silu(gate) * up


def swiglu_backward(gate: Tensor, up: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the product again, gradient by gate, gradient by up): silu'(a) = s + a s (1 - s) with s = sigmoid(a).

    The product may come in the memory of `gradient`.
    """
    if _ours(gate):
        by_gate, by_up = torch.empty_like(gate), torch.empty_like(gate)
        _call("swiglu_backward", gate, up, gradient, by_gate, by_up, gate.numel())
        return gradient, by_gate, by_up
    sigmoid = gate.sigmoid()
    silu = gate * sigmoid
    return silu * up, gradient * up * (sigmoid + silu * (1 - sigmoid)), gradient * silu


def rotate(x: Tensor, cos: Tensor, sin: Tensor, backward: bool = False, in_place: bool = False) -> Tensor:
    """Turn each pair of neighbours of x [b, t, heads, e] by its position's angle (Su et al. 2021, RoPE,
    interleaved), or back.

    cos, sin: [b or 1, t, 1, e / 2]. in_place: x is not needed any more.
    """
    if _ours(x):
        out = x if in_place else torch.empty_like(x)
        rows, length, heads, width = x.shape
        _call(
            "rotate",
            x,
            cos,
            sin,
            out,
            rows * length,
            len(cos) * length,
            heads,
            width,
            -1.0 if backward else 1.0,
        )
        return out
    if backward:
        sin = -sin
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Attention(torch.autograd.Function):
    """Causal attention inside documents by our kernels. Keeps q, k, v, the result and one log-sum a query; no
    scores."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
        """q [b, t, h, e], k and v [b, t, k, e], starts int32 [b, t]: the first position that each position
        may look at."""
        rows, length, heads, width = q.shape
        out, log_sums = torch.empty_like(q), q.new_empty(rows, heads, length)
        _call(
            "attention", q, k, v, starts, out, log_sums, rows, length, heads, k.shape[2], width, width**-0.5
        )
        ctx.save_for_backward(q, k, v, out, log_sums, starts)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, log_sums, starts = ctx.saved_tensors
        rows, length, heads, width = q.shape
        by_q, by_k, by_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        gradient = gradients[0].contiguous()
        sizes = (rows, length, heads, k.shape[2], width, width**-0.5)
        _call("attention_backward", gradient, q, k, v, out, log_sums, starts, by_q, by_k, by_v, *sizes)
        return by_q, by_k, by_v, None


def attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor | None, bounds: Tensor | None = None) -> Tensor:
    """Causal attention [b, t, h, e] of q [b, t, h, e] over k, v [b, t, k, e]: position i looks at starts[i]
    .. i.

    starts: int32 [b, t], None where every row is one document. bounds: the same as `bounds_of`, on devices
    that have flash attention.
    """
    with torch.no_grad():
        ours = _ours(q)
    if ours:
        if starts is None:
            starts = torch.zeros(q.shape[:2], dtype=torch.int32)
        return Attention.apply(q.contiguous(), k.contiguous(), v.contiguous(), starts)
    if bounds is not None and q.dtype in (torch.bfloat16, torch.float16):
        return _packed(q, k, v, bounds)
    groups = q.shape[2] // k.shape[2]
    if groups > 1:
        k, v = (part.repeat_interleave(groups, 2) for part in (k, v))
    mask = None
    if starts is not None:
        places = torch.arange(q.shape[1], device=q.device)
        mask = ((places <= places[:, None]) & (places >= starts[..., None]))[:, None]
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)


def bounds_of(starts: Tensor) -> Tensor:
    """Where documents begin in a batch's tokens [b t], one after another, and their end: int32 [documents +
    1]; see `attention`."""
    begins = (starts == torch.arange(starts.shape[1], device=starts.device)).flatten().nonzero()[:, 0]
    return F.pad(begins, (0, 1), value=starts.numel()).int()


def _packed(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> Tensor:
    """`attention` by flash attention over documents of different lengths (Dao 2023): no mask, and no scores
    between documents."""
    from torch.nn.attention.varlen import varlen_attn

    flat_q, flat_k, flat_v = (part.flatten(0, 1) for part in (q, k, v))
    longest, shared = q.shape[1], k.shape[2] < q.shape[2]  # of the longest document a bound is enough
    out = varlen_attn(
        flat_q, flat_k, flat_v, bounds, bounds, longest, longest, window_size=(-1, 0), enable_gqa=shared
    )
    assert isinstance(out, Tensor)
    return out.view_as(q)


def cross_entropy(
    logits: Tensor, targets: Tensor, scale: float, z: float, want_gradient: bool
) -> tuple[Tensor, Tensor]:
    """(sum of the losses in float64, gradient of scale * sum by the logits, in the memory of `logits` where
    that can be).

    logits [n, V], targets [n], below zero where there is none. Loss: lse - logit of the target + z lse^2
    (Chowdhery et al. 2022, section 5). The gradient is undefined unless it is wanted.
    """
    if _ours(logits):
        losses = torch.empty(len(logits), dtype=torch.float64)
        _call(
            "cross_entropy",
            logits,
            targets,
            losses,
            len(logits),
            logits.shape[1],
            scale,
            z,
            int(want_gradient),
        )
        return losses.sum(), logits
    wide = wide_of(logits)
    log_sums = wide.logsumexp(-1, keepdim=True)
    known = (targets >= 0)[:, None]
    chosen = wide.gather(-1, targets.clamp(min=0)[:, None])
    total = ((log_sums - chosen + z * log_sums.square()) * known).double().sum()
    if not want_gradient:
        return total, logits
    gradient = (wide - log_sums).exp_() * (1 + 2 * z * log_sums)
    gradient.scatter_add_(-1, targets.clamp(min=0)[:, None], -torch.ones_like(chosen))
    return total, (gradient * (known * scale)).to(logits.dtype)
