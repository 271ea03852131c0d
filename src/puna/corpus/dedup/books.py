"""Books with more than 90% content overlap (Touvron et al. 2023, section 2.1): the first is kept.

A book is the set of its shingles (runs of 5 words, letters only, without case and accents: hashing.py), so
encodings, line breaks, quotation marks and page numbers do not matter. The least hashes of the set represent
it (bottom-k sample: Broder 1997; Cohen and Kaplan 2007): one in 256, at least 512 and at most 8,192.
Containment, the share of the smaller book's shingles that the larger one has too, is estimated on the hashes
up to the lesser limit of the two samples, where both are complete. An inverted index from hashes to books
finds the few books that are worth a comparison. What more than seven kept books share in their samples, such
as a licence, counts as content of none; a small book that is mostly licence should lose it before.

A changed paragraph costs more than its own shingles: those across its edges change with it, and one paragraph
is longer than another. `overlap` therefore divides what is missing by ALLOWANCE, so that a book of which any
8% of the paragraphs were replaced, deleted or shuffled inside still counts as over 90%. Measured on ten real
books: with 8 or 10% replaced or shuffled all are found, with 15% most, with 20% one in four, with 25% none.
Any two different ones share less than 0.2% of their shingles, or 7% with the licence in them.

Consequences: a work and collected works that contain it count as one book, whichever comes first, so add
books from the longest to the shortest where collections are to stay. Anthologies that share some pieces are
different books. A translation shares no shingles with its original and is another book, and so are two
translations into one language.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from puna.corpus.funnel import BOOK
from puna.corpus.record import Record
from puna.errors import UserError
from puna.text.hashing import shingles

THRESHOLD = 0.9
ALLOWANCE = 1.8
RATE, LEAST_SAMPLE, MOST_SAMPLE = 256, 512, 8192
MOST_BOOKS = 7
# Sampled shingles that two books must have in common: fewer are chance, a quotation or a page.
LEAST_SHARED = 32
MOST_COMPARED = 16


def overlap(containment: float) -> float:
    """Share of a book's content that another has, from the share of its shingles."""
    return 1 - (1 - containment) / ALLOWANCE


@dataclass(frozen=True)
class RepeatedBooks:
    """Step: drop books whose content overlaps with that of an earlier one."""

    books: "Books"

    def apply(self, records: list[Record]) -> None:
        for record in records:
            if match := self.books.add(record.id, record.text):
                identity, share = match
                record.drop(BOOK, f"{share:.0%} of {identity}", identity)


class Books:
    """The books kept so far, in memory: about 10 KB each, 20 bytes a sampled hash; twice that in merges.

    `add` hashes the text, then does a binary search for each sampled hash in at most log2(books) sorted
    arrays.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        if not 0 < threshold < 1:
            raise UserError(
                f"the overlap above which two books count as one lies between 0 and 1, not at {threshold}"
            )
        self.threshold = threshold
        self.identities: list[str] = []
        self.samples: list[tuple[Any, int]] = []
        self.runs: list[tuple[Any, Any]] = []  # sorted hashes, and the book of each

    def add(self, identity: str, text: str) -> tuple[str, float] | None:
        """Add a book that repeats no kept one; return None, or the one it repeats and the overlap.

        The overlap is above the threshold. Of several books it is the one with the largest overlap, then the
        earliest.
        """
        hashes, limit = _sample(text)
        owners, shared = self._look_up(hashes)
        own = hashes[shared <= MOST_BOOKS]
        candidates, common = np.unique(owners, return_counts=True)
        best: tuple[float, int] | None = None
        for at in np.argsort(-common, kind="stable")[:MOST_COMPARED]:
            if common[at] < LEAST_SHARED:
                break
            book = int(candidates[at])
            theirs, their_limit = self.samples[book]
            theirs = theirs[self._look_up(theirs)[1] <= MOST_BOOKS]
            complete = np.uint64(min(limit, their_limit))
            smaller = min((own <= complete).sum(), (theirs <= complete).sum())
            candidate = overlap(common[at] / smaller), -book
            best = max(best, candidate) if best else candidate
        if best and best[0] > self.threshold:
            return self.identities[-best[1]], float(best[0])
        self._keep(identity, hashes, limit, own)
        return None

    def add_again(self, identity: str, sample: tuple[Any, int]) -> None:
        """Add a book that was kept after the same books before, by its sample."""
        hashes, limit = sample
        self._keep(identity, hashes, limit, hashes[self._look_up(hashes)[1] <= MOST_BOOKS])

    def _keep(self, identity: str, hashes: Any, limit: int, own: Any) -> None:
        self._enter(own, len(self.identities))
        self.identities.append(identity)
        self.samples.append((hashes, limit))

    def _enter(self, hashes: Any, book: int) -> None:
        """Put a book's hashes into the inverted index: a new run, merged with those at most twice as long."""
        self.runs.append((hashes, np.full(len(hashes), book, np.uint32)))
        while len(self.runs) > 1 and len(self.runs[-2][0]) <= 2 * len(self.runs[-1][0]):
            merged = [np.concatenate(columns) for columns in zip(*self.runs[-2:], strict=True)]
            order = np.argsort(merged[0], kind="stable")
            self.runs[-2:] = [(merged[0][order], merged[1][order])]

    def _look_up(self, hashes: Any) -> tuple[Any, Any]:
        """Kept books with these hashes, once a hash that few share; and in how many books each hash is."""
        bounds = []
        for run, _ in self.runs:
            bounds.append((np.searchsorted(run, hashes, "left"), np.searchsorted(run, hashes, "right")))
        shared = sum((high - low for low, high in bounds), np.zeros(len(hashes), np.int64))
        books = [np.zeros(0, np.uint32)]
        for (_, owners), (low, high) in zip(self.runs, bounds, strict=True):
            for offset in range(MOST_BOOKS):
                here = (low + offset < high) & (shared <= MOST_BOOKS)
                books.append(owners[low[here] + offset])
        return np.concatenate(books), shared


def _sample(text: str) -> tuple[Any, int]:
    """Least hashes of a text's shingles, sorted uint64, and the hash up to which the sample is complete."""
    hashes = shingles(text, digits=False)
    size = min(max(len(hashes) // RATE, LEAST_SAMPLE), MOST_SAMPLE)
    if len(hashes) > 4 * size:  # sort only those that can be among the least
        few = np.unique(hashes[hashes < np.uint64((1 << 64) // len(hashes) * 2 * size)])
        if len(few) >= size:
            return few[:size].copy(), int(few[size - 1])
    hashes = np.unique(hashes)
    return hashes[:size].copy(), int(hashes[size - 1]) if len(hashes) > size else (1 << 64) - 1
