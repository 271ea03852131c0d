"""Cheap figures of a text that filters decide by."""

from dataclasses import dataclass

from puna.text.characters import count

_OTHER_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # with "\n", all that str.splitlines knows


@dataclass(frozen=True, slots=True)
class Figures:
    """alphanumeric_fraction: letters and digits among all characters but white space; mean_line_length: in
    characters."""

    alphanumeric_fraction: float
    mean_line_length: float


def measure(text: str) -> Figures:
    """Figures of a text; zeros when it is empty. Lines are those of str.splitlines."""
    alphanumeric, space = count(text)
    solid = len(text) - space
    if any(end in text for end in _OTHER_LINE_ENDS):
        lengths = list(map(len, text.splitlines()))
        lines, characters = len(lengths), sum(lengths)
    else:
        ends = text.count("\n")
        lines, characters = ends + (bool(text) and text[-1] != "\n"), len(text) - ends
    return Figures(alphanumeric / solid if solid else 0.0, characters / lines if lines else 0.0)


def refuse(text: str, figures: Figures, minimum_characters: int) -> str:
    """Why a text is dropped, as a short fixed phrase, or "" when it is kept."""
    if len(text) < minimum_characters:
        return "too short"
    if figures.alphanumeric_fraction < 0.25:
        return "few alphanumeric characters"
    return ""
