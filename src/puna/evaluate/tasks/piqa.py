"""PIQA, validation: which of two ways reaches a goal (Bisk et al. 2020)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; the publisher has labels in a file of their own."""
    labels = [row["label"] for row in data.rows("labels")]
    for row in data.rows():
        right = int(row["label"] if "label" in row else labels[row.number])
        yield choice(row, f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), right)


PARTS = {
    "items": Part(("piqa_val.jsonl", "valid.jsonl")),
    "labels": Part(("valid-labels.lst",), needed=False),
}
MAIN = {"paper": "characters", "lm-eval": "characters"}
TASKS = (Task("piqa", 1, 1838, PARTS, items, MAIN),)
