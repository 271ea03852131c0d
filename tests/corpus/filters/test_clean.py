"""Texts are cleaned of control characters and white space at line ends, whatever their size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.filters import clean


@given(st.text(alphabet=st.characters(codec=None)))
def test_clean_text_has_no_control_characters_and_is_stable(text: str) -> None:
    once = clean.clean(text)
    assert clean.clean(once) == once
    once.encode("utf-8")
    assert not any(ord(character) < 32 and character not in "\n\t" for character in once)
    assert not any(line != line.rstrip() for line in once.split("\n"))


@given(st.text(alphabet="ab \t\n\r\x0b\x1c\x85\u2003é中\ud800", max_size=200), st.integers(1, 60))
def test_text_cleaned_in_chunks_is_the_same(text: str, characters: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clean, "CHUNK", characters)
        assert clean.clean(text) == clean._clean_lines(text).strip("\n")


def test_every_white_space_at_a_line_end_goes() -> None:
    characters = map(chr, range(32, 0x110000))
    spaces = [character for character in characters if character.isspace()]
    assert clean.clean("".join(f"a{space}\n" for space in spaces)) == "\n".join("a" * len(spaces))
