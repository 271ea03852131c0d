"""Cheap figures of a text, and the filters by them."""

from dataclasses import dataclass

from puna.corpus.record import Record
from puna.text.characters import count_alphanumeric_and_space

# With "\n", all that str.splitlines splits at.
_OTHER_LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
TOO_SHORT = "too short"


@dataclass(frozen=True)
class MinimumLength:
    """Step: drop short texts."""

    characters: int

    def apply(self, records: list[Record]) -> None:
        for record in records:
            if len(record.text) < self.characters:
                record.drop(TOO_SHORT)


@dataclass(frozen=True)
class Heuristics:
    """Step: take id, size and figures of texts that have none; drop those that are short or no prose."""

    minimum_characters: int

    def apply(self, records: list[Record]) -> None:
        for record in records:
            if record.id:
                continue
            figures = measure(record.text)
            record.alphanumeric_fraction = figures.alphanumeric_fraction
            record.mean_line_length = figures.mean_line_length
            reason = refuse(record.text, figures, self.minimum_characters)
            record.identify()
            if reason:
                record.drop(reason)


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
        return TOO_SHORT
    if figures.alphanumeric_fraction < 0.25:
        return "few alphanumeric characters"
    return ""
