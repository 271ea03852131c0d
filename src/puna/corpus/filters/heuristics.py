"""Cheap figures of a text, and the filters by them."""

from dataclasses import dataclass

from puna.text.characters import count_alphanumeric_and_space

# With "\n", all that str.splitlines splits at.
_OTHER_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a text: letters and digits among all characters but white space; mean line length."""

    alphanumeric_fraction: float
    mean_line_length: float


def measure(text: str) -> Figures:
    """Measure a text; zeros when it is empty. Lines are those of str.splitlines, lengths in characters."""
    alphanumeric, space = count_alphanumeric_and_space(text)
    solid = len(text) - space
    if any(end in text for end in _OTHER_LINE_ENDS):
        lengths = list(map(len, text.splitlines()))
        lines, characters = len(lengths), sum(lengths)
    else:
        ends = text.count("\n")
        lines = ends if text.endswith("\n") or not text else ends + 1
        characters = len(text) - ends
    return Figures(alphanumeric / solid if solid else 0.0, characters / lines if lines else 0.0)


def refuse(text: str, figures: Figures, minimum_characters: int) -> str:
    """Return why a text is dropped, as a short fixed phrase; "" when it is kept."""
    if len(text) < minimum_characters:
        return "too short"
    if figures.alphanumeric_fraction < 0.25:
        return "few alphanumeric characters"
    return ""
