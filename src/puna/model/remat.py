"""The hand-written backward of a block: what is saved, what is computed again.

The paper (section 2.4) saves "the activations that are expensive to compute, such as the outputs of linear layers", and computes the
others again. A block is y = h + W2(silu(W1 n2) * W3 n2), h = x + Wo attention(rope(Wq n1), rope(Wk n1), Wv n1), with n1 = norm(x) and
n2 = norm(h). It is cut at the attention into two functions:

    Projections   x -> q, k, v     saves x                          computes n1 again
    (attention)                    saves q, k, v, out, log-sums     nothing twice but scores, block by block
    Outputs       x, out -> y      saves out (shared), h, W1 n2, W3 n2   computes n2 and the SwiGLU product again

x, h and y are sums of outputs of linear layers, so in floats a token and layer: x (d), q, k, v (d + 2 k e), out (d), log-sums (h),
h (d), W1 n2 and W3 n2 (2 f): for as many key and value heads as heads

    6 d + 2 f + heads,

see `saved_floats`. No matrix product and no attention is computed twice.

Backward of Outputs, given dy: g = silu(a) * b again with a = W1 n2, b = W3 n2; dW2 = dy' g, dg = dy W2; da = dg b silu'(a),
db = dg silu(a); dW1 = da' n2, dW3 = db' n2, dn2 = da W1 + db W3; dh = dy + dnorm(h) dn2; dWo = dh' out, dout = dh Wo, dx = dh.
Backward of Projections, given dq, dk, dv: turn dq and dk back; dWq = dq' n1 and so on; dn1 = dq Wq + dk Wk + dv Wv;
dx = dnorm(x) dn1. The two dx are added by autograd.
"""

from typing import Any

import torch
from torch import Tensor

from puna.model import kernels
from puna.model.config import LlamaConfig

POLICIES = ("none", "llama", "full")


def saved_floats(config: LlamaConfig) -> int:
    """Floats that a block in policy `llama` holds per token between forward and backward: 6 d + 2 f + heads without grouped queries."""
    return 4 * config.dim + 2 * config.n_kv_heads * config.head_dim + 2 * config.ffn_dim + config.n_heads


class Projections(torch.autograd.Function):
    """q, k, v [b, t, heads, e] of x [b, t, d], queries and keys rotated."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, cos: Tensor, sin: Tensor, head_dim: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        normed = kernels.rms_norm(x, norm, eps).flatten(0, 1)
        q, k, v = (torch.mm(normed, weight.t()).view(*x.shape[:2], -1, head_dim) for weight in (wq, wk, wv))
        q, k = kernels.rotate(q, cos, sin), kernels.rotate(k, cos, sin)
        ctx.save_for_backward(x, norm, wq, wk, wv, cos, sin)
        ctx.eps = eps
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, wq, wk, wv, cos, sin = ctx.saved_tensors
        normed = kernels.rms_norm(x, norm, ctx.eps).flatten(0, 1)
        dq, dk, dv = (gradient.contiguous() for gradient in gradients)
        dq, dk = kernels.rotate(dq, cos, sin, backward=True), kernels.rotate(dk, cos, sin, backward=True)
        dq, dk, dv = (gradient.flatten(2).flatten(0, 1) for gradient in (dq, dk, dv))
        dwq, dwk, dwv = (torch.mm(gradient.t(), normed) for gradient in (dq, dk, dv))
        dn = torch.mm(dq, wq).addmm_(dk, wk).addmm_(dv, wv).view_as(x)
        dx, dnorm = kernels.rms_norm_backward(x, norm, dn, torch.zeros_like(x), ctx.eps)
        return dx, dnorm, dwq, dwk, dwv, None, None, None, None


class Outputs(torch.autograd.Function):
    """y [b, t, d] of the block's input x and its attention's result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, attended: Tensor, wo: Tensor, norm: Tensor, w1: Tensor, w3: Tensor, w2: Tensor, eps: float) -> Tensor:
        flat = attended.flatten(2).flatten(0, 1)
        h = torch.addmm(x.flatten(0, 1), flat, wo.t())
        normed = kernels.rms_norm(h, norm, eps)
        gate, up = torch.mm(normed, w1.t()), torch.mm(normed, w3.t())
        y = torch.addmm(h, kernels.swiglu(gate, up), w2.t())
        ctx.save_for_backward(attended, wo, norm, w1, w3, w2, h, gate, up)
        ctx.eps = eps
        return y.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        attended, wo, norm, w1, w3, w2, h, gate, up = ctx.saved_tensors
        dy = gradients[0].contiguous().flatten(0, 1)
        product, dgate, dup = kernels.swiglu_backward(gate, up, torch.mm(dy, w2))
        dw2 = torch.mm(dy.t(), product)
        del product
        normed = kernels.rms_norm(h, norm, ctx.eps)
        dw1, dw3 = torch.mm(dgate.t(), normed), torch.mm(dup.t(), normed)
        dn = torch.mm(dgate, w1).addmm_(dup, w3)
        del dgate, dup
        dh, dnorm = kernels.rms_norm_backward(h, norm, dn, dy, ctx.eps)
        dwo = torch.mm(dh.t(), attended.flatten(2).flatten(0, 1))
        dattended = torch.mm(dh, wo).view_as(attended)
        return dh.view_as(gradients[0]), dattended, dwo, dnorm, dw1, dw3, dw2, None
