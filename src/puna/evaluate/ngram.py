"""The n-gram baseline: modified Kneser-Ney over tokens, as the corpus' quality filter estimates it."""

import math

from puna.text import ngram
from puna.text.ngram import Array


class NGram:
    """P(token | up to `order` - 1 tokens before it, inside the document)."""

    def __init__(self, tokens: Array, offsets: Array, *, vocab_size: int, order: int = 5) -> None:
        """Estimate from a training text.

        tokens: all documents one after the other, each with its begin token, which is context only and never
        predicted; offsets: where they start, and the end of the last one.
        """
        self._model = ngram.estimate(
            [tokens], vocab_size=vocab_size, begin=int(tokens[offsets[0]]), order=order
        )

    def log2_probabilities(self, tokens: Array, offsets: Array) -> Array:
        """log2 P of every token of a text but the begin tokens, float64, in order.

        tokens and offsets are like those of the training text.
        """
        scores = self._model.scores(tokens[offsets[0] : offsets[-1]])
        return scores[tokens[offsets[0] : offsets[-1]] != self._model.begin] * math.log2(10)
