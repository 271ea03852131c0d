"""Social IQa, validation: what people do and feel, and why (Sap et al. 2019)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The publisher numbers answers from 1, in a file of their own; a copy with both texts joined has them
    in a list, numbered from 0."""
    frame = "Question: {}\nAnswer:" if options.profile == "paper" else "Q: {}\nA:"
    labels = [int(row["label"]) - 1 for row in data.rows("labels")]
    for row in data.rows():
        if "choices" in row:
            told, (texts, right) = row["context_question"], row.choices()
        else:
            told = f"{row['context']} {row['question']}"
            texts = [row["answerA"], row["answerB"], row["answerC"]]
            right = int(row["label"]) - 1 if "label" in row else labels[row.number]
        answers = tuple(f" {text}" for text in texts)
        yield Choice(id=str(row.number), question=frame.format(told), options=answers, right=(right,))


PARTS = {
    "items": Part(("siqa_val.jsonl", "dev.jsonl", "socialiqa-train-dev/dev.jsonl")),
    "labels": Part(("dev-labels.lst", "socialiqa-train-dev/dev-labels.lst"), needed=False),
}
MAIN = {"paper": "characters", "lm-eval": "none"}
TASKS = (Task("siqa", version=1, size=1954, parts=PARTS, items=items, main=MAIN),)
