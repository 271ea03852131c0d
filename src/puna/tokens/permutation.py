"""Permutations chosen by a key, computed for one index alone, and numbers that look random from counters."""

import hashlib
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
Numbers = TypeVar("Numbers", int, Array)

TURNS = range(4)


def key_of(*parts: int | str) -> int:
    """Key of 64 bits from values that name what it is for."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")


def mix(value: Numbers) -> Numbers:
    """Mix the bits of 64-bit numbers so that each depends on every other: the finaliser of SplitMix64.

    value: an int, or uint64 of any shape.
    """
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def uniform(key: int, numbers: Array) -> Array:
    """For each of the numbers one that looks random, float64 in [0, 1), chosen by `key`."""
    return (mix(numbers.astype(np.uint64) ^ np.uint64(key)) >> 11) / 2**53


def permute(index: int, size: int, key: int) -> int:
    """Map `index` by a permutation of range(size) chosen by `key` (64 bits).

    A four-round Feistel network on the smallest even number of bits that covers `size`, walked until it falls
    inside the range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): a bijection computed
    for one index alone.
    """
    if size == 1:
        return 0
    half, mask = _halves(size)
    while True:
        left, right = index >> half, index & mask
        for turn in TURNS:
            left, right = right, left ^ (mix(right ^ (turn << 56) ^ key) & mask)
        index = left << half | right
        if index < size:
            return index


def place_of(image: int, size: int, key: int) -> int:
    """Find the index that `permute` maps to `image`."""
    if size == 1:
        return 0
    half, mask = _halves(size)
    while True:
        left, right = image >> half, image & mask
        for turn in reversed(TURNS):
            left, right = right ^ (mix(left ^ (turn << 56) ^ key) & mask), left
        image = left << half | right
        if image < size:
            return image


def _halves(size: int) -> tuple[int, int]:
    """Bits of half an index, and the mask of as many."""
    half = ((size - 1).bit_length() + 1) // 2
    return half, (1 << half) - 1
