"""Judges: functions from texts to numbers in 0..1, float64 [texts], for what no rule can check.

A linear judge is logistic regression over a text's hashed words and pairs of words (`corpus.filters.words`),
trained on a labelled file. How good it is, questions tell that it has not seen; it is usable where it is
surely better than always saying the same, and than looking at lengths alone. An endpoint is a model behind an
OpenAI-compatible address that is asked for a number.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from puna.corpus.filters import binary, words
from puna.errors import UserError
from puna.evaluate.answers import number
from puna.evaluate.bits_per_byte import interval
from puna.evaluate.data import Data, Part
from puna.evaluate.endpoint import ask
from puna.evaluate.runner import average

Array = np.ndarray
Texts = Sequence[str] | Array
Judge = Callable[[Texts], Array]
BITS, STEPS, REGULARISATION = 18, 200, 1e-5
HELD_OUT_BYTES = 51  # of 256: a fifth of the questions


class Labelled(NamedTuple):
    """Texts, whether each is what the judge looks for (bool), and the question that each answers."""

    texts: Array
    labels: Array
    questions: Array


def labelled(path: Path) -> Labelled:
    """Read a file of rows {"text": ..., "label": 0 or 1}, or one for the judges of TruthfulQA, {"prompt":
    "Q: ...\\nA: ...\\nTrue:", "completion": " yes"}, where the answer is the text.

    Raises UserError for other rows, and where all labels are the same.
    """
    rows: list[tuple[str, bool, str]] = []
    for row in Data(path.stem, {"items": Part((path.name,))}, path.parent).rows():
        if "prompt" in row:
            question, _, answer = row["prompt"].rpartition("\n")[0].partition("\nA:")
            rows.append((answer.strip(), row["completion"].strip() == "yes", question))
        else:
            rows.append((row["text"], bool(int(row["label"])), row["text"]))
    if len({label for _, label, _ in rows}) < 2:
        raise UserError(f"{path}: a judge learns from texts with both labels, and all have the same")
    texts, labels, questions = zip(*rows, strict=True)
    return Labelled(np.array(texts, object), np.array(labels), np.array(questions, object))


class _Rows(NamedTuple):
    """A sparse matrix [size, 2^BITS]: values in columns `buckets` of rows `owners`."""

    buckets: Array
    values: Array
    owners: Array
    size: int

    def margins(self, weights: Array) -> Array:
        """Its product with weights, the last one of which is added to all."""
        found = self.values * weights[self.buckets]
        return np.bincount(self.owners, found, minlength=self.size) + weights[-1]


def _features(texts: Texts) -> _Rows:
    """Square roots of the counts, each text's vector of length 1."""
    buckets, counts, ends = words.features(list(texts), BITS)
    sizes = np.diff(ends, prepend=0)
    owners = np.repeat(np.arange(len(ends)), sizes)
    lengths = np.maximum(np.bincount(owners, counts, minlength=len(ends)), 1)
    return _Rows(buckets, np.sqrt(counts / lengths[owners]), owners, len(texts))


def _lengths(texts: Texts) -> _Rows:
    """The texts' characters alone, by a thousand."""
    values = np.minimum([len(text) / 1000 for text in texts], 1.0)
    return _Rows(np.zeros(len(texts), int), values, np.arange(len(texts)), len(texts))


def _fit(rows: _Rows, labels: Array) -> Array:
    """Weights of a logistic regression, float64 [2^BITS + 1], by accelerated descent (Nesterov 1983) with the
    step that rows of length 1 allow."""
    weights = before = np.zeros((1 << BITS) + 1)
    for step in range(STEPS):
        ahead = weights + step / (step + 3) * (weights - before)
        errors = (binary.sigmoid(rows.margins(ahead)) - labels) / rows.size
        pulls = np.bincount(rows.buckets, rows.values * errors[rows.owners], minlength=len(weights))
        gradient = pulls + REGULARISATION * ahead
        gradient[-1] = errors.sum()
        before, weights = weights, ahead - 2 * gradient
    return weights


def train(texts: Texts, labels: Array, features: Callable[[Texts], _Rows] = _features) -> Judge:
    """Fit a linear judge. labels: bool [texts]."""
    weights = _fit(features(texts), labels)
    return lambda asked: binary.sigmoid(features(asked).margins(weights))


class Quality(NamedTuple):
    """How good a judge is on questions that it has not seen: accuracy with its interval of 95% over
    questions, AUC; the same of a judge by lengths alone; accuracy of always saying what is more frequent."""

    accuracy: float
    interval: tuple[float, float]
    area: float
    length_accuracy: float
    length_area: float
    majority: float
    texts: int

    @property
    def usable(self) -> bool:
        above = self.interval[0] > max(self.majority, self.length_accuracy)
        return above and self.area > max(self.length_area, 0.5)

    def __str__(self) -> str:
        return (
            f"{'usable' if self.usable else 'NOT USABLE'}: accuracy {self.accuracy:.3f} "
            f"({self.interval[0]:.3f} to {self.interval[1]:.3f}), AUC {self.area:.3f} on {self.texts:,} "
            f"texts of questions it has not seen; the more frequent label {self.majority:.3f}, lengths alone "
            f"{self.length_accuracy:.3f}, AUC {self.length_area:.3f}"
        )


def measure(data: Labelled) -> Quality:
    """Train on four fifths of the questions and measure on the others. Raises UserError for too few."""
    held = np.array([hashlib.sha256(each.encode()).digest()[0] < HELD_OUT_BYTES for each in data.questions])
    truth = data.labels[held]
    if min(len(set(truth)), len(set(data.labels[~held]))) < 2:
        raise UserError(f"{len(set(data.questions))} questions are too few for a judge and a measure of it")
    right, areas = [], []
    for features in (_features, _lengths):
        chances = train(data.texts[~held], data.labels[~held], features)(data.texts[held])
        right.append((chances > 0.5) == truth)
        areas.append(binary.area_under_curve(chances, truth))
    _, question = np.unique(data.questions[held].astype(str), return_inverse=True)
    between = interval(np.bincount(question, right[0]), np.bincount(question))
    accuracies = [float(each.mean()) for each in right]
    majority = float(max(truth.mean(), 1 - truth.mean()))
    return Quality(accuracies[0], between, areas[0], accuracies[1], areas[1], majority, len(truth))


def endpoint(address: str, model: str, question: str, key: str = "") -> Judge:
    """Return a judge that asks a model. address: up to /v1; question: with {text} in it, for a number from 0
    to 100; key: of the service. The judge raises UserError where there is no such answer."""
    if not address.startswith(("http://", "https://")):
        raise UserError(f"{address}: the address of an endpoint begins with http:// or https://")

    def said_of(text: str) -> float:
        message = {"role": "user", "content": question.replace("{text}", text)}
        asked = {"model": model, "messages": [message], "temperature": 0, "max_tokens": 16}
        reply = ask(f"{address.rstrip('/')}/chat/completions", asked, key)
        try:
            said = reply["choices"][0]["message"]["content"]
        except (LookupError, TypeError) as error:
            raise UserError(f"{address}: {model} gave no message: {json.dumps(reply)[:200]}") from error
        if (value := number(said)) is None or not 0 <= value <= 100:
            raise UserError(f"{address}: {model} was asked for a number from 0 to 100, and said {said!r}")
        return float(value) / 100

    return lambda texts: np.array([said_of(text) for text in texts])


def judged(rows: Iterable[Mapping[str, Any]], judges: Mapping[str, Judge], *, decide: bool) -> dict[str, Any]:
    """Value, stderr and n of what each judge says of the `texts` of items, and of all of it at once.

    decide: each text is what a judge looks for or not; else its chance counts. Raises UserError where there
    are no texts.
    """
    if not (texts := [text for row in rows for text in row["texts"]]):
        raise UserError("there are no answers to judge")
    columns = {name: judge(texts) for name, judge in judges.items()}
    if decide:
        columns = {name: (chances > 0.5).astype(float) for name, chances in columns.items()}
    if len(columns) > 1:
        columns[" and ".join(columns)] = np.prod(list(columns.values()), axis=0)
    scores = zip(*(column.tolist() for column in columns.values()), strict=True)
    return average([dict(zip(columns, each, strict=True)) for each in scores])
