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


def model_bits(model: Llama, shard: Shard, length: int) -> float:
    """Bits a model needs for a split's documents.

    Long documents are read in windows of `length` tokens that overlap by half, so every token but the first
    ones has at least length / 2 tokens of context.
    """
    tokens, targets = _windows(shard, length)
    nats = 0.0
    together = max(1, min(WINDOWS, LOGITS // (length * model.config.vocab_size)))
    with torch.inference_mode():
        for start in range(0, len(tokens), together):
            logits = model(torch.from_numpy(tokens[start : start + together])).flatten(0, 1).double()
            target = torch.from_numpy(targets[start : start + together]).flatten()
            nats += F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum").item()
    return nats / math.log(2)


def _windows(shard: Shard, length: int) -> tuple[Array, Array]:
    """Rows of tokens and of the targets scored in them: each target of each document exactly once."""
    stride = max(1, length // 2)
    tokens, targets = [], []
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
            scored = end
    return np.stack(tokens), np.stack(targets)


def token_counts(shards: Sequence[Shard], vocab_size: int) -> Array:
    """How often each token is in the shards, int64 [vocab_size]; TOKENS are in memory at once."""
    counts = np.zeros(vocab_size, np.int64)
    for shard in shards:
        for start in range(0, len(shard.tokens), TOKENS):
            counts += np.bincount(shard.tokens[start : start + TOKENS], minlength=vocab_size)
    return counts


def unigram_bits(counts: Array, shard: Shard, bos_id: int) -> float:
    """Bits under the frequencies of single tokens in the training text, one added to each.

    counts: of each token there, by `token_counts`.
    """
    counted = counts.astype(np.float64)
    counted[bos_id] = 0
    probability = (counted + 1) / (counted.sum() + len(counted))
    tokens = np.asarray(shard.tokens)
    return float(-np.log2(probability[tokens[tokens != bos_id]]).sum())


def ngram_bits(model: NGram, shard: Shard) -> float:
    """Bits under an n-gram model."""
    return float(-model.log2_probabilities(np.asarray(shard.tokens)).sum())


def xz_bits(texts: list[str]) -> float:
    """Bits of all texts, one after the other and each with its end, compressed by `xz -9`."""
    return 8.0 * len(lzma.compress(b"".join(text.encode() + DOCUMENT_END for text in texts), preset=9))
