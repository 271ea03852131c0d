"""The sampler against its definition, written out over the whole vocabulary."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.generate.sampling import Sampling, choose, penalised, uniform


def defined(logits: np.ndarray, how: Sampling) -> np.ndarray:
    """Probabilities of all tokens, without shortcuts."""
    scaled = (logits.astype(np.float64) - logits.max()) / how.temperature
    shares = np.exp(scaled)
    order = np.argsort(-logits, kind="stable")
    if how.top_k:
        shares[order[how.top_k :]] = 0
    shares /= shares.sum()
    before = shares[order].cumsum() - shares[order]
    if how.top_p < 1:
        shares[order[before >= how.top_p]] = 0
    shares[shares < how.min_p * shares.max()] = 0
    return shares / shares.sum()


def drawn(logits: np.ndarray, how: Sampling, count: int = 4000) -> np.ndarray:
    """Shares of tokens at numbers that are evenly apart."""
    tokens = [choose(logits, how, (number + 0.5) / count) for number in range(count)]
    return np.bincount(tokens, minlength=len(logits)) / count


@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
@pytest.mark.parametrize(
    "how",
    [
        Sampling(1.0),
        Sampling(0.7, top_p=0.9),
        Sampling(1.5, top_p=0.999),
        Sampling(1.0, top_k=3),
        Sampling(1.0, top_k=150),
        Sampling(1.3, top_p=0.8, top_k=40),
        Sampling(1.0, min_p=0.05),
        Sampling(1.0, top_p=0.97, min_p=1e-6),
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(how: Sampling, spread: float) -> None:
    logits = (np.random.default_rng(0).normal(size=200) * spread).astype(np.float32)
    assert np.abs(drawn(logits, how) - defined(logits, how)).max() < 1.01 / 4000


def test_sets_of_tokens() -> None:
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3], dtype=np.float32))

    def allowed(**how: float) -> set[int]:
        return set(np.flatnonzero(drawn(logits, Sampling(1.0, **how), 200)))

    assert allowed(top_p=0.65) == {1, 3}
    assert allowed(top_p=0.71) == {1, 2, 3}
    assert allowed(top_k=1) == {1}
    assert allowed(min_p=0.6) == {1, 3}
    assert allowed() == {0, 1, 2, 3}


@given(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.3, 1.0, 5.0]), st.integers(0, 3))
def test_what_is_never_drawn(number: float, temperature: float, top_k: int) -> None:
    logits = np.array([-math.inf, 0.0, -math.inf, 1.0, -40.0], dtype=np.float32)
    assert choose(logits, Sampling(temperature, top_k=top_k), number) in (1, 3, 4)


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-300, 1e-306, 1e-307, 1e-308, 1e-320, 5e-324])
def test_the_coldest_temperatures_take_the_likeliest_token(temperature: float) -> None:
    logits = (np.random.default_rng(0).normal(size=(8, 500)) * 5).astype(np.float32)
    logits[np.arange(8), np.arange(8) * 60] = 40.0
    logits[1, 60] = np.finfo(np.float32).max
    logits[2, 121:] = -math.inf
    for top_p, top_k in ((0.95, 0), (1.0, 0), (1.0, 7)):
        how = Sampling(temperature, top_p, top_k)
        assert [choose(row, how, 0.999) for row in logits] == list(range(0, 480, 60))


def test_logits_next_to_each_other_are_told_apart() -> None:
    logits = np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], dtype=np.float32)
    assert {choose(logits, Sampling(1e-320), number / 10) for number in range(10)} == {1}


def test_equal_logits_go_by_their_ids() -> None:
    assert [choose(np.zeros(4, dtype=np.float32), Sampling(1.0), n / 4) for n in range(4)] == [0, 1, 2, 3]
    assert choose(np.zeros(4, dtype=np.float32), Sampling(), 0.9) == 0


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 0.8])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(temperature: float, value: float) -> None:
    wrong = np.zeros(5, dtype=np.float32)
    wrong[3] = value
    for logits in (wrong, np.full(5, -math.inf, dtype=np.float32)):
        with pytest.raises(UserError, match="not finite numbers"):
            choose(logits, Sampling(temperature), 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"presence_penalty": math.inf},
    ],
)
def test_settings_outside_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_penalties() -> None:
    logits = np.array([2.0, -2.0, 1.0, 3.0], dtype=np.float32)
    how = Sampling(repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    assert penalised(logits, how, {0}, Counter([1, 1, 3])).tolist() == [1.0, -5.0, 1.0, 0.75]
    assert penalised(logits, Sampling(frequency_penalty=1.0), {0}, Counter()).tolist() == logits.tolist()


def test_a_number_depends_on_seed_sample_and_position_alone() -> None:
    numbers = {uniform(s, n, p) for s in range(5) for n in range(5) for p in range(40)}
    assert len(numbers) == 1000 and uniform(3, 1, 4) == uniform(3, 1, 4)
    counts = np.histogram(list(numbers), 10, (0, 1))[0]
    assert ((counts - 100) ** 2 / 100).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
