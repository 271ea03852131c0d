"""`batch(step)` as a pure function of seed and step, and back: which document is this token from.

Training is one endless line of sequences, numbered from 0; step s takes the numbers s * B .. s * B + B - 1. A
number falls into a block of the mixture (see `mixture`); a keyed permutation of the block says which source
has that place, and how many of the source's own sequences came before it. That count, modulo the source's
size, goes through a second permutation, keyed by the epoch, to a sequence of the shard. Nothing is
remembered: the loader's whole state is the step.
"""

import bisect
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.tokens.mixture import BLOCK, Part
from puna.tokens.shards import Array, Shard

IGNORED = -1
BATCH_PLAN = "batches.json"


@dataclass(frozen=True)
class Batch:
    """tokens, targets, segments: int64 [sequences, length]; sources: int64 [sequences].

    targets: the next token of the same document, or IGNORED where there is none. segments: the running number
    of the document inside its sequence; attention stays inside a segment and positions restart with it.
    """

    tokens: Array
    targets: Array
    segments: Array
    sources: Array

    @property
    def target_count(self) -> int:
        return int((self.targets != IGNORED).sum())


def permute(index: int, size: int, key: int) -> int:
    """The place of `index` under a permutation of range(size) chosen by `key` (64 bits).

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
    """The finaliser of SplitMix64: every bit of a 64-bit number depends on every other."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def _key(*parts: int | str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")


def sequences_in(tokens: int, length: int) -> int:
    """Sequences of `length` inputs that a shard is cut into; the last one may be part empty. Every target is
    in exactly one."""
    return max(1, -(-(tokens - 1) // length))


class Batches:
    """All batches of a training run."""

    def __init__(
        self, shards: list[Shard], parts: list[Part], *, seed: int, batch_sequences: int, length: int
    ) -> None:
        """shards and parts: one each per source, in the same order."""
        self.shards, self.parts = shards, parts
        self.seed, self.batch_sequences, self.length = seed, batch_sequences, length
        self._ends = np.cumsum([part.places for part in parts]).tolist()

    def slot(self, number: int) -> tuple[int, int]:
        """(source index, sequence in its shard) of the sequence with this number."""
        block, place = divmod(number, BLOCK)
        place = permute(place, BLOCK, _key(self.seed, "block", block))
        source = bisect.bisect_right(self._ends, place)
        part = self.parts[source]
        before = block * part.places + place - (self._ends[source] - part.places)
        epoch, index = divmod(before, part.sequences)
        return source, permute(index, part.sequences, _key(self.seed, part.source, epoch))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch of a step (from 0). With several ranks, this rank's share of the same global batch: rows
        rank, rank + world, ..."""
        numbers = range(step * self.batch_sequences + rank, (step + 1) * self.batch_sequences, world)
        shape = (len(numbers), self.length)
        tokens, segments = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        targets, sources = np.full(shape, IGNORED), np.zeros(len(numbers), np.int64)
        for row, number in enumerate(numbers):
            source, sequence = self.slot(number)
            sources[row] = source
            _fill(self.shards[source], sequence * self.length, tokens[row], targets[row], segments[row])
        return Batch(tokens, targets, segments, sources)

    def trace(self, step: int, row: int, position: int) -> tuple[str, int] | None:
        """(source, row of its documents file) that a token of a batch comes from; None for padding."""
        source, sequence = self.slot(step * self.batch_sequences + row)
        shard = self.shards[source]
        where = sequence * self.length + position
        if where >= len(shard.tokens):
            return None
        return shard.source, int(shard.rows[int(shard.document_at(where))])


def _fill(shard: Shard, start: int, tokens: Array, targets: Array, segments: Array) -> None:
    """Write the sequence that starts at token `start` of a shard into one row; what is left of the row stays
    padding."""
    end = min(start + len(tokens), len(shard.tokens))
    size = end - start
    document = shard.document_at(np.arange(start, end + 1))
    tokens[:size] = shard.tokens[start:end]
    segments[:size] = document[:-1] - document[0]
    segments[size:] = segments[size - 1] + 1
    following = shard.tokens[start + 1 : end + 1].astype(np.int64)
    same = document[1 : len(following) + 1] == document[: len(following)]
    targets[: len(following)] = np.where(same, following, IGNORED)


def rows_of(shard: Shard, length: int) -> Batch:
    """A whole shard cut into rows of `length`, in order."""
    count = sequences_in(len(shard.tokens), length)
    shape = (count, length)
    tokens, segments, targets = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, IGNORED)
    for row in range(count):
        _fill(shard, row * length, tokens[row], targets[row], segments[row])
    return Batch(tokens, targets, segments, np.zeros(count, np.int64))


def save_batch_plan(batches: Batches, steps: int, vocab_size: int, folder: Path) -> None:
    """Write what rebuilds a run's batches, beside its weights."""
    known = {
        "seed": batches.seed,
        "steps": steps,
        "batch_sequences": batches.batch_sequences,
        "sequence_length": batches.length,
        "vocab_size": vocab_size,
        "parts": [vars(part) for part in batches.parts],
    }
    (folder / BATCH_PLAN).write_text(json.dumps(known, indent=1) + "\n")
