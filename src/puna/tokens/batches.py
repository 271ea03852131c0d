"""`batch(step)` as a pure function of seed and step, and its inverse: which document a token comes from.

Training is one endless line of sequences, numbered from 0; step s takes the numbers s * B .. s * B + B - 1. A
number falls into a block of the mixture (see `mixture`); a keyed permutation of the block says which source
has that slot, and how many of the source's own sequences came before it. That count, modulo the source's
size, goes through a second permutation, keyed by the epoch, to a sequence of the shard. Nothing is
remembered: the loader's whole state is the step.
"""

import bisect
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.tokens.mixture import BLOCK_SEQUENCES, SourceShare
from puna.tokens.shards import Array, Shard

IGNORED = -1
BATCH_PLAN = "batches.json"


@dataclass(frozen=True)
class Batch:
    """tokens, targets, document_ids: int64 [sequences, length].

    targets: the next token of the same document, or IGNORED where there is none. document_ids: the number of
    the document inside its sequence, from 0; attention stays inside a document and positions restart with it.
    """

    tokens: Array
    targets: Array
    document_ids: Array

    @property
    def target_count(self) -> int:
        """Number of positions that have a target."""
        return int((self.targets != IGNORED).sum())


def permute(index: int, size: int, key: int) -> int:
    """Map `index` by a permutation of range(size) chosen by `key` (64 bits).

    A four-round Feistel network on the smallest even number of bits that covers `size`, walked until it falls
    inside the range (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): a bijection computed
    for one index alone.
    """
    if size == 1:
        return 0
    half = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(4):
            left, right = right, left ^ (_mix(right ^ (turn << 56) ^ key) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(value: int) -> int:
    """Mix the bits of a 64-bit number so that each depends on every other: the finaliser of SplitMix64."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def _key(*parts: int | str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")


def sequences_in(tokens: int, length: int) -> int:
    """Number of sequences of `length` inputs that a shard is cut into; every target is in exactly one.

    The last sequence may be padded.
    """
    return max(1, -(-(tokens - 1) // length))


class Batches:
    """All batches of a training run."""

    def __init__(
        self,
        shards: list[Shard],
        mixture: list[SourceShare],
        *,
        seed: int,
        batch_sequences: int,
        length: int,
    ) -> None:
        """shards, mixture: one entry per source, in the same order."""
        self.shards, self.mixture = shards, mixture
        self.seed, self.batch_sequences, self.length = seed, batch_sequences, length
        self._ends = np.cumsum([share.slots for share in mixture]).tolist()

    def slot(self, number: int) -> tuple[int, int]:
        """(source index, sequence in its shard) of the sequence with this number."""
        block, index = divmod(number, BLOCK_SEQUENCES)
        slot = permute(index, BLOCK_SEQUENCES, _key(self.seed, "block", block))
        source = bisect.bisect_right(self._ends, slot)
        share = self.mixture[source]
        first_slot = self._ends[source] - share.slots
        epoch, sequence = divmod(block * share.slots + slot - first_slot, share.sequences)
        return source, permute(sequence, share.sequences, _key(self.seed, share.source, epoch))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch of a step (from 0). With several ranks, this rank's share of the same global batch: rows
        rank, rank + world, ..."""
        numbers = range(step * self.batch_sequences + rank, (step + 1) * self.batch_sequences, world)
        batch = _empty_batch(len(numbers), self.length)
        for row, number in enumerate(numbers):
            source, sequence = self.slot(number)
            _fill_row(batch, row, self.shards[source], sequence * self.length)
        return batch

    def trace(self, step: int, row: int, position: int) -> tuple[str, int] | None:
        """(source, row of its documents file) that a token of a batch comes from; None for padding."""
        source, sequence = self.slot(step * self.batch_sequences + row)
        shard = self.shards[source]
        token = sequence * self.length + position
        if token >= len(shard.tokens):
            return None
        return shard.source, int(shard.rows[int(shard.document_at(token))])


def _empty_batch(sequences: int, length: int) -> Batch:
    shape = (sequences, length)
    return Batch(np.zeros(shape, np.int64), np.full(shape, IGNORED), np.zeros(shape, np.int64))


def _fill_row(batch: Batch, row: int, shard: Shard, start: int) -> None:
    """Write the sequence that starts at token `start` of a shard into a row; the rest of it stays padding."""
    tokens, targets, document_ids = batch.tokens[row], batch.targets[row], batch.document_ids[row]
    end = min(start + len(tokens), len(shard.tokens))
    size = end - start
    document = shard.document_at(np.arange(start, end + 1))
    tokens[:size] = shard.tokens[start:end]
    document_ids[:size] = document[:-1] - document[0]
    document_ids[size:] = document_ids[size - 1] + 1
    following = shard.tokens[start + 1 : end + 1].astype(np.int64)
    same = document[1 : len(following) + 1] == document[: len(following)]
    targets[: len(following)] = np.where(same, following, IGNORED)


def rows_of(shard: Shard, length: int) -> Batch:
    """Cut a whole shard into rows of `length`, in order."""
    batch = _empty_batch(sequences_in(len(shard.tokens), length), length)
    for row in range(len(batch.tokens)):
        _fill_row(batch, row, shard, row * length)
    return batch


def save_batch_plan(batches: Batches, steps: int, vocab_size: int, folder: Path) -> None:
    """Write to BATCH_PLAN in `folder` what rebuilds a run's batches, beside its weights."""
    plan = {
        "seed": batches.seed,
        "steps": steps,
        "batch_sequences": batches.batch_sequences,
        "sequence_length": batches.length,
        "vocab_size": vocab_size,
        "mixture": [vars(share) for share in batches.mixture],
    }
    (folder / BATCH_PLAN).write_text(json.dumps(plan, indent=1) + "\n")
