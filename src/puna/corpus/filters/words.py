"""Hashed words, their beginnings and pairs of documents: the features of a linear classifier of texts.

A word is a run of letters and digits in lower case, each digit taken as 0, or one ASCII mark of punctuation,
or CAPITAL, which stands before every word that begins with a capital. Typographic quotation marks and dashes
are taken as the plain ones, since they tell where a page was made, not what it is. A pair is of neighbouring
words, or of two with one between them; a longer word's first bytes count, too. Writing without spaces gives
long words, so the features are for languages that put spaces between words.
"""

import functools
import itertools
import re
import sys
from collections.abc import Iterator

import numpy as np

CHARACTERS = 20_000  # of a text that are read, so that a book weighs no more than a long page
BATCH_BYTES = 1 << 20  # of text that are processed at a time
BASE, PAIR, APART, BEGINNING = (
    0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB,
)  # fmt: skip
BEGINNING_BYTES = 4
CAPITAL = "\x01"
PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′", "'"),
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‐‑‒–—―", "-"),
        "…": ".",
        CAPITAL: " ",
    }
)


def _codes() -> tuple[np.ndarray, np.ndarray]:
    """Tables of all bytes: uint8 [256], 0 for a separator, else what is hashed; bool [256], a word alone."""
    codes, alone = np.zeros(256, np.uint8), np.zeros(256, bool)
    for byte in range(256):
        if byte > 127 or chr(byte).isalpha():
            codes[byte] = byte
        elif chr(byte).isdigit():
            codes[byte] = ord("0")
        elif chr(byte) == CAPITAL or (chr(byte).isprintable() and chr(byte) != " "):
            codes[byte], alone[byte] = byte, True
    return codes, alone


CODES, ALONE = _codes()
Features = tuple[np.ndarray, np.ndarray, np.ndarray]


@functools.cache
def _before_capital() -> re.Pattern[str]:
    capitals = "".join(filter(str.isupper, map(chr, range(sys.maxunicode + 1))))
    return re.compile(rf"\b(?=[{capitals}])")


def prepared(text: str) -> str:
    """Return what is read of a text: in lower case, with plain signs, and CAPITAL before what was capital."""
    return _before_capital().sub(CAPITAL, text[:CHARACTERS].translate(PLAIN)).lower()


def features(texts: list[str], bits: int) -> Features:
    """Compute (buckets uint32, counts uint8, ends int64).

    Document i has, at ends[i-1]:ends[i], its distinct buckets below 2^bits in ascending order, and how often
    each came, at most 255.
    """
    batches = [_features(text, ends, bits) for text, ends in _batches(texts)]
    if not batches:
        return np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.int64)
    buckets, counts, ends = zip(*batches, strict=True)
    starts = np.cumsum([0, *map(len, buckets)])
    shifted = [own + start for own, start in zip(ends, starts, strict=False)]
    return np.concatenate(buckets), np.concatenate(counts), np.concatenate(shifted)


def spelled(text: str, bits: int) -> dict[int, str]:
    """Spell the words, beginnings and pairs of a text by their buckets; a digit as 0, CAPITAL as "Aa"."""
    spellings: dict[int, str] = {}
    for data, ends in _batches([text]):
        words, _, starts, lengths = _hashed(data, ends)
        codes = CODES[data].tobytes()
        spans = zip(starts.tolist(), lengths.tolist(), strict=True)
        single = [codes[start : start + length].decode("utf-8", "replace") for start, length in spans]
        single = ["Aa" if word == CAPITAL else word for word in single]
        paired = [f"{first} {second}" for first, second in itertools.pairwise(single)]
        apart = [f"{first} … {second}" for first, second in zip(single, single[2:], strict=False)]
        long = lengths > BEGINNING_BYTES
        beginnings = [
            codes[start : start + BEGINNING_BYTES].decode("utf-8", "replace") + "-"
            for start in starts[long].tolist()
        ]
        named = [(words, single), (_beginnings(data, starts[long]), beginnings)]
        named += [(_pairs(words, 1, PAIR), paired), (_pairs(words, 2, APART), apart)]
        for hashes, spelling in named:
            spellings.update(zip((mix(hashes) >> np.uint64(64 - bits)).tolist(), spelling, strict=True))
    return spellings


def _batches(texts: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (UTF-8 of some documents, each ended by a line feed, as uint8; where each ends, int64)."""
    documents: list[bytes] = []
    size = 0
    for number, text in enumerate(texts, start=1):
        documents.append(prepared(text).encode("utf-8", "replace") + b"\n")
        size += len(documents[-1])
        if size >= BATCH_BYTES or number == len(texts):
            ends = np.cumsum([len(document) for document in documents], dtype=np.int64)
            yield np.frombuffer(b"".join(documents), np.uint8), ends
            documents, size = [], 0


def _features(text: np.ndarray, ends: np.ndarray, bits: int) -> Features:
    words, owners, starts, lengths = _hashed(text, ends)
    long = lengths > BEGINNING_BYTES
    found = [(words, owners), (_beginnings(text, starts[long]), owners[long])]
    for distance, factor in ((1, PAIR), (2, APART)):
        same = owners[distance:] == owners[:-distance]
        found.append((_pairs(words, distance, factor)[same], owners[distance:][same]))
    keys = [
        mix(hashes) >> np.uint64(64 - bits) | own.astype(np.uint64) << np.uint64(bits)
        for hashes, own in found
    ]
    distinct, repeats = np.unique(np.concatenate(keys), return_counts=True)
    buckets = (distinct & np.uint64((1 << bits) - 1)).astype(np.uint32)
    last = np.searchsorted(distinct, np.arange(1, len(ends) + 1, dtype=np.uint64) << np.uint64(bits))
    return buckets, np.minimum(repeats, 255).astype(np.uint8), last.astype(np.int64)


def _pairs(words: np.ndarray, distance: int, factor: int) -> np.ndarray:
    """Hash pairs of words at a distance, before `mix`."""
    return words[:-distance] * np.uint64(factor) + words[distance:]


def _beginnings(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Hash the first bytes of words that begin at `starts` and have more, before `mix`."""
    places = CODES[text[starts[:, None] + np.arange(BEGINNING_BYTES)]]
    return (places * _powers(BEGINNING_BYTES)[0]).sum(axis=1, dtype=np.uint64) * np.uint64(BEGINNING)


def _hashed(text: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hash words, before `mix`. Returns the hashes, and each word's document, start and length in bytes."""
    codes = CODES[text]
    latin = np.flatnonzero(text == 0xC2)  # signs of Latin-1, two bytes each
    dashes = np.flatnonzero(text == 0xE2)  # dashes, quotation marks and the like, three bytes each
    dashes = dashes[(text[dashes + 1] & 0xFE) == 0x80]
    cjk = np.flatnonzero(text == 0xE3)  # CJK marks, three bytes each
    cjk = cjk[text[cjk + 1] == 0x80]
    for at, size in ((latin, 2), (dashes, 3), (cjk, 3)):
        for offset in range(size):
            codes[at + offset] = 0
    alone = ALONE[text]
    inside = (codes != 0) & ~alone
    starts = np.flatnonzero(alone | (inside & ~np.append(False, inside[:-1])))
    stops = np.flatnonzero(alone | (inside & ~np.append(inside[1:], False))) + 1
    if not len(starts):
        return np.empty(0, np.uint64), np.empty(0, np.int64), starts, starts
    powers, inverses = _powers(1 << (len(text) - 1).bit_length())
    # The sum over a word's bytes of byte * BASE^position, modulo 2^64.
    words = np.add.reduceat(codes * powers[: len(text)], starts) * inverses[starts]
    return words, np.searchsorted(ends, starts, side="right"), starts, stops - starts


@functools.cache
def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE^i and BASE^-i modulo 2^64 for i below count, a power of two, so that few are ever made."""

    def powers(base: int) -> np.ndarray:
        factors = np.concatenate([np.ones(1, np.uint64), np.full(count - 1, base, np.uint64)])
        return np.multiply.accumulate(factors)

    return powers(BASE), powers(pow(BASE, -1, 1 << 64))


def mix(x: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64 numbers by a bijection: a finaliser like SplitMix64's, with other shifts.

    Models that were trained with it need it, so it stays beside `text.hashing.mix`.
    """
    x = x ^ (x >> np.uint64(32))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(29))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(32))
