"""BoolQ, validation: yes or no about a passage (Clark et al. 2019)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; the publisher's `answer` is true or false."""
    for row in data.rows():
        question = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        answer = int(row["answer"] if "answer" in row else row["label"])
        yield choice(row, question, ("no", "yes"), answer, unconditional="Answer:")


HUB = "google/boolq@35b264d03638db9f4ce671b711558bf7ff0f80d5:data/validation-00000-of-00001.parquet"
PARTS = {"items": Part(("boolq_val.jsonl", "val.jsonl", "dev.jsonl"), HUB)}
MAIN = {"paper": "answer", "lm-eval": "none"}
TASKS = (Task("boolq", 1, 3270, PARTS, items, MAIN),)
