"""Which items stand in the texts that a model was trained on: they share 13 words in a row (Brown et al.
2020, appendix C).

Words are letters and digits between anything else, in lower case. An item with fewer words in a row has no
such run, and is never found.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

WORDS = 13
WORD = re.compile(r"\w+")


def runs(text: str) -> Iterator[int]:
    """Hashes of all runs of words of a text."""
    words = WORD.findall(text.lower())
    return (hash(tuple(words[start : start + WORDS])) for start in range(len(words) - WORDS + 1))


def found(items: Iterable[Any], documents: Iterable[str]) -> set[str]:
    """Ids of the items whose question or options share a run of words with a document, read one by one."""
    wanted = defaultdict(list)
    for item in items:
        texts = (item.question, *getattr(item, "questions", ()), *getattr(item, "options", ()))
        for each in {run for text in texts for run in runs(text)}:
            wanted[each].append(item.id)
    seen: set[int] = set()
    for text in documents:
        seen.update(each for each in runs(text) if each in wanted)
    return {name for each in seen for name in wanted[each]}
