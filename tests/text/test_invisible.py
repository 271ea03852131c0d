"""Characters that show nothing go, but those that a script or an emoji needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.record import RawDocument
from puna.text.invisible import without_invisible

SILENT = (
    "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u202a\u202c\u202e\u2060\u2063\u2066\u2069\ufeff\U000e0041"
)


@pytest.mark.parametrize("character", SILENT)
def test_nothing_that_shows_nothing_stays_inside_a_word(character: str) -> None:
    for script in (
        "vi{}cuña",
        "ви{}кунья",
        "βι{}κούνια",
        "高{}原",
        "10{}⁻⁷",
        "llama{} alpaca",
        "{}llama",
        "llama{}",
    ):
        assert without_invisible(script.format(character)) == script.format("")


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # Persian: a prefix that does not join
        "کتاب\u200cها",
        "ക്\u200dഷ",  # Malayalam
        "क्\u200dष",
        "ක්\u200dර",  # Sinhala
        "র\u200d্যাব",  # Bengali
        "ᠠ\u200dᠨ",  # Mongolian
        "ខ្ញុំ\u200bស្រឡាញ់",  # Khmer marks words
        "👩\u200d🌾",
        "🏳\ufe0f\u200d🌈",
        "👩🏽\u200d🚀",
        "❤\ufe0f\u200d🔥",
        "🧔\u200d♂\ufe0f",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
    ],
)
def test_scripts_and_emoji_keep_what_they_need(text: str) -> None:
    assert without_invisible(text) == text


def test_every_reader_gives_texts_and_titles_without_them() -> None:
    found = RawDocument("a", "high\u00adland\ufeff", 0, "0", "Pu\u200bna")
    assert (found.text, found.title) == ("highland", "Puna")


@given(st.text(st.sampled_from([*SILENT, *"aя高ا👩क \n"])))
def test_only_such_characters_go_and_none_twice(text: str) -> None:
    once = without_invisible(text)
    visible = [character for character in text if character not in SILENT]
    assert [character for character in once if character not in SILENT] == visible
    assert without_invisible(once) == once
