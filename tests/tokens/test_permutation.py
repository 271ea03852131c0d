"""Permutations by a key, and their inverse."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from puna.tokens.permutation import mix, permute, place_of, uniform


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_the_permutation_is_a_bijection(size: int, key: int) -> None:
    images = [permute(index, size, key) for index in range(size)]
    assert sorted(images) == list(range(size))
    assert [place_of(image, size, key) for image in images[:50]] == list(range(min(size, 50)))


def test_the_permutation_is_uniform() -> None:
    """Over many keys, index 0 is mapped to every number about equally often (chi-square, p = 0.001)."""
    size, tries = 10, 5000
    counts = Counter(permute(0, size, key * 0x9E3779B97F4A7C15 % 2**64) for key in range(tries))
    assert sum((counts[index] - tries / size) ** 2 / (tries / size) for index in range(size)) < 27.9
    after = Counter((permute(5, size, key) - permute(4, size, key)) % size for key in range(tries))
    assert after[0] == 0 and max(after.values()) < 1.3 * tries / (size - 1)


@given(st.integers(0, 2**64 - 1))
def test_arrays_are_mixed_as_integers_are(key: int) -> None:
    numbers = np.arange(100)
    found = uniform(key, numbers)
    assert found.tolist() == [(mix(number ^ key) >> 11) / 2**53 for number in range(100)]
    assert found.min() >= 0 and found.max() < 1


def test_uniform_numbers_are_uniform() -> None:
    """Chi-square over 16 bins (p = 0.001), and neighbours are not correlated."""
    found = uniform(7, np.arange(16_000))
    counts = np.histogram(found, 16, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 37.7
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.03
