"""Batches: a pure function of seed and step, every token once an epoch, and the way back."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens.batches import (
    BATCH_PLAN,
    IGNORED,
    Batches,
    Phases,
    planned,
    rows_of,
    save_batch_plan,
    sequences_in,
)
from puna.tokens.mixture import BLOCK_SEQUENCES, check, plan
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


def numbers_of(block: int) -> range:
    """Numbers of the sequences in a block of the mixture."""
    return range(block * BLOCK_SEQUENCES, (block + 1) * BLOCK_SEQUENCES)


def of_sizes(
    sizes: list[int],
    total: int,
    *,
    seed: int = 1,
    shares: list[float] | None = None,
    batch_sequences: int = 4,
) -> Batches:
    """Batches over sources s0, s1, ... of as many sequences, for a training of `total` sequences."""
    shards = [
        Shard(
            f"s{n}", np.zeros(size * LENGTH + 1, np.uint16), np.array([0, size * LENGTH + 1]), np.array([0])
        )
        for n, size in enumerate(sizes)
    ]
    wished = {f"s{n}": {"share": share} for n, share in enumerate(shares or [])}
    settings = TokensSettings.model_validate({"maximum_epochs": 1e9, "mixture": wished})
    tokens = {item.source: len(item.tokens) for item in shards}
    sequences = {item.source: sequences_in(len(item.tokens), LENGTH) for item in shards}
    assert list(sequences.values()) == sizes
    mixture = plan(tokens, sequences, settings, total, seed)
    return Batches(shards, mixture, seed=seed, batch_sequences=batch_sequences, length=LENGTH)


def times_seen(batches: Batches, total: int) -> list[list[int]]:
    """How often each sequence of each source is among the first `total`."""
    seen = Counter(batches.slot(number) for number in range(total))
    return [
        [seen[source, sequence] for sequence in range(share.sequences)]
        for source, share in enumerate(batches.mixture)
    ]


class TestOneEpochIsOneEpoch:
    """No sequence comes again before all others of its source came, wherever one stops counting."""

    @pytest.mark.parametrize("size", [1, 7, 100, 400, 1000, 1024, 2000, 3000])
    def test_of_one_source(self, size: int) -> None:
        for total in (size, 2 * size, 2 * size + size // 3):
            batches = of_sizes([size], total)
            (seen,) = times_seen(batches, total)
            assert (min(seen), max(seen)) == (total // size, -(-total // size))
            assert batches.mixture[0].epochs == total / size

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_of_any_mixture(self, data: st.DataObject) -> None:
        sizes = data.draw(st.lists(st.integers(1, 1500), min_size=1, max_size=6))
        parts = data.draw(st.none() | st.lists(st.integers(1, 99), min_size=len(sizes), max_size=len(sizes)))
        shares = parts and [part / sum(parts) for part in parts]
        total, seed = data.draw(st.integers(1, 4000)), data.draw(st.integers(0, 2**32))
        batches = of_sizes(sizes, total, seed=seed, shares=shares)
        for share, seen in zip(batches.mixture, times_seen(batches, total), strict=True):
            drawn = sum(seen)
            assert share.epochs == drawn / share.sequences
            assert min(seen) == drawn // share.sequences and max(seen) == -(-drawn // share.sequences)
            assert abs(drawn - share.share * total) < 2 + len(sizes)

    def test_of_more_sources_than_a_block_had_slots(self) -> None:
        sizes = [1 + number % 3 for number in range(1500)]
        batches = of_sizes(sizes, 6000)
        for share, seen in zip(batches.mixture, times_seen(batches, 6000), strict=True):
            assert share.epochs == pytest.approx(2, abs=1.5)
            assert max(seen) - min(seen) <= 1

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 50))
    def test_over_any_number_of_ranks(self, batch_sequences: int, world: int, step: int) -> None:
        """Ranks have equally many rows, and together the rows of one process, each once."""
        batches = made(batch_sequences=batch_sequences)
        whole = batches.batch(step)
        parts = [batches.batch(step, rank, world) for rank in range(world)]
        assert {len(part.tokens) for part in parts} == {-(-batch_sequences // world)}
        assert whole.weights is None and all(part.weights is None for part in parts)
        for name in ("tokens", "targets", "document_ids"):
            array = getattr(whole, name)
            rows = np.stack([getattr(part, name) for part in parts], axis=1).reshape(-1, LENGTH)
            assert np.array_equal(rows[:batch_sequences], array)
            assert (rows[batch_sequences:] == (IGNORED if name == "targets" else 0)).all()
        assert sum(part.target_count for part in parts) == whole.target_count

    def test_maximum_epochs_holds_for_every_sequence(self) -> None:
        for seed in range(10):
            batches = of_sizes([100, 37], 500, seed=seed, shares=[0.6, 0.4])
            most = [max(seen) for seen in times_seen(batches, 500)]
            epochs = [share.epochs for share in batches.mixture]
            assert most == [math.ceil(value) for value in epochs]
            check(batches.mixture, max(epochs), 500)
            with pytest.raises(UserError, match=r"more than tokens\.maximum_epochs"):
                check(batches.mixture, max(epochs) - 1e-6, 500)

    def test_no_padding_is_counted_as_tokens(self) -> None:
        batches = made(batch_sequences=6)
        tokens = 0
        for step in range(300):
            assert batches.tokens_before(step) == tokens
            where = itertools.product(range(6), range(LENGTH))
            tokens += sum(batches.trace(step, row, position) is not None for row, position in where)
        assert tokens < 300 * 6 * LENGTH


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


def in_phases(short_steps: int, steps: int) -> Phases:
    """Of length 4 and 8 rows, then of 8 and 4."""
    phases = []
    for length, rows, count in ((4, 8, short_steps), (8, 4, steps - short_steps)):
        tokens = {item.source: len(item.tokens) for item in SHARDS}
        sequences = {source: sequences_in(size, length) for source, size in tokens.items()}
        mixture = plan(tokens, sequences, TokensSettings(), count * rows, 1)
        phases.append(Batches(SHARDS, mixture, seed=1, batch_sequences=rows, length=length))
    return Phases(phases[0], phases[1], short_steps)


def test_short_sequences_come_first_and_every_token_leads_to_its_document(tmp_path: Path) -> None:
    batches, steps = in_phases(30, 70), 70
    counted = 0
    for step in range(steps):
        assert batches.tokens_before(step) == counted
        batch = batches.batch(step)
        assert batch.tokens.shape == ((8, 4) if step < 30 else (4, 8))
        for row, position in itertools.product(*map(range, batch.tokens.shape)):
            found = batches.trace(step, row, position)
            counted += found is not None
            if found is not None:
                source, place = found
                item = next(item for item in SHARDS if item.source == source)
                document = item.document(int(np.flatnonzero(item.rows == place)[0]))
                assert batch.tokens[row, position] in document
    for share, first, last in zip(batches.mixture, batches.short.mixture, batches.long.mixture, strict=True):
        assert share.epochs == first.epochs + last.epochs and min(first.epochs, last.epochs) > 0
    save_batch_plan(batches, steps, 50, tmp_path)
    again = planned(
        json.loads((tmp_path / BATCH_PLAN).read_text()),
        lambda source: next(item for item in SHARDS if item.source == source),
    )
    for step in (0, 29, 30, 69):
        assert np.array_equal(again.batch(step).tokens, batches.batch(step).tokens)
        parts = [batches.batch(step, rank, 2) for rank in range(2)]
        assert sum(part.target_count for part in parts) == batches.batch(step).target_count


def test_too_many_epochs_of_both_phases_together_are_refused() -> None:
    mixture = in_phases(30, 70).mixture
    most = max(share.epochs for share in mixture)
    check(mixture, most, 100)
    with pytest.raises(UserError, match="training would see"):
        check(mixture, most * 0.999, 100)
