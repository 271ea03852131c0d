"""Books with more than 90% content overlap (Touvron et al. 2023, section 2.1): the first is kept.

A book is the set of its shingles (runs of 5 words, letters only, without case and accents: hashing.py), so
encodings, line breaks, quotation marks and page numbers do not matter. The least hashes of the set stand for
it (bottom-k sample: Broder 1997; Cohen and Kaplan 2007): one in 256, at least 512 and at most 8,192.
Containment, the part of the smaller book's shingles that the larger one has too, is estimated on the hashes
up to the lesser limit of the two samples, where both are complete. An inverted index from hashes to books
finds the few books that are worth a comparison. What more than seven kept books share in their samples, such
as a licence, is not content of any; a small book that is mostly licence should lose it before.

A changed paragraph costs more than its own shingles: those across its edges go with it, and one paragraph is
longer than another. `overlap` therefore divides what is missing by ALLOWANCE, so that a book of which any 8%
of the paragraphs were replaced, deleted or shuffled inside still counts as over 90%. Measured on ten real
books: with 8 or 10% replaced or shuffled all are found, with 15% most, with 20% one in four, with 25% none.
Any two different ones share less than 0.2% of their shingles, or 7% with the licence in them.

What follows: a work and collected works that contain it count as one book, whichever comes first, so add
books from the longest to the shortest where collections are to stay. Anthologies that share some pieces are
different books. A translation shares no shingles with its original and is another book, and so are two
translations into one language.
"""

from typing import Any

import numpy as np

from puna.errors import UserError
from puna.text.hashing import shingles

THRESHOLD = 0.9
ALLOWANCE = 1.8
RATE, LEAST_SAMPLE, MOST_SAMPLE = 256, 512, 8192
MOST_BOOKS = 7
LEAST_SHARED = (
    32  # sampled shingles that two books must have in common: fewer are chance, a quotation or a page
)
MOST_COMPARED = 16


def overlap(containment: float) -> float:
    """The part of a book's content that another has, from the part of its shingles."""
    return 1 - (1 - containment) / ALLOWANCE


class Books:
    """The books kept so far, in memory: about 10 KB for each (20 bytes for each sampled hash), twice that
    while the index is merged.

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
        self.runs: list[tuple[Any, Any]] = []  # hashes in order, and the books they are of

    def add(self, identity: str, text: str) -> tuple[str, float] | None:
        """The kept book that this one repeats and the overlap, which is above the threshold; None where this
        one is kept.

        Of several the one with the largest overlap, then the earliest.
        """
        hashes, limit = _sample(text)
        books, shared = self._look_up(hashes)
        own = hashes[shared <= MOST_BOOKS]
        found, common = np.unique(books, return_counts=True)
        best: tuple[float, int] | None = None
        for at in np.argsort(-common, kind="stable")[:MOST_COMPARED]:
            if common[at] < LEAST_SHARED:
                break
            book = int(found[at])
            theirs, their_limit = self.samples[book]
            theirs = theirs[self._look_up(theirs)[1] <= MOST_BOOKS]
            complete = np.uint64(min(limit, their_limit))
            smaller = min((own <= complete).sum(), (theirs <= complete).sum())
            found_here = overlap(common[at] / smaller), -book
            best = max(best, found_here) if best else found_here
        if best and best[0] > self.threshold:
            return self.identities[-best[1]], float(best[0])
        book = len(self.identities)
        self.identities.append(identity)
        self.samples.append((hashes, limit))
        entered = hashes[shared <= MOST_BOOKS]
        self.runs.append((entered, np.full(len(entered), book, np.uint32)))
        while len(self.runs) > 1 and len(self.runs[-2][0]) <= 2 * len(self.runs[-1][0]):
            last, owners = self.runs.pop()
            keys, values = (
                np.concatenate([self.runs[-1][0], last]),
                np.concatenate([self.runs[-1][1], owners]),
            )
            order = np.argsort(keys, kind="stable")
            self.runs[-1] = keys[order], values[order]
        return None

    def _look_up(self, hashes: Any) -> tuple[Any, Any]:
        """The kept books with these hashes, once for each hash that few share, and in how many books each
        hash is."""
        bounds = [
            (np.searchsorted(run, hashes, "left"), np.searchsorted(run, hashes, "right"))
            for run, _ in self.runs
        ]
        shared = sum((high - low for low, high in bounds), np.zeros(len(hashes), np.int64))
        books = [np.zeros(0, np.uint32)]
        for (_, owners), (low, high) in zip(self.runs, bounds, strict=True):
            for offset in range(MOST_BOOKS):
                here = (low + offset < high) & (shared <= MOST_BOOKS)
                books.append(owners[low[here] + offset])
        return np.concatenate(books), shared


def _sample(text: str) -> tuple[Any, int]:
    """The least hashes of a text's shingles, uint64 in order, and up to where the sample is complete."""
    hashes = shingles(text, digits=False)
    size = min(max(len(hashes) // RATE, LEAST_SAMPLE), MOST_SAMPLE)
    if len(hashes) > 4 * size:  # sort only those that can be among the least
        few = np.unique(hashes[hashes < np.uint64((1 << 64) // len(hashes) * 2 * size)])
        if len(few) >= size:
            return few[:size].copy(), int(few[size - 1])
    hashes = np.unique(hashes)
    return hashes[:size].copy(), int(hashes[size - 1]) if len(hashes) > size else (1 << 64) - 1
