"""An n-gram model of tokens: interpolated modified Kneser-Ney (Chen and Goodman 1998, section 3), counted and scored with numpy.

An n-gram is named by one integer: its place among the sorted pairs (name of its first n - 1 tokens, last token). Counting is a sort,
looking up a binary search, and both run over whole arrays.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ABSENT = -1


@dataclass(frozen=True)
class _Order:
    """n-grams of one order. keys: sorted int64; gain: (count - discount) / total of its context; backoff: per context, the weight
    left for the order below."""

    keys: Array
    gain: Array
    backoff: Array


class NGram:
    """P(token | up to `order` - 1 tokens before it, inside the document)."""

    def __init__(self, tokens: Array, offsets: Array, *, vocab_size: int, order: int = 5) -> None:
        """Count a training text. tokens: all documents one after the other, each with its begin token; offsets: where they start,
        and the end of the last one. The begin token is context only and never predicted."""
        self.vocab_size, self.order = vocab_size, order
        self._orders: list[_Order] = []
        tokens = np.asarray(tokens, np.int64)
        place = _places(offsets)
        names: list[Array] = []
        counts: list[Array] = []
        keys_of: list[Array] = []
        for n in range(1, order + 1):
            here = np.flatnonzero(place >= n - 1)
            keys = tokens[here] if n == 1 else names[-1][here - 1] * vocab_size + tokens[here]
            unique, first, inverse, raw = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
            name = np.full(len(tokens), ABSENT)
            name[here] = inverse
            if n > 1:
                # The order below counts how many different tokens stand before an n-gram, not how often it stands; n-grams at the
                # beginning of a document have nothing before them and keep their count.
                lower = np.bincount(names[-1][here[first]], minlength=len(counts[-1]))
                counts[-1] = np.where(lower > 0, lower, counts[-1])
            names.append(name)
            counts.append(raw)
            keys_of.append(unique)
        # The begin token is no outcome.
        begin = np.searchsorted(keys_of[0], tokens[offsets[0]])
        counts[0][begin] = 0
        for n in range(order):
            contexts = keys_of[n] // vocab_size if n else np.zeros(len(keys_of[0]), np.int64)
            size = len(keys_of[n - 1]) if n else 1
            total = np.bincount(contexts, weights=counts[n], minlength=size)
            discount = _discounts(counts[n])[np.minimum(counts[n], 3)]
            left = np.bincount(contexts, weights=discount, minlength=size)
            backoff = np.divide(left, total, out=np.ones(size), where=total > 0)
            gain = (counts[n] - discount) / np.where(total[contexts] > 0, total[contexts], 1)
            self._orders.append(_Order(keys_of[n], gain, backoff))

    def log2_probabilities(self, tokens: Array, offsets: Array) -> Array:
        """log2 P of every token of a text but the begin tokens, float64, in order. Same form of input as the training text."""
        tokens = np.asarray(tokens, np.int64)
        place = _places(offsets)
        probability = np.full(len(tokens), 1 / (self.vocab_size - 1))
        context = np.zeros(len(tokens), np.int64)
        for n, order in enumerate(self._orders):
            usable = (place >= n) & (context != ABSENT)
            found = np.full(len(tokens), ABSENT)
            found[usable] = _find(order.keys, context[usable] * self.vocab_size + tokens[usable])
            weight = order.backoff[context[usable]]
            gain = np.zeros(len(weight))
            known = found[usable] != ABSENT
            gain[known] = order.gain[found[usable][known]]
            probability[usable] = gain + weight * probability[usable]
            context = np.concatenate([[ABSENT], found[:-1]])
        return np.log2(probability[place > 0])


def _places(offsets: Array) -> Array:
    """Place of every token inside its document."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def _find(keys: Array, wanted: Array) -> Array:
    """Place of each wanted key among the sorted `keys`, or ABSENT."""
    if not len(keys):
        return np.full(len(wanted), ABSENT)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, ABSENT)


def _discounts(counts: Array) -> Array:
    """Discounts for counts 0, 1, 2, 3 and more, from the counts of counts; 0.5 of a count where a text is too small for them."""
    n = [int((counts == times).sum()) for times in range(5)]
    if not (n[1] and n[2]):
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n[1] / (n[1] + 2 * n[2])
    discounts = [times - (times + 1) * y * n[times + 1] / n[times] if n[times] else 0.5 * times for times in (1, 2, 3)]
    return np.array([0.0, *(min(max(value, 0.1), float(times)) for times, value in zip((1, 2, 3), discounts, strict=True))])
