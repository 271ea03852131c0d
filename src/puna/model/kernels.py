"""The parts of the decoder between its matrix products, each in two forms: torch's operations, and on CPUs a
C++ kernel.

The kernels (`kernels.cpp`), for float32 and bfloat16, are compiled once by the machine's own C++ compiler and
kept in the user's cache folder. Where there is no compiler, on other devices and in other precisions, torch's
operations compute the same. Beside bfloat16, weights of norms and rotary angles are float32. Arguments are
contiguous; shapes are b rows, t positions, h heads, k heads of keys and values, e = width of a head, n
tokens, d width, f width of the SwiGLU.
"""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.model import KERNELS
from puna.run import compiled

_KERNELS = {
    "rms_norm": "pppnnf",
    "rms_norm_backward": "pppppppnnf",
    "swiglu": "pppn",
    "swiglu_backward": "pppppn",
    "rotate": "ppppnnnnf",
    "attention": "ppppppnnnnnf",
    "attention_backward": "ppppppppppnnnnnf",
    "cross_entropy": "ppppnnfi",
    "accumulate": "ppn",
}
# Whether flash attention over documents repeats the heads of keys itself: from torch 2.12 on.
VARLEN_TAKES_GROUPS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 12)
SUFFIXES = {torch.float32: "", torch.bfloat16: "_bf16"}  # of a kernel's name, by what its arrays hold
SIGNATURES = {name + suffix: kinds for name, kinds in _KERNELS.items() for suffix in SUFFIXES.values()}
SIGNATURES["low_rank_gradients"] = "pppppppnnnnf"
PIECE_ROWS = 64  # rows whose gradients of a norm's weight are summed together, as PIECE of kernels.cpp
LONG = 256  # tokens whose gradients of low rank are, as there


@functools.cache
def library() -> Any:
    """Return the compiled kernels; None where they cannot be compiled or are switched off."""
    return compiled.load(KERNELS, SIGNATURES)


def _has_kernel(x: Tensor, *float32: Tensor) -> bool:
    """Whether a kernel takes x, in float32 or bfloat16, and other tensors, in float32: plain ones on a CPU,
    neither recorded by autograd nor compiled."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    if library() is None or x.dtype not in SUFFIXES or any(y.dtype != torch.float32 for y in float32):
        return False
    return all(y.device.type == "cpu" and type(y) in (Tensor, torch.nn.Parameter) for y in (x, *float32))


def _call(name: str, x: Tensor, *arguments: Any) -> None:
    """Call a kernel for arrays of x's precision; tensors are passed as pointers, None as a null pointer."""
    function = getattr(library(), name + SUFFIXES[x.dtype])
    function(*(y.data_ptr() if isinstance(y, Tensor) else y for y in (x, *arguments)))


def upcast(x: Tensor) -> Tensor:
    """Convert to float32, unless x is float64: norms and losses are computed in float32 or better."""
    return x if x.dtype == torch.float64 else x.float()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor without waiting for the device; the tensor itself where it is there already."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()  # a copy from other memory may wait for all that runs
    return tensor.to(device, non_blocking=True)


@functools.cache
def _onednn_is_faster() -> bool:
    """Whether matrix products run on oneDNN: on AMD's CPUs MKL, which torch.mm calls, keeps to its AVX2 code;
    oneDNN's AVX-512 products take 12% less time there."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "AuthenticAMD" not in cpuinfo.read_text():
        return False
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def linear(x: Tensor, weight: Tensor, addend: Tensor | None = None) -> Tensor:
    """Apply a linear layer without bias: x [n, inputs] weight' [inputs, outputs] + addend [n, outputs]."""
    float32_on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    if float32_on_cpu and not torch.compiler.is_compiling() and _onednn_is_faster():
        if addend is None:
            return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, addend, weight, None, "add")
    return torch.mm(x, weight.t()) if addend is None else torch.addmm(addend, x, weight.t())


def accumulate(total: Tensor, addend: Tensor) -> None:
    """Add to a sum in float32, in place; addend of any precision."""
    if _has_kernel(addend, total) and addend.is_contiguous() and total.is_contiguous():
        _call("accumulate", addend, total, total.numel())
    else:
        total += addend


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm: x / sqrt(mean(x^2) + eps) * weight, x [n, d] (Zhang and Sennrich 2019)."""
    if _has_kernel(x, weight):
        out = torch.empty_like(x)
        _call("rms_norm", x, weight, out, x.numel() // x.shape[-1], x.shape[-1], eps)
        return out
    wide = upcast(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def rms_norm_backward(
    x: Tensor, weight: Tensor, gradient: Tensor, residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of RMSNorm: (dx, plus `residual` where there is one; dweight).

    With s = (mean(x^2) + eps)^(-1/2) and g = gradient * weight: dx = s g - x s^3 mean(x g), dweight = sum
    over n of gradient * x s.
    """
    if _has_kernel(x, weight):
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        width = x.shape[-1]
        rows = x.numel() // width
        pieces = weight.new_empty(-(-rows // PIECE_ROWS), width)
        _call("rms_norm_backward", x, weight, gradient, residual, dx, dweight, pieces, rows, width, eps)
        return dx, dweight
    wide, wide_gradient = upcast(x), upcast(gradient)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    weighted = wide_gradient * weight
    dx = weighted * scale - wide * scale**3 * (wide * weighted).mean(-1, keepdim=True)
    dx = dx.to(x.dtype)
    dweight = (wide_gradient * wide * scale).flatten(0, -2).sum(0).to(weight.dtype)
    return dx if residual is None else residual + dx, dweight


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """SwiGLU: silu(gate) * up (Shazeer 2020)."""
    if _has_kernel(gate):
        out = torch.empty_like(gate)
        _call("swiglu", gate, up, out, gate.numel())
        return out
    return F.silu(gate) * up


def swiglu_backward(gate: Tensor, up: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of SwiGLU: (silu(gate) * up again, dgate, dup); silu'(a) = s + a s (1 - s), s = sigmoid(a).

    The first may be returned in the memory of `gradient`.
    """
    if _has_kernel(gate):
        dgate, dup = torch.empty_like(gate), torch.empty_like(gate)
        _call("swiglu_backward", gate, up, gradient, dgate, dup, gate.numel())
        return gradient, dgate, dup
    sigmoid = gate.sigmoid()
    silu = gate * sigmoid
    return silu * up, gradient * up * (sigmoid + silu * (1 - sigmoid)), gradient * silu


def apply_rotary(
    x: Tensor, cos: Tensor, sin: Tensor, backward: bool = False, in_place: bool = False
) -> Tensor:
    """Rotate each pair of neighbours of x [b, t, heads, e] by its position's angle (RoPE, Su et al. 2021).

    cos, sin: [b or 1, t, 1, e / 2]. backward: rotate by the negative angle. in_place: x may be overwritten.
    """
    if _has_kernel(x, cos, sin):
        out = x if in_place else torch.empty_like(x)
        rows, length, heads, width = x.shape
        direction = -1.0 if backward else 1.0
        _call("rotate", x, cos, sin, out, rows * length, len(cos) * length, heads, width, direction)
        return out
    if backward:
        sin = -sin
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


class Attention(torch.autograd.Function):
    """Causal attention inside documents by the C++ kernels.

    Saves q, k, v, the result and one log-sum per query and head; no scores.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor) -> Tensor:
        """q [b, t, h, e], k and v [b, t, k, e], document_starts int32 [b, t]: where each position's document
        begins."""
        rows, length, heads, width = q.shape
        out, log_sums = torch.empty_like(q), torch.empty(rows, length, heads)
        sizes = (rows, length, heads, k.shape[2], width, width**-0.5)
        _call("attention", q, k, v, document_starts, out, log_sums, *sizes)
        ctx.save_for_backward(q, k, v, out, log_sums, document_starts)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, log_sums, document_starts = ctx.saved_tensors
        rows, length, heads, width = q.shape
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        gradient = gradients[0].contiguous()
        sizes = (rows, length, heads, k.shape[2], width, width**-0.5)
        _call("attention_backward", gradient, q, k, v, out, log_sums, document_starts, dq, dk, dv, *sizes)
        return dq, dk, dv, None


def attention(
    q: Tensor, k: Tensor, v: Tensor, document_starts: Tensor | None, cu_seqlens: Tensor | None = None
) -> Tensor:
    """Causal attention [b, t, h, e] of q [b, t, h, e] over k, v [b, t, k, e] inside documents.

    document_starts: int32 [b, t], None where every row is one document; position i attends to
    document_starts[i] .. i. cu_seqlens: the same as `cu_seqlens_of`, on devices with flash attention.
    """
    groups = q.shape[2] // k.shape[2]
    if cu_seqlens is not None and q.dtype in (torch.bfloat16, torch.float16):
        if groups > 1 and not VARLEN_TAKES_GROUPS:
            k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
        return _varlen_attention(q, k, v, cu_seqlens)
    with torch.no_grad():
        has_kernel = _has_kernel(q) and q.shape[-1] % 2 == 0
    if has_kernel:
        if document_starts is None:
            document_starts = torch.zeros(q.shape[:2], dtype=torch.int32)
        return Attention.apply(q.contiguous(), k.contiguous(), v.contiguous(), document_starts)
    if groups > 1:
        k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    mask = None
    if document_starts is not None:
        positions = torch.arange(q.shape[1], device=q.device)
        mask = ((positions <= positions[:, None]) & (positions >= document_starts[..., None]))[:, None]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)


def cu_seqlens_of(document_starts: Tensor) -> Tensor:
    """Cumulative lengths of the documents in a batch's tokens [b t], from 0: int32 [documents + 1]."""
    positions = torch.arange(document_starts.shape[1], device=document_starts.device)
    first_tokens = (document_starts == positions).flatten().nonzero()[:, 0]
    return F.pad(first_tokens, (0, 1), value=document_starts.numel()).int()


def _varlen_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    """`attention` by flash attention over documents of different lengths (Dao 2023): no mask, and no scores
    between documents."""
    from torch.nn.attention.varlen import varlen_attn

    flat_q, flat_k, flat_v = (x.flatten(0, 1) for x in (q, k, v))
    longest = q.shape[1]  # an upper bound of the longest document is enough
    lengths = (cu_seqlens, cu_seqlens, longest, longest)
    options: dict[str, Any] = {"enable_gqa": True} if k.shape[2] < q.shape[2] else {}
    out = varlen_attn(flat_q, flat_k, flat_v, *lengths, window_size=(-1, 0), **options)
    assert isinstance(out, Tensor)
    return out.view_as(q)


def low_rank_gradients(
    gradient: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float
) -> tuple[Tensor, Tensor] | None:
    """Gradients s (g B)' x of A [r, f] and s g' (x A') of B [o, r], whose product s B A changes a weight.

    Gradient g [n, o] and input x [n, f] are read once. None where no kernel takes them.
    """
    inputs, outputs, rank = x.shape[1], gradient.shape[1], len(a)
    if x.dtype != torch.float32 or not _has_kernel(x, gradient, a, b) or inputs % 16 or outputs % 16:
        return None
    da, db = torch.empty_like(a), torch.empty_like(b)
    wide = -(-rank // 8) * 8
    pieces = x.new_empty((-(-len(x) // LONG) * rank + wide) * (inputs + outputs))
    _call("low_rank_gradients", gradient, x, a, b, da, db, pieces, len(x), inputs, outputs, rank, scale)
    return da, db


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None, z: float, needs_gradient: bool
) -> tuple[Tensor, Tensor]:
    """(sum of the losses in float64, its gradient by the logits, where possible in their memory).

    logits [n, V], targets int64 [n]: each a token; weights float32 [n], None for 1. Loss: weight * (lse -
    logit of the target + z lse^2) (Chowdhery et al. 2022, section 5). The gradient is undefined without
    `needs_gradient`.
    """
    if _has_kernel(logits):
        total = torch.empty((), dtype=torch.float64)
        sizes = (len(logits), logits.shape[1])
        _call("cross_entropy", logits, targets, weights, total, *sizes, z, int(needs_gradient))
        return total, logits
    wide, targets = upcast(logits), targets[:, None]
    log_sums = wide.logsumexp(-1, keepdim=True)
    chosen = wide.gather(-1, targets)
    losses = log_sums - chosen + z * log_sums.square()
    if weights is not None:
        losses = losses * weights[:, None]
    total = losses.double().sum()
    if not needs_gradient:
        return total, logits
    gradient = (wide - log_sums).exp_() * (1 + 2 * z * log_sums)
    gradient.scatter_add_(-1, targets, -torch.ones_like(chosen))
    if weights is not None:
        gradient *= weights[:, None]
    return total, gradient.to(logits.dtype)
