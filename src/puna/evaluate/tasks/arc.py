"""ARC easy and challenge, test: science questions of schools (Clark et al. 2018)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; the publisher's own files have the question in a `stem`."""
    for row in data.rows():
        stem = row["question"] if isinstance(row["question"], str) else row["question"]["stem"]
        yield choice(row, f"Question: {stem}\nAnswer:", *row.choices())


HUB = "allenai/ai2_arc@210d026faf9955653af8916fad021475a3f00453:ARC-{}/test-00000-of-00001.parquet"
EASY = ("arc_easy_test.jsonl", "ARC-Easy-Test.jsonl", "ARC-Easy/ARC-Easy-Test.jsonl")
HARD = ("arc_challenge_test.jsonl", "ARC-Challenge-Test.jsonl", "ARC-Challenge/ARC-Challenge-Test.jsonl")
PARTS = {"items": Part(EASY, HUB.format("Easy"))}
HARD_PARTS = {"items": Part((*HARD, "arc_challenge_test.even.jsonl"), HUB.format("Challenge"))}
TASKS = (
    Task("arc_easy", 1, 2376, PARTS, items, {"paper": "characters", "lm-eval": "none"}),
    Task("arc_challenge", 1, 1172, HARD_PARTS, items, {"paper": "characters", "lm-eval": "characters"}),
)
