"""Kernels against torch's operations in float64, over odd shapes: grouped queries, any length, any width of a
head."""

import ast
import inspect
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.model import kernels

compiled = pytest.mark.skipif(
    kernels.library() is None, reason="no C++ compiler here: torch's operations are used"
)

SHAPES = st.tuples(
    st.integers(1, 3),
    st.integers(1, 150),
    st.sampled_from([(1, 1), (4, 4), (6, 2), (4, 1)]),
    st.sampled_from([2, 16, 20, 48, 64, 80, 128]),
)


def random_document_starts(rows: int, length: int, probability: float) -> torch.Tensor:
    """Where each position's document begins; each position begins one with the given probability."""
    steps = torch.arange(length)
    is_start = torch.rand(rows, length) < probability
    return (steps * is_start).cummax(1).values.int()


def close(ours: torch.Tensor, exact: torch.Tensor, tolerance: float = 2e-6, floor: float = 0.1) -> None:
    """Assert a difference below tolerance times the largest entry, or times `floor` where all cancel out."""
    scale = exact.abs().max().clamp(min=floor)
    assert ours.shape == exact.shape and ((ours.double() - exact).abs().max() / scale).item() < tolerance


@compiled
@settings(max_examples=60)
@given(SHAPES, st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(0, 1000))
def test_attention_and_its_gradients(
    shape: tuple[int, int, tuple[int, int], int], probability: float, seed: int
) -> None:
    rows, length, (heads, kv_heads), width = shape
    torch.manual_seed(seed)
    starts = random_document_starts(rows, length, probability) if probability else None
    q, gradient = torch.randn(rows, length, heads, width) * 3, torch.randn(rows, length, heads, width)
    k, v = torch.randn(rows, length, kv_heads, width), torch.randn(rows, length, kv_heads, width)
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    out, reference = kernels.attention(*ours, starts), kernels.attention(*exact, starts)
    assert "Attention" in type(out.grad_fn).__name__ and "Attention" not in type(reference.grad_fn).__name__
    close(out, reference)
    out.backward(gradient)
    reference.backward(gradient.double())
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        close(mine.grad, theirs.grad, 1e-5, 5.0)


@compiled
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 150), min_size=1, max_size=6), st.sampled_from([torch.float32, torch.bfloat16])
)
def test_a_document_s_attention_has_the_same_bits_wherever_it_stands(
    sizes: list[int], dtype: torch.dtype
) -> None:
    torch.manual_seed(len(sizes))
    begins = torch.tensor([0, *sizes]).cumsum(0).tolist()
    starts = torch.tensor(begins[:-1]).repeat_interleave(torch.tensor(sizes)).int()[None]
    packed = [torch.randn(1, begins[-1], heads, 16).to(dtype).requires_grad_() for heads in (4, 2, 2)]
    gradient = torch.randn(1, begins[-1], 4, 16).to(dtype)
    out = kernels.attention(*packed, starts)
    found = out, *torch.autograd.grad(out, packed, gradient)
    for begin, end in itertools.pairwise(begins):
        alone = [x.detach()[:, begin:end].clone().requires_grad_() for x in packed]
        out = kernels.attention(*alone, None)
        expected = out, *torch.autograd.grad(out, alone, gradient[:, begin:end])
        assert all(torch.equal(x[:, begin:end], y) for x, y in zip(found, expected, strict=True))


@compiled
def test_attention_is_softmax_of_scaled_products() -> None:
    """Written out for one head, in float64."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 70, 1, 8) for _ in range(3))
    scores = q[0, :, 0].double() @ k[0, :, 0].double().T / math.sqrt(8)
    scores = scores.masked_fill(torch.ones(70, 70).triu(1).bool(), -math.inf)
    close(kernels.attention(q, k, v, None)[0, :, 0], scores.softmax(-1) @ v[0, :, 0].double())


@compiled
def test_large_scores_do_not_overflow() -> None:
    q = torch.full((1, 130, 1, 16), 30.0).requires_grad_()
    k = torch.randn(1, 130, 1, 16) * 30
    v = torch.randn(1, 130, 1, 16)
    out = kernels.attention(q, k, v, None)
    out.sum().backward()
    assert out.isfinite().all() and q.grad is not None and q.grad.isfinite().all()
    close(out, kernels.attention(q.double(), k.double(), v.double(), None), 1e-5)


@compiled
@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 1000))
@torch.no_grad()
def test_element_wise_parts(rows: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, gradient, residual = (torch.randn(rows, width) * 4 for _ in range(3))
    weight = torch.rand(width) + 0.5
    wide = [tensor.double() for tensor in (x, weight, gradient, residual)]
    close(kernels.rms_norm(x, weight, 1e-5), kernels.rms_norm(wide[0], wide[1], 1e-5))
    scale = (wide[0].square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    largest_term = (wide[2] * wide[1] * scale).abs().max().item()  # terms may cancel out
    for addend, wide_addend in ((residual, wide[3]), (None, None)):
        found = kernels.rms_norm_backward(x, weight, gradient, addend, 1e-5)
        exactly = kernels.rms_norm_backward(*wide[:3], wide_addend, 1e-5)
        for ours, exact in zip(found, exactly, strict=True):
            close(ours, exact, floor=max(largest_term, 0.1))
    close(kernels.swiglu(x, gradient), kernels.swiglu(wide[0], wide[2]))
    found = kernels.swiglu_backward(x, residual, gradient.clone())
    for ours, exact in zip(found, kernels.swiglu_backward(wide[0], wide[3], wide[2]), strict=True):
        close(ours, exact)


def test_the_formulas_are_the_derivatives() -> None:
    """torch's own operations in float64, through autograd."""
    torch.manual_seed(1)
    x, gate, up = (torch.randn(5, 12, dtype=torch.double, requires_grad=True) for _ in range(3))
    weight = torch.randn(12, dtype=torch.double, requires_grad=True)
    gradient, residual = torch.randn(5, 12, dtype=torch.double), torch.randn(5, 12, dtype=torch.double)
    dx, dweight = torch.autograd.grad(kernels.rms_norm(x, weight, 1e-5), (x, weight), gradient)
    ours = kernels.rms_norm_backward(x.detach(), weight.detach(), gradient, residual, 1e-5)
    torch.testing.assert_close(ours, (dx + residual, dweight))
    product = kernels.swiglu(gate, up)
    expected = (product.detach(), *torch.autograd.grad(product, (gate, up), gradient))
    torch.testing.assert_close(kernels.swiglu_backward(gate.detach(), up.detach(), gradient), expected)


@given(
    st.integers(1, 3), st.integers(1, 20), st.integers(1, 4), st.sampled_from([2, 6, 16, 48]), st.booleans()
)
@torch.no_grad()
def test_rotary(rows: int, length: int, heads: int, width: int, shared: bool) -> None:
    x = torch.randn(rows, length, heads, width)
    angles = torch.randn(1 if shared else rows, length, 1, width // 2)
    rotated = kernels.apply_rotary(x, angles.cos(), angles.sin())
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).double().contiguous())
    pairs = pairs * torch.polar(torch.ones(()).double(), angles.double())
    close(rotated, torch.view_as_real(pairs).flatten(-2))
    close(kernels.apply_rotary(rotated, angles.cos(), angles.sin(), backward=True), x.double())


@given(
    st.integers(1, 20),
    st.integers(2, 3000),
    st.sampled_from([0.0, 1e-3]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_cross_entropy(rows: int, vocabulary: int, z: float, weighted: bool, seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(rows, vocabulary) * 5
    targets = torch.randint(0, vocabulary, (rows,))
    weights = torch.randn(rows) if weighted else None
    exact = logits.double().requires_grad_()
    log_sums = exact.logsumexp(-1)
    losses = log_sums - exact.gather(-1, targets[:, None])[:, 0] + z * log_sums**2
    total = (losses if weights is None else losses * weights).sum()
    total.backward()
    assert exact.grad is not None
    scale = losses.sum().item() if weighted else total.item()  # what cancels out cancels its digits
    with torch.no_grad():
        for given in (logits.clone(), logits.double()):
            found, slope = kernels.cross_entropy(given, targets, weights, z, True)
            assert found.item() == pytest.approx(total.item(), rel=1e-6, abs=1e-6 * max(1, scale))
            close(slope, exact.grad, 1e-5)
        found, _ = kernels.cross_entropy(logits, targets, weights, z, False)
        assert found.item() == pytest.approx(total.item(), rel=1e-6, abs=1e-6 * max(1, scale))


@compiled
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.sampled_from([16, 48, 112]), st.sampled_from([16, 64, 80]), st.integers(1, 40))
@torch.no_grad()
def test_gradients_of_low_rank(tokens: int, inputs: int, outputs: int, rank: int) -> None:
    """Of the loss sum(g * x (0.5 B A)'), by autograd in float64."""
    torch.manual_seed(tokens)
    gradient, x = torch.randn(tokens, outputs), torch.randn(tokens, inputs)
    a, b = torch.randn(rank, inputs), torch.randn(outputs, rank)
    found = kernels.low_rank_gradients(gradient, x, a, b, 0.5)
    assert found is not None
    with torch.enable_grad():
        exact = [factor.double().requires_grad_() for factor in (a, b)]
        (gradient.double() * (x.double() @ (0.5 * exact[1] @ exact[0]).t())).sum().backward()
    for ours, factor in zip(found, exact, strict=True):
        assert factor.grad is not None
        close(ours, factor.grad, tolerance=4e-6)
    wide = (one.double() for one in (gradient, x, a, b))
    assert kernels.low_rank_gradients(*wide, scale=0.5) is None
    assert kernels.low_rank_gradients(gradient, x[:, :15].contiguous(), a[:, :15], b, 0.5) is None


@compiled
def test_results_do_not_depend_on_timing() -> None:
    torch.manual_seed(2)
    q, k, v = (torch.randn(4, 200, 4, 32, requires_grad=True) for _ in range(3))
    results = []
    for _ in range(5):
        out = kernels.attention(q, k, v, None)
        gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
        results.append(torch.cat([tensor.flatten() for tensor in (out, *gradients)]))
    assert all(torch.equal(results[0], other) for other in results)


DIGESTS = """
import hashlib, os, torch
from puna.model import kernels

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # by itself torch takes at most the cores

def shown(name, *tensors):
    arrays = [tensor.detach().numpy().tobytes() for tensor in tensors]
    print(name, hashlib.sha256(b"".join(arrays)).hexdigest())

for rows, length, heads, kv_heads, width in ((1, 1, 1, 1, 4), (2, 70, 6, 2, 20), (3, 260, 4, 4, 48)):
    torch.manual_seed(rows)
    q, k, v = (torch.randn(rows, length, n, width, requires_grad=True) for n in (heads, kv_heads, kv_heads))
    starts = ((torch.rand(rows, length) < 0.05) * torch.arange(length)).cummax(1).values.int()
    out = kernels.attention(q, k, v, starts)
    shown("attention", out, *torch.autograd.grad(out, (q, k, v), torch.randn(out.shape)))
    with torch.no_grad():
        cos, sin = torch.randn(2, rows, length, 1, width // 2)
        shown("rotate", kernels.apply_rotary(q, cos, sin), kernels.apply_rotary(q, cos, sin, backward=True))
with torch.no_grad():
    for rows, width in ((1, 5), (63, 64), (65, 288), (1000, 100), (4099, 72)):
        torch.manual_seed(rows)
        x, gradient, residual = torch.randn(3, rows, width)
        shown("rms_norm", kernels.rms_norm(x, gradient[0].contiguous(), 1e-5))
        shown("rms_norm_backward", *kernels.rms_norm_backward(x, gradient[0], gradient, residual, 1e-5))
        shown("swiglu", kernels.swiglu(x, gradient), *kernels.swiglu_backward(x, residual, gradient.clone()))
    for rows, vocabulary in ((1, 2), (50, 3000), (70_000, 11)):  # torch's sum takes threads above 32,768
        logits, targets = torch.randn(rows, vocabulary), torch.randint(0, vocabulary, (rows,))
        shown("cross_entropy", *kernels.cross_entropy(logits, targets, torch.randn(rows), 1e-3, True))
    for tokens in (1, 257, 3000):
        given = torch.randn(tokens, 1536), torch.randn(tokens, 576), torch.randn(8, 576), torch.randn(1536, 8)
        shown("low_rank", *kernels.low_rank_gradients(*given, 0.5))
"""


@compiled
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    printed = []
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", DIGESTS]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        printed.append(run.stdout.splitlines())
    assert len(printed[0]) == 27 and {line.split()[0] for line in printed[0]} == {
        "attention",
        "rotate",
        "rms_norm",
        "rms_norm_backward",
        "swiglu",
        "cross_entropy",
        "low_rank",
    }
    assert printed[1] == printed[0] and printed[2] == printed[0]


def near(ours: torch.Tensor, exact: torch.Tensor, tolerance: float = 4e-3) -> None:
    """Assert bfloat16, and an error in Euclidean norm that rounding to it (2^-9 at most) explains."""
    assert ours.dtype == torch.bfloat16 and ours.shape == exact.shape
    assert (ours.double() - exact).norm() <= tolerance * exact.norm() + 1e-3


@compiled
@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(0, 1000))
def test_attention_in_bfloat16(
    shape: tuple[int, int, tuple[int, int], int], probability: float, seed: int
) -> None:
    rows, length, (heads, kv_heads), width = shape
    torch.manual_seed(seed)
    starts = random_document_starts(rows, length, probability) if probability else None
    q, gradient = torch.randn(2, rows, length, heads, width).bfloat16()
    k, v = torch.randn(2, rows, length, kv_heads, width).bfloat16()
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    out, reference = kernels.attention(*ours, starts), kernels.attention(*exact, starts)
    assert "Attention" in type(out.grad_fn).__name__
    near(out, reference)
    found = torch.autograd.grad(out, ours, gradient)
    expected = torch.autograd.grad(reference, exact, gradient.double())
    scale = gradient.double().norm().item()  # where each attends to one alone, gradients of q, k cancel out
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.double() - theirs).norm() <= 1e-2 * theirs.norm() + 5e-3 * scale


@compiled
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 150), st.integers(0, 1000))
@torch.no_grad()
def test_element_wise_parts_in_bfloat16(rows: int, width: int, seed: int) -> None:
    """Rounded once, at the end: sums are of float32."""
    torch.manual_seed(seed)
    x, gradient, residual = (torch.randn(3, rows, 2 * width) * 4).bfloat16()
    weight = torch.rand(2 * width) + 0.5
    wide, wide_gradient, wide_residual = x.double(), gradient.double(), residual.double()
    near(kernels.rms_norm(x, weight, 1e-5), kernels.rms_norm(wide, weight.double(), 1e-5))
    dx, dweight = kernels.rms_norm_backward(x, weight, gradient, residual, 1e-5)
    exact = kernels.rms_norm_backward(wide, weight.double(), wide_gradient, wide_residual, 1e-5)
    near(dx, exact[0])
    close(dweight, exact[1], 1e-5, 10.0)
    near(kernels.swiglu(x, gradient), kernels.swiglu(wide, wide_gradient))
    expected = kernels.swiglu_backward(wide, wide_residual, wide_gradient)
    for ours, theirs in zip(kernels.swiglu_backward(x, residual, gradient.clone()), expected, strict=True):
        near(ours, theirs)
    angles = torch.randn(1, rows, 1, width)
    heads = x.view(1, rows, 1, -1)
    turned = kernels.apply_rotary(heads, angles.cos(), angles.sin())
    near(turned, kernels.apply_rotary(heads.double(), angles.cos().double(), angles.sin().double()))
    targets = torch.randint(0, 2 * width, (rows,))
    loss, slope = kernels.cross_entropy(x.clone(), targets, None, 1e-3, True)
    exact_loss, exact_slope = kernels.cross_entropy(wide, targets, None, 1e-3, True)
    assert loss.item() == pytest.approx(exact_loss.item(), rel=1e-5, abs=1e-5)
    near(slope, exact_slope, 6e-3)
    total = torch.randn(rows, 2 * width)
    summed = total + x.float()
    kernels.accumulate(total, x)
    assert torch.equal(total, summed)


@compiled
@torch.no_grad()
def test_rounding_to_bfloat16_is_torchs() -> None:
    """Ties to even, infinities, what is not a number: the weights of a norm of ones."""
    values = torch.tensor(
        [1 + 2**-8, 1 + 3 * 2**-8, 3e38, 3.4e38, math.inf, -math.inf, math.nan, -0.0, 1e-40]
    )
    factors = values.repeat_interleave(2)
    ones = torch.ones(1, 1, 1, len(factors)).bfloat16()
    weight = factors.clone()
    found = kernels.rms_norm(ones.view(1, -1), weight, 0.0)
    assert torch.equal(
        found[0].view(torch.int16)[~factors.isnan()], factors.bfloat16().view(torch.int16)[~factors.isnan()]
    )
    assert found[0][factors.isnan()].isnan().all()


@compiled
def test_without_units_for_bfloat16_the_numbers_are_the_same(tmp_path: Path) -> None:
    """Attention as a processor without them computes it, compiled for that."""
    script = """
import torch
from puna.model import kernels
torch.manual_seed(0)
q, k, v = torch.randn(3, 2, 100, 3, 20).bfloat16()
tensors = [x.requires_grad_() for x in (q, k, v)]
out = kernels.attention(*tensors, None)
found = [out, *torch.autograd.grad(out.float().square().sum(), tensors)]
print([x.double().norm().item() for x in found], [x.double().sum().item() for x in found])
"""
    without = {"CXX": "g++ -U__AVX512BF16__", "XDG_CACHE_HOME": str(tmp_path)}
    printed = []
    for changed in ({}, without):
        command, environment = [sys.executable, "-c", script], {**os.environ, **changed}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        printed.append(torch.tensor(ast.literal_eval(run.stdout.replace("] [", "], ["))))
    torch.testing.assert_close(printed[0][0], printed[1][0], rtol=1e-3, atol=0)
    torch.testing.assert_close(printed[0][1], printed[1][1], rtol=0, atol=0.1)


@pytest.mark.parametrize("takes_groups", [True, False], ids=["torch 2.12", "torch 2.11"])
def test_packed_documents_on_a_gpu(takes_groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which documents flash attention gets; it is replaced by one dense call a document."""
    from torch.nn.attention import varlen

    parameters = dict(inspect.signature(varlen.varlen_attn).parameters)
    if not takes_groups:
        parameters.pop("enable_gqa", None)
    signature = inspect.Signature(list(parameters.values()))
    monkeypatch.setattr(kernels, "VARLEN_TAKES_GROUPS", takes_groups)

    def document_by_document(*arguments: Any, **options: Any) -> torch.Tensor:
        given = signature.bind(*arguments, **options).arguments
        q, k, v, cu_seqlens = (given[name] for name in ("query", "key", "value", "cu_seq_q"))
        assert given["window_size"] == (-1, 0) and given.get("enable_gqa", False) == takes_groups
        assert (k.shape[1] == q.shape[1]) != takes_groups
        assert cu_seqlens.dtype == torch.int32 and torch.equal(cu_seqlens, given["cu_seq_k"])
        assert given["max_q"] == given["max_k"] >= cu_seqlens.diff().max()
        outputs = []
        for start, end in itertools.pairwise(cu_seqlens.tolist()):
            document = (x[None, start:end] for x in (q, k, v))
            outputs.append(kernels.attention(*document, None)[0])
        return torch.cat(outputs)

    monkeypatch.setattr(varlen, "varlen_attn", document_by_document)
    torch.manual_seed(3)
    q, (k, v) = torch.randn(3, 40, 4, 16).bfloat16(), torch.randn(2, 3, 40, 2, 16).bfloat16()
    starts = random_document_starts(3, 40, 0.15)
    expected = kernels.attention(*(x.double() for x in (q, k, v)), starts)
    close(kernels.attention(q, k, v, starts, kernels.cu_seqlens_of(starts)).float(), expected, 2e-2)
