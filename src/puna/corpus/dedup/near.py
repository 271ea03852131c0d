"""Near-duplicates by MinHash: signatures, and the chance that locality-sensitive hashing finds a pair.

The similarity of two documents is the Jaccard index of their sets of shingles (Broder 1997): runs of 5 words
without case and accents, of 5 characters in scripts without spaces (hashing.py). A signature keeps, for each
of k functions x -> (a x + b) mod 2^32 with odd a, the least value over the shingles; two signatures agree at
a position with a probability of about the Jaccard index.
"""

import functools
import math
from typing import Any

import numpy as np

from puna.corpus.record import Record
from puna.text.hashing import GOLDEN, SHINGLE_WORDS, encode, library, mix, pointer, shingles, word_table

PERMUTATIONS = 128
THRESHOLD = 0.8
EMPTY = np.uint32(0xFFFFFFFF)  # fills the signature of a text without words


class Signatures:
    """Step: sign the texts that have no signature."""

    def apply(self, records: list[Record]) -> None:
        unsigned = [record for record in records if record.signature is None]
        found = signatures([record.text for record in unsigned])
        for record, signature in zip(unsigned, found, strict=True):
            record.signature = signature


@functools.cache
def permutations(k: int) -> tuple[Any, Any]:
    """Multipliers (odd) and additions of the k functions, uint32 [k] each: a fixed pseudo-random sequence."""
    numbers = mix(np.arange(1, k + 1, dtype=np.uint64) * GOLDEN)
    high, low = numbers >> np.uint64(32), numbers & np.uint64(0xFFFFFFFF)
    return high.astype(np.uint32) | np.uint32(1), low.astype(np.uint32)


def signatures(texts: list[str], k: int = PERMUTATIONS) -> Any:
    """Compute MinHash signatures, uint32 [texts, k]; a row of EMPTY for a text without words."""
    multipliers, additions = permutations(k)
    out = np.full((len(texts), k), EMPTY)
    if library():
        raw = [encode(text) for text in texts]
        ends = np.cumsum([len(part) for part in raw], dtype=np.int64)
        joined, table = b"".join(raw), word_table()
        functions = pointer(multipliers), pointer(additions), k
        library().signatures(
            joined, pointer(ends), len(texts), pointer(table), SHINGLE_WORDS, *functions, pointer(out)
        )
        return out
    for row, text in zip(out, texts, strict=True):
        short = np.unique((shingles(text) >> np.uint64(32)).astype(np.uint32))
        for part in np.array_split(short, len(short) // 1024 + 1):
            if len(part):
                np.minimum(row, (part[:, None] * multipliers + additions).min(0), out=row)
    return out


def bands(k: int = PERMUTATIONS, threshold: float = THRESHOLD) -> tuple[int, int]:
    """Return (bands, rows of each): the longest rows that still find 9 of 10 pairs at `threshold`.

    They give the fewest false candidates.
    """
    fitting = [rows for rows in range(1, k + 1) if candidate_chance(threshold, k // rows, rows) >= 0.9]
    rows = max(fitting, default=1)
    return k // rows, rows


def candidate_chance(jaccard: float, bands: int, rows: int) -> float:
    """Probability that a pair with this Jaccard index is a candidate: all rows of at least one band agree."""
    return 1 - (1 - jaccard**rows) ** bands


def needed(k: int, threshold: float) -> int:
    """Least number of k signature bytes that agree at an index of `threshold`; 1 in 256 agrees by chance."""
    return math.ceil((threshold + (1 - threshold) / 256) * k - 1e-9)
