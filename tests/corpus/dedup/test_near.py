import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.dedup import near
from puna.text import hashing

compiled = pytest.mark.skipif(hashing.library() is None, reason="no C++ compiler here")
ALPHABET = "ab ÉéçßŒ'’?-_\n\t01٣½ﬁ語漢かกาဗ한ㄱ가\u0301\u00ad\u200b\ufeff\U0001d400㍿\ud800.ﷺ"
TEXT = st.text(st.one_of(st.sampled_from(ALPHABET), st.characters()), max_size=80)


def without(monkeypatch) -> None:
    for module in (hashing, near):
        monkeypatch.setattr(module, "library", lambda: None)


@compiled
def test_numpy_finds_what_the_compiled_source_finds(monkeypatch, data) -> None:
    book = (data / "raw" / "gutenberg" / "24675.txt").read_text("latin-1")
    pieces = [book[start : start + 3000] for start in range(0, 60_000, 3000)]
    texts = ["", " ", "a", "a b c d", "語" * 9, *pieces]
    ours, shingled = near.signatures(texts), [hashing.shingles(text) for text in texts]
    odd = near.signatures(texts, 37)

    @given(st.lists(TEXT, max_size=3))
    def check(texts: list[str]) -> None:
        compiled = [hashing.shingles(text).tolist() for text in texts], near.signatures(texts).tolist()
        with pytest.MonkeyPatch.context() as patch:
            without(patch)
            assert [hashing.shingles(text).tolist() for text in texts] == compiled[0]
            assert near.signatures(texts).tolist() == compiled[1]

    check()
    without(monkeypatch)
    assert (near.signatures(texts) == ours).all() and (near.signatures(texts, 37) == odd).all()
    assert all((hashing.shingles(text) == found).all() for text, found in zip(texts, shingled, strict=True))
    assert ours.dtype == np.uint32
    assert (ours[:2] == near.EMPTY).all() and (ours[2:] != near.EMPTY).any(1).all()


def test_words_have_no_case_accents_or_quotation_marks() -> None:
    plain = "the cafe does not sell its naive coeur d alene or strasse and fish any more"
    accented = "the café does not sell its naïve coeur d alène or strasse and fish any more"
    assert len(hashing.shingles(plain)) == 12
    for other in (
        "The CAFÉ, does not — sell\nits “naïve” cœur d ALÈNE or Straße and ﬁsh any   more!",
        unicodedata.normalize("NFD", accented),
        "the cafe does not sell its na\u00adive coeur d alene or strasse and fi\u200bsh any more?",
    ):
        assert hashing.shingles(other).tolist() == hashing.shingles(plain).tolist()
    forms = [f"I {word} know why it fails" for word in ("don't", "don’t", "dont", "don?t")]
    assert len({tuple(hashing.shingles(form).tolist()) for form in forms}) == 1


def test_in_scripts_without_spaces_each_character_is_a_word() -> None:
    assert hashing.shingles("吾輩は猫である").tolist() == hashing.shingles("吾 輩 は 猫 で あ る").tolist()
    assert len(hashing.shingles("吾輩は猫である")) == 3
    assert len(hashing.shingles("나는 고양이로소이다 이름은 아직 없다")) == 1
    assert len(set(hashing.shingles("one two three four five one two three four five").tolist())) == 5
    assert len(hashing.shingles("one two")) == 1 and len(hashing.shingles(" ... ")) == 0


def jaccard(first: str, second: str) -> float:
    """Exact, over tuples of words; for texts of plain lower-case words."""

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}

    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other)


def pairs(data, count: int) -> list[tuple[str, str]]:
    """Pieces of a real book and the same with some words changed: exact indices from 0.4 to 1."""
    raw = (data / "raw" / "gutenberg" / "18304.txt").read_text()
    words = re.sub("[^a-z]", " ", raw.lower()).split()
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        start = rng.integers(len(words) - 900)
        piece = words[start : start + rng.integers(60, 900)]
        changed = rng.random(len(piece)) < rng.uniform(0, 0.12)
        words_now = ["changed" if change else word for word, change in zip(piece, changed, strict=True)]
        made.append((" ".join(piece), " ".join(words_now)))
    return made


def test_signatures_estimate_the_exact_jaccard_index(data) -> None:
    made = pairs(data, 600)
    exact = np.array([jaccard(*pair) for pair in made])
    estimate = (near.signatures([a for a, _ in made]) == near.signatures([b for _, b in made])).mean(1)
    error = (estimate - exact) / np.sqrt(np.maximum(exact * (1 - exact), 0.02) / near.PERMUTATIONS)
    assert abs(error.mean()) < 4 / np.sqrt(len(made)) and 0.85 < error.std() < 1.15


def test_bands_are_those_of_the_curve() -> None:
    assert near.bands(128, 0.8) == (16, 8)
    assert near.candidate_chance(0.8, 16, 8) == pytest.approx(0.947, abs=1e-3)
    for threshold in (0.5, 0.7, 0.9, 1.0):
        bands, rows = near.bands(128, threshold)
        assert bands * rows <= 128 and near.candidate_chance(threshold, bands, rows) >= 0.9
        assert rows == 128 or near.candidate_chance(threshold, 128 // (rows + 1), rows + 1) < 0.9
    assert near.needed(128, 1.0) == 128 and near.needed(256, 0.5) == 129
    chances = [near.candidate_chance(0.5 + step / 10, 16, 8) for step in range(6)]
    assert [round(chance, 3) for chance in chances] == [0.061, 0.237, 0.613, 0.947, 1.0, 1.0]
