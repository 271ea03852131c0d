"""The n-gram baseline. Its estimator is tested against the formulas with the corpus' quality filter."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.evaluate.ngram import NGram

BEGIN = 1
VOCABULARY = 9


def flat(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.array([token for document in documents for token in document])
    return tokens, np.cumsum([0, *map(len, documents)])


DOCUMENTS = st.lists(
    st.lists(st.integers(2, VOCABULARY - 1), max_size=25).map(lambda ids: [BEGIN, *ids]),
    min_size=1,
    max_size=6,
).filter(lambda documents: any(len(document) > 1 for document in documents))


def test_two_documents_by_hand() -> None:
    # Pairs: b 2 twice, 2 3 twice, 3 2 and 2 4 once. 2 stands behind b and 3, 3 and 4 behind 2: continuation
    # counts 2, 1, 1. Counts of three are missing in both orders, so the discounts are 0.5 and 1; single
    # tokens leave (1 + 0.5 + 0.5) / 4 for 8 equal outcomes.
    model = NGram(*flat([[BEGIN, 2, 3, 2, 4], [BEGIN, 2, 3]]), vocab_size=VOCABULARY, order=2)
    two, three, four, other = 1 / 4 + 1 / 16, 0.5 / 4 + 1 / 16, 0.5 / 4 + 1 / 16, 1 / 16
    expected = [
        (2 - 1) / 2 + 1 / 2 * two,  # after the begin token
        (2 - 1) / 3 + 1.5 / 3 * three,  # after 2, which is followed by 3 twice and by 4 once
        0.5 / 1 * four,  # after 3, only 2 is known
        other,  # after 4, nothing is
        other,
    ]
    found = model.log2_probabilities(*flat([[BEGIN, 2, 3, 4, 8], [BEGIN], [BEGIN, 2]])).tolist()
    assert found == pytest.approx([math.log2(value) for value in (*expected[:4], expected[0])], rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(DOCUMENTS, st.lists(st.integers(2, VOCABULARY - 1), max_size=5), st.integers(1, 5))
def test_probabilities_add_up_to_one(training: list[list[int]], context: list[int], order: int) -> None:
    model = NGram(*flat(training), vocab_size=VOCABULARY, order=order)
    outcomes = [token for token in range(VOCABULARY) if token != BEGIN]
    text = [[BEGIN, *context, token] for token in outcomes]
    last = model.log2_probabilities(*flat(text)).reshape(len(outcomes), -1)[:, -1]
    assert (2.0**last).sum() == pytest.approx(1.0, rel=2e-6)
