"""Which items stand in the texts that a model was trained on: they share 13 words in a row (Brown et al.
2020, appendix C).

Words are letters and digits between anything else, in lower case. An item with fewer words in a row has no
such run, and is never found.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from puna.errors import UserError

WORDS = 13
MOST_SHARED = 10  # items of a task that may have a run of words of their own in common
WORD = re.compile(r"\w+")


def runs(text: str) -> Iterator[int]:
    """Hashes of all runs of words of a text."""
    words = WORD.findall(text.lower())
    return (hash(tuple(words[start : start + WORDS])) for start in range(len(words) - WORDS + 1))


def found(items: Iterable[Any], documents: Iterable[str]) -> set[str]:
    """Ids of the items whose question or options share a run of words with a document, read one by one."""
    wanted = defaultdict(list)
    for item in items:
        for each in _item_runs(item):
            wanted[each].append(item.id)
    seen: set[int] = set()
    for text in documents:
        seen.update(each for each in runs(text) if each in wanted)
    return {name for each in seen for name in wanted[each]}


def items_in(folder: Path) -> dict[int, str]:
    """Runs of words -> the item that has them, of all tasks whose files are in a folder.

    A run that more than MOST_SHARED items of a task have is its template's, and is left out. Raises UserError
    where the folder has no task.
    """
    from puna.evaluate.data import Data
    from puna.evaluate.task import Options, tasks

    found: dict[int, str] = {}
    for task in tasks().values():
        data, shared = Data(task.name, task.parts, folder), Counter[int]()
        try:
            data.files("items")
        except UserError:
            continue
        for item in task.items(data, Options(shots=0)):
            own = _item_runs(item)
            shared.update(own)
            found.update(dict.fromkeys(own, f"{task.name} {item.id}"))
        for run, count in shared.items():
            if count > MOST_SHARED:
                del found[run]
    if not found:
        raise UserError(f"{folder}: no files of a task; its tasks are {', '.join(tasks())}")
    return found


def _item_runs(item: Any) -> set[int]:
    texts = (item.question, *getattr(item, "questions", ()), *getattr(item, "options", ()))
    return {run for text in texts for run in runs(text)}
