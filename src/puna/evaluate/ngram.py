"""The n-gram baseline: modified Kneser-Ney over tokens, as the corpus' quality filter estimates it."""

import math
from collections.abc import Sequence

import numpy as np

from puna.errors import UserError
from puna.text import ngram
from puna.text.ngram import Array
from puna.tokens.permutation import key_of, uniform
from puna.tokens.shards import Shard, choose_sample

# Peak memory of an estimate of order 5, where almost every n-gram is new, as in tests/evaluate/test_ngram.py:
# 120 bytes a token for 20 million random tokens, 128 for 6 million, 150 for 3 million; without compiled loops
# 161 for 5 million, 166 for 2 million. Of tokens as frequent as words are it is a half or less.
TOKEN_BYTES, TOKEN_BYTES_INTERPRETED = 130, 170
FIXED_BYTES = 100_000_000
BLOCK = 1 << 20  # documents whose hashes are in memory at once


class NGram:
    """P(token | up to `order` - 1 tokens before it, inside the document)."""

    def __init__(self, tokens: Array, *, begin: int, vocab_size: int, order: int = 5) -> None:
        """Estimate from a training text.

        tokens: all documents one after the other, each with the token `begin` before it, which is context
        only and never predicted.
        """
        self._model = ngram.estimate([tokens], vocab_size=vocab_size, begin=begin, order=order)

    def log2_probabilities(self, tokens: Array) -> Array:
        """log2 P of every token of a text but the begin tokens, float64, in order.

        tokens are like those of the training text.
        """
        return self._model.scores(tokens)[tokens != self._model.begin] * math.log2(10)


def training_bytes(tokens: int) -> int:
    """Bytes of memory that an estimate from so many tokens takes at most."""
    each = TOKEN_BYTES_INTERPRETED if ngram.library() is None else TOKEN_BYTES
    return FIXED_BYTES + each * tokens


def check_memory(tokens: int, available: int) -> None:
    """Raises UserError when an estimate from so many tokens may take more than `available` bytes."""
    if (needed := training_bytes(tokens)) > available:
        raise UserError(
            f"the 5-gram baseline may take {needed / 1e9:.1f} GB for {tokens:,} tokens and "
            f"{available / 1e9:.1f} GB may be used: lower evaluate.ngram_tokens, or leave the baseline out "
            "with evaluate.ngram = false; the trained model is kept"
        )


def training_tokens(shards: Sequence[Shard], maximum: int) -> Array:
    """Tokens to learn from, at most `maximum`: all of them, or whole documents from all over every source.

    Only what is returned is read into memory.
    """
    total = sum(len(shard.tokens) for shard in shards)
    if total <= maximum:
        return np.concatenate([shard.tokens for shard in shards])
    tokens = np.concatenate([_draw(shard, maximum * len(shard.tokens) // total) for shard in shards])
    # Where every document is larger than its source's part: the beginning of one.
    return tokens if len(tokens) else max(shards, key=lambda shard: len(shard.tokens)).document(0)[:maximum]


def _draw(shard: Shard, budget: int) -> Array:
    """Tokens of the documents whose hashes are the lowest, always the same; at most `budget`."""
    # More than fit on average, so that the budget is filled.
    share = 1.25 * budget / len(shard.tokens) + 64 / shard.documents
    key = key_of("5-gram", shard.source)
    hashes, numbers = [], []
    for start in range(0, shard.documents, BLOCK):
        found = uniform(key, shard.rows[start : start + BLOCK])
        chosen = np.flatnonzero(found < share)
        hashes.append(found[chosen])
        numbers.append(start + chosen)
    drawn = np.concatenate(numbers)
    lengths = shard.offsets[drawn + 1] - shard.offsets[drawn]
    drawn = np.sort(drawn[choose_sample(np.concatenate(hashes), lengths, budget)])
    return np.concatenate([shard.tokens[:0], *map(shard.document, drawn.tolist())])
