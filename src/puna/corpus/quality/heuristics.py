"""Cheap figures of a text that filters decide by."""

import functools
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

PIECE = 1 << 16  # characters counted at once, at up to nine bytes each
_OTHER_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # with "\n", all that str.splitlines knows


@dataclass(frozen=True, slots=True)
class Figures:
    """alphanumeric_fraction: letters and digits among all characters but white space; mean_line_length: in characters."""

    alphanumeric_fraction: float
    mean_line_length: float


@functools.cache
def _kinds() -> Any:
    """For every code point 1 when str.isalnum, 2 when str.isspace, else 0; uint8, shape [0x110000]."""
    size = sys.maxunicode + 1
    return np.fromiter((character.isalnum() + 2 * character.isspace() for character in map(chr, range(size))), np.uint8, size)


@functools.cache
def _pairs() -> Any:
    """For every two ASCII characters as a uint16: how many are alphanumeric, plus 2**32 for each that is a space; int64, shape [0x8000]."""
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


def measure(text: str) -> Figures:
    """Figures of a text; zeros when it is empty. Lines are those of str.splitlines."""
    alphanumeric, space = count(text)
    solid = len(text) - space
    if any(end in text for end in _OTHER_LINE_ENDS):
        lengths = list(map(len, text.splitlines()))
        lines, characters = len(lengths), sum(lengths)
    else:
        ends = text.count("\n")
        lines, characters = ends + (bool(text) and text[-1] != "\n"), len(text) - ends
    return Figures(alphanumeric / solid if solid else 0.0, characters / lines if lines else 0.0)


def refuse(text: str, figures: Figures, minimum_characters: int) -> str:
    """Why a text is dropped, as a short fixed phrase, or "" when it is kept."""
    if len(text) < minimum_characters:
        return "too short"
    if figures.alphanumeric_fraction < 0.25:
        return "few alphanumeric characters"
    return ""
