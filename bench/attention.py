"""Causal attention alone, forward and backward: our kernel against scaled_dot_product_attention, packed
documents, long rows.

Packed: 8 documents of 128 tokens in a row of 1,024, against the same row under a boolean mask. Memory: what a
process of its own adds for one row of each length, 4 heads of 64.
"""

import subprocess
import sys
import time
from collections.abc import Callable

import table
import torch
import torch.nn.functional as F

from puna.model import kernels
from puna.train.metrics import peak_memory_bytes

SHAPES = {
    "S, 16 x 256, 6 heads of 48": (16, 256, 6, 48),
    "M, 8 x 512, 8 heads of 64": (8, 512, 8, 64),
    "2 x 2,048, 8 heads of 64": (2, 2048, 8, 64),
}
LENGTHS = (2048, 4096, 8192, 16384)


def both_ways(run: Callable[..., torch.Tensor], tensors: list[torch.Tensor]) -> float:
    """Wall seconds of forward and backward."""
    started = time.perf_counter()
    out = run(*tensors)
    torch.autograd.grad(out, tensors, torch.ones_like(out))
    return time.perf_counter() - started


def library(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)


def made(rows: int, length: int, heads: int, width: int) -> list[torch.Tensor]:
    return [torch.randn(rows, length, heads, width, requires_grad=True) for _ in range(3)]


def main() -> None:
    found = []
    for name, shape in SHAPES.items():
        tensors = made(*shape)
        cases = {
            "puna": lambda t=tensors: both_ways(lambda q, k, v: kernels.attention(q, k, v, None), t),
            "torch sdpa": lambda t=tensors: both_ways(library, t),
        }
        found += table.rows(name, "s", table.alternate(cases, 9))
    tensors, steps = made(4, 1024, 8, 64), torch.arange(1024)
    document_starts = (steps // 128 * 128).int().expand(4, -1).contiguous()
    mask = ((steps[:, None] >= steps) & (steps[:, None] // 128 == steps // 128)).expand(4, 1, -1, -1)
    cases = {
        "puna": lambda: both_ways(lambda q, k, v: kernels.attention(q, k, v, document_starts), tensors),
        "puna, one document": lambda: both_ways(lambda q, k, v: kernels.attention(q, k, v, None), tensors),
        "torch sdpa, mask": lambda: both_ways(lambda q, k, v: library(q, k, v, mask), tensors),
    }
    found += table.rows("4 rows of 8 documents of 128", "s", table.alternate(cases, 9))
    added = {}
    for length in LENGTHS:
        result = subprocess.run(
            [sys.executable, __file__, str(length)], capture_output=True, text=True, check=True
        )
        added[str(length)] = float(result.stdout)
    found += [
        table.Row(f"memory of a row of {length}", "puna", value, "bytes", value / added[str(LENGTHS[0])])
        for length, value in added.items()
    ]
    table.finish(__file__, found)


def one(length: int) -> None:
    tensors = made(1, 64, 4, 64)
    both_ways(lambda q, k, v: kernels.attention(q, k, v, None), tensors)
    before = peak_memory_bytes()
    both_ways(lambda q, k, v: kernels.attention(q, k, v, None), made(1, length, 4, 64))
    print(peak_memory_bytes() - before)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(int(sys.argv[1]))
    else:
        main()
