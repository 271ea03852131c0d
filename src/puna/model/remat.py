"""The hand-written backward of a block: what is saved, what is computed again.

The paper (section 2.4) saves "the activations that are expensive to compute, such as the outputs of linear
layers", and computes the others again. A block is y = h + W2(silu(W1 n2) * W3 n2), h = x + Wo
attention(rope(Wq n1), rope(Wk n1), Wv n1), with n1 = norm(x) and n2 = norm(h). It is cut at the attention
into two functions:

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
it would save nothing), and `full` keeps x alone and runs a block's forward again. The operations and their
order are the same: the three give the same bits.

Backward of AttentionOutputAndFFN, given dy: g = silu(a) * b again with a = W1 n2, b = W3 n2; dW2 = dy' g, dg
= dy W2; da = dg b silu'(a), db = dg silu(a); dW1 = da' n2, dW3 = db' n2, dn2 = da W1 + db W3; dh = dy +
dnorm(h) dn2; dWo = dh' out, dout = dh Wo, dx = dh. Backward of QKVProjection, given dq, dk, dv: rotate dq and
dk back; dWq = dq' n1 and so on; dn1 = dq Wq + dk Wk + dv Wv; dx = dnorm(x) dn1. The two dx are added by
autograd.

Weights may be of a higher precision than activations (bfloat16 beside float32 on GPUs): they are rounded
where they are multiplied, and their gradients come out in their own. Under tensor and sequence parallelism
(`tensor_parallel`) x, h and y are this process's tokens, q, k, v, out, W1 n2 and W3 n2 its heads and columns
of all tokens.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from puna.model import kernels
from puna.model.config import LlamaConfig
from puna.model.tensor_parallel import TensorParallelGroup, all_gather, all_reduce, reduce_scatter

POLICIES = ("none", "llama", "full")


def saved_floats(config: LlamaConfig, policy: str = "llama") -> int:
    """Floats that a block saves per token for backward; llama: 6 d + 2 f + heads without grouped queries."""
    if policy == "full":
        return config.dim
    saved = 4 * config.dim + 2 * config.n_kv_heads * config.head_dim + 2 * config.ffn_dim + config.n_heads
    return saved + (2 * config.dim if policy == "none" else 0)


def weight_gradient(gradient: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """gradient' x, the gradient of a linear layer's weight, in the weight's dtype; on CUDA bfloat16 products
    are summed in it."""
    if gradient.dtype != dtype and gradient.device.type == "cuda":
        return torch.mm(gradient.t(), x, out_dtype=dtype)
    return torch.mm(gradient.t(), x).to(dtype)


def accumulate_weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    """Return gradient' x for autograd, or add it to `weight.grad` where that exists, and return None.

    Added in place, it takes no memory of its own. So gradients are for `.backward()`: torch.autograd.grad
    finds None for weights that have one. Under the policy `full` weights come without theirs.
    """
    if torch.compiler.is_compiling() or not (weight.is_leaf and weight.requires_grad) or weight.grad is None:
        return weight_gradient(gradient, x, weight.dtype)
    add_weight_gradient(weight.grad, gradient, x)
    return None


def add_weight_gradient(total: Tensor, gradient: Tensor, x: Tensor) -> None:
    """total += gradient' x."""
    if gradient.dtype == total.dtype:
        total.addmm_(gradient.t(), x)
    else:
        total += weight_gradient(gradient, x, total.dtype)


def row_parallel_add(
    residual: Tensor, x: Tensor, weight: Tensor, group: TensorParallelGroup | None
) -> Tensor:
    """residual + x weight', where each process of the group holds some of the inputs."""
    if group is None:
        return kernels.linear(x, weight, residual)
    return residual + group.reduce_scatter(kernels.linear(x, weight))()


class BlockWeights(NamedTuple):
    """The weights of one block that this process holds, by Meta's names, and the epsilon of its norms."""

    attention_norm: Tensor
    wq: Tensor
    wk: Tensor
    wv: Tensor
    wo: Tensor
    ffn_norm: Tensor
    w1: Tensor
    w2: Tensor
    w3: Tensor
    eps: float


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
        return dx, all_reduce(dweight, ctx.group), None, None


def qkv_projection(
    x: Tensor,
    weights: BlockWeights,
    *,
    cos: Tensor,
    sin: Tensor,
    rows: int,
    save_norm: bool,
    group: TensorParallelGroup | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v [rows, t, heads, e] of a block's input x [..., d]: norm, projections, rotary positions.

    cos, sin: [rows or 1, t, 1, e / 2]. save_norm: save norm(x) for backward instead of computing it again.
    """
    norm, wq, wk, wv = weights.attention_norm, weights.wq, weights.wk, weights.wv
    return QKVProjection.apply(x, norm, wq, wk, wv, cos, sin, rows, weights.eps, save_norm, group)


class QKVProjection(torch.autograd.Function):
    """See `qkv_projection`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm: Tensor,
        wq: Tensor,
        wk: Tensor,
        wv: Tensor,
        cos: Tensor,
        sin: Tensor,
        rows: int,
        eps: float,
        save_norm: bool,
        group: TensorParallelGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        normed = all_gather(kernels.rms_norm(x, norm, eps).view(-1, x.shape[-1]), group)
        shape = (rows, len(normed) // rows, -1, 2 * cos.shape[-1])
        q, k, v = (kernels.linear(normed, weight.to(x.dtype)).view(shape) for weight in (wq, wk, wv))
        q = kernels.apply_rotary(q, cos, sin, in_place=True)
        k = kernels.apply_rotary(k, cos, sin, in_place=True)
        ctx.save_for_backward(x, norm, wq, wk, wv, cos, sin, normed if save_norm else None)
        ctx.eps, ctx.group = eps, group
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, wq, wk, wv, cos, sin, normed = ctx.saved_tensors
        dq, dk, dv = (gradient.contiguous() for gradient in gradients)
        dq = kernels.apply_rotary(dq, cos, sin, backward=True)
        dk = kernels.apply_rotary(dk, cos, sin, backward=True)
        dq, dk, dv = (gradient.flatten(2).flatten(0, 1) for gradient in (dq, dk, dv))
        dnormed = kernels.linear(dq, wq.to(x.dtype).t())
        dnormed = kernels.linear(dk, wk.to(x.dtype).t(), dnormed)
        if normed is None:
            normed = all_gather(kernels.rms_norm(x, norm, ctx.eps).view(-1, x.shape[-1]), ctx.group)
        reduced = reduce_scatter(kernels.linear(dv, wv.to(x.dtype).t(), dnormed), ctx.group)
        dwq = accumulate_weight_gradient(dq, normed, wq)
        dwk = accumulate_weight_gradient(dk, normed, wk)
        dwv = accumulate_weight_gradient(dv, normed, wv)
        dx, dnorm = kernels.rms_norm_backward(x, norm, reduced().view_as(x), None, ctx.eps)
        return dx, all_reduce(dnorm, ctx.group), dwq, dwk, dwv, None, None, None, None, None, None


def attention_output_and_ffn(
    x: Tensor,
    attended: Tensor,
    weights: BlockWeights,
    *,
    save_norm: bool,
    group: TensorParallelGroup | None,
) -> Tensor:
    """h + W2(silu(W1 n2) * W3 n2), h = x + Wo attended, n2 = norm(h): a block's output y [..., d].

    x: the block's input [..., d]; attended: what attention gives [rows, t, heads, e]. save_norm: save n2 for
    backward instead of computing it again.
    """
    wo, norm, w1, w2, w3 = weights.wo, weights.ffn_norm, weights.w1, weights.w2, weights.w3
    return AttentionOutputAndFFN.apply(x, attended, wo, norm, w1, w2, w3, weights.eps, save_norm, group)


class AttentionOutputAndFFN(torch.autograd.Function):
    """See `attention_output_and_ffn`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        attended: Tensor,
        wo: Tensor,
        norm: Tensor,
        w1: Tensor,
        w2: Tensor,
        w3: Tensor,
        eps: float,
        save_norm: bool,
        group: TensorParallelGroup | None,
    ) -> Tensor:
        heads = attended.flatten(2).flatten(0, 1)
        h = row_parallel_add(x.view(-1, x.shape[-1]), heads, wo.to(x.dtype), group)
        normed = all_gather(kernels.rms_norm(h, norm, eps), group)
        gate, up = kernels.linear(normed, w1.to(x.dtype)), kernels.linear(normed, w3.to(x.dtype))
        y = row_parallel_add(h, kernels.swiglu(gate, up), w2.to(x.dtype), group)
        ctx.save_for_backward(attended, wo, norm, w1, w2, w3, h, gate, up, normed if save_norm else None)
        ctx.eps, ctx.group = eps, group
        return y.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        attended, wo, norm, w1, w2, w3, h, gate, up, normed = ctx.saved_tensors
        dy = gradients[0].contiguous().view_as(h)
        gathered = all_gather(dy, ctx.group)
        product, dgate, dup = kernels.swiglu_backward(gate, up, kernels.linear(gathered, w2.to(h.dtype).t()))
        dw2 = accumulate_weight_gradient(gathered, product, w2)
        del product, gathered
        dnormed = kernels.linear(dgate, w1.to(h.dtype).t())
        if normed is None:
            normed = all_gather(kernels.rms_norm(h, norm, ctx.eps), ctx.group)
        reduced = reduce_scatter(kernels.linear(dup, w3.to(h.dtype).t(), dnormed), ctx.group)
        dw1 = accumulate_weight_gradient(dgate, normed, w1)
        dw3 = accumulate_weight_gradient(dup, normed, w3)
        del dgate, dup, normed, dnormed
        dh, dnorm = kernels.rms_norm_backward(h, norm, reduced(), dy, ctx.eps)
        gathered = all_gather(dh, ctx.group)
        dattended = kernels.linear(gathered, wo.to(h.dtype).t()).view_as(attended)
        dwo = accumulate_weight_gradient(gathered, attended.flatten(2).flatten(0, 1), wo)
        dx, dnorm = dh.view_as(gradients[0]), all_reduce(dnorm, ctx.group)
        return dx, dattended, dwo, dnorm, dw1, dw2, dw3, None, None, None
