"""Packed rows and batches of conversations: exact epochs, whole conversations, targets where something is
learned."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from puna.tokens.batches import IGNORED
from puna.tune import rows

SIZES = st.lists(st.integers(2, 60), min_size=1, max_size=40)


def conversation(size: int, first: int) -> tuple[list[int], list[bool]]:
    """Distinct ids, of which the second half is learned."""
    return list(range(first, first + size)), [place >= size // 2 for place in range(size)]


def encoded(name: str, sizes: list[int], first: int = 0) -> rows.Encoded:
    starts = np.cumsum([first, *sizes])
    return rows.encoded(name, [conversation(size, int(at)) for size, at in zip(sizes, starts, strict=False)])


def batches(
    *sets: rows.Encoded, draws: list[int], steps: int, seed: int = 5, length: int = 64
) -> rows.Batches:
    return rows.Batches(sets, draws, seed=seed, steps=steps, conversations=sum(draws), length=length)


@given(SIZES)
def test_packing_puts_every_conversation_whole_into_one_row(sizes: list[int]) -> None:
    packed = rows.pack(sizes, 64)
    assert sorted(place for row in packed for place in row) == list(range(len(sizes)))
    assert all(sum(sizes[place] for place in row) <= 64 for row in packed)


def test_rows_of_many_conversations_are_nearly_full() -> None:
    sizes = np.random.default_rng(1).integers(20, 400, 600).tolist()
    packed = rows.pack(sizes, 1024)
    longest = max(sum(sizes[place] for place in row) for row in packed)
    assert sum(sizes) / (len(packed) * longest) > 0.98


@given(SIZES, st.integers(1, 4))
def test_a_batch_has_the_learned_tokens_as_targets_and_nothing_else(sizes: list[int], world: int) -> None:
    made = [conversation(size, 100 * number) for number, size in enumerate(sizes)]
    batch = rows.batch_of([(np.array(ids), np.array(learned)) for ids, learned in made], 64)
    expected = sorted(
        token for ids, learned in made for token, flag in zip(ids[1:], learned[1:], strict=True) if flag
    )
    assert sorted(batch.targets[batch.targets != IGNORED].tolist()) == expected
    shared = [batch.share(rank, world) for rank in range(world)]
    assert sum(part.target_count for part in shared) == batch.target_count == len(expected)
    for number, (ids, _) in enumerate(made):
        where = batch.document_ids == number
        assert batch.tokens[where].tolist() == ids[:-1]
        assert len(set(np.nonzero(where)[0].tolist())) == 1


@given(SIZES, st.integers(1, 4), st.integers(1, 3))
def test_what_is_computed_is_whole_conversations_and_next_to_no_padding(
    sizes: list[int], size: int, world: int
) -> None:
    made = [conversation(size, 100 * number) for number, size in enumerate(sizes)]
    batch = rows.batch_of([(np.array(ids), np.array(learned)) for ids, learned in made], 64)
    parts = [part for rank in range(world) for part in batch.share(rank, world).micro_batches(size)]
    found = {}
    for part in parts:
        assert part.tokens.size % rows.MULTIPLE == 0
        numbers = part.document_ids.ravel()
        for number in set(numbers[part.targets.ravel() != IGNORED].tolist()):
            where = np.flatnonzero(numbers == number)
            assert number not in found and np.all(np.diff(where) == 1)
            found[number] = part.tokens.ravel()[where].tolist()
        read = sum(len(found[number]) for number in set(numbers.tolist()) if number in found)
        assert part.target_count == 0 or part.tokens.size - read < rows.MULTIPLE
    for number, (ids, _) in enumerate(made):
        assert found[number] == ids[:-1]


def test_what_follows_the_last_learned_token_is_not_read() -> None:
    made = rows.encoded("a", [([1, 2, 3, 4, 5], [False, False, True, False, False])])
    assert made.tokens.tolist() == [1, 2, 3]
    assert made.learned.tolist() == [False, False, True]
    assert (made.sizes.tolist(), made.targets.tolist()) == ([2], [1])


@given(st.integers(0, 1 << 40), st.integers(1, 9))
def test_epochs_are_exact_whatever_the_seed_and_the_steps(seed: int, steps: int) -> None:
    a, b = encoded("a", [5, 6, 7, 8, 9]), encoded("b", [4, 4, 30], 1000)
    made = batches(a, b, draws=[10, 3], steps=steps, seed=seed)
    seen = [member for step in range(steps) for member in made.members(step)]
    assert Counter(seen) == {
        **{(0, number): 2 for number in range(5)},
        **{(1, number): 1 for number in range(3)},
    }
    first = [number for which, number in seen if which == 0][:5]
    assert sorted(first) == list(range(5))  # none comes again before all came
    assert all(made.batch(step).target_count > 0 for step in range(steps))
    sizes = [len(made.members(step)) for step in range(steps)]
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    sets = encoded("a", [5, 6, 7, 8, 9] * 4)
    made, again = (batches(sets, draws=[40], steps=8) for _ in range(2))
    assert np.array_equal(made.batch(5).tokens, again.batch(5).tokens)
    other = batches(sets, draws=[40], steps=8, seed=6)
    assert [made.members(step) for step in range(8)] != [other.members(step) for step in range(8)]


def test_sets_are_spread_evenly_over_a_training() -> None:
    made = batches(encoded("a", [4] * 60), encoded("b", [4] * 20, 500), draws=[120, 20], steps=14)
    shares = [sum(which for which, _ in made.members(step)) for step in range(14)]
    assert sum(shares) == 20
    assert max(shares) <= 3


def test_counts_are_those_of_the_batches() -> None:
    made = batches(encoded("a", [5, 9, 30, 12]), draws=[12], steps=4)
    read = [made.batch(step) for step in range(4)]
    assert made.targets == sum(batch.target_count for batch in read)
    assert made.rows == [len(batch.tokens) for batch in read]
    padding = sum(
        int((batch.document_ids == len(made.members(step))).sum()) for step, batch in enumerate(read)
    )
    places = sum(batch.tokens.size for batch in read)
    assert made.tokens_before(4) == places - padding
    assert made.tokens_before(0) == 0


def test_a_set_is_read_as_it_was_saved(tmp_path) -> None:
    made = encoded("a", [5, 9, 30])
    made.save(tmp_path)
    again = rows.load(tmp_path, "a")
    for kind in ("tokens", "learned", "starts"):
        assert np.array_equal(getattr(made, kind), getattr(again, kind))
