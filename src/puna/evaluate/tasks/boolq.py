"""BoolQ, validation: yes or no about a passage (Clark et al. 2019)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; the publisher's `answer` is true or false."""
    for row in data.rows():
        answer = row["answer"] if "answer" in row else row["label"]
        yield Choice(
            id=str(row.number),
            question=f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
            options=(" no", " yes"),
            right=(int(answer),),
            unconditional="Answer:",
        )


HUB = "google/boolq@35b264d03638db9f4ce671b711558bf7ff0f80d5:data/validation-00000-of-00001.parquet"
TASKS = (
    Task(
        "boolq",
        version=1,
        size=3270,
        parts={"items": Part(("boolq_val.jsonl", "val.jsonl", "dev.jsonl"), HUB)},
        items=items,
        main={"paper": "answer", "lm-eval": "none"},
    ),
)
