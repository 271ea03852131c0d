"""Encoded conversations as packed rows: the batch of a step as a pure function of seed and step.

An epoch is exact: no conversation comes again before all others of its set came. Sets are spread evenly over
the whole training, each as often as its weight says. A step has so many conversations, packed whole into
rows, which processes and micro-batches share; attention stays inside each.
"""

import bisect
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.tokens.batches import IGNORED, Batch
from puna.tokens.permutation import key_of, permute, uniform

MULTIPLE = 8  # of the tokens of a row, so that they divide by the processes that share a layer
Array = np.ndarray[Any, Any]


class Packed(Batch):
    """Rows of whole conversations, each of which has a number of its own in all of them."""

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """At most `size` rows each, put one after the other: what fills them up is not computed, but for less
        than MULTIPLE tokens."""
        for part in super().micro_batches(size):
            learned = part.targets != IGNORED
            kept = np.isin(part.document_ids, part.document_ids[learned]) & learned.any(1, keepdims=True)
            kept[0, 0] = True  # where a process has no target, too
            after = 0, -int(kept.sum()) % MULTIPLE
            arrays = (part.tokens, 0), (part.targets, IGNORED), (part.document_ids, -1)
            yield Batch(*(np.pad(one[kept], after, constant_values=fill)[None] for one, fill in arrays))


@dataclass(frozen=True)
class Encoded:
    """The conversations of one set as tokens.

    tokens: uint32, all of them one after the other; learned: bool, which of them are targets; starts: int64,
    where each conversation begins, and the end of the last. The last token of a conversation is learned, and
    so is only ever a target.
    """

    name: str
    tokens: Array
    learned: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Array:
        """Tokens of each conversation that a model reads: all but the last one, int64."""
        return np.diff(self.starts) - 1

    @property
    def targets(self) -> Array:
        """Tokens of each conversation that are learned, int64."""
        return np.add.reduceat(self.learned.astype(np.int64), self.starts[:-1])

    def counts(self) -> dict[str, int]:
        tokens, learned = int(self.sizes.sum()), int(self.learned.sum())
        return {"conversations": len(self), "tokens": tokens, "learned_tokens": learned}

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for kind in ("tokens", "learned", "starts"):
            np.save(folder / f"{self.name}.{kind}.npy", getattr(self, kind))


def encoded(name: str, conversations: Sequence[tuple[Any, Any]]) -> Encoded:
    """Put conversations together, (ids, which of them are learned) each: cut behind the last token that is
    learned, and begun by one that is not. Each has to learn something."""
    cut = [int(np.flatnonzero(learned)[-1]) + 1 for _, learned in conversations]
    starts = np.concatenate([[0], np.cumsum(cut)]).astype(np.int64)
    tokens, flags = np.zeros(starts[-1], np.uint32), np.zeros(starts[-1], bool)
    for (ids, learned), start, size in zip(conversations, starts.tolist(), cut, strict=False):
        tokens[start : start + size] = ids[:size]
        flags[start + 1 : start + size] = learned[1:size]  # nothing stands before the first token
    return Encoded(name, tokens, flags, starts)


def load(folder: Path, name: str) -> Encoded:
    """Read what `Encoded.save` wrote, as it is needed."""
    kinds = ("tokens", "learned", "starts")
    return Encoded(name, *(np.load(folder / f"{name}.{kind}.npy", mmap_mode="r") for kind in kinds))


def pack(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Rows of at most `length` tokens, each a list of places in `sizes`: as few as best fit needs, and as
    even as can be, so that next to nothing is padded. Longest first, both times."""
    order = sorted(range(len(sizes)), key=lambda place: (-sizes[place], place))
    fitted: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (what is left of a row, its number), the fullest first
    for place in order:
        at = bisect.bisect_left(space, (sizes[place], -1))
        left, number = space.pop(at) if at < len(space) else (length, len(fitted))
        if number == len(fitted):
            fitted.append([])
        fitted[number].append(place)
        bisect.insort(space, (left - sizes[place], number))
    even: list[list[int]] = [[] for _ in fitted]
    filled = [(0, number) for number in range(len(fitted))]
    for place in order:
        size, number = filled[0]
        if size + sizes[place] > length:
            return fitted
        heapq.heapreplace(filled, (size + sizes[place], number))
        even[number].append(place)
    return even


def batch_of(conversations: Sequence[tuple[Array, Array]], length: int) -> Batch:
    """Pack (tokens, learned) of whole conversations into rows of at most `length`.

    document_ids are their places, which are theirs whatever the rows; padding has one of its own.
    """
    sizes = [len(tokens) - 1 for tokens, _ in conversations]
    rows = pack(sizes, length)
    shape = (len(rows), max(sum(sizes[place] for place in row) for row in rows))
    batch = Packed(np.zeros(shape, np.int64), np.full(shape, IGNORED), np.full(shape, len(sizes)))
    for number, row in enumerate(rows):
        at = 0
        for place in row:
            tokens, learned = conversations[place]
            part = slice(at, at + sizes[place])
            batch.tokens[number, part] = tokens[:-1]
            batch.targets[number, part] = np.where(learned[1:], tokens[1:].astype(np.int64), IGNORED)
            batch.document_ids[number, part] = place
            at += sizes[place]
    return batch


def whole(held: Encoded, length: int) -> Batch:
    """All conversations of a set as one batch."""
    spans = zip(held.starts[:-1], held.starts[1:], strict=True)
    return batch_of([(held.tokens[a:b], held.learned[a:b]) for a, b in spans], length)


class Batches:
    """All batches of a tuning. It offers what `tokens.batches.Batches` does to a training.

    rows: of each step; fullest: the step with most places in its rows, largest: how many. targets: tokens
    that are learned, over all steps.
    """

    def __init__(
        self,
        sets: Sequence[Encoded],
        draws: Sequence[int],
        *,
        seed: int,
        steps: int,
        conversations: int,
        length: int,
    ) -> None:
        """draws: how often a conversation of each set comes in all epochs; steps: among which the first
        `conversations` of those are shared out; length: of a row at most."""
        self.sets, self.seed, self.steps, self.length = sets, seed, steps, length
        self.conversations = conversations
        jitter = [uniform(key_of(seed, "order", one.name), np.arange(count))
                  for one, count in zip(sets, draws, strict=True)]  # fmt: skip
        where = np.concatenate([(np.arange(len(part)) + part) / max(1, len(part)) for part in jitter])
        order = np.argsort(where, kind="stable")[:conversations]
        self._set = np.repeat(np.arange(len(sets)), draws)[order]
        self._draw = np.concatenate([np.arange(count) for count in draws])[order]
        sizes, targets = [one.sizes for one in sets], [one.targets for one in sets]
        places, tokens, self.rows, self.targets = [], [0], [], 0
        for step in range(steps):
            members = self.members(step)
            own = [int(sizes[which][number]) for which, number in members]
            rows = pack(own, length)
            self.rows.append(len(rows))
            places.append(len(rows) * max(sum(own[place] for place in row) for row in rows))
            tokens.append(tokens[-1] + sum(own))
            self.targets += sum(int(targets[which][number]) for which, number in members)
        self._tokens, self.batch_sequences, self.largest = tokens, max(self.rows), max(places)
        self.fullest = places.index(self.largest)

    def members(self, step: int) -> list[tuple[int, int]]:
        """(set, conversation of it) of each conversation of a step."""
        places = range(step * self.conversations // self.steps, (step + 1) * self.conversations // self.steps)
        found = []
        for which, draw in ((int(self._set[place]), int(self._draw[place])) for place in places):
            epoch, number = divmod(draw, len(self.sets[which]))
            key = key_of(self.seed, self.sets[which].name, epoch)
            found.append((which, permute(number, len(self.sets[which]), key)))
        return found

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Batch of a step (from 0); with several ranks, this one's rows of it, as many as the others'."""
        conversations = []
        for which, number in self.members(step):
            one = self.sets[which]
            part = slice(int(one.starts[number]), int(one.starts[number + 1]))
            conversations.append((one.tokens[part], one.learned[part]))
        made = batch_of(conversations, self.length)
        return made if world == 1 else made.share(rank, world)

    def tokens_before(self, step: int) -> int:
        """Tokens that the steps before this one read; padding is none."""
        return self._tokens[min(step, self.steps)]
