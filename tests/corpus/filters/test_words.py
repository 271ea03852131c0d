"""Hashed words and pairs against a plain reading of the definition."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.filters import words

MASK = (1 << 64) - 1
# Bytes of words: ASCII letters and digits, and all of UTF-8's others but Latin-1's signs, U+2000 to U+207F
# and U+3000 to U+303F; or one mark of ASCII, or what stands before a capital.
WORD = re.compile(
    rb"[!-/:-@\[-`{-~\x01]|(?:[a-zA-Z0-9]|(?!\xc2.|\xe2[\x80\x81].|\xe3\x80.)(?:[\xc3-\xdf].|[\xe0-\xef]..|[\xf0-\xf4]...))+",
    re.DOTALL,
)


def mix(x: int) -> int:
    x ^= x >> 32
    x = x * 0xBF58476D1CE4E5B9 & MASK
    x ^= x >> 29
    x = x * 0x94D049BB133111EB & MASK
    return x ^ x >> 32


def by_definition(text: str, bits: int) -> dict[int, int]:
    text = text[: words.CHARACTERS].replace("\x01", " ")
    for plain, signs in (("'", "‘’‚‛′"), ('"', "“”„‟«»″"), ("-", "‐‑‒–—―"), (".", "…")):
        text = re.sub(f"[{signs}]", plain, text)
    marked = "".join(
        "\x01" + character if character.isupper() and not before.isalnum() and before != "_" else character
        for before, character in zip(" " + text, text, strict=False)
    )
    raw = re.sub(rb"[0-9]", b"0", marked.lower().encode("utf-8", "replace"))
    found = WORD.findall(raw)

    def number(word: bytes) -> int:
        return sum(byte * pow(words.BASE, place, 1 << 64) for place, byte in enumerate(word)) & MASK

    hashes = [number(word) for word in found]
    pairs = [(first * words.PAIR + second) & MASK for first, second in itertools.pairwise(hashes)]
    pairs += [
        (first * words.APART + second) & MASK for first, second in zip(hashes, hashes[2:], strict=False)
    ]
    pairs += [number(word[:4]) * words.BEGINNING & MASK for word in found if len(word) > 4]
    return {
        bucket: min(count, 255)
        for bucket, count in Counter(mix(x) >> 64 - bits for x in hashes + pairs).items()
    }


def unpacked(texts: list[str], bits: int) -> list[dict[int, int]]:
    buckets, counts, ends = words.features(texts, bits)
    assert (buckets.dtype, counts.dtype, ends.dtype) == (np.uint32, np.uint8, np.int64)
    starts = [0, *ends.tolist()]
    parts = [slice(first, last) for first, last in itertools.pairwise(starts)]
    assert all((np.diff(buckets[part].astype(np.int64)) > 0).all() for part in parts)
    return [dict(zip(buckets[part].tolist(), counts[part].tolist(), strict=True)) for part in parts]


@given(
    st.lists(st.one_of(st.text(), st.text("ab1 .é“”—\u00a0\u3000日"), st.text(st.characters(codec=None)))),
    st.sampled_from([18, 20]),
)
def test_features_by_definition(texts: list[str], bits: int) -> None:
    assert unpacked(texts, bits) == [by_definition(text, bits) for text in texts]


def test_long_and_repeated_texts() -> None:
    texts = ["word " * 3_000, "", "x" * 50_000, "a b " * 10_000, "tail"]
    assert unpacked(texts, 20) == [by_definition(text, 20) for text in texts]


@pytest.mark.parametrize("batch", [1, 10, 1_000])
def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    texts = [
        "The puna is a high grassland.",
        "",
        "...",
        "Llamas graze there, 4,000 m up.",
        "日本語の文章。",
    ] * 3
    whole = unpacked(texts, 20)
    monkeypatch.setattr(words, "BATCH_BYTES", batch)
    assert unpacked(texts, 20) == whole


def test_case_digits_and_signs() -> None:
    same = ["Year 1999: “the puna”", 'Year 2024: "the puna"', 'Year\u00a00000: "the\npuna\u201d']
    assert len({tuple(words.features([text], 20)[0].tolist()) for text in same}) == 1
    for other in ("Year 199: “the puna”", "year 1999: “the puna”", "Year 1999 “the puna”"):
        assert words.features([other], 20)[0].tolist() != words.features([same[0]], 20)[0].tolist()


def test_spelling() -> None:
    found = words.spelled("Grasses, 1999: “the puna”", 20)
    single = ["Aa", "grasses", ",", "0000", ":", '"', "the", "puna", "gras-"]
    pairs = ["Aa grasses", "grasses ,", ", 0000", "0000 :", ': "', '" the', "the puna", 'puna "']
    apart = ["Aa … ,", "grasses … 0000", ", … :", '0000 … "', ": … the", '" … puna', 'the … "']
    assert sorted(found.values()) == sorted(single + pairs + apart)
    assert sorted(found) == words.features(["Grasses, 1999: “the puna”"], 20)[0].tolist()
