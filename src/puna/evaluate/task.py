"""Tasks: questions with options or with answers to write, in two profiles.

A task is one file of `tasks/`: where its rows are, how a row becomes an item, what makes a result right.

    for item in task.items(data, Options("paper", shots=5)):
        print(item.text())

Profiles: `paper` asks as Touvron et al. 2023 did, as far as they say, and otherwise as the prompts do that
`puna eval show` prints; `lm-eval` asks as lm-evaluation-harness 0.4.13.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from puna.errors import UserError
from puna.evaluate.data import Data, Part, Row

PROFILES = ("paper", "lm-eval")
Scores = dict[str, float]


class Options(NamedTuple):
    """What a person may choose. shots: examples in front; None: the task's own. samples: of generations,
    for each item; 0: the task's own."""

    profile: str = "paper"
    shots: int | None = None
    samples: int = 0


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question. Its text is head, shots and question, one after the other, nothing between.

    shots: solved examples, each with what separates it from the next; the last ones are left out first where
    they do not fit. groups: names under which its scores are averaged too, such as a subject.
    """

    id: str
    question: str
    head: str = ""
    shots: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def text(self, shots: int | None = None, question: str | None = None) -> str:
        """Return the prompt with the first `shots` examples; None: with all."""
        return self.head + "".join(self.shots[:shots]) + (self.question if question is None else question)


@dataclass(frozen=True, kw_only=True)
class Choice(Item):
    """A question with options.

    options: as they follow the question, with the space between. right: numbers of the right ones, the best
    one first. questions: one for each option, where options differ in what stands before them and not in
    themselves. unconditional: the context of the normalisation "answer"; empty: there is none.
    """

    options: tuple[str, ...]
    right: tuple[int, ...]
    questions: tuple[str, ...] = ()
    unconditional: str = ""

    def pairs(self, shots: int | None = None) -> list[tuple[str, str]]:
        """(context, option) of each option; then of each one behind the unconditional context."""
        questions = self.questions or (self.question,) * len(self.options)
        contexts = [self.text(shots, question) for question in questions]
        contexts += [self.unconditional] * len(contexts) if self.unconditional else []
        return list(zip(contexts, self.options * 2, strict=False))


def choice(
    row: Row, question: str, texts: Iterable[str], right: int | tuple[int, ...], **more: Any
) -> Choice:
    """A question with options from a row, with its id or number; a space goes before each option."""
    known: Any = {
        "id": str(row.get("id", row.number)),
        "right": (right,) if isinstance(right, int) else right,
    }
    return Choice(question=question, options=tuple(f" {text}" for text in texts), **{**known, **more})


@dataclass(frozen=True, kw_only=True)
class Generation(Item):
    """A question whose answer is written. check: a text to how right it is, from 0 to 1. gold: what it is
    checked against. stops: strings that end a text; they are no part of it."""

    check: Callable[[str], float]
    gold: Any = None
    stops: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 256
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0


def mean_check(item: Any, texts: Sequence[str]) -> Scores:
    """Score of a generation where nothing else is said: the mean of its samples' checks."""
    return {"accuracy": sum(map(item.check, texts)) / len(texts)}


@dataclass(frozen=True)
class Task:
    """A set of items and what makes them right.

    version: raised with every change of a prompt. size: items of the whole set. parts: its files; `items` are
    the rows. items: from data to items. main: of each profile, the score that counts. shots: examples in
    front, where no number is asked for. score: (item, its options' `scoring.Scored`, or its samples' texts)
    to scores; None: whether the chosen option is right by each normalisation, `mean_check`. sizes: items of
    profiles that ask fewer. ready: called before a model is asked; raises UserError where what
    its scores need is missing.
    """

    name: str
    version: int
    size: int
    parts: Mapping[str, Part]
    items: Callable[[Data, Options], Iterable[Any]]
    main: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(PROFILES, "accuracy"))
    shots: int = 0
    score: Callable[[Any, Any], Scores] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    ready: Callable[[], object] | None = None


def tasks() -> dict[str, Task]:
    """Return all tasks by name: the `TASKS` of every file of `tasks/`."""
    from puna.evaluate import tasks as folder

    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in names]
    return {task.name: task for module in modules for task in module.TASKS}


def find(name: str) -> Task:
    """Return a task by name. Raises UserError for one that is unknown."""
    known = tasks()
    if name not in known:
        raise UserError(f"no task is called {name}; there are {', '.join(known)}")
    return known[name]
