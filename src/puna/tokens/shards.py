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
    """One split of one source; see the module. offsets: int64 [documents + 1]; rows: int64 [documents]."""

    source: str
    tokens: Array
    offsets: Array
    rows: Array

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.rows)

    def document(self, number: int) -> Array:
        """Tokens of one document, begin and end tokens included."""
        return self.tokens[self.offsets[number] : self.offsets[number + 1]]

    def first(self, maximum_tokens: int) -> "Shard":
        """The first whole documents, up to `maximum_tokens` tokens but at least one document."""
        count = max(1, int(np.searchsorted(self.offsets, maximum_tokens, side="right")) - 1)
        tokens = self.tokens[: self.offsets[count]]
        return Shard(self.source, tokens, self.offsets[: count + 1], self.rows[:count])

    def document_at(self, position: int | Array) -> Array:
        """Number of the document that the token at `position` belongs to."""
        return np.searchsorted(self.offsets, position, side="right") - 1


def choose_held_out(identities: list[str], share: float) -> Array:
    """Choose the documents, named by their ids, that are held out for validation: bool [documents].

    Each is decided by a hash of its own id, so it never moves when others come or go. Where no hash falls
    under `share`, the lowest one is taken, and never all, so that every source with two documents can be
    trained on and scored.
    """
    hashes = np.array([_unit_hash(identity) for identity in identities])
    chosen = hashes < share
    if len(hashes) > 1:
        chosen[hashes.argmin()] = True
        chosen[hashes.argmax()] = False
    return chosen


def _unit_hash(identity: str) -> float:
    """Hash an id to [0, 1)."""
    digest = hashlib.sha256(b"held out " + identity.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def write(
    source: str,
    documents: Iterator[tuple[str, str]],
    tokenizer: "Tokenizer",
    share: float,
    threads: int,
    out: Path,
) -> dict[str, Any]:
    """Tokenize one source into both splits; return documents, tokens and bytes of each.

    documents: (id, text) in the order of its documents file; share: of documents to hold out. Raises
    UserError when a source has fewer than two documents: nothing could be held out.
    """
    identities: list[str] = []
    sizes: list[int] = []
    lengths: list[Array] = []
    dtype = _dtype(tokenizer.vocab_size)
    # Which documents are held out is known when all have been read; until then their tokens wait on the disk.
    with tempfile.TemporaryFile(dir=out) as spool:
        for chunk in _chunks(documents):
            ids, offsets = tokenizer.documents_flat([text for _, text in chunk], threads)
            spool.write(ids.astype(dtype).tobytes())
            lengths.append(np.diff(offsets))
            identities += [identity for identity, _ in chunk]
            sizes += [len(text.encode()) for _, text in chunk]
        if len(identities) < 2:
            raise UserError(
                f"source {source} has {len(identities)} document: at least two are needed, "
                "since one is held out for scores"
            )
        spool.flush()
        tokens = np.memmap(spool, dtype, "r")
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        held_out = choose_held_out(identities, share)
        chosen = {"train": ~held_out, "held_out": held_out}
        return {
            split: _write_split(out / f"{source}.{split}", tokens, starts, chosen[split], sizes)
            for split in SPLITS
        }


def _write_split(stem: Path, tokens: Array, starts: Array, chosen: Array, sizes: list[int]) -> dict[str, int]:
    """Write the three files of one split; return its figures. chosen: bool [documents]."""
    rows = np.flatnonzero(chosen)
    with Path(f"{stem}.bin").open("wb") as file:
        for row in rows:
            file.write(tokens[starts[row] : starts[row + 1]].tobytes())
    offsets = np.concatenate([[0], np.cumsum(np.diff(starts)[rows])])
    np.save(f"{stem}.offsets.npy", offsets)
    np.save(f"{stem}.rows.npy", rows)
    return {"documents": len(rows), "tokens": int(offsets[-1]), "bytes": sum(sizes[row] for row in rows)}


def _chunks(documents: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Documents in chunks of about 4 million characters: enough work for all threads, little memory."""
    chunk: list[tuple[str, str]] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document[1])
        if size > 4_000_000:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """Type of the tokens in a shard."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def load(folder: Path, source: str, split: str, vocab_size: int) -> Shard:
    """Map one split of a source into memory."""
    stem = os.path.join(folder, f"{source}.{split}")
    tokens = np.memmap(f"{stem}.bin", dtype=_dtype(vocab_size), mode="r")
    return Shard(source, tokens, np.load(f"{stem}.offsets.npy"), np.load(f"{stem}.rows.npy"))
