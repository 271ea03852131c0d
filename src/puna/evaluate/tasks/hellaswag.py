"""HellaSwag, validation: how a scene goes on (Zellers et al. 2019)."""

import re
from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task


def clean(text: str) -> str:
    """A text of WikiHow without the marks that its headings and steps have in the data."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; a copy that is cleaned already has a `query`."""
    for row in data.rows():
        if "query" in row:
            query, (endings, right) = row["query"], row.choices()
        else:
            context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
            query, right = clean(f"{row['activity_label']}: {context}"), int(row["label"])
            endings = [clean(ending) for ending in row["endings"]]
        answers = tuple(f" {ending}" for ending in endings)
        yield Choice(id=str(row.number), question=query, options=answers, right=(right,))


HUB = "Rowan/hellaswag@218ec52e09a7e7462a5400043bb9a69a41d06b76:data/validation-00000-of-00001.parquet"
PARTS = {"items": Part(("hellaswag_val.jsonl",), HUB)}
MAIN = {"paper": "characters", "lm-eval": "characters"}
TASKS = (Task("hellaswag", version=1, size=10042, parts=PARTS, items=items, main=MAIN),)
