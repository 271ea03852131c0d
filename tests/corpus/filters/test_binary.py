"""Calibration, thresholds and figures against closed forms and plain counting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.filters import binary
from puna.errors import UserError

SCORED = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0]), st.booleans()), min_size=2
).filter(lambda pairs: len({label for _, label in pairs}) == 2)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in pairs]), np.array([label for _, label in pairs])


def test_sigmoid() -> None:
    x = np.concatenate([np.linspace(-40, 40, 1001), [-1e9, 1e9]])
    expected = [1 / (1 + math.exp(-max(-40.0, min(40.0, value)))) for value in x]
    assert np.allclose(binary.sigmoid(x), expected, rtol=1e-12, atol=0)


def test_platt_finds_the_line_that_made_the_labels() -> None:
    random = np.random.default_rng(0)
    margins = random.normal(size=40_000) * 3
    labels = random.random(40_000) < 1 / (1 + np.exp(-(2 * margins + 0.5)))
    slope, intercept = binary.platt(margins, labels)
    odds = labels.sum() / (~labels).sum()  # at even odds of the classes the intercept loses the log of theirs
    assert abs(slope - 2) < 0.08 and abs(intercept - (0.5 - math.log(odds))) < 0.08


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_platt_of_separated_and_of_equal_margins_is_finite(scale: float) -> None:
    labels = np.array([True] * 30 + [False] * 50)
    slope, intercept = binary.platt(np.where(labels, 1.0, -1.0) * scale, labels)
    chance = binary.sigmoid(slope * np.array([scale, -scale]) + intercept)
    assert chance[0] > 0.9 and chance[1] < 0.1
    slope, intercept = binary.platt(np.zeros(80), labels)
    assert math.isfinite(slope) and abs(binary.sigmoid(np.array([intercept]))[0] - 0.5) < 0.02


@given(SCORED)
def test_area_by_counting_pairs(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = arrays(pairs)
    won = [(p > n) + (p == n) / 2 for p in scores[labels] for n in scores[~labels]]
    assert math.isclose(binary.area_under_curve(scores, labels), sum(won) / len(won))


@given(SCORED, st.sampled_from([0.1, 0.5, 0.55, 0.8, 1.0]))
def test_thresholds_by_trying_all(pairs: list[tuple[float, bool]], wanted: float) -> None:
    scores, labels = arrays(pairs)
    recall = {limit: (labels & (scores >= limit)).sum() / labels.sum() for limit in scores}
    precision = {limit: labels[scores >= limit].mean() for limit in scores}
    assert binary.threshold(scores, labels, wanted, None) == max(
        limit for limit in scores if recall[limit] >= wanted
    )
    reached = [limit for limit in scores if precision[limit] >= wanted]
    if reached:
        assert binary.threshold(scores, labels, None, wanted) == min(reached)
    else:
        with pytest.raises(UserError, match="no threshold reaches precision"):
            binary.threshold(scores, labels, None, wanted)


@pytest.mark.parametrize("rule", [(None, None), (0.9, 0.9)])
def test_one_rule_for_the_threshold(rule: tuple[float | None, float | None]) -> None:
    with pytest.raises(UserError, match="one of recall and precision"):
        binary.threshold(np.array([0.1, 0.9]), np.array([False, True]), *rule)


def test_wilson() -> None:
    for hits, trials in ((0, 10), (10, 10), (3, 7), (81, 263)):
        low, high = binary.wilson(hits, trials)
        share = hits / trials
        for end in (low, high):  # the ends solve |share - p| = z sqrt(p (1 - p) / n)
            assert math.isclose(
                abs(share - end), binary.NORMAL_95 * math.sqrt(end * (1 - end) / trials), abs_tol=1e-7
            )
        assert low <= share <= high
    assert binary.wilson(0, 0) == (0.0, 1.0)


def test_figures() -> None:
    scores = np.array([0.95, 0.95, 0.65, 0.15, 0.15, 0.05])
    labels = np.array([True, True, False, True, False, False])
    found = binary.measure(scores, labels, 0.5)
    assert found["precision"] == {"hits": 2, "trials": 3} and found["recall"] == {"hits": 2, "trials": 3}
    assert found["false_positives"] == {"hits": 1, "trials": 3}
    assert [row[0] for row in found["reliability"]] == [1, 2, 0, 0, 0, 0, 1, 0, 0, 2]
    assert math.isclose(found["calibration_error"], (0.05 + 2 * 0.35 + 0.65 + 2 * 0.05) / 6)
    assert math.isclose(found["area_under_curve"], 7.5 / 9)
