"""Hashes of lines and of word shingles, 64 bits wide and the same on every machine: in C++ where there is a
compiler, else in numpy.

One hash serves all: a string of code points c_0, c_1, ... hashes to the sum of mix(c_i + (i + 1) * GOLDEN)
mod 2^64, mix being the finaliser of SplitMix64. Each place and character thus adds a pseudo-random number of
its own, as in Zobrist hashing, so two different strings have equal hashes with probability 2^-64; and a sum
can be taken in any order, which is what numpy can do.

What a character becomes is decided by Python's own Unicode tables. A Python with newer tables differs only
for the letters they add.
"""

import functools
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from puna.run import compiled

SOURCE = Path(__file__).with_name("hashing.cpp")
SIGNATURES = {
    "line_hashes": "pnpp",
    "shingles": "pnpnp->n",
    "signatures": "ppnpnppnp",
    "first_time": "pnnpnpp->n",
    "move": "pnpn",
}
CODE_POINTS = 0x110000
CODE = np.uint32((1 << 21) - 1)
SPACE, DELETED = np.uint32(1 << 31), np.uint32(1 << 30)
SEPARATOR, ALONE = np.uint64(0), np.uint64(1 << 63)
SKIP = ALONE
GOLDEN, NEXT_WORD = np.uint64(0x9E3779B97F4A7C15), 0xD6E8FEB86659FD93
SHINGLE_WORDS = 5

# What CCNet deletes from a line before it is hashed: control characters, and 34 punctuation marks (none of
# ASCII's).
CONTROL = (*range(32), *range(127, 160))
PUNCTUATION = (
    0xAB, 0xB4, 0xBB, 0x2013, 0x2014, 0x2019, 0x201C, 0x201D, 0x201E, 0x2026, 0x2236, 0x2501, 0x25BA, 0x3001, 0x3002, 0x3008, 0x3009,
    0x300A, 0x300B, 0x300C, 0x300D, 0x3010, 0x3011, 0xFF01, 0xFF05, 0xFF08, 0xFF09, 0xFF0C, 0xFF0E, 0xFF11, 0xFF1A, 0xFF1B, 0xFF1F,
    0xFF5E,
)  # fmt: skip

# Inside a word these are passed over, so that don't, don’t, dont and a damaged don?t are one word:
# apostrophes, what stands for a character that was lost, and characters that are not seen.
PASSED_OVER = "'’‘ʼ`´?\ufffd\u00ad\u200b\u200c\u200d\u2060\ufeff"
# Letters that Unicode does not take apart, as plain text writes them.
PLAIN = {
    "æ": "ae",
    "œ": "oe",
    "ø": "o",
    "đ": "d",
    "ð": "d",
    "þ": "th",
    "ł": "l",
    "ħ": "h",
    "ŧ": "t",
    "ı": "i",
}
# Scripts written without spaces between words: Thai to Tibetan, Myanmar, Khmer, Kana, Han. Each character is
# a word by itself.
WITHOUT_SPACES = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19FF), (0x1A20, 0x1AAF), (0x2E80, 0x2FDF), (0x3005, 0x3007),
    (0x3021, 0x3029), (0x3031, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF),
    (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip


@functools.cache
def library() -> Any:
    """The built C++ source; None where it cannot be built or is switched off."""
    return compiled.load(SOURCE, SIGNATURES)


def pointer(array: Any) -> int:
    return array.ctypes.data


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def code_points(text: str) -> Any:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def mix(x: Any) -> Any:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014; Stafford's variant 13) of uint64 numbers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.cache
def line_table() -> Any:
    """What CCNet makes of each code point, uint32 [1114112]: the lower-case letter, or 0 for a digit, with
    flags SPACE and DELETED."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for code in range(CODE_POINTS):
        character = chr(code)
        if character.isdecimal():
            table[code] = ord("0")
        elif character.isspace():
            table[code] |= SPACE
        else:
            lowered = character.lower()
            if lowered != character and len(lowered) == 1:
                table[code] = ord(lowered)
    table[[*CONTROL]] |= DELETED
    table[[code for code in PUNCTUATION if not chr(code).isdecimal()]] |= DELETED  # digits were made 0 before
    return table


def lines_of(text: str) -> str:
    """`text` ready for `line_table`: the two letters whose lower case is not one letter for one are lowered
    by Python here."""
    return text.lower() if "Σ" in text or "İ" in text else text


@functools.cache
def word_table() -> Any:
    """What each code point is in a word, uint64 [1114112]: up to three code points of 21 bits, ALONE,
    SEPARATOR or SKIP.

    Letters lose case and accents (compatibility decomposition, casefold); digits stay; marks and what
    PASSED_OVER names are skipped; everything else separates words.
    """
    alone = np.zeros(CODE_POINTS, bool)
    for first, last in WITHOUT_SPACES:
        alone[first : last + 1] = True
    table = np.zeros(CODE_POINTS, np.uint64)
    for code in range(CODE_POINTS):
        character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] == "M" or character in PASSED_OVER:
            table[code] = SKIP
        elif kind == "Lo" and not unicodedata.decomposition(character) and not 0xAC00 <= code <= 0xD7A3:
            table[code] = code  # most letters of all: neither case nor parts (Hangul's parts have no table)
        elif kind[0] in "LN" or kind == "So":
            plain = unicodedata.normalize("NFKD", character).casefold()
            plain = "".join(PLAIN.get(part, part) for part in unicodedata.normalize("NFKD", plain))
            letters = [ord(part) for part in plain if unicodedata.category(part)[0] in "LN"][:3]
            table[code] = sum(letter << 21 * place for place, letter in enumerate(letters))
    table[alone & (table != SEPARATOR) & (table != SKIP)] |= ALONE
    return table


@functools.cache
def letter_table() -> Any:
    """`word_table` with all digits and numbers as separators."""
    table = word_table().copy()
    table[[code for code in range(CODE_POINTS) if unicodedata.category(chr(code))[0] == "N"]] = SEPARATOR
    return table


def sums(codes: Any, starts: Any) -> Any:
    """The hash of each string: `codes` holds all their code points, string i from starts[i] on; none is
    empty."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    lengths = np.diff(starts, append=len(codes))
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    return np.add.reduceat(
        mix(codes.astype(np.uint64) + (place.astype(np.uint64) + np.uint64(1)) * GOLDEN), starts
    )


def shingles(text: str, digits: bool = True) -> Any:
    """Hashes of all runs of 5 words, uint64 [words - 4]; of all words as one where there are fewer; none of a
    text without words.

    Words have neither case nor accents, and in scripts without spaces each character is one: there a shingle
    is 5 characters. digits: whether numbers are words, or nothing.
    """
    table = word_table() if digits else letter_table()
    if library():
        raw = encode(text)
        out = np.empty(len(raw) // 2 + 1, np.uint64)
        return out[: library().shingles(raw, len(raw), pointer(table), SHINGLE_WORDS, pointer(out))].copy()
    entries = table[code_points(text)]
    entries = entries[entries != SKIP]
    word, alone = entries != SEPARATOR, (entries & ALONE) != 0
    goes_on = np.concatenate([[False], word[:-1] & ~alone[:-1]])
    starts_word = (word & (alone | ~goes_on))[word]
    entries = entries[word] & ~ALONE
    letters = np.stack([(entries >> np.uint64(21 * place)) & np.uint64(CODE) for place in range(3)], 1)
    starts = np.concatenate([[0], np.cumsum((letters != 0).sum(1))])[:-1][starts_word]
    words = sums(letters[letters != 0], starts)
    width = min(SHINGLE_WORDS, len(words))
    found = np.zeros(len(words) - width + 1 if width else 0, np.uint64)
    for place in range(width):
        found = found * np.uint64(NEXT_WORD) + words[place : place + len(found)]
    return mix(found)
