"""Language identification and the heuristic figures."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.quality import heuristics, language

SENTENCES = {
    "en": "The high grassland is where llamas are raised, far above the valleys and the towns.",
    "es": "La puna es una región de gran altura donde se crían las llamas y las alpacas.",
    "de": "Die Hochebene liegt weit über den Tälern, und dort werden seit langem Lamas gehalten.",
    "ru": "Высокогорная степь лежит далеко над долинами, там разводят лам.",
    "ja": "高い草原ではリャマが飼われています。谷や町よりずっと高いところです。",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_languages(code: str) -> None:
    label, score = language.identify(SENTENCES[code] + "\n" + SENTENCES[code])
    assert label == code and score > 0.8


@given(st.text())
def test_any_text_has_a_label_and_a_score(text: str) -> None:
    label, score = language.identify(text)
    assert (label == "" and score == 0.0) == (not text.split()) and 0 <= score <= 1


@given(st.text() | st.text(alphabet="aZ9 _-\t\n\r\x0b\x1c\x1f\x85\u2028é²五\ud800", max_size=40))
def test_figures_by_definition(text: str) -> None:
    solid = [character for character in text if not character.isspace()]
    letters = [character for character in solid if character.isalnum()]
    lines = text.splitlines()
    assert heuristics.measure(text) == heuristics.Figures(
        len(letters) / len(solid) if solid else 0.0, sum(len(line) for line in lines) / len(lines) if lines else 0.0
    )
    assert heuristics.count(text) == (len(letters), len(text) - len(solid))


def test_figures_of_every_character() -> None:
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    for text in (characters[:128], characters):
        assert heuristics.count(text) == (sum(map(str.isalnum, text)), sum(map(str.isspace, text)))


def test_refusals() -> None:
    for text, reason in (("short", "too short"), ("-=" * 200, "few alphanumeric characters"), ("good words " * 30, "")):
        assert heuristics.refuse(text, heuristics.measure(text), 200) == reason
