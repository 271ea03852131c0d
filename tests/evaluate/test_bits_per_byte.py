"""Bits of held-out documents: every token charged once, by every method."""

import lzma
import math
import random
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.evaluate import bits_per_byte as bits
from puna.evaluate.ngram import NGram
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.tokens.batches import IGNORED
from puna.tokens.shards import Shard

SIZES = st.lists(st.integers(2, 70), min_size=1, max_size=6)


def shard(sizes: list[int]) -> Shard:
    offsets = np.cumsum([0, *sizes])
    tokens = np.arange(2, 2 + offsets[-1], dtype=np.uint16)
    tokens[offsets[:-1]] = 1
    return Shard("s", tokens, offsets, np.arange(len(sizes)))


@given(SIZES, st.integers(2, 20))
def test_windows_charge_each_token_once_with_its_own_context(sizes: list[int], length: int) -> None:
    item = shard(sizes)
    tokens, targets, numbers = bits._windows(item, length)
    assert sorted(set(numbers.tolist())) == list(range(len(sizes)))
    documents = [item.document(number).tolist() for number in range(item.documents)]
    assert targets[targets != IGNORED].tolist() == [token for ids in documents for token in ids[1:]]
    for row, row_targets, number in zip(tokens, targets, numbers, strict=True):
        scored = row_targets[row_targets != IGNORED]
        assert np.isin(scored, item.document(number)).all()
        for position in np.flatnonzero(row_targets != IGNORED):
            # The token just before it; 1 begins a document.
            assert row[position] in (row_targets[position] - 1, 1)
            # At least half a window of context, or all there is.
            assert position >= length // 2 - 1 or row[0] == 1


def test_model_bits_of_short_documents_are_the_plain_sum() -> None:
    config = LlamaConfig(dim=16, n_layers=1, n_heads=2, ffn_dim=16, vocab_size=90, max_seq_len=32)
    model = Llama(config).double()
    model.init_weights(1)
    item = shard([5, 20, 33])
    each = []
    for number in range(3):
        document = torch.from_numpy(item.document(number).astype(np.int64))
        scores = model(document[None, :-1])[0].log_softmax(-1)
        each.append(-scores[torch.arange(len(document) - 1), document[1:]].sum().item() / math.log(2))
    assert bits.model_bits(model, item, 32) == pytest.approx(each, rel=1e-6)


def test_unigram_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    training = np.array([1, 3, 3, 4, 2, 1, 3, 2], np.uint16)
    item = Shard("s", np.array([1, 3, 0, 1, 2], np.uint16), np.array([0, 3, 5]), np.array([0, 1]))
    total = 6 + 6  # six tokens that are not the begin token, and one more for each of six kinds
    expected = [-math.log2(4 / total) - math.log2(1 / total), -math.log2(3 / total)]
    monkeypatch.setattr(bits, "TOKENS", 3)
    counts = bits.token_counts([Shard("s", training, np.array([0, 5, 8]), np.array([0, 1]))] * 2, 6)
    assert counts.tolist() == [0, 4, 4, 6, 2, 0]
    assert bits.unigram_bits(counts // 2, item, 1) == pytest.approx(expected)


def test_xz_is_the_command_line_tools_and_pays_for_the_ends_of_documents() -> None:
    texts = ["The llama grazes. " * 50, "Größe"]
    packed = lzma.compress(
        b"".join(text.encode() + b"\xff" for text in texts), format=lzma.FORMAT_XZ, preset=9
    )
    assert bits.xz_bits(texts) == 8 * len(packed)
    assert lzma.decompress(packed).split(b"\xff")[:-1] == [text.encode() for text in texts]
    chance = random.Random(0)
    words = [f"{chance.getrandbits(64):x}" for _ in range(2000)]
    assert bits.xz_bits(words) > bits.xz_bits(["".join(words)]) + 2000


def test_few_logits_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig(dim=16, n_layers=1, n_heads=2, ffn_dim=16, vocab_size=90, max_seq_len=8)
    model = Llama(config)
    model.init_weights(1)
    rows = []
    model.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    item = shard([40, 33])
    before = bits.model_bits(model, item, 8)
    assert max(rows) == bits.WINDOWS
    rows.clear()
    monkeypatch.setattr(bits, "LOGITS", 3 * 8 * 90)
    assert bits.model_bits(model, item, 8) == pytest.approx(before, rel=1e-6)
    assert max(rows) == 3


def test_a_five_grams_bits_are_those_of_each_document_alone() -> None:
    chance = np.random.default_rng(3)
    documents = [np.array([1, *chance.integers(2, 9, size), 2]) for size in (5, 1, 30, 12)]
    tokens = np.concatenate(documents).astype(np.uint16)
    model = NGram(tokens, begin=1, vocab_size=9)
    item = Shard("s", tokens, np.cumsum([0, *map(len, documents)]), np.arange(4))
    alone = [
        bits.ngram_bits(
            model, Shard("s", document.astype(np.uint16), np.array([0, len(document)]), np.zeros(1))
        )
        for document in documents
    ]
    assert bits.ngram_bits(model, item) == pytest.approx(np.concatenate(alone))


def test_intervals_hold_the_ratio_of_the_whole_as_often_as_they_say() -> None:
    chance = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        size = chance.lognormal(0, 0.5, 40)
        low, high = bits.interval(size * chance.normal(1.1, 0.2, 40), size)
        held += low <= 1.1 <= high
    assert 0.89 < held / 200 < 0.99
    same = np.array([3.0, 1.0, 7.0])
    assert bits.interval(2 * same, same) == pytest.approx((2.0, 2.0))
    assert bits.interval(same, np.ones(3)) == bits.interval(same, np.ones(3))


def test_intervals_over_many_documents_take_little_memory() -> None:
    sizes = np.random.default_rng(6).lognormal(0, 0.5, 2000)
    tracemalloc.start()
    low, high = bits.interval(1.5 * sizes, sizes)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low == pytest.approx(1.5) == high and most < 20 * sizes.nbytes
