"""The hand-written backward of a block: what is saved, what is computed again.

The paper (section 2.4) saves "the activations that are expensive to compute, such as the outputs of linear
layers", and computes the others again. A block is y = h + W2(silu(W1 n2) * W3 n2), h = x + Wo
attention(rope(Wq n1), rope(Wk n1), Wv n1), with n1 = norm(x) and n2 = norm(h). It is cut at the attention
into two functions:

    Projections   x -> q, k, v     saves x                          computes n1 again
    (attention)                    saves q, k, v, out, log-sums     nothing twice but scores, block by block
    Outputs       x, out -> y      saves out (shared), h, W1 n2, W3 n2   computes n2 and the SwiGLU product again

x, h and y are sums of outputs of linear layers, so in floats a token and layer: x (d), q, k, v (d + 2 k e),
out (d), log-sums (h), h (d), W1 n2 and W3 n2 (2 f): for as many key and value heads as heads

    6 d + 2 f + heads,

see `saved_floats`. No matrix product and no attention is computed twice. That is the policy `llama`; `none`
keeps n1 and n2 too (the SwiGLU product comes with its gradient in one pass over W1 n2 and W3 n2, so to keep
it would save nothing), and `full` keeps x alone and runs a block's forward again. The operations and their
order are the same: the three give the same bits.

Backward of Outputs, given dy: g = silu(a) * b again with a = W1 n2, b = W3 n2; dW2 = dy' g, dg = dy W2; da =
dg b silu'(a), db = dg silu(a); dW1 = da' n2, dW3 = db' n2, dn2 = da W1 + db W3; dh = dy + dnorm(h) dn2; dWo =
dh' out, dout = dh Wo, dx = dh. Backward of Projections, given dq, dk, dv: turn dq and dk back; dWq = dq' n1
and so on; dn1 = dq Wq + dk Wk + dv Wv; dx = dnorm(x) dn1. The two dx are added by autograd.

Weights may be of a higher precision than activations (bfloat16 beside float32 on GPUs): they are rounded
where they are multiplied, and their gradients come out in their own. Under tensor and sequence parallelism
(`placement`) x, h and y are this process's tokens, q, k, v, out, W1 n2 and W3 n2 its heads and columns of all
tokens.
"""

from typing import Any

import torch
from torch import Tensor

from puna.model import kernels
from puna.model.config import LlamaConfig
from puna.model.tensor_parallel import Split, gather, scatter, summed

POLICIES = ("none", "llama", "full")


def saved_floats(config: LlamaConfig, policy: str = "llama") -> int:
    """Floats that a block holds per token between forward and backward; llama: 6 d + 2 f + heads without
    grouped queries."""
    if policy == "full":
        return config.dim
    by_hand = 4 * config.dim + 2 * config.n_kv_heads * config.head_dim + 2 * config.ffn_dim + config.n_heads
    return by_hand + (2 * config.dim if policy == "none" else 0)


def by_weight(gradient: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """gradient' x, the gradient of a linear layer's weight, in the weight's dtype; on CUDA bfloat16 products
    are summed in it."""
    if gradient.dtype != dtype and gradient.device.type == "cuda":
        return torch.mm(gradient.t(), x, out_dtype=dtype)
    return torch.mm(gradient.t(), x).to(dtype)


def added(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    """The same for autograd; None where the weight has a gradient already, to which it is added at once,
    without memory of its own.

    So gradients are for `.backward()`: torch.autograd.grad finds None for weights that have one. Under the
    policy `full` weights come without theirs.
    """
    if torch.compiler.is_compiling() or not (weight.is_leaf and weight.requires_grad) or weight.grad is None:
        return by_weight(gradient, x, weight.dtype)
    add_by_weight(weight.grad, gradient, x)
    return None


def add_by_weight(total: Tensor, gradient: Tensor, x: Tensor) -> None:
    """total += gradient' x."""
    if gradient.dtype == total.dtype:
        total.addmm_(gradient.t(), x)
    else:
        total += by_weight(gradient, x, total.dtype)


class Norm(torch.autograd.Function):
    """RMSNorm of x [..., d]; saves x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, split: Split | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps, ctx.split = eps, split
        return kernels.rms_norm(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx, dweight = kernels.rms_norm_backward(x, weight, gradients[0].contiguous(), None, ctx.eps)
        return dx, summed(dweight, ctx.split), None, None


class Projections(torch.autograd.Function):
    """q, k, v [rows, t, heads, e] of x [..., d], queries and keys rotated."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, cos: Tensor, sin: Tensor, rows: int, eps: float,
        keep: bool, split: Split | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        normed = gather(kernels.rms_norm(x, norm, eps).view(-1, x.shape[-1]), split)
        shape = (rows, len(normed) // rows, -1, 2 * cos.shape[-1])
        q, k, v = (kernels.product(normed, weight.to(x.dtype)).view(shape) for weight in (wq, wk, wv))
        q, k = kernels.rotate(q, cos, sin, in_place=True), kernels.rotate(k, cos, sin, in_place=True)
        ctx.save_for_backward(x, norm, wq, wk, wv, cos, sin, normed if keep else None)
        ctx.eps, ctx.split = eps, split
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, wq, wk, wv, cos, sin, normed = ctx.saved_tensors
        dq, dk, dv = (gradient.contiguous() for gradient in gradients)
        dq, dk = kernels.rotate(dq, cos, sin, backward=True), kernels.rotate(dk, cos, sin, backward=True)
        dq, dk, dv = (gradient.flatten(2).flatten(0, 1) for gradient in (dq, dk, dv))
        dn = kernels.product(dq, wq.to(x.dtype).t())
        dn = kernels.product(dk, wk.to(x.dtype).t(), dn)
        if normed is None:
            normed = gather(kernels.rms_norm(x, norm, ctx.eps).view(-1, x.shape[-1]), ctx.split)
        arriving = scatter(kernels.product(dv, wv.to(x.dtype).t(), dn), ctx.split)
        dwq, dwk, dwv = added(dq, normed, wq), added(dk, normed, wk), added(dv, normed, wv)
        dx, dnorm = kernels.rms_norm_backward(x, norm, arriving().view_as(x), None, ctx.eps)
        return dx, summed(dnorm, ctx.split), dwq, dwk, dwv, None, None, None, None, None, None


class Outputs(torch.autograd.Function):
    """y [..., d] of the block's input x [..., d] and its attention's result [rows, t, heads, e]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, attended: Tensor, wo: Tensor, norm: Tensor, w1: Tensor, w3: Tensor, w2: Tensor, eps: float,
        keep: bool, split: Split | None,
    ) -> Tensor:  # fmt: skip
        h = _onto(x.view(-1, x.shape[-1]), attended.flatten(2).flatten(0, 1), wo.to(x.dtype), split)
        normed = gather(kernels.rms_norm(h, norm, eps), split)
        gate, up = kernels.product(normed, w1.to(x.dtype)), kernels.product(normed, w3.to(x.dtype))
        y = _onto(h, kernels.swiglu(gate, up), w2.to(x.dtype), split)
        ctx.save_for_backward(attended, wo, norm, w1, w3, w2, h, gate, up, normed if keep else None)
        ctx.eps, ctx.split = eps, split
        return y.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        attended, wo, norm, w1, w3, w2, h, gate, up, normed = ctx.saved_tensors
        dy = gradients[0].contiguous().view_as(h)
        whole = gather(dy, ctx.split)
        product, dgate, dup = kernels.swiglu_backward(gate, up, kernels.product(whole, w2.to(h.dtype).t()))
        dw2 = added(whole, product, w2)
        del product, whole
        dn = kernels.product(dgate, w1.to(h.dtype).t())
        if normed is None:
            normed = gather(kernels.rms_norm(h, norm, ctx.eps), ctx.split)
        arriving = scatter(kernels.product(dup, w3.to(h.dtype).t(), dn), ctx.split)
        dw1, dw3 = added(dgate, normed, w1), added(dup, normed, w3)
        del dgate, dup, normed, dn
        dh, dnorm = kernels.rms_norm_backward(h, norm, arriving(), dy, ctx.eps)
        whole = gather(dh, ctx.split)
        dattended = kernels.product(whole, wo.to(h.dtype).t()).view_as(attended)
        dwo = added(whole, attended.flatten(2).flatten(0, 1), wo)
        return (
            dh.view_as(gradients[0]),
            dattended,
            dwo,
            summed(dnorm, ctx.split),
            dw1,
            dw3,
            dw2,
            None,
            None,
            None,
        )


def _onto(x: Tensor, part: Tensor, weight: Tensor, split: Split | None) -> Tensor:
    """x + part weight', the parts of all processes added up."""
    if split is None:
        return kernels.product(part, weight, x)
    return x + split.scatter(kernels.product(part, weight))()
