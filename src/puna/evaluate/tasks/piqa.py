"""PIQA, validation: which of two ways reaches a goal (Bisk et al. 2020)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; the publisher has labels in a file of their own."""
    labels = [row["label"] for row in data.rows("labels")]
    for row in data.rows():
        yield Choice(
            id=str(row.number),
            question=f"Question: {row['goal']}\nAnswer:",
            options=(f" {row['sol1']}", f" {row['sol2']}"),
            right=(int(row["label"] if "label" in row else labels[row.number]),),
        )


PARTS = {
    "items": Part(("piqa_val.jsonl", "valid.jsonl")),
    "labels": Part(("valid-labels.lst",), needed=False),
}
MAIN = {"paper": "characters", "lm-eval": "characters"}
TASKS = (Task("piqa", version=1, size=1838, parts=PARTS, items=items, main=MAIN),)
