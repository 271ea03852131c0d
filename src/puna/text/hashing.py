"""Hashes of lines and of word shingles, 64 bits wide and the same on every machine, in C++ or in numpy.

One hash serves all: a string of code points c_0, c_1, ... hashes to the sum of mix(c_i + (i + 1) * GOLDEN)
mod 2^64, where mix is the finaliser of SplitMix64. Each pair of position and character thus adds a
pseudo-random number of its own, as in Zobrist hashing, so two different strings have equal hashes with
probability 2^-64; and a sum can be taken in any order, which numpy needs.

Python's own Unicode tables decide what a character becomes. A Python with newer tables differs only for the
letters they add. C++ is used where there is a compiler, with equal results.
"""

import functools
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from puna.run import compiled
from puna.text.characters import UNSPACED_SCRIPTS

SOURCE = Path(__file__).with_name("hashing.cpp")
SIGNATURES = {
    "line_hashes": "pnpp",
    "shingles": "pnpnp->n",
    "signatures": "ppnpnppnp",
    "mark_new": "pnnpnpp->n",
    "move": "pnpn",
}
CODE_POINTS = 0x110000
CODE = np.uint32((1 << 21) - 1)
SPACE, DELETED = np.uint32(1 << 31), np.uint32(1 << 30)
SEPARATOR, ALONE = np.uint64(0), np.uint64(1 << 63)
SKIP = ALONE
GOLDEN, NEXT_WORD = np.uint64(0x9E3779B97F4A7C15), 0xD6E8FEB86659FD93
SHINGLE_WORDS = 5

# What CCNet deletes from a line before it is hashed: control characters and 34 punctuation marks (and what it
# takes for one: a full-width 1), none of them ASCII.
CONTROL = (*range(32), *range(127, 160))
PUNCTUATION = "«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"

# Ignored inside a word, so that don't, don’t, dont and a damaged don?t are one: apostrophes, what stands for
# a lost character, and invisible characters.
IGNORED = "'’‘ʼ`´?\ufffd\u00ad\u200b\u200c\u200d\u2060\ufeff"
# Letters that Unicode does not decompose, as plain text writes them.
PLAIN = {
    "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h", "ŧ": "t", "ı": "i",
}  # fmt: skip


@functools.cache
def library() -> Any:
    """Load the built C++ source; None where it cannot be built or is switched off."""
    return compiled.load(SOURCE, SIGNATURES)


def pointer(array: Any) -> int:
    return array.ctypes.data


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def code_points(text: str) -> Any:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def mix(x: Any) -> Any:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014; Stafford's variant 13) of uint64 numbers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.cache
def line_table() -> Any:
    """CCNet's normal form of each code point, uint32 [1114112], with flags SPACE and DELETED.

    It is the lower-case letter, or 0 for a digit.
    """
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
    table[[ord(mark) for mark in PUNCTUATION if not mark.isdecimal()]] |= DELETED  # digits were made 0 before
    return table


def lower_irregular(text: str) -> str:
    """Lower a text where it has one of the two letters that `line_table` cannot lower one by one."""
    return text.lower() if "Σ" in text or "İ" in text else text


@functools.cache
def word_table() -> Any:
    """What each code point is in a word, uint64 [1114112]: up to three code points, ALONE, SEPARATOR or SKIP.

    Letters lose case and accents (compatibility decomposition, casefold) and become code points of 21 bits;
    digits stay; marks and IGNORED are skipped; everything else separates words. ALONE marks the characters of
    scripts without spaces, each of which is a word.
    """
    alone = np.zeros(CODE_POINTS, bool)
    for first, last in UNSPACED_SCRIPTS:
        alone[first : last + 1] = True
    table = np.zeros(CODE_POINTS, np.uint64)
    for code in range(CODE_POINTS):
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] == "M" or character in IGNORED:
            table[code] = SKIP
        elif category == "Lo" and not unicodedata.decomposition(character) and not 0xAC00 <= code <= 0xD7A3:
            table[code] = code  # most letters: neither case nor parts (Hangul's parts have no table)
        elif category[0] in "LN" or category == "So":
            folded = unicodedata.normalize("NFKD", character).casefold()
            plain = "".join(PLAIN.get(part, part) for part in unicodedata.normalize("NFKD", folded))
            letters = [ord(part) for part in plain if unicodedata.category(part)[0] in "LN"][:3]
            table[code] = sum(letter << 21 * number for number, letter in enumerate(letters))
    table[alone & (table != SEPARATOR) & (table != SKIP)] |= ALONE
    return table


@functools.cache
def letter_table() -> Any:
    """`word_table` with all digits and numbers as separators."""
    table = word_table().copy()
    table[[code for code in range(CODE_POINTS) if unicodedata.category(chr(code))[0] == "N"]] = SEPARATOR
    return table


def string_hashes(codes: Any, starts: Any) -> Any:
    """Hash of each string, uint64: string i begins at codes[starts[i]], and none is empty."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    lengths = np.diff(starts, append=len(codes))
    position = (np.arange(len(codes)) - np.repeat(starts, lengths)).astype(np.uint64)
    mixed = mix(codes.astype(np.uint64) + (position + np.uint64(1)) * GOLDEN)
    return np.add.reduceat(mixed, starts)


def shingles(text: str, digits: bool = True) -> Any:
    """Hashes of all runs of 5 words, uint64 [words - 4]; of fewer words, one of them all; none without words.

    Words have neither case nor accents. In scripts without spaces each character is a word, so there a
    shingle is 5 characters. digits: whether numbers are words, or separate them.
    """
    table = word_table() if digits else letter_table()
    if library():
        raw = encode(text)
        out = np.empty(len(raw) // 2 + 1, np.uint64)
        return out[: library().shingles(raw, len(raw), pointer(table), SHINGLE_WORDS, pointer(out))].copy()
    words = _word_hashes(table[code_points(text)])
    width = min(SHINGLE_WORDS, len(words))
    hashes = np.zeros(len(words) - width + 1 if width else 0, np.uint64)
    for word in range(width):
        hashes = hashes * np.uint64(NEXT_WORD) + words[word : word + len(hashes)]
    return mix(hashes)


def _word_hashes(entries: Any) -> Any:
    """Hash of each word of a text, from its entries of a table of words."""
    entries = entries[entries != SKIP]
    in_word, alone = entries != SEPARATOR, (entries & ALONE) != 0
    continues = np.concatenate([[False], in_word[:-1] & ~alone[:-1]])
    starts_word = (in_word & (alone | ~continues))[in_word]
    entries = entries[in_word] & ~ALONE
    letters = np.stack([(entries >> np.uint64(21 * number)) & np.uint64(CODE) for number in range(3)], 1)
    starts = np.concatenate([[0], np.cumsum((letters != 0).sum(1))])[:-1][starts_word]
    return string_hashes(letters[letters != 0], starts)
