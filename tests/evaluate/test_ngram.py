"""The n-gram model against modified Kneser-Ney written out from the paper's formulas (Chen and Goodman 1998)."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.evaluate.ngram import NGram

BEGIN = 1
VOCABULARY = 9
Gram = tuple[int, ...]


class Reference:
    """Direct recursion over dictionaries."""

    def __init__(self, documents: list[list[int]], order: int) -> None:
        raw: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        for document in documents:
            for n in range(1, order + 1):
                raw[n].update(tuple(document[at : at + n]) for at in range(len(document) - n + 1))
        self.counts: list[dict[Gram, int]] = [{} for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in raw[n].items():
                before = {longer[0] for longer in raw[n + 1] if longer[1:] == gram} if n < order else set()
                self.counts[n][gram] = len(before) if before else count
        self.counts[1][(BEGIN,)] = 0
        self.discounts = [self.estimate(Counter(self.counts[n].values())) for n in range(order + 1)]
        self.followers: list[dict[Gram, list[int]]] = [defaultdict(list) for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in self.counts[n].items():
                self.followers[n][gram[:-1]].append(count)

    @staticmethod
    def estimate(n: Counter[int]) -> list[float]:
        if not (n[1] and n[2]):
            return [0.0, 0.5, 0.5, 0.5]
        y = n[1] / (n[1] + 2 * n[2])
        raw = [c - (c + 1) * y * n[c + 1] / n[c] if n[c] else 0.5 * c for c in (1, 2, 3)]
        return [0.0, *(min(max(value, 0.1), float(c)) for c, value in zip((1, 2, 3), raw, strict=True))]

    def probability(self, context: Gram, token: int) -> float:
        n = len(context) + 1
        lower = self.probability(context[1:], token) if context else 1 / (VOCABULARY - 1)
        counts = self.followers[n].get(context)
        if counts is None or not sum(counts):
            return lower
        total = sum(counts)
        count = self.counts[n].get((*context, token), 0)
        left = sum(self.discounts[n][min(c, 3)] for c in counts)
        return (count - self.discounts[n][min(count, 3)]) / total + left / total * lower


def flat(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([token for document in documents for token in document]), np.cumsum([0, *map(len, documents)])


DOCUMENTS = st.lists(st.lists(st.integers(2, VOCABULARY - 1), max_size=25).map(lambda ids: [BEGIN, *ids]), min_size=1, max_size=6).filter(
    lambda documents: any(len(document) > 1 for document in documents)
)


@settings(deadline=None, max_examples=60)
@given(DOCUMENTS, DOCUMENTS, st.integers(1, 5))
def test_equal_to_the_formulas(training: list[list[int]], text: list[list[int]], order: int) -> None:
    model = NGram(*flat(training), vocab_size=VOCABULARY, order=order)
    reference = Reference(training, order)
    expected = [
        reference.probability(tuple(document[max(0, at - order + 1) : at]), document[at])
        for document in text
        for at in range(1, len(document))
    ]
    np.testing.assert_allclose(2.0 ** model.log2_probabilities(*flat(text)), expected, rtol=1e-10)


@settings(deadline=None, max_examples=40)
@given(DOCUMENTS, st.lists(st.integers(2, VOCABULARY - 1), max_size=5), st.integers(1, 5))
def test_probabilities_add_up_to_one(training: list[list[int]], context: list[int], order: int) -> None:
    model = NGram(*flat(training), vocab_size=VOCABULARY, order=order)
    outcomes = [token for token in range(VOCABULARY) if token != BEGIN]
    text = [[BEGIN, *context, token] for token in outcomes]
    last = model.log2_probabilities(*flat(text)).reshape(len(outcomes), -1)[:, -1]
    assert (2.0**last).sum() == pytest.approx(1.0, rel=1e-9)
