"""OpenBookQA, test: what follows from facts of elementary science (Mihaylov et al. 2018)."""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice


def items(data: Data, options: Options) -> Iterator[Choice]:
    """lm-eval goes on from the stem itself; the publisher's own files have the stem in `question`."""
    for row in data.rows():
        stem = row["question_stem"] if "question_stem" in row else row["question"]["stem"]
        question = f"Question: {stem}\nAnswer:" if options.profile == "paper" else stem
        yield choice(row, question, *row.choices(), unconditional="Answer:")


HUB = "allenai/openbookqa@388097ea7776314e93a529163e0fea805b8a6454:main/test-00000-of-00001.parquet"
NAMES = ("obqa_test.jsonl", "test.jsonl", "OpenBookQA-V1-Sep2018/Data/Main/test.jsonl")
PARTS = {"items": Part((*NAMES, "obqa_test.even.jsonl"), HUB)}
MAIN = {"paper": "answer", "lm-eval": "characters"}
TASKS = (Task("openbookqa", 1, 500, PARTS, items, MAIN),)
