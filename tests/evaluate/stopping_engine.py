"""The engine, with a kill at a place that a test chooses, and a count of what was asked of it."""

from collections.abc import Iterable, Iterator
from typing import Any

from puna.generate import engine
from puna.generate.load import Loaded


class Stop(Exception):
    """A kill."""


class Engine(engine.Engine):
    """asked: how many trees and samples were handed back, without those that only time the model.
    stop_after: a kill after so many. Trees come back from the last to the first: nothing may rest on an
    order."""

    def __init__(self, loaded: Loaded, stop_after: int = -1) -> None:
        super().__init__(loaded.model, loaded.tokenizer, memory_bytes=1 << 23)
        self.asked, self.stop_after = 0, stop_after

    def _count(self, counted: bool) -> None:
        if counted and self.asked == self.stop_after:
            raise Stop
        self.asked += counted

    def score(self, trees: Iterable[engine.Tree]) -> Iterator[Any]:
        for told in sorted(super().score(trees), reverse=True):
            self._count(not isinstance(trees, list))
            yield told

    def sample(self, prompts: Any, **how: Any) -> Iterator[Any]:
        for told in super().sample(prompts, **how):
            self._count("seed" in how)
            yield told
