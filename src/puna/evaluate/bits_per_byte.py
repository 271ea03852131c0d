"""Bits per byte of held-out documents: what a model, or a baseline, needs to encode them, over their size.

All methods get the same documents and are charged for the same events: every token and the end of each
document.
"""

import lzma
import math

import numpy as np
import torch
import torch.nn.functional as F

from puna.evaluate.ngram import NGram
from puna.model.llama import Llama
from puna.tokens.batches import IGNORED
from puna.tokens.shards import Array, Shard

WINDOWS = 16


def model_bits(model: Llama, shard: Shard, length: int) -> float:
    """Bits a model needs for a split's documents.

    Long documents are read in windows of `length` tokens that overlap by half, so every token but the first
    ones has at least length / 2 tokens of context.
    """
    tokens, targets = _windows(shard, length)
    nats = 0.0
    with torch.inference_mode():
        for start in range(0, len(tokens), WINDOWS):
            logits = model(torch.from_numpy(tokens[start : start + WINDOWS])).flatten(0, 1).double()
            target = torch.from_numpy(targets[start : start + WINDOWS]).flatten()
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


def unigram_bits(training: Array, shard: Shard, vocab_size: int, bos_id: int) -> float:
    """Bits under the frequencies of single tokens in the training text, one added to each."""
    counts = np.bincount(training, minlength=vocab_size).astype(np.float64)
    counts[bos_id] = 0
    probability = (counts + 1) / (counts.sum() + vocab_size)
    tokens = np.asarray(shard.tokens)
    return float(-np.log2(probability[tokens[tokens != bos_id]]).sum())


def ngram_bits(model: NGram, shard: Shard) -> float:
    """Bits under an n-gram model."""
    return float(-model.log2_probabilities(np.asarray(shard.tokens), shard.offsets).sum())


def xz_bits(texts: list[str]) -> float:
    """Bits of all texts, one after the other, compressed by `xz -9`."""
    return 8.0 * len(lzma.compress("".join(texts).encode(), preset=9))
