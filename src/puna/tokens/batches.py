"""`batch(step)` as a pure function of seed and step, and its inverse: which document a token comes from.

Training is one endless line of sequences, numbered from 0; step s takes the numbers s * B .. s * B + B - 1.
The order of the mixture (see `mixture`) says which source a number belongs to, and how many of the source's
own sequences came before it. That count, modulo the source's size, goes through a permutation, keyed by the
epoch, to a sequence of the shard. So no sequence comes again before all others of its source came, wherever
one stops. Nothing is remembered: the loader's whole state is the step.
"""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from puna.tokens.mixture import Order, SourceShare
from puna.tokens.permutation import key_of, permute, place_of
from puna.tokens.shards import Array, Shard

IGNORED = -1
BATCH_PLAN = "batches.json"
PLAN_VERSION = 3  # raised when the same seed and step give another batch


@dataclass(frozen=True)
class Batch:
    """tokens, targets, document_ids: int64 [sequences, length].

    targets: the next token of the same document, or IGNORED where there is none. document_ids: the number of
    the document inside its sequence, from 0; attention stays inside a document and positions restart with it.
    weights: float32 [sequences, length], how much each target counts; None: all alike.
    """

    tokens: Array
    targets: Array
    document_ids: Array
    weights: Array | None = None

    @property
    def target_count(self) -> int:
        """Number of positions that have a target."""
        return int((self.targets != IGNORED).sum())

    @property
    def weight(self) -> float:
        """Sum of the weights of all targets; their number where they count alike."""
        if self.weights is None:
            return float(self.target_count)
        return float(self.weights[self.targets != IGNORED].sum(dtype=np.float64))

    def share(self, rank: int, world: int) -> "Batch":
        """Rows rank, rank + world, ... of it; where these are fewer than another rank's, rows of padding
        follow."""
        own = _empty_batch(-(-len(self.tokens) // world), self.tokens.shape[1])
        for name in ("tokens", "targets", "document_ids"):
            rows = getattr(self, name)[rank::world]
            getattr(own, name)[: len(rows)] = rows
        return replace(self, **vars(own))

    def micro_batches(self, size: int) -> Iterator["Batch"]:
        """Cut into batches of at most `size` sequences."""
        for start in range(0, len(self.tokens), size):
            rows = slice(start, start + size)
            weights = None if self.weights is None else self.weights[rows]
            yield Batch(self.tokens[rows], self.targets[rows], self.document_ids[rows], weights)


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
        self._order = Order([share.slots for share in mixture], seed)

    def slot(self, number: int) -> tuple[int, int]:
        """(source index, sequence in its shard) of the sequence with this number."""
        source, earlier = self._order.at(number)
        share = self.mixture[source]
        epoch, place = divmod(earlier, share.sequences)
        return source, permute(place, share.sequences, key_of(self.seed, share.source, epoch))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch of a step (from 0). With several ranks, this rank's share of the same global batch: rows
        rank, rank + world, ...; where these are fewer than another rank's, rows of padding follow, so that
        every rank has ceil(batch_sequences / world)."""
        numbers = range(step * self.batch_sequences + rank, (step + 1) * self.batch_sequences, world)
        batch = _empty_batch(-(-self.batch_sequences // world), self.length)
        for row, number in enumerate(numbers):
            source, sequence = self.slot(number)
            _fill_row(batch, row, self.shards[source], sequence * self.length)
        return batch

    def tokens_before(self, step: int) -> int:
        """Count the tokens that the steps before this one read, on all ranks together; padding is none."""
        sequences = step * self.batch_sequences
        tokens = sequences * self.length
        for shard, share, drawn in zip(self.shards, self.mixture, self._order.drawn(sequences), strict=True):
            padding = share.sequences * self.length - len(shard.tokens)  # of the shard's last sequence
            if padding > 0:
                epoch, place = divmod(drawn, share.sequences)
                last = _place_of_last(self.seed, share.source, epoch, share.sequences)
                tokens -= padding * (epoch + (last < place))
        return tokens

    def trace(self, step: int, row: int, position: int) -> tuple[str, int] | None:
        """(source, row of its documents file) that a token of a batch comes from; None for padding."""
        source, sequence = self.slot(step * self.batch_sequences + row)
        shard = self.shards[source]
        token = sequence * self.length + position
        if token >= len(shard.tokens):
            return None
        return shard.source, int(shard.rows[int(shard.document_at(token))])


class Phases:
    """Batches of short sequences first and of long ones then: as many tokens a step, each phase with an order
    and epochs of its own. It offers what `Batches` does."""

    def __init__(self, short: Batches, long: Batches, short_steps: int) -> None:
        """short_steps: steps of the first phase."""
        self.short, self.long, self.short_steps = short, long, short_steps
        self.seed, self.batch_sequences, self.length = long.seed, long.batch_sequences, long.length

    @property
    def mixture(self) -> list[SourceShare]:
        """Shares of the whole training, with the epochs of both phases."""
        return [
            replace(last, epochs=first.epochs + last.epochs)
            for first, last in zip(self.short.mixture, self.long.mixture, strict=True)
        ]

    def _at(self, step: int) -> tuple[Batches, int]:
        """The phase of a step, and which of its steps it is."""
        return (self.short, step) if step < self.short_steps else (self.long, step - self.short_steps)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        phase, own = self._at(step)
        return phase.batch(own, rank, world)

    def tokens_before(self, step: int) -> int:
        short = self.short.tokens_before(min(step, self.short_steps))
        return short + self.long.tokens_before(max(0, step - self.short_steps))

    def trace(self, step: int, row: int, position: int) -> tuple[str, int] | None:
        phase, own = self._at(step)
        return phase.trace(own, row, position)


@functools.lru_cache(maxsize=1 << 14)
def _place_of_last(seed: int, source: str, epoch: int, sequences: int) -> int:
    """Place of a shard's last sequence in an epoch."""
    return place_of(sequences - 1, sequences, key_of(seed, source, epoch))


def _empty_batch(sequences: int, length: int) -> Batch:
    shape = (sequences, length)
    return Batch(np.zeros(shape, np.int64), np.full(shape, IGNORED), np.zeros(shape, np.int64))


def _fill_row(batch: Batch, row: int, shard: Shard, start: int) -> None:
    """Write the sequence that starts at token `start` of a shard into a row; the rest of it stays padding."""
    tokens, targets, document_ids = batch.tokens[row], batch.targets[row], batch.document_ids[row]
    end = min(start + len(tokens), len(shard.tokens))
    size = end - start
    document = shard.document_at(np.arange(start, end + 1))
    read = shard.read(start, end + 1)
    tokens[:size] = read[:size]
    document_ids[:size] = document[:-1] - document[0]
    document_ids[size:] = document_ids[size - 1] + 1
    following = read[1:].astype(np.int64)
    same = document[1 : len(following) + 1] == document[: len(following)]
    targets[: len(following)] = np.where(same, following, IGNORED)


def rows_of(shard: Shard, length: int) -> Batch:
    """Cut a whole shard into rows of `length`, in order."""
    batch = _empty_batch(sequences_in(len(shard.tokens), length), length)
    for row in range(len(batch.tokens)):
        _fill_row(batch, row, shard, row * length)
    return batch


def save_batch_plan(batches: Batches | Phases, steps: int, vocab_size: int, folder: Path) -> None:
    """Write to BATCH_PLAN in `folder` what rebuilds a run's batches, beside its weights."""
    phases = [(batches, steps)]
    if isinstance(batches, Phases):
        first = min(batches.short_steps, steps)
        phases = [(batches.short, first), (batches.long, steps - first)]
    plan = {
        "version": PLAN_VERSION,
        "seed": batches.seed,
        "vocab_size": vocab_size,
        "phases": [
            {
                "steps": count,
                "batch_sequences": phase.batch_sequences,
                "sequence_length": phase.length,
                "mixture": [vars(share) for share in phase.mixture],
            }
            for phase, count in phases
        ],
    }
    (folder / BATCH_PLAN).write_text(json.dumps(plan, indent=1) + "\n")


def planned(plan: dict[str, Any], load: Callable[[str], Shard]) -> Batches | Phases:
    """The batches of a plan that `save_batch_plan` wrote. load: a source's training shard by its name."""
    made = []
    for phase in plan["phases"]:
        mixture = [SourceShare(**share) for share in phase["mixture"]]
        shards = [load(share.source) for share in mixture]
        rows, length = phase["batch_sequences"], phase["sequence_length"]
        made.append(Batches(shards, mixture, seed=plan["seed"], batch_sequences=rows, length=length))
    return made[0] if len(made) == 1 else Phases(made[0], made[1], plan["phases"][0]["steps"])
