"""Strings that end a generated text, whatever the pieces it comes in."""

from collections.abc import Sequence

from puna.errors import UserError


class StopStrings:
    """Holds back what may be the beginning of a stop, so that nothing of one comes out.

    Raises UserError for an empty stop, which would end every text.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise UserError("a stop string is empty: it would end every text")
        self.stops, self.held, self.ended = tuple(stops), "", False

    def add(self, text: str) -> str:
        """The text that is now safe to show; `ended` is set where a stop is complete."""
        self.held += text
        places = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if places:
            self.ended = True
            shown, self.held = self.held[: min(places)], ""
            return shown
        lengths = (
            length
            for stop in self.stops
            for length in range(min(len(stop) - 1, len(self.held)), 0, -1)
            if self.held.endswith(stop[:length])
        )
        safe = len(self.held) - max(lengths, default=0)
        shown, self.held = self.held[:safe], self.held[safe:]
        return shown

    def end(self) -> str:
        """What was held back at the end of a text without a stop."""
        shown, self.held = self.held, ""
        return shown
