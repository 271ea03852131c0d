"""Evaluation of a binary classifier's scores: calibration, thresholds, and metrics with their uncertainty.

Only the four operations and square roots are used on floats, in a fixed order, so that the same input gives
the same bits on any machine (the exponentials of numpy and of C libraries differ between processors in the
last bit).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from puna.errors import UserError

BINS = 10
NORMAL_95 = 1.959963984540054


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute 1 / (1 + e^-x) in float64, within 1e-13; x is clipped to -40..40."""
    small = np.minimum(np.abs(x), 40.0) * (-1 / 256)
    power = np.ones_like(small)
    for term in range(10, 0, -1):  # Taylor's series of e^small
        power = 1.0 + power * small / term
    for _ in range(8):
        power = power * power
    return np.where(x >= 0, 1.0, power) / (1.0 + power)


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights of equal sum, half the number of labels, over each class. labels: bool."""
    size, positive = len(labels), int(labels.sum())
    return np.where(labels, size / (2 * positive), size / (2 * (size - positive)))


def platt(margins: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Fit (slope, intercept): sigmoid(slope * margin + intercept) is the chance of a positive at even odds.

    Platt (1999) with the targets of its section 2.2, by Newton's method after Lin, Lin and Weng (2007).
    """
    weights, positive = class_weights(labels), int(labels.sum())
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (len(labels) - positive + 2))
    scale = float(np.sqrt((margins * margins).sum() / len(margins))) or 1.0
    x = margins / scale
    slope = intercept = 0.0
    for _ in range(50):
        chance = sigmoid(slope * x + intercept)
        error, curvature = weights * (chance - targets), weights * np.maximum(chance * (1 - chance), 1e-12)
        slope_gradient, intercept_gradient = float((error * x).sum()), float(error.sum())
        a = float((curvature * x * x).sum()) + 1e-9  # of the Hessian [[a, b], [b, c]]
        b, c = float((curvature * x).sum()), float(curvature.sum()) + 1e-9
        determinant = a * c - b * b
        slope_step = (c * slope_gradient - b * intercept_gradient) / determinant
        intercept_step = (a * intercept_gradient - b * slope_gradient) / determinant
        # A bounded step cannot overshoot into the flat part of the curve.
        longest = max(abs(slope_step), abs(intercept_step), 1.0)
        slope, intercept = slope - slope_step / longest, intercept - intercept_step / longest
        if max(abs(slope_step), abs(intercept_step)) < 1e-9:
            break
    return slope / scale, intercept


def check_rule(recall: float | None, precision: float | None) -> None:
    """Raise UserError unless exactly one of both is given, as a share above 0 and up to 1."""
    if (recall is None) == (precision is None):
        raise UserError(
            "give one of recall and precision, by which the threshold is chosen "
            f"(recall={recall}, precision={precision})"
        )
    wanted = precision if recall is None else recall
    if wanted is None or not 0 < wanted <= 1:
        raise UserError(f"recall and precision are shares, above 0 and up to 1, not {wanted}")


def threshold(scores: np.ndarray, labels: np.ndarray, recall: float | None, precision: float | None) -> float:
    """Return the largest score with at least this recall, or the smallest with at least this precision.

    Raises UserError where no score reaches it.
    """
    check_rule(recall, precision)
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    last = np.append(ranked[1:] != ranked[:-1], True)  # equal scores are kept or dropped together
    ranked, hits, kept = ranked[last], hits[last], np.arange(1, len(scores) + 1)[last]
    if recall is not None:
        return float(ranked[np.argmax(hits / hits[-1] >= recall)])
    reached = np.flatnonzero(hits / kept >= precision)
    if not len(reached):
        best = float((hits / kept).max())
        raise UserError(f"no threshold reaches precision {precision}: the best is {best:.3f}; ask for less")
    return float(ranked[reached[-1]])


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half."""
    negative = np.sort(scores[~labels])
    positive = scores[labels]
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return int(below.sum()) / (2 * len(negative) * len(positive))


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927); (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    share, square = hits / trials, NORMAL_95**2
    centre = share + square / (2 * trials)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    low, high = ((centre + side) / (1 + square / trials) for side in (-half, half))
    return low if hits else 0.0, high if hits < trials else 1.0


@dataclass(frozen=True)
class Share:
    """A share, hits among trials; as text with its 95% interval."""

    hits: int
    trials: int

    def __str__(self) -> str:
        low, high = wilson(self.hits, self.trials)
        share = self.hits / self.trials if self.trials else 0.0
        return f"{share:.3f} ({low:.3f} to {high:.3f}; {self.hits:,} of {self.trials:,})"


def measure(scores: np.ndarray, labels: np.ndarray, limit: float) -> dict[str, Any]:
    """Compute metrics of scores in 0..1 against labels (bool), in plain types.

    precision, recall and false_positives (negatives kept among all) at `limit` as counts; area_under_curve;
    reliability: of each tenth of the scores (documents, mean score, share of positives), and
    calibration_error: the mean distance of the last two, both with the classes weighted to even odds, at
    which the scores are calibrated.
    """
    kept, weights = scores >= limit, class_weights(labels)
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    reliability, error = [], 0.0
    for number in range(BINS):
        inside = bins == number
        weight = float(weights[inside].sum())
        if weight:
            mean = float((weights * scores)[inside].sum()) / weight
            share = float(weights[inside & labels].sum()) / weight
            reliability.append([int(inside.sum()), mean, share])
            error += weight / len(labels) * abs(mean - share)
        else:
            reliability.append([0, 0.0, 0.0])
    right = int((kept & labels).sum())
    return {
        "positives": int(labels.sum()),
        "negatives": int((~labels).sum()),
        "area_under_curve": area_under_curve(scores, labels),
        "precision": asdict(Share(right, int(kept.sum()))),
        "recall": asdict(Share(right, int(labels.sum()))),
        "false_positives": asdict(Share(int((kept & ~labels).sum()), int((~labels).sum()))),
        "calibration_error": error,
        "reliability": reliability,
    }
