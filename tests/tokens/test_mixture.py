"""Shares and epochs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens.mixture import BLOCK, apportion, plan
from puna.tokens.settings import TokensSettings

TOKENS = {"a": 60_000, "b": 30_000, "c": 10_000}
SEQUENCES = {"a": 600, "b": 300, "c": 100}


@given(st.dictionaries(st.text(min_size=1), st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_places_fill_the_block_and_follow_the_weights(weights: dict[str, float]) -> None:
    places = apportion(weights)
    assert sum(places.values()) == BLOCK and min(places.values()) >= 1
    total = sum(weights.values())
    if all(BLOCK * weight / total >= 1 for weight in weights.values()):
        assert all(abs(places[name] - BLOCK * weight / total) < 1 for name, weight in weights.items())


def test_without_a_mixture_every_source_has_the_same_epochs() -> None:
    parts = plan(TOKENS, SEQUENCES, TokensSettings(), 2000)
    assert [part.epochs for part in parts] == pytest.approx([2, 2, 2], rel=0.02)


def test_shares_and_epochs() -> None:
    shares = TokensSettings.model_validate(
        {"mixture": {"a": {"share": 0.25}, "b": {"share": 0.25}, "c": {"share": 0.5}}}
    )
    parts = plan(TOKENS, SEQUENCES, shares, 400)
    assert [part.share for part in parts] == [0.25, 0.25, 0.5]
    assert [part.epochs for part in parts] == pytest.approx([1 / 6, 1 / 3, 2])
    epochs = TokensSettings.model_validate(
        {"mixture": {"a": {"epochs": 1}, "b": {"epochs": 2}, "c": {"epochs": 3}}}
    )
    parts = plan(TOKENS, SEQUENCES, epochs, 1500)
    assert [part.epochs for part in parts] == pytest.approx([1, 2, 3], rel=0.01)


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
