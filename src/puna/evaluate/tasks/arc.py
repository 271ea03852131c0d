"""ARC easy and challenge, test: science questions of schools (Clark et al. 2018)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; the publisher's own files have the question in a `stem`."""
    for row in data.rows():
        stem = row["question"] if isinstance(row["question"], str) else row["question"]["stem"]
        texts, right = row.choices()
        yield Choice(
            id=str(row.get("id", row.number)),
            question=f"Question: {stem}\nAnswer:",
            options=tuple(f" {text}" for text in texts),
            right=(right,),
        )


HUB = "allenai/ai2_arc@210d026faf9955653af8916fad021475a3f00453:ARC-{}/test-00000-of-00001.parquet"
EASY = ("arc_easy_test.jsonl", "ARC-Easy-Test.jsonl", "ARC-Easy/ARC-Easy-Test.jsonl")
HARD = ("arc_challenge_test.jsonl", "ARC-Challenge-Test.jsonl", "ARC-Challenge/ARC-Challenge-Test.jsonl")
TASKS = (
    Task(
        "arc_easy",
        version=1,
        size=2376,
        parts={"items": Part(EASY, HUB.format("Easy"))},
        items=items,
        main={"paper": "characters", "lm-eval": "none"},
    ),
    Task(
        "arc_challenge",
        version=1,
        size=1172,
        parts={"items": Part((*HARD, "arc_challenge_test.even.jsonl"), HUB.format("Challenge"))},
        items=items,
        main={"paper": "characters", "lm-eval": "characters"},
    ),
)
