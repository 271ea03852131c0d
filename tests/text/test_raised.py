import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.text.raised import SUBSCRIPTS, SUPERSCRIPTS, subscript, superscript


@pytest.mark.parametrize(
    ("raised", "plain"),
    [
        ("21", "²¹"), ("−7", "⁻⁷"), ("-12", "⁻¹²"), ("2+", "²⁺"), ("n", "ⁿ"), ("n + 1", "ⁿ⁺¹"), ("2n", "²ⁿ"),
        ("T", "ᵀ"), ("(k)", "⁽ᵏ⁾"), ("3 ", "³ "), (" 3", "³"), ("max", "^{max}"), ("1.5", "^{1.5}"),
        ("2/3", "^{2/3}"), ("C", "^{C}"), ("st", "st"), ("TH", "TH"), ("er", "er"), ("ème", "ème"),
        ("TM", "™"), ("®", "®"), ("*", "*"), ("", ""), ("x²", "^{x²}"), ("²", "²"), ("x^{ab}", "^{x^{ab}}"),
    ],
)  # fmt: skip
def test_superscripts(raised: str, plain: str) -> None:
    assert superscript(raised) == plain


@pytest.mark.parametrize(
    ("lowered", "plain"),
    [("2", "₂"), ("i", "ᵢ"), ("n−1", "ₙ₋₁"), ("max", "_{max}"), ("i,j", "_{i,j}"), ("C", "_{C}"), ("", ""),
     ("10 ", "₁₀ "), ("th", "_{th}")],
)  # fmt: skip
def test_subscripts(lowered: str, plain: str) -> None:
    assert subscript(lowered) == plain


def test_a_long_note_in_small_letters_stays() -> None:
    note = "This whole sentence is only set in small letters, as some pages do with notes."
    assert superscript(note) == note and subscript(note) == note


@given(st.text("0123456789+−n()", min_size=1, max_size=12))
def test_what_is_raised_can_be_read_back(text: str) -> None:
    back = {to: of for of, to in SUPERSCRIPTS.items() if chr(of) not in "-–‐‑"}
    if "nn" not in text:
        assert superscript(text).translate(back) == text
    back = {to: of for of, to in SUBSCRIPTS.items() if chr(of) not in "-–‐‑"}
    if "nn" not in text:
        assert subscript(text).translate(back) == text
