"""Memory-mapped tokens with an index back to documents.

A split ("train" or "held_out") of a source is three files: `<source>.<split>.bin` holds the tokens of its
documents one after the other (uint16, or uint32 for large vocabularies), `.offsets.npy` where each document
starts and where the last one ends, `.rows.npy` which row of the source's documents file each one is.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.errors import UserError
from puna.tokens.permutation import key_of, uniform

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shard:
    """One split of one source; see the module. offsets: int64 [documents + 1]; rows: int64 [documents].

    path: of the file of tokens, vocab_size: that none of them may reach, where it is one.
    """

    source: str
    tokens: Array
    offsets: Array
    rows: Array
    path: str = ""
    vocab_size: int = 1 << 32

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.rows)

    def document(self, number: int) -> Array:
        """Tokens of one document, begin and end tokens included."""
        return self.read(self.offsets[number], self.offsets[number + 1])

    def read(self, start: int, end: int) -> Array:
        """Some tokens. Raises UserError for one that the vocabulary does not have, with its place."""
        part = self.tokens[start:end]
        if part.max(initial=0) >= self.vocab_size:
            place = int(np.argmax(part >= self.vocab_size))
            raise UserError(
                f"{self.path} is damaged: at byte {(int(start) + place) * part.itemsize:,} stands token "
                f"{part[place]:,} of a vocabulary of {self.vocab_size:,}; remove the folder and run again to "
                "rebuild it"
            )
        return part

    def sample(self, maximum_tokens: int) -> "Shard":
        """Some whole documents from all over the shard, always the same: up to `maximum_tokens` tokens, but
        at least one document."""
        lengths = np.diff(self.offsets)
        chosen = choose_sample(uniform(key_of("sample", self.source), self.rows), lengths, maximum_tokens)
        if chosen.all():
            return self
        if not chosen.any():
            chosen[lengths.argmin()] = True
        tokens = np.concatenate([self.document(number) for number in np.flatnonzero(chosen).tolist()])
        return Shard(self.source, tokens, np.cumsum([0, *lengths[chosen]]), self.rows[chosen])

    def document_at(self, position: int | Array) -> Array:
        """Number of the document that the token at `position` belongs to."""
        return np.searchsorted(self.offsets, position, side="right") - 1


def choose_sample(hashes: Array, sizes: Array, budget: int) -> Array:
    """Choose documents in the order of their hashes, each that fits in what is left of the budget: bool
    [documents]."""
    chosen = np.zeros(len(hashes), bool)
    waiting = np.argsort(hashes, kind="stable")
    while len(waiting := waiting[sizes[waiting] <= budget]):
        sums = np.cumsum(sizes[waiting])
        count = int(np.searchsorted(sums, budget, side="right"))
        chosen[waiting[:count]] = True
        budget -= int(sums[count - 1])
        waiting = waiting[count:]
    return chosen


def dtype_of(vocab_size: int) -> type[np.unsignedinteger]:
    """Type of the tokens in a shard."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def load(folder: Path, source: str, split: str, vocab_size: int) -> Shard:
    """Map one split of a source into memory, tokens and index: only what is read of them is loaded. Raises
    UserError where they do not belong together."""
    stem = os.path.join(folder, f"{source}.{split}")
    path, remedy = f"{stem}.bin", "remove the folder and run again to rebuild it"
    try:
        tokens = np.memmap(path, dtype=dtype_of(vocab_size), mode="r")
        offsets = np.load(f"{stem}.offsets.npy", mmap_mode="r")
        rows = np.load(f"{stem}.rows.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}, or its index beside it, is damaged: {error}; {remedy}") from error
    if len(offsets) != len(rows) + 1 or offsets[-1] != len(tokens):
        raise UserError(
            f"{path} holds {len(tokens):,} tokens, and by its index beside it {len(rows):,} documents end at "
            f"{offsets[-1]:,}: one of them is damaged; {remedy}"
        )
    # Slices of a plain view of mapped memory are several times faster than those of a memmap.
    return Shard(source, np.asarray(tokens), np.asarray(offsets), np.asarray(rows), path, vocab_size)
