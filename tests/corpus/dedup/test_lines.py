import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.dedup import lines
from puna.errors import UserError
from puna.text import hashing

MASK = (1 << 64) - 1
TEXT = st.text(
    st.one_of(
        st.sampled_from("aAbB \t\n\r\x1f\x85\u00a0\u2003.,09٣１「」«»—…’ΣςσİißẞÀ\u0301語\U0001d7d9\ud800"),
        st.characters(),
    ),
    max_size=60,
)

# The rule of CCNet's normalisation in plain Python: digits are replaced before anything is deleted, and white
# space is only stripped.
DELETED = "[«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～\\x00-\\x1f\\x7f-\\x9f]"


def normalised(line: str) -> str:
    return re.sub(DELETED, "", re.sub(r"\d", "0", line.strip().lower()))


def hashed(text: str) -> int:
    """The documented hash, with Python's whole numbers."""
    total = 0
    for place, character in enumerate(text, 1):
        x = (ord(character) + place * 0x9E3779B97F4A7C15) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        total += x ^ (x >> 31)
    return max(1, total & MASK) if text else 0


pytestmark = pytest.mark.usefixtures("either_code")  # with the C++ source and without


def test_hashes_are_those_of_python() -> None:
    @given(st.lists(TEXT, max_size=4))
    def check(texts: list[str]) -> None:
        hashes, offsets = lines.line_hashes(texts)
        split = [text.split("\n") for text in texts]
        assert hashes.dtype == np.uint64 and offsets.dtype == np.int64
        assert offsets.tolist() == np.cumsum([0] + [len(part) for part in split]).tolist()
        assert hashes.tolist() == [hashed(normalised(line)) for part in split for line in part]

    check()


def test_every_character_is_normalised_as_in_python() -> None:
    characters = map(chr, (*range(0x1F000), *range(0x10FFF0, 0x110000)))
    text = "\n".join(f"a{character}b" for character in characters if character != "\n")
    hashes, _ = lines.line_hashes([text])
    expected = [normalised(line) for line in text.split("\n")]
    pairs = set(zip(hashes.tolist(), expected, strict=True))
    assert len(set(hashes.tolist())) == len(set(expected)) == len(pairs)


def test_real_lines_that_python_calls_equal_and_no_others(data) -> None:
    text = (data / "raw" / "gutenberg" / "24675.txt").read_text("latin-1")
    hashes, _ = lines.line_hashes([text])
    wanted: dict[str, int] = {}
    found: dict[int, int] = {}
    assert len(hashes) > 5000
    for line, value in zip(map(normalised, text.split("\n")), hashes.tolist(), strict=True):
        assert wanted.setdefault(line, len(wanted)) == found.setdefault(value, len(found))


def cut(values: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return np.split(values, sorted(min(at, len(values)) for at in cuts))


VALUES = st.lists(st.integers(0, 12), max_size=80).map(
    lambda values: np.array(values, np.uint64) * np.uint64(0x123456789ABCDEF)
)
CUTS = st.lists(st.integers(0, 80), max_size=6)


def test_first_copies_are_kept_however_the_calls_are_cut(monkeypatch) -> None:
    monkeypatch.setattr(lines, "SMALLEST_TABLE", 2)

    @given(VALUES, CUTS, st.integers(2, 14))
    def check(values: np.ndarray, cuts: list[int], most: int) -> None:
        seen: set[int] = set()
        expected, scopes = [], 1
        for value in values.tolist():
            expected.append(value == 0 or value not in seen)
            if value and value not in seen:
                if len(seen) == most:
                    seen, scopes = set(), scopes + 1
                seen.add(value)
        ours = lines.HashSet(most * lines.BYTES_PER_LINE)
        assert np.concatenate([ours.mark_new(part) for part in cut(values, cuts)]).tolist() == expected
        assert ours.scopes == scopes

    check()


def test_a_set_with_the_news_of_another_is_equal(either_code, monkeypatch) -> None:
    monkeypatch.setattr(lines, "SMALLEST_TABLE", 2)

    @given(VALUES, CUTS, st.integers(2, 14))
    def check(values: np.ndarray, cuts: list[int], most: int) -> None:
        one, other = (lines.HashSet(most * lines.BYTES_PER_LINE, keeps_news=True) for _ in range(2))
        for part in cut(values, cuts):
            one.mark_new(part)
            other.mark_new(one.news())
        assert (one.table == other.table).all() and one.sizes == other.sizes
        assert (one.count, one.scopes) == (other.count, other.scopes)
        assert not len(one.news())

    check()


def test_many_hashes_go_through_growing_tables() -> None:
    values = hashing.mix(np.random.default_rng(0).integers(1, 60_000, 100_000).astype(np.uint64))
    expected = np.zeros(len(values), bool)
    expected[np.unique(values, return_index=True)[1]] = True
    ours = lines.HashSet(1 << 20)
    found = np.concatenate([ours.mark_new(part) for part in np.array_split(values, 9)])
    assert (found == expected).all() and ours.scopes == 1
    if hashing.library() is lines.library():
        assert 8 * len(ours.table) * 1.5 <= (1 << 20) + 64


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(UserError, match="give at least 65536"):
        lines.HashSet(1000)


def test_unrepeated_drops_every_copy_of_a_scope() -> None:
    @given(VALUES, CUTS, st.integers(1, 30))
    def check(values: np.ndarray, cuts: list[int], size: int) -> None:
        scopes = [values[start : start + size].tolist() for start in range(0, len(values), size)]
        expected = [value == 0 or scope.count(value) == 1 for scope in scopes for value in scope]
        batches = cut(values, cuts)
        masks = list(lines.unrepeated(iter(batches), 24 * size))
        assert [len(mask) for mask in masks] == [len(batch) for batch in batches]
        assert np.concatenate(masks).tolist() == expected

    check()


def test_kept_lines_of_texts() -> None:
    texts = ["Menu 1\n\nOne.\nmenu 2", "MENU 3\n\nTwo.", ""]
    hashes, offsets = lines.line_hashes(texts)

    def kept(marks: np.ndarray) -> list[str]:
        return list(map(lines.keep_lines, texts, np.split(marks, offsets[1:-1])))

    assert kept(lines.HashSet(1 << 20).mark_new(hashes)) == ["Menu 1\n\nOne.", "\nTwo.", ""]
    (mask,) = lines.unrepeated([hashes], 1 << 20)
    assert kept(mask) == ["\nOne.", "\nTwo.", ""]
