"""The number formats of GGUF files: bytes to float32 and, for some, back.

A quantised row is cut into blocks of 32 or 256 numbers; a block holds small integers q and factors, from
which the numbers are d q, or d q + m (Gerganov's ggml, https://github.com/ggml-org/ggml). K-quants hold
factors of factors: each 16 or 32 numbers of a block of 256 have a small integer as theirs, which the block's
d and m multiply. Quantising gives the bytes of ggml's own reference.

Shapes: n blocks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from puna.errors import UserError

Array = np.ndarray[Any, Any]
TOGETHER = 1 << 21  # numbers that are converted at once, which bounds what stands beside the result


class Format(NamedTuple):
    """code: its number in files. numbers, size: of a block, the latter in bytes. dequantise: bytes [n, size]
    to float32 [n, numbers]; quantise: the other way, where Puna writes the format."""

    code: int
    numbers: int
    size: int
    dequantise: Callable[[Array], Array]
    quantise: Callable[[Array], Array] | None = None


def _half(blocks: Array, at: int) -> Array:
    """A float16 of each block as float32, [n, 1]."""
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)


def _nibbles(packed: Array) -> Array:
    """[n, k] bytes to [n, 2 k]: the low halves of all, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], 1)


def _bits(packed: Array) -> Array:
    """Four bytes of each block as its 32 bits, the lowest first: uint8 [n, 32]."""
    return np.unpackbits(packed, axis=1, bitorder="little")


def _q4_0(blocks: Array) -> Array:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Array) -> Array:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + _half(blocks, 2)


def _q5_0(blocks: Array) -> Array:
    q = _nibbles(blocks[:, 6:]) | _bits(blocks[:, 2:6]) << 4
    return _half(blocks, 0) * (q.astype(np.float32) - 16)


def _q5_1(blocks: Array) -> Array:
    q = _nibbles(blocks[:, 8:]) | _bits(blocks[:, 4:8]) << 4
    return _half(blocks, 0) * q.astype(np.float32) + _half(blocks, 2)


def _q8_0(blocks: Array) -> Array:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _planes(packed: Array, bits: int, width: int) -> Array:
    """Small integers that lie over each other: [n, k width] bytes to [n, k * 8 / bits * width]; of each run
    of `width` bytes first the lowest bits of all, then the next."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[None, None, :, None]
    runs = packed.reshape(len(packed), -1, 1, width)
    return (runs >> shifts & ((1 << bits) - 1)).reshape(len(packed), -1)


def _q2_k(blocks: Array) -> Array:
    scales, q = blocks[:, :16], _planes(blocks[:, 16:80], 2, 32)
    d, m = _half(blocks, 80) * (scales & 15), _half(blocks, 82) * (scales >> 4)
    q = q.reshape(-1, 16, 16).astype(np.float32)
    return (d[..., None] * q - m[..., None]).reshape(-1, 256)


def _q3_k(blocks: Array) -> Array:
    high, low, packed = _planes(blocks[:, :32], 1, 32), _planes(blocks[:, 32:96], 2, 32), blocks[:, 96:108]
    scales = _nibbles(packed[:, :8]) | _planes(packed[:, 8:], 2, 4) << 4
    d = _half(blocks, 108) * (scales.astype(np.float32) - 32)
    q = low.astype(np.float32) - 4 + 4 * high
    return (d[..., None] * q.reshape(-1, 16, 16)).reshape(-1, 256)


def _scales_and_minima(packed: Array) -> tuple[Array, Array]:
    """Eight factors and eight minima of six bits each, from twelve bytes: uint8 [n, 8] twice."""
    d, m, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([d & 63, (rest & 15) | d >> 6 << 4], 1)
    return scales, np.concatenate([m & 63, rest >> 4 | m >> 6 << 4], 1)


def _k_with_minima(blocks: Array, q: Array) -> Array:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    d, m = _half(blocks, 0) * scales, _half(blocks, 2) * minima
    return (d[..., None] * q.reshape(-1, 8, 32).astype(np.float32) - m[..., None]).reshape(-1, 256)


def _q4_k(blocks: Array) -> Array:
    return _k_with_minima(blocks, _planes(blocks[:, 16:], 4, 32))


def _q5_k(blocks: Array) -> Array:
    return _k_with_minima(blocks, _planes(blocks[:, 48:], 4, 32) | _planes(blocks[:, 16:48], 1, 32) << 4)


def _q6_k(blocks: Array) -> Array:
    q = _planes(blocks[:, :128], 4, 64) | _planes(blocks[:, 128:192], 2, 32) << 4
    d = _half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return (d[..., None] * (q.reshape(-1, 16, 16).astype(np.float32) - 32)).reshape(-1, 256)


def _as_half(numbers: Array) -> Array:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and the caller looks
        return numbers.astype("<f2").view(np.uint8)


def _inverse(d: Array) -> Array:
    """1 / d, and 0 for a d whose inverse would be infinite: such numbers are all 0 in float16's steps."""
    small = d < np.finfo(np.float32).tiny
    return np.where(small, np.float32(0), np.float32(1) / np.where(small, np.float32(1), d))


def _to_q8_0(numbers: Array) -> Array:
    d = np.abs(numbers).max(1, keepdims=True) / np.float32(127)
    scaled = numbers * _inverse(d)
    whole = np.floor(np.abs(scaled))  # C rounds halves away from zero
    rounded = np.copysign(whole + (np.abs(scaled) - whole >= 0.5), scaled)
    return np.concatenate([_as_half(d), rounded.astype(np.int8).view(np.uint8)], 1)


def _to_q4_1(numbers: Array) -> Array:
    least = numbers.min(1, keepdims=True)
    d = (numbers.max(1, keepdims=True) - least) / np.float32(15)
    q = ((numbers - least) * _inverse(d) + np.float32(0.5)).astype(np.uint8).clip(0, 15)
    return np.concatenate([_as_half(d), _as_half(least), q[:, :16] | q[:, 16:] << 4], 1)


def _from_bf16(blocks: Array) -> Array:
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _to_bf16(numbers: Array) -> Array:
    bits = numbers.view(np.uint32)
    rounded = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype("<u2")
    quiet = (bits >> 16 | 64).astype("<u2")  # a NaN stays one
    return np.where(np.isnan(numbers), quiet, rounded).view(np.uint8)


FORMATS = {
    "F32": Format(0, 1, 4, lambda blocks: blocks.view("<f4"), lambda numbers: numbers.view(np.uint8)),
    "F16": Format(1, 1, 2, lambda blocks: blocks.view("<f2").astype(np.float32), _as_half),
    "BF16": Format(30, 1, 2, _from_bf16, _to_bf16),
    "Q4_0": Format(2, 32, 18, _q4_0),
    "Q4_1": Format(3, 32, 20, _q4_1, _to_q4_1),
    "Q5_0": Format(6, 32, 22, _q5_0),
    "Q5_1": Format(7, 32, 24, _q5_1),
    "Q8_0": Format(8, 32, 34, _q8_0, _to_q8_0),
    "Q2_K": Format(10, 256, 84, _q2_k),
    "Q3_K": Format(11, 256, 110, _q3_k),
    "Q4_K": Format(12, 256, 144, _q4_k),
    "Q5_K": Format(13, 256, 176, _q5_k),
    "Q6_K": Format(14, 256, 210, _q6_k),
}
WRITTEN = [name for name, form in FORMATS.items() if form.quantise is not None]


def dequantise(raw: Any, name: str) -> Array:
    """The numbers that bytes hold in a format: float32 [numbers]."""
    form = FORMATS[name]
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, form.size)
    numbers = np.empty((len(blocks), form.numbers), np.float32)
    step = TOGETHER // form.numbers
    with np.errstate(over="ignore", invalid="ignore"):  # infinite factors: the numbers are, too
        for start in range(0, len(blocks), step):
            numbers[start : start + step] = form.dequantise(blocks[start : start + step])
    return numbers.reshape(-1)


def quantise(numbers: Array, name: str) -> Array:
    """Bytes, uint8, of float32 numbers [..., a multiple of the block's]. Raises UserError for a format that
    is only read, and for numbers that it cannot hold."""
    form = FORMATS.get(name)
    if form is None or form.quantise is None:
        raise UserError(f"no weights are written as {name}; there are {', '.join(WRITTEN)}")
    blocks = np.ascontiguousarray(numbers, np.float32).reshape(-1, form.numbers)
    if not np.isfinite(blocks).all() and name != "F32":
        raise UserError(f"weights that are not finite cannot be written as {name}")
    if name not in ("F32", "BF16") and len(blocks) and np.abs(blocks).max() > 65_504:
        raise UserError(f"a weight over 65,504 is too large for {name}; write F32 or BF16")
    out = np.empty((len(blocks), form.size), np.uint8)
    step = TOGETHER // form.numbers
    for start in range(0, len(blocks), step):
        out[start : start + step] = form.quantise(blocks[start : start + step])
    return out.reshape(-1)
