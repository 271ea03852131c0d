"""Scripts that put no spaces between words, and fast counts of kinds of characters."""

import functools
import sys
from typing import Any

import numpy as np

# Ranges of code points, first and last, of Thai to Tibetan, Myanmar, Khmer, Kana and Han.
UNSPACED_SCRIPTS = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF),
    (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF), (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip
CHUNK = 1 << 16  # characters counted at once, at up to nine bytes each


@functools.cache
def _kinds() -> Any:
    """Table of all code points, uint8 [0x110000]: 1 where str.isalnum, 2 where str.isspace, else 0."""
    characters = map(chr, range(sys.maxunicode + 1))
    kinds = (character.isalnum() + 2 * character.isspace() for character in characters)
    return np.fromiter(kinds, np.uint8, sys.maxunicode + 1)


@functools.cache
def _pairs() -> Any:
    """Table of pairs of ASCII characters, int64 [0x8000]: how many are alphanumeric, plus 2**32 a space."""
    kinds = _kinds()[:128]
    one = np.zeros(256, np.int64)
    one[:128] = (kinds == 1) + (kinds == 2) * np.int64(1 << 32)
    return (one[:, None] + one[None, :]).reshape(-1)[:0x8000]


def count_alphanumeric_and_space(text: str) -> tuple[int, int]:
    """Count the characters of a text for which str.isalnum holds, and those for which str.isspace does."""
    if len(text) > CHUNK:
        chunks = (text[start : start + CHUNK] for start in range(0, len(text), CHUNK))
        alphanumeric, space = zip(*map(count_alphanumeric_and_space, chunks), strict=True)
        return sum(alphanumeric), sum(space)
    if text.isascii():
        even = text + "\0" if len(text) % 2 else text
        pairs = np.frombuffer(even.encode(), np.uint16)
        spaces, letters = divmod(int(_pairs().take(pairs).sum()), 1 << 32)
        return letters, spaces
    kinds = _kinds().take(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"))
    return int(np.count_nonzero(kinds == 1)), int(np.count_nonzero(kinds == 2))
