"""Batches: a pure function of seed and step, every token once an epoch, and the way back."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.tokens.batches import IGNORED, Batches, permute, rows_of, sequences_in
from puna.tokens.mixture import BLOCK_SEQUENCES, plan
from puna.tokens.settings import TokensSettings
from puna.tokens.shards import Shard

LENGTH = 8


def shard(source: str, sizes: list[int], first: int) -> Shard:
    """Documents of the given lengths; token values are unique over the shard and begin at `first`."""
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    tokens = np.arange(first, first + offsets[-1], dtype=np.uint32)
    return Shard(source, tokens, offsets, np.arange(len(sizes)) * 10)


SHARDS = [shard("a", [5, 30, 1, 12, 50, 7] * 20, 1000), shard("b", [3, 4, 90, 2] * 8, 100_000)]


def made(seed: int = 1, batch_sequences: int = 4, length: int = LENGTH) -> Batches:
    tokens = {item.source: len(item.tokens) for item in SHARDS}
    sequences = {source: sequences_in(size, length) for source, size in tokens.items()}
    mixture = plan(tokens, sequences, TokensSettings(maximum_epochs=1e9), BLOCK_SEQUENCES)
    return Batches(SHARDS, mixture, seed=seed, batch_sequences=batch_sequences, length=length)


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_the_permutation_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


def test_the_permutation_is_uniform() -> None:
    """Over many keys, index 0 is mapped to every number about equally often (chi-square, p = 0.001)."""
    size, tries = 10, 5000
    counts = Counter(permute(0, size, key * 0x9E3779B97F4A7C15 % 2**64) for key in range(tries))
    assert sum((counts[index] - tries / size) ** 2 / (tries / size) for index in range(size)) < 27.9
    after = Counter((permute(5, size, key) - permute(4, size, key)) % size for key in range(tries))
    assert after[0] == 0 and max(after.values()) < 1.3 * tries / (size - 1)


def numbers_of(block: int) -> range:
    """Numbers of the sequences in a block of the mixture."""
    return range(block * BLOCK_SEQUENCES, (block + 1) * BLOCK_SEQUENCES)


def test_every_sequence_once_an_epoch() -> None:
    """After any number of blocks, sequences of a source were seen equally often, up to one."""
    batches = made()
    seen: Counter[tuple[int, int]] = Counter()
    for block in range(4):
        seen.update(batches.slot(number) for number in numbers_of(block))
        for index, share in enumerate(batches.mixture):
            counts = [seen[index, sequence] for sequence in range(share.sequences)]
            epochs = (block + 1) * share.slots // share.sequences
            assert min(counts) == epochs and max(counts) <= epochs + 1
            assert sum(counts) == (block + 1) * share.slots


def test_every_target_of_every_document_is_in_one_sequence() -> None:
    for item in SHARDS:
        rows = rows_of(item, LENGTH)
        has_target = rows.targets != IGNORED
        tokens, targets = rows.tokens[has_target].tolist(), rows.targets[has_target].tolist()
        pairs = list(zip(tokens, targets, strict=True))
        documents = [item.document(number).tolist() for number in range(item.documents)]
        assert pairs == [pair for document in documents for pair in itertools.pairwise(document)]


def test_a_block_holds_each_sources_slots_exactly() -> None:
    batches = made()
    for block in range(3):
        counts = Counter(batches.slot(number)[0] for number in numbers_of(block))
        assert [counts[index] for index in range(2)] == [share.slots for share in batches.mixture]


def test_pure_and_keyed_by_the_seed() -> None:
    one, two, other = made(), made(), made(seed=2)
    for step in (7, 3, 10**9):
        for name, array in vars(one.batch(step)).items():
            assert np.array_equal(array, getattr(two.batch(step), name))
    assert not np.array_equal(one.batch(3).tokens, other.batch(3).tokens)
    assert not np.array_equal(one.batch(3).tokens, one.batch(4).tokens)


def test_ranks_share_one_global_batch() -> None:
    batches = made(batch_sequences=6)
    whole = batches.batch(5)
    for world in (2, 3):
        for rank in range(world):
            assert np.array_equal(batches.batch(5, rank, world).tokens, whole.tokens[rank::world])


def test_document_ids_targets_and_the_way_back() -> None:
    batches = made()
    ends = {token for item in SHARDS for token in item.tokens[item.offsets[1:] - 1].tolist()}
    for step in range(150):
        batch = batches.batch(step)
        for row in range(4):
            item = SHARDS[batches.slot(4 * step + row)[0]]
            for position in range(LENGTH):
                found = batches.trace(step, row, position)
                token = int(batch.tokens[row, position])
                if found is None:
                    assert batch.targets[row, position] == IGNORED and token == 0
                    continue
                number = int(item.document_at(token - int(item.tokens[0])))
                assert found == (item.source, int(item.rows[number]))
                assert batch.targets[row, position] == (IGNORED if token in ends else token + 1)
                if position:
                    before, here = batch.document_ids[row, position - 1 : position + 1]
                    assert (before == here) == (batches.trace(step, row, position - 1) == found)


@pytest.mark.parametrize("tokens", [1, 2, 8, 9, 10, 17])
def test_sequences_cover_all_targets(tokens: int) -> None:
    rows = rows_of(shard("s", [tokens], 5), LENGTH)
    assert rows.target_count == tokens - 1
    assert len(rows.tokens) == sequences_in(tokens, LENGTH)
