"""Shares and epochs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens.mixture import (
    BLOCK_SEQUENCES,
    FINE_SLOTS,
    MOST_BLOCK_SEQUENCES,
    Order,
    apportion,
    block_sequences,
    check,
    plan,
)
from puna.tokens.settings import TokensSettings

TOKENS = {"a": 60_000, "b": 30_000, "c": 10_000}
SEQUENCES = {"a": 600, "b": 300, "c": 100}


@given(st.dictionaries(st.text(min_size=1), st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_slots_fill_the_block_and_follow_the_weights(weights: dict[str, float]) -> None:
    slots, block = apportion(weights), block_sequences(weights)
    assert sum(slots.values()) == block >= BLOCK_SEQUENCES and min(slots.values()) >= 1
    total = sum(weights.values())
    exact = {name: block * weight / total for name, weight in weights.items()}
    if min(exact.values()) >= 1:
        assert all(abs(slots[name] - value) < 1 for name, value in exact.items())
    if block < MOST_BLOCK_SEQUENCES:
        assert min(exact.values()) >= FINE_SLOTS


def test_more_sources_than_any_block_has_slots() -> None:
    slots = apportion(dict.fromkeys(map(str, range(MOST_BLOCK_SEQUENCES + 1)), 1.0))
    assert min(slots.values()) == 1 and sum(slots.values()) == 2 * MOST_BLOCK_SEQUENCES


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(0, 3000), st.integers(0, 2**32))
def test_sources_come_evenly(slots: list[int], count: int, seed: int) -> None:
    """Counted one by one: each source's sequences are numbered as they come, in proportion at any time."""
    order = Order(slots, seed)
    seen = [0] * len(slots)
    for number in range(count):
        source, earlier = order.at(number)
        assert earlier == seen[source]
        seen[source] += 1
    assert order.drawn(count) == seen
    wished = [count * part / sum(slots) for part in slots]
    assert all(abs(found - wish) < 2 + len(slots) for found, wish in zip(seen, wished, strict=True))
    assert [Order(slots, seed).at(number) for number in range(9)] == [order.at(n) for n in range(9)]


def test_without_a_mixture_every_source_has_the_same_epochs() -> None:
    shares = plan(TOKENS, SEQUENCES, TokensSettings(), 2000)
    assert [item.epochs for item in shares] == pytest.approx([2, 2, 2], rel=0.02)


def test_shares_and_epochs() -> None:
    by_share = TokensSettings.model_validate(
        {"mixture": {"a": {"share": 0.25}, "b": {"share": 0.25}, "c": {"share": 0.5}}}
    )
    shares = plan(TOKENS, SEQUENCES, by_share, 400)
    assert [item.share for item in shares] == [0.25, 0.25, 0.5]
    assert [item.epochs for item in shares] == pytest.approx([1 / 6, 1 / 3, 2])
    by_epochs = TokensSettings.model_validate(
        {"mixture": {"a": {"epochs": 1}, "b": {"epochs": 2}, "c": {"epochs": 3}}}
    )
    shares = plan(TOKENS, SEQUENCES, by_epochs, 1500)
    assert [item.epochs for item in shares] == pytest.approx([1, 2, 3], rel=0.01)


def test_too_many_epochs_are_refused_with_figures() -> None:
    with pytest.raises(
        UserError, match=r"a 5\.0 times \(60,000 tokens\), .*maximum_epochs=4; set train\.steps=77 or less"
    ):
        check(plan(TOKENS, SEQUENCES, TokensSettings(), 5000), 4, 100)


@pytest.mark.parametrize(
    "mixture",
    [
        {"a": {"share": 0.5}, "b": {"share": 0.4}},
        {"a": {"share": 0.5}, "b": {"epochs": 1}},
        {"a": {"share": 0.5, "epochs": 1}},
        {"a": {}},
    ],
)
def test_mixtures_that_say_two_things_are_refused(mixture: object) -> None:
    with pytest.raises(ValueError, match="mixture"):
        TokensSettings.model_validate({"mixture": mixture})
