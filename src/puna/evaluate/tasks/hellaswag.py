"""HellaSwag, validation: how a scene goes on (Zellers et al. 2019)."""

import re
from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice


def clean(text: str) -> str:
    """A text of WikiHow without the marks that its headings and steps have in the data."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; a copy that is cleaned already has a `query`."""
    for row in data.rows():
        if "query" in row:
            yield choice(row, row["query"], *row.choices())
        else:
            query = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
            yield choice(row, query, map(clean, row["endings"]), int(row["label"]))


HUB = "Rowan/hellaswag@218ec52e09a7e7462a5400043bb9a69a41d06b76:data/validation-00000-of-00001.parquet"
PARTS = {"items": Part(("hellaswag_val.jsonl",), HUB)}
MAIN = {"paper": "characters", "lm-eval": "characters"}
TASKS = (Task("hellaswag", 1, 10042, PARTS, items, MAIN),)
