"""Language identification and the heuristic figures."""

import functools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.filters import heuristics, language
from puna.text.characters import count_alphanumeric_and_space

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


def test_a_long_text_is_identified_by_excerpts_from_all_over() -> None:
    text = SENTENCES["en"] * 26 + "\n" + SENTENCES["de"] * 200
    assert language.identify(text[:2_000])[0] == "en" and language.identify(text)[0] == "de"


def test_serbo_croatian_is_returned_as_its_likeliest_member(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[dict[str, float], tuple[str, float]]] = [
        ({"sh": 0.5, "en": 0.2, "sr": 0.15, "hr": 0.1}, ("sr", 0.65)),
        ({"hr": 0.4, "sh": 0.3, "sr": 0.1}, ("hr", 0.7)),
        ({"hr": 0.6, "sr": 0.4}, ("hr", 0.6)),
        ({"sh": 0.7, "sl": 0.2}, ("sh", 0.7)),
        ({"sl": 0.4, "sh": 0.3, "hr": 0.2}, ("sl", 0.4)),
        ({"sh": 0.9, "bs": 0.2}, ("bs", 1.0)),
    ]

    class Model:
        words: frozenset[bytes] = frozenset()

        def __init__(self, scores: dict[str, float]) -> None:
            self.labels, self.scores = tuple(scores)[::-1], list(scores.values())[::-1]

        def predict(self, line: str) -> Any:
            return np.array(self.scores)

    for scores, (label, score) in cases:
        monkeypatch.setattr(language, "model", functools.partial(Model, scores))
        found = language.identify("text")
        assert found[0] == label and math.isclose(found[1], score)
        assert language.identify("text", glue_lines=True) == next(iter(scores.items()))
    language._supported.cache_clear()  # of what such a model says


def test_lines_glued_as_ccnet_has_it() -> None:
    text = "\n".join([SENTENCES["es"]] * 40 + [SENTENCES["de"]] * 200)
    scores = language.model().predict(text.replace("\n", ""))
    best = int(scores.argmax())
    expected = language.model().labels[best], min(float(scores[best]), 1.0)
    assert language.identify(text, glue_lines=True) == expected
    assert language.identify("\n \n", glue_lines=True) == ("", 0.0)


def test_documents_of_the_20_languages_of_llamas_wikipedia(data: Path) -> None:
    """By language, of documents of about 1,000 characters; docs/languages.md has all figures."""
    codes = "bg ca cs da de en es fr hr hu it nl pl pt ro ru sl sr sv uk"
    for code in codes.split():
        text = (data / "raw" / "langid" / "lingua-sentences" / f"{code}.txt").read_text(encoding="utf-8")
        starts = range(0, len(text) - 1_000, 1_000)
        found = [language.identify(text[start : start + 1_000])[0] for start in starts]
        assert len(found) > 30 and found.count(code) >= 0.96 * len(found), (code, found)


@given(st.text() | st.text(alphabet="aZ9 _-\t\n\r\x0b\x1c\x1f\x85\u2028é²五\ud800", max_size=40))
def test_figures_by_definition(text: str) -> None:
    solid = [character for character in text if not character.isspace()]
    letters = [character for character in solid if character.isalnum()]
    lines = text.splitlines()
    assert heuristics.measure(text) == heuristics.Figures(
        len(letters) / len(solid) if solid else 0.0,
        sum(len(line) for line in lines) / len(lines) if lines else 0.0,
    )
    assert count_alphanumeric_and_space(text) == (len(letters), len(text) - len(solid))


def test_figures_of_every_character() -> None:
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    for text in (characters[:128], characters, characters[:128] * 1000):
        expected = sum(map(str.isalnum, text)), sum(map(str.isspace, text))
        assert count_alphanumeric_and_space(text) == expected


def test_refusals() -> None:
    texts = {"short": "too short", "-=" * 200: "few alphanumeric characters", "good words " * 30: ""}
    for text, reason in texts.items():
        assert heuristics.refuse(text, heuristics.measure(text), 200) == reason
