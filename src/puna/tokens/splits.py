"""Documents -> token shards (`shards`): which are held out, and the files of both splits."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from puna.errors import UserError
from puna.tokens.shards import Array, dtype_of

if TYPE_CHECKING:
    from puna.tokens.tokenizer import Tokenizer

SPLITS = ("train", "held_out")
LARGEST_HELD_OUT = 0.2  # of a source's bytes, where it is small for what is to be held out
HELD_OUT_DOCUMENTS = 8  # of a source at least, where as many others are left to train on
FIGURES = np.dtype([("hash", np.float64), ("tokens", np.int64), ("bytes", np.int64)])  # of a document


def hashes_of(identities: Iterable[str]) -> Array:
    """Hash of every document's id, float64 [documents] in [0, 1): it decides what is held out, and which
    come first where a part is drawn."""
    return np.fromiter(map(_unit_hash, identities), np.float64)


def _unit_hash(identity: str) -> float:
    digest = hashlib.sha256(b"held out " + identity.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def choose_held_out(hashes: Array, sizes: Array, share: float, least_bytes: int = 0) -> Array:
    """Choose the documents that are held out for validation and scores: bool [documents].

    hashes: by `hashes_of`; sizes: bytes of text. Each document is decided by its own hash, so it does not
    move when others come or go. Where too few hashes fall under `share`, the lowest are taken:
    HELD_OUT_DOCUMENTS of them or as many as leave that number to train on, at least one, and never all, so
    that every source with two documents can be trained on and scored. Where these have fewer than
    `least_bytes`, those with the next hashes come to them, while all together are at most LARGEST_HELD_OUT of
    the source's bytes.
    """
    chosen = hashes < share
    if len(hashes) > 1:
        least = min(max(1, len(hashes) - HELD_OUT_DOCUMENTS), HELD_OUT_DOCUMENTS)
        if np.count_nonzero(chosen) < least:
            chosen[np.argsort(hashes, kind="stable")[:least]] = True
        if (held := int(sizes[chosen].sum())) < least_bytes:
            order = np.argsort(hashes, kind="stable")
            sums = held + np.cumsum(np.where(chosen, 0, sizes)[order])
            enough = int(np.searchsorted(sums, least_bytes)) + 1
            chosen[order[: min(enough, np.count_nonzero(sums <= LARGEST_HELD_OUT * sizes.sum()))]] = True
        chosen[hashes.argmax()] = False
    return chosen


def write(
    source: str,
    documents: Iterator[tuple[str, str]],
    tokenizer: "Tokenizer",
    share: float,
    threads: int,
    out: Path,
    least_bytes: int = 0,
) -> dict[str, Any]:
    """Tokenize one source into both splits; return documents, tokens and bytes of each.

    documents: (id, text) in the order of its documents file; share, least_bytes:
    to hold out, see `choose_held_out`. Raises
    UserError when a source has fewer than two documents: nothing could be held out.
    """
    counts = []
    dtype = dtype_of(tokenizer.vocab_size)
    # Which documents are held out is known when all have been read; until then what is known of them, and
    # their tokens, wait on the disk.
    with tempfile.TemporaryFile(dir=out) as spool, tempfile.TemporaryFile(dir=out) as figures_spool:
        for chunk in _chunks(documents):
            ids, offsets = tokenizer.documents_flat([text for _, text in chunk], threads)
            spool.write(ids.astype(dtype).tobytes())
            figures = np.empty(len(chunk), FIGURES)
            figures["hash"] = hashes_of(identity for identity, _ in chunk)
            figures["tokens"] = np.diff(offsets)
            figures["bytes"] = [len(text.encode()) for _, text in chunk]
            figures_spool.write(figures.tobytes())
            counts.append(len(chunk))
        if sum(counts) < 2:
            raise UserError(
                f"source {source} has {sum(counts)} document: at least two are needed, "
                "since one is held out for scores"
            )
        spool.flush()
        figures_spool.flush()
        tokens = np.asarray(np.memmap(spool, dtype, "r"))
        figures = np.asarray(np.memmap(figures_spool, FIGURES, "r"))
        held_out = choose_held_out(figures["hash"], figures["bytes"], share, least_bytes)
        chosen = {"train": ~held_out, "held_out": held_out}
        return {
            split: _write_split(out / f"{source}.{split}", tokens, figures, counts, chosen[split])
            for split in SPLITS
        }


def _write_split(
    stem: Path, tokens: Array, figures: Array, counts: list[int], chosen: Array
) -> dict[str, int]:
    """Write the three files of one split, chunk by chunk; return its figures.

    figures: FIGURES [documents]; counts: documents of each chunk; chosen: bool [documents].
    """
    documents = int(np.count_nonzero(chosen))
    first, start, kept_tokens, kept_bytes = 0, 0, 0, 0
    with (
        Path(f"{stem}.bin").open("wb") as bin_file,
        Path(f"{stem}.offsets.npy").open("wb") as offsets_file,
        Path(f"{stem}.rows.npy").open("wb") as rows_file,
    ):
        _write_header(offsets_file, documents + 1)
        _write_header(rows_file, documents)
        offsets_file.write(np.zeros(1, "<i8").tobytes())
        for count in counts:
            known, here = figures[first : first + count], chosen[first : first + count]
            ends = kept_tokens + np.cumsum(known["tokens"][here])
            offsets_file.write(ends.astype("<i8").tobytes())
            rows_file.write((first + np.flatnonzero(here)).astype("<i8").tobytes())
            end = start + int(known["tokens"].sum())
            bin_file.write(tokens[start:end][np.repeat(here, known["tokens"])].tobytes())
            kept_bytes += int(known["bytes"][here].sum())
            kept_tokens = int(ends[-1]) if len(ends) else kept_tokens
            first, start = first + count, end
    return {"documents": documents, "tokens": kept_tokens, "bytes": kept_bytes}


def _write_header(file: IO[bytes], size: int) -> None:
    """Begin a .npy file of int64 [size]."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (size,)})


def _chunks(documents: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Documents in chunks of about 4 million characters, or 40,000 documents: enough work for all threads,
    little memory."""
    chunk: list[tuple[str, str]] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document[1]) + 100
        if size > 4_000_000:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
