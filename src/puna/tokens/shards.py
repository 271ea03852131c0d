"""Memory-mapped tokens with an index back to documents.

A split ("train" or "held_out") of a source is three files: `<source>.<split>.bin` holds the tokens of its
documents one after the other (uint16, or uint32 for large vocabularies), `.offsets.npy` where each document
starts and where the last one ends, `.rows.npy` which row of the source's documents file each one is.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from puna.errors import UserError

if TYPE_CHECKING:
    from puna.tokens.tokenizer import Tokenizer

SPLITS = ("train", "held_out")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shard:
    """One split of one source. tokens: all its tokens; offsets: int64 [documents + 1]; rows: int64
    [documents]."""

    source: str
    tokens: Array
    offsets: Array
    rows: Array

    @property
    def documents(self) -> int:
        return len(self.rows)

    def document(self, number: int) -> Array:
        """Tokens of one document, begin and end tokens included."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def first(self, maximum_tokens: int) -> "Shard":
        """The first whole documents, up to `maximum_tokens` tokens but at least one document."""
        count = max(1, int(np.searchsorted(self.offsets, maximum_tokens, side="right")) - 1)
        return Shard(
            self.source, self.tokens[: self.offsets[count]], self.offsets[: count + 1], self.rows[:count]
        )

    def document_at(self, position: int | Array) -> Array:
        """Number of the document that the token at `position` belongs to."""
        return np.searchsorted(self.offsets, position, side="right") - 1


def choose_held_out(identities: list[str], share: float) -> Array:
    """Which documents, named by their ids, are kept for validation: bool [documents].

    Each is decided by a hash of its own id, so it never moves when others come or go. Where none falls under
    `share`, the nearest one is taken, and never all, so that every source with two documents can be trained
    on and scored.
    """
    places = np.array(
        [
            int.from_bytes(hashlib.sha256(b"held out " + name.encode()).digest()[:8], "big") / 2**64
            for name in identities
        ]
    )
    chosen = places < share
    if len(places) > 1:
        chosen[places.argmin()] = True
        chosen[places.argmax()] = False
    return chosen


def write(
    source: str,
    documents: Iterator[tuple[str, str]],
    tokenizer: "Tokenizer",
    share: float,
    threads: int,
    out: Path,
) -> dict[str, Any]:
    """Tokenize one source into both splits; documents, tokens and bytes of each.

    documents: (id, text) in the order of its documents file; share: of documents to hold out. Raises
    UserError when a source has fewer than two documents: nothing could be held out.
    """
    identities: list[str] = []
    sizes: list[int] = []
    lengths: list[Array] = []
    width = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    # Which documents are held out is known when all have been seen; until then their tokens wait on the disk.
    with tempfile.TemporaryFile(dir=out) as waiting:
        for batch in _batches(documents):
            ids, offsets = tokenizer.documents_flat([text for _, text in batch], threads)
            waiting.write(ids.astype(width).tobytes())
            lengths.append(np.diff(offsets))
            identities += [identity for identity, _ in batch]
            sizes += [len(text.encode()) for _, text in batch]
        if len(identities) < 2:
            raise UserError(
                f"source {source} has {len(identities)} document: at least two are needed, since one is held out for scores"
            )
        waiting.flush()
        tokens = np.memmap(waiting, width, "r")
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        chosen = choose_held_out(identities, share)
        return {
            split: _write_split(
                out / f"{source}.{split}", tokens, starts, chosen == (split == "held_out"), sizes
            )
            for split in SPLITS
        }


def _write_split(stem: Path, tokens: Array, starts: Array, chosen: Array, sizes: list[int]) -> dict[str, int]:
    """The three files of one split; its documents, tokens and bytes. chosen: bool [documents]."""
    rows = np.flatnonzero(chosen)
    with Path(f"{stem}.bin").open("wb") as file:
        for row in rows:
            file.write(tokens[starts[row] : starts[row + 1]].tobytes())
    offsets = np.concatenate([[0], np.cumsum(np.diff(starts)[rows])])
    np.save(f"{stem}.offsets.npy", offsets)
    np.save(f"{stem}.rows.npy", rows)
    return {"documents": len(rows), "tokens": int(offsets[-1]), "bytes": sum(sizes[row] for row in rows)}


def _batches(documents: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Documents in lots of about 4 MB: enough work for all threads, little memory."""
    lot: list[tuple[str, str]] = []
    size = 0
    for document in documents:
        lot.append(document)
        size += len(document[1])
        if size > 4_000_000:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def load(folder: Path, source: str, split: str, vocab_size: int) -> Shard:
    """Map one split of a source."""
    width = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    stem = os.path.join(folder, f"{source}.{split}")
    tokens = np.memmap(f"{stem}.bin", dtype=width, mode="r")
    return Shard(source, tokens, np.load(f"{stem}.offsets.npy"), np.load(f"{stem}.rows.npy"))
