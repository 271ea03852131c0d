"""Social IQa, validation: what people do and feel, and why (Sap et al. 2019)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The publisher numbers answers from 1, in a file of their own; a copy with both texts joined has them
    in a list, numbered from 0."""
    frame = "Question: {}\nAnswer:" if options.profile == "paper" else "Q: {}\nA:"
    labels = [row["label"] for row in data.rows("labels")]
    for row in data.rows():
        if "choices" in row:
            told, (texts, right) = row["context_question"], row.choices()
        else:
            told, texts = f"{row['context']} {row['question']}", [row[f"answer{letter}"] for letter in "ABC"]
            right = int(row["label"] if "label" in row else labels[row.number]) - 1
        yield choice(row, frame.format(told), texts, right)


PARTS = {
    "items": Part(("siqa_val.jsonl", "dev.jsonl", "socialiqa-train-dev/dev.jsonl")),
    "labels": Part(("dev-labels.lst", "socialiqa-train-dev/dev-labels.lst"), needed=False),
}
MAIN = {"paper": "characters", "lm-eval": "none"}
TASKS = (Task("siqa", 1, 1954, PARTS, items, MAIN),)
