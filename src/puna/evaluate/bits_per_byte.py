"""Bits per byte of held-out documents: what a model, or a baseline, needs to encode them, over their size.

All methods get the same documents and pay for the same: what stands in each, and where it ends. What they may
look back at differs:

    model       tokens before it in the document, half a window of them or more; learned from training text
    5-gram      four tokens before it in the document; learned from training text
    unigram     nothing; learned from training text
    xz          all bytes before it, of earlier documents too; learned from nothing

Model, 5-gram and unigram pay for each token and for the end token of each document; the begin token is given.
xz packs the documents as one file with a byte 0xFF behind each, which UTF-8 never has, so that the file is
all that one needs to get them back; it also pays about 70 bytes for the file's header and check sum.
"""

import lzma
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from puna.evaluate.ngram import NGram
from puna.model.llama import Llama
from puna.tokens.batches import IGNORED
from puna.tokens.shards import Array, Shard

WINDOWS = 16  # read at once, or fewer where their logits would be more than LOGITS
LOGITS = 1 << 25
DOCUMENT_END = b"\xff"
TOKENS = 1 << 22  # counted at once
DRAWS = 2000  # of documents, for intervals


def model_bits(model: Llama, shard: Shard, length: int) -> Array:
    """Bits a model needs for each of a split's documents, float64 [documents].

    Long documents are read in windows of `length` tokens that overlap by half, so every token but the first
    ones has at least length / 2 tokens of context.
    """
    tokens, targets, documents = _windows(shard, length)
    nats = np.zeros(shard.documents)
    together = max(1, min(WINDOWS, LOGITS // (length * model.config.vocab_size)))
    with torch.inference_mode():
        for start in range(0, len(tokens), together):
            logits = model(torch.from_numpy(tokens[start : start + together])).flatten(0, 1).double()
            target = torch.from_numpy(targets[start : start + together]).flatten()
            each = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
            np.add.at(nats, documents[start : start + together], each.view(-1, length).sum(1).numpy())
    return nats / math.log(2)


def _windows(shard: Shard, length: int) -> tuple[Array, Array, Array]:
    """Rows of tokens, the targets scored in them, each target of each document exactly once, and the number
    of each row's document."""
    stride = max(1, length // 2)
    tokens, targets, numbers = [], [], []
    for number in range(shard.documents):
        document = shard.document(number).astype(np.int64)
        scored = 0
        while scored < len(document) - 1:
            start = 0 if not scored else scored + stride - length
            end = min(start + length, len(document) - 1)
            row, row_targets = np.zeros(length, np.int64), np.full(length, IGNORED)
            row[: end - start] = document[start:end]
            row_targets[scored - start : end - start] = document[scored + 1 : end + 1]
            tokens.append(row)
            targets.append(row_targets)
            numbers.append(number)
            scored = end
    return np.stack(tokens), np.stack(targets), np.array(numbers)


def token_counts(shards: Sequence[Shard], vocab_size: int) -> Array:
    """How often each token is in the shards, int64 [vocab_size]; TOKENS are in memory at once."""
    counts = np.zeros(vocab_size, np.int64)
    for shard in shards:
        for start in range(0, len(shard.tokens), TOKENS):
            counts += np.bincount(shard.tokens[start : start + TOKENS], minlength=vocab_size)
    return counts


def unigram_bits(counts: Array, shard: Shard, bos_id: int) -> Array:
    """Bits of each document under the frequencies of single tokens in the training text, one added to each.

    counts: of each token there, by `token_counts`.
    """
    counted = counts.astype(np.float64)
    counted[bos_id] = 0
    probability = (counted + 1) / (counted.sum() + len(counted))
    tokens = np.asarray(shard.tokens)
    return _by_document(-np.log2(probability[tokens[tokens != bos_id]]), shard)


def ngram_bits(model: NGram, shard: Shard) -> Array:
    """Bits of each document under an n-gram model."""
    return _by_document(-model.log2_probabilities(np.asarray(shard.tokens)), shard)


def _by_document(bits: Array, shard: Shard) -> Array:
    """Sums over the tokens of each document but its begin token, of which there is one."""
    return np.add.reduceat(bits, shard.offsets[:-1] - np.arange(shard.documents))


def interval(numerator: Array, denominator: Array) -> tuple[float, float]:
    """Where sum(numerator) / sum(denominator) over documents lies with 95%: percentiles of DRAWS draws of as
    many documents with replacement (the bootstrap of Efron 1979), always the same draws.

    With few documents it is too narrow: with 8 of them it holds about nine times in ten.
    """
    documents = len(numerator)
    chance = np.random.default_rng(documents)
    ratios = np.empty(DRAWS)
    for number in range(DRAWS):  # one after the other, since all together are DRAWS times the documents
        drawn = chance.integers(documents, size=documents)
        ratios[number] = numerator[drawn].sum() / denominator[drawn].sum()
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def xz_bits(texts: list[str]) -> float:
    """Bits of all texts, one after the other and each with its end, compressed by `xz -9`."""
    return 8.0 * len(lzma.compress(b"".join(text.encode() + DOCUMENT_END for text in texts), preset=9))
