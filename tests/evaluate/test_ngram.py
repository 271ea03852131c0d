"""The n-gram baseline. Its estimator is tested against the formulas with the corpus' quality filter."""

import math
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import UserError
from puna.evaluate import ngram
from puna.evaluate.ngram import NGram
from puna.tokens.shards import Shard

BEGIN = 1
VOCABULARY = 9


def flat(documents: list[list[int]]) -> np.ndarray:
    return np.array([token for document in documents for token in document])


DOCUMENTS = st.lists(
    st.lists(st.integers(2, VOCABULARY - 1), max_size=25).map(lambda ids: [BEGIN, *ids]),
    min_size=1,
    max_size=6,
).filter(lambda documents: any(len(document) > 1 for document in documents))


def test_two_documents_by_hand() -> None:
    # Pairs: b 2 twice, 2 3 twice, 3 2 and 2 4 once. 2 stands behind b and 3, 3 and 4 behind 2: continuation
    # counts 2, 1, 1. Counts of three are missing in both orders, so the discounts are 0.5 and 1; single
    # tokens leave (1 + 0.5 + 0.5) / 4 for 8 equal outcomes.
    model = NGram(flat([[BEGIN, 2, 3, 2, 4], [BEGIN, 2, 3]]), begin=BEGIN, vocab_size=VOCABULARY, order=2)
    two, three, four, other = 1 / 4 + 1 / 16, 0.5 / 4 + 1 / 16, 0.5 / 4 + 1 / 16, 1 / 16
    expected = [
        (2 - 1) / 2 + 1 / 2 * two,  # after the begin token
        (2 - 1) / 3 + 1.5 / 3 * three,  # after 2, which is followed by 3 twice and by 4 once
        0.5 / 1 * four,  # after 3, only 2 is known
        other,  # after 4, nothing is
        other,
    ]
    found = model.log2_probabilities(flat([[BEGIN, 2, 3, 4, 8], [BEGIN], [BEGIN, 2]])).tolist()
    assert found == pytest.approx([math.log2(value) for value in (*expected[:4], expected[0])], rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(DOCUMENTS, st.lists(st.integers(2, VOCABULARY - 1), max_size=5), st.integers(1, 5))
def test_probabilities_add_up_to_one(training: list[list[int]], context: list[int], order: int) -> None:
    model = NGram(flat(training), begin=BEGIN, vocab_size=VOCABULARY, order=order)
    outcomes = [token for token in range(VOCABULARY) if token != BEGIN]
    text = [[BEGIN, *context, token] for token in outcomes]
    last = model.log2_probabilities(flat(text)).reshape(len(outcomes), -1)[:, -1]
    assert (2.0**last).sum() == pytest.approx(1.0, rel=2e-6)


def shard(source: str, sizes: list[int], first: int = 2) -> Shard:
    """Documents of these sizes; each holds its own token only, beside the begin token."""
    offsets = np.cumsum([0, *sizes])
    tokens = np.repeat(np.arange(first, first + len(sizes), dtype=np.uint16), sizes)
    tokens[offsets[:-1]] = BEGIN
    return Shard(source, tokens, offsets, np.arange(len(sizes)))


def test_whole_documents_from_all_over_every_source_in_proportion() -> None:
    shards = [shard("a", [10] * 3000), shard("b", [20] * 500, first=5000)]
    tokens = ngram.training_tokens(shards, 8000)
    assert len(tokens) == 8000
    documents = np.split(tokens, np.flatnonzero(tokens == BEGIN))[1:]
    assert all(len(set(document[1:].tolist())) == 1 for document in documents)
    assert all(len(document) == (10 if document[1] < 5000 else 20) for document in documents)
    own = np.array([document[1] for document in documents])
    assert len(own) == len(set(own.tolist())) and (np.diff(own.astype(int)) > 0).all()
    of_b = own[own >= 5000]
    assert 0.2 < 20 * len(of_b) / len(tokens) < 0.3  # a quarter of all tokens
    for thousand in range(3):
        here = (own >= 2 + 1000 * thousand) & (own < 1002 + 1000 * thousand)
        assert 140 < np.count_nonzero(here) < 260  # of 600
    assert np.array_equal(tokens, ngram.training_tokens(shards, 8000))


def test_all_tokens_where_they_are_few_enough() -> None:
    shards = [shard("a", [3, 4]), shard("b", [5])]
    whole = np.concatenate([item.tokens for item in shards])
    assert np.array_equal(ngram.training_tokens(shards, 12), whole)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=20), st.integers(1, 100))
def test_never_more_tokens_than_asked_for(sizes: list[int], maximum: int) -> None:
    tokens = ngram.training_tokens([shard("a", sizes), shard("b", sizes[:3])], maximum)
    assert 0 < len(tokens) <= maximum and tokens[0] == BEGIN


def test_a_large_corpus_is_not_read_into_memory(tmp_path: Any) -> None:
    tokens = np.memmap(tmp_path / "tokens", np.uint16, "w+", shape=(50_000_000,))
    tokens[::50] = BEGIN
    large = Shard("a", np.asarray(tokens), np.arange(0, 50_000_001, 50), np.arange(1_000_000))
    tracemalloc.start()
    drawn = ngram.training_tokens([large], 20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(drawn) == 20_000
    assert peak < 50e6  # a block of hashes; the tokens are 100 MB


MEASURE = """
import sys
import numpy as np
from puna.evaluate import ngram

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

size, compiled = int(sys.argv[1]), sys.argv[2] == "True"
if not compiled:
    ngram.ngram.library = lambda: None
ngram.training_bytes(0)  # loads the library
before = status("VmRSS")
tokens = np.random.default_rng(0).integers(2, 32_000, size).astype(np.uint16)
tokens[::500] = 1
ngram.NGram(tokens, begin=1, vocab_size=32_000)
print(status("VmHWM") - before, ngram.training_bytes(size))
"""


@pytest.mark.parametrize(("size", "compiled"), [(1_500_000, True), (300_000, False)])
def test_an_estimate_takes_no_more_memory_than_is_said(size: int, compiled: bool) -> None:
    """Of a process of its own, for tokens of which almost every n-gram is new."""
    command = [sys.executable, "-c", MEASURE, str(size), str(compiled)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    taken, promised = map(int, told.split())
    assert promised / 4 < taken < promised


def test_a_baseline_that_does_not_fit_is_refused_with_what_to_do() -> None:
    ngram.check_memory(20_000_000, 4_000_000_000)
    with pytest.raises(UserError, match=r"for 20,000,000 tokens and 1\.0 GB may be used: lower evaluate\."):
        ngram.check_memory(20_000_000, 1_000_000_000)
