"""How much of each source training sees, in which order the sources come, and the epochs it comes to.

Sources are mixed in blocks of sequences; in each block every source has a fixed number of slots. Slot k of a
source's m lies somewhere in the k-th of m equal parts of the block, so every source is spread evenly, and its
slots are numbered as training meets them. Counting is then exact after any number of sequences, without
state.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from puna.errors import UserError
from puna.tokens.permutation import key_of, uniform
from puna.tokens.settings import TokensSettings

BLOCK_SEQUENCES = 1024  # of a block at least
MOST_BLOCK_SEQUENCES = 1 << 16  # but with more sources than that
BYTES_PER_TOKEN = 4  # about, and rather more than most tokenizers of small vocabularies
FINE_SLOTS = 8  # a block grows until its smallest source has as many
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SourceShare:
    """One source of the mixture.

    slots: sequences of each block; share: of a block; sequences, tokens: in one epoch; epochs: over the whole
    training.
    """

    source: str
    slots: int
    share: float
    sequences: int
    tokens: int
    epochs: float


class Order:
    """The source of every sequence of training, as a function of its number."""

    def __init__(self, slots: list[int], seed: int) -> None:
        """slots: of each source in a block."""
        self.slots, self.seed = slots, seed
        self.block_sequences = sum(slots)
        self._sources = np.repeat(np.arange(len(slots)), slots)
        self._slots = np.concatenate([np.arange(count) for count in slots])
        self._latest: tuple[int, Array, Array] = (-1, self._sources, self._slots)

    def at(self, number: int) -> tuple[int, int]:
        """Source (its index) of the sequence with this number, and how many of the source came before it."""
        block, place = divmod(number, self.block_sequences)
        sources, slots = self._block(block)
        source = int(sources[place])
        return source, block * self.slots[source] + int(slots[place])

    def drawn(self, count: int) -> list[int]:
        """How many of the first `count` sequences are each source's."""
        blocks, rest = divmod(count, self.block_sequences)
        part = np.bincount(self._block(blocks)[0][:rest], minlength=len(self.slots)).tolist()
        return [blocks * slots + more for slots, more in zip(self.slots, part, strict=True)]

    def _block(self, block: int) -> tuple[Array, Array]:
        """Source of each place of a block, and which of the source's slots it is, int64 [block_sequences]."""
        latest = self._latest
        if latest[0] != block:
            jitter = uniform(key_of(self.seed, "block", block), np.arange(self.block_sequences))
            where = (self._slots + jitter) / np.repeat(self.slots, self.slots)
            order = np.argsort(where, kind="stable")
            latest = self._latest = (block, self._sources[order], self._slots[order])
        return latest[1:]


def plan(
    tokens: dict[str, int],
    sequences: dict[str, int],
    settings: TokensSettings,
    total_sequences: int,
    seed: int = 0,
) -> list[SourceShare]:
    """Share of every source. tokens, sequences: size of each source's training split; total: of the training;
    seed: of the training, whose sequences are counted.
    """
    weights = {}
    for source in tokens:
        wish = settings.mixture.get(source)
        if wish and wish.share is not None:
            weights[source] = wish.share
        else:
            weights[source] = tokens[source] * (wish.epochs or 1.0 if wish else 1.0)
    slots = apportion(weights)
    order = Order(list(slots.values()), seed)
    return [
        SourceShare(
            source=source,
            slots=slots[source],
            share=slots[source] / order.block_sequences,
            sequences=sequences[source],
            tokens=tokens[source],
            epochs=drawn / sequences[source],
        )
        for source, drawn in zip(slots, order.drawn(total_sequences), strict=True)
    ]


def check(shares: list[SourceShare], maximum_epochs: float, steps: int) -> None:
    """Raises UserError when a source would be seen more than `maximum_epochs` times in so many steps."""
    over = [item for item in shares if item.epochs > maximum_epochs]
    if over:
        listed = ", ".join(f"{item.source} {item.epochs:.1f} times ({item.tokens:,} tokens)" for item in over)
        raise UserError(
            f"training would see {listed}, "
            + _advice(maximum_epochs, steps, max(item.epochs for item in over))
        )


def check_bytes(size: int, trained: int, maximum_epochs: float, steps: int) -> None:
    """`check` before there are tokens: raises UserError where even a token a byte would be too few.

    size: bytes of all texts together, those that end a text included. trained: tokens of the training.
    """
    if (epochs := trained / size) > maximum_epochs:
        raise UserError(
            f"training would see the text at least {epochs:.1f} times ({trained:,} tokens from {size:,} "
            "bytes), " + _advice(maximum_epochs, steps, BYTES_PER_TOKEN * epochs)
        )


def _advice(maximum_epochs: float, steps: int, epochs: float) -> str:
    # Some hundredths fewer: sources come in turns that are not quite even.
    most = int(0.98 * steps * maximum_epochs / epochs)
    fewer = (
        f"set train.steps={most} or less" if most else "no train.steps is small enough: make steps smaller"
    )
    return (
        f"more than tokens.maximum_epochs={maximum_epochs:g}; {fewer}, give the source less in "
        "tokens.mixture, add documents, or raise the limit"
    )


def block_sequences(weights: dict[str, float]) -> int:
    """Sequences of a block, a power of two: enough that each source gets its share of them finely."""
    wanted = FINE_SLOTS * sum(weights.values()) / min(weights.values())
    block = BLOCK_SEQUENCES
    while block < min(wanted, MOST_BLOCK_SEQUENCES) or block < len(weights):
        block *= 2
    return block


def apportion(weights: dict[str, float]) -> dict[str, int]:
    """Divide the slots of a block in proportion to `weights`, by largest remainders, one or more a source."""
    block = block_sequences(weights)
    exact = np.array(list(weights.values()))
    exact = block * (exact / exact.sum())
    slots = np.maximum(1, exact.astype(np.int64))
    while (rest := block - int(slots.sum())) != 0:
        step = 1 if rest > 0 else -1
        open_to_change = np.flatnonzero((step > 0) | (slots > 1))
        most = np.argsort(step * (slots - exact)[open_to_change], kind="stable")[: abs(rest)]
        slots[open_to_change[most]] += step
    return dict(zip(weights, slots.tolist(), strict=True))
