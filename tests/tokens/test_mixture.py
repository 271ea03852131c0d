"""Shares and epochs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens.mixture import BLOCK_SEQUENCES, apportion, plan
from puna.tokens.settings import TokensSettings

TOKENS = {"a": 60_000, "b": 30_000, "c": 10_000}
SEQUENCES = {"a": 600, "b": 300, "c": 100}


@given(st.dictionaries(st.text(min_size=1), st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_slots_fill_the_block_and_follow_the_weights(weights: dict[str, float]) -> None:
    slots = apportion(weights)
    assert sum(slots.values()) == BLOCK_SEQUENCES and min(slots.values()) >= 1
    total = sum(weights.values())
    exact = {name: BLOCK_SEQUENCES * weight / total for name, weight in weights.items()}
    if min(exact.values()) >= 1:
        assert all(abs(slots[name] - value) < 1 for name, value in exact.items())


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
    with pytest.raises(UserError, match=r"a 5\.0 times \(60,000 tokens\), .*maximum_epochs=4"):
        plan(TOKENS, SEQUENCES, TokensSettings(), 5000)


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
