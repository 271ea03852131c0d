"""Kinds of characters, counted quickly."""

import functools
import sys
from typing import Any

import numpy as np

PIECE = 1 << 16  # characters counted at once, at up to nine bytes each


@functools.cache
def _kinds() -> Any:
    """For every code point 1 when str.isalnum, 2 when str.isspace, else 0; uint8, shape [0x110000]."""
    size = sys.maxunicode + 1
    return np.fromiter(
        (character.isalnum() + 2 * character.isspace() for character in map(chr, range(size))), np.uint8, size
    )


@functools.cache
def _pairs() -> Any:
    """For every two ASCII characters as a uint16: how many are alphanumeric, plus 2**32 for each that is a
    space; int64, shape [0x8000]."""
    kinds = _kinds()[:128]
    one = np.zeros(256, np.int64)
    one[:128] = (kinds == 1) + (kinds == 2) * np.int64(1 << 32)
    return (one[:, None] + one[None, :]).reshape(-1)[:0x8000]


def count(text: str) -> tuple[int, int]:
    """(letters and digits, white space) of a text in characters, as str.isalnum and str.isspace tell them."""
    if len(text) > PIECE:
        counts = [count(text[at : at + PIECE]) for at in range(0, len(text), PIECE)]
        return sum(found[0] for found in counts), sum(found[1] for found in counts)
    if text.isascii():
        raw = np.frombuffer((text + "\0" if len(text) % 2 else text).encode(), np.uint16)
        space, alphanumeric = divmod(int(_pairs().take(raw).sum()), 1 << 32)
        return alphanumeric, space
    kinds = _kinds().take(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"))
    return int(np.count_nonzero(kinds == 1)), int(np.count_nonzero(kinds == 2))
