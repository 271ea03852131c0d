"""Cheap figures of a text that filters decide by."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """alphanumeric_fraction: letters and digits among all characters but white space; mean_line_length: in characters."""

    alphanumeric_fraction: float
    mean_line_length: float


def measure(text: str) -> Figures:
    """Figures of a text; zeros when it is empty."""
    solid = "".join(text.split())
    lines = text.splitlines()
    alphanumeric = sum(map(str.isalnum, solid))
    return Figures(alphanumeric / len(solid) if solid else 0.0, sum(map(len, lines)) / len(lines) if lines else 0.0)


def refuse(text: str, figures: Figures, minimum_characters: int) -> str:
    """Why a text is dropped, as a short fixed phrase, or "" when it is kept."""
    if len(text) < minimum_characters:
        return "too short"
    if figures.alphanumeric_fraction < 0.25:
        return "few alphanumeric characters"
    return ""
