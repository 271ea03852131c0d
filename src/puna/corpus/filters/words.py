"""Words and pairs of neighbouring words of documents, hashed into buckets: the features of a linear
classifier of texts.

A word is a run of letters and digits in lower case, each digit taken as 0. Writing without spaces gives long
words, so the features are for languages that put spaces between words.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

CHARACTERS = 20_000  # of a text that are looked at, so that a book weighs no more than a long page
BATCH_BYTES = 1 << 20  # of text that are worked on at a time
BASE, PAIR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
CODES = np.zeros(256, np.uint8)  # 0 for a separator, else the byte that is hashed
for _byte in range(256):
    CODES[_byte] = (
        ord("0") if chr(_byte) in "0123456789" else _byte if _byte > 127 or chr(_byte).isalpha() else 0
    )

Features = tuple[np.ndarray, np.ndarray, np.ndarray]


def features(texts: list[str], bits: int) -> Features:
    """(buckets uint32, counts uint8, ends int64): of document i, at ends[i-1]:ends[i], its distinct buckets
    below 2^bits in ascending order, and how often each came, at most 255."""
    found = [_features(text, ends, bits) for text, ends in _batches(texts)]
    if not found:
        return np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.int64)
    before = np.cumsum([0, *(len(buckets) for buckets, _, _ in found)])
    ends = [part + start for (_, _, part), start in zip(found, before, strict=False)]
    return (
        np.concatenate([part[0] for part in found]),
        np.concatenate([part[1] for part in found]),
        np.concatenate(ends),
    )


def spelled(text: str, bits: int) -> dict[int, str]:
    """How the words and pairs of a text are spelled, by their buckets; a digit as 0."""
    found: dict[int, str] = {}
    for data, ends in _batches([text]):
        words, pairs, _, starts, lengths = _hashed(data, ends)
        whole = CODES[data].tobytes()
        spans = zip(starts.tolist(), lengths.tolist(), strict=True)
        names = [whole[start : start + length].decode("utf-8", "replace") for start, length in spans]
        both = [f"{first} {second}" for first, second in itertools.pairwise(names)]
        for hashes, shown in ((words, names), (pairs, both)):
            found.update(zip((mix(hashes) >> np.uint64(64 - bits)).tolist(), shown, strict=True))
    return found


def _batches(texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(UTF-8 of some documents, each ended by a line feed, as uint8; where each ends)."""
    parts: list[bytes] = []
    size = 0
    for number, text in enumerate(texts, start=1):
        parts.append(text[:CHARACTERS].lower().encode("utf-8", "replace") + b"\n")
        size += len(parts[-1])
        if size >= BATCH_BYTES or number == len(texts):
            yield (
                np.frombuffer(b"".join(parts), np.uint8),
                np.cumsum([len(part) for part in parts], dtype=np.int64),
            )
            parts, size = [], 0


def _features(text: np.ndarray, ends: np.ndarray, bits: int) -> Features:
    words, pairs, owners, _, _ = _hashed(text, ends)
    same = owners[1:] == owners[:-1]
    keys = np.concatenate([mix(words), mix(pairs[same])]) >> np.uint64(64 - bits)
    keys |= np.concatenate([owners, owners[1:][same]]).astype(np.uint64) << np.uint64(bits)
    distinct, often = np.unique(keys, return_counts=True)
    found = np.searchsorted(distinct, np.arange(1, len(ends) + 1, dtype=np.uint64) << np.uint64(bits))
    return (
        (distinct & np.uint64((1 << bits) - 1)).astype(np.uint32),
        np.minimum(often, 255).astype(np.uint8),
        found.astype(np.int64),
    )


def _hashed(
    text: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of the words and of neighbouring pairs before they are mixed, each word's document, its start
    and length in bytes."""
    codes = CODES[text]
    for lead, size in (
        (0xC2, 2),
        (0xE2, 3),
        (0xE3, 3),
    ):  # Latin-1's signs; quotes, dashes and the like; CJK marks
        at = np.flatnonzero(text == lead)
        if size == 3:
            at = at[(text[at + 1] & (0xFE if lead == 0xE2 else 0xFF)) == 0x80]
        for place in range(size):
            codes[at + place] = 0
    edges = np.flatnonzero(
        np.diff((codes != 0).astype(np.int8), prepend=np.int8(0))
    )  # the last byte is a line feed: edges come in twos
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        none = np.empty(0, np.uint64)
        return none, none, np.empty(0, np.int64), starts, starts
    powers, inverses = _powers(1 << (len(text) - 1).bit_length())
    # sum over a word's bytes of byte * BASE^place in it, modulo 2^64
    words = np.add.reduceat(codes * powers[: len(text)], starts) * inverses[starts]
    pairs = words[:-1] * np.uint64(PAIR) + words[1:]
    return words, pairs, np.searchsorted(ends, starts, side="right"), starts, stops - starts


@functools.cache
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE^i and BASE^-i modulo 2^64 for i below count, a power of two, so that few are ever made."""
    return tuple(  # type: ignore[return-value]
        np.multiply.accumulate(np.concatenate([np.ones(1, np.uint64), np.full(count - 1, base, np.uint64)]))
        for base in (BASE, pow(BASE, -1, 1 << 64))
    )


def mix(x: np.ndarray) -> np.ndarray:
    """Each uint64 taken to another by one bijection, in which every bit hangs on every other."""
    x = x ^ (x >> np.uint64(32))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(29))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(32))
