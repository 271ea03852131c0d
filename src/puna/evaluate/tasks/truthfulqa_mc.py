"""TruthfulQA as options: MC1, whether the best answer is the likeliest; MC2, the share of probability that
right answers have (Lin et al. 2021)."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

from puna.evaluate.data import Data, Part, Row
from puna.evaluate.scoring import Scored
from puna.evaluate.task import Choice, Options, Task
from puna.text.lists import listed


def answers(row: Row, kind: str) -> tuple[list[str], list[int]]:
    """(answers, whether each is right), the best one first, of the hub's rows or the publisher's."""
    if "mc1_targets" in row:
        targets = row[f"{kind}_targets"]
        return list(targets["choices"]), list(targets["labels"])
    lists = [
        [each.strip() for each in row[f"{sort} Answers"].split(";")] for sort in ("Correct", "Incorrect")
    ]
    right, wrong = [list(dict.fromkeys(filter(None, each))) for each in lists]
    right = [row["Best Answer"].strip()] if kind == "mc1" else right
    return right + wrong, [1] * len(right) + [0] * len(wrong)


def items(data: Data, options: Options, kind: str) -> Iterator[Choice]:
    """The same prompt in both profiles: six questions with answers in front."""
    primer = listed(__file__, "truthfulqa.json")["questions"]
    for row in data.rows():
        texts, labels = answers(row, kind)
        yield Choice(
            id=str(row.number),
            head="".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in primer),
            question=f"Q: {row['question' if 'question' in row else 'Question']}\nA:",
            options=tuple(f" {text}" for text in texts),
            right=tuple(number for number, label in enumerate(labels) if label),
        )


def share(item: Choice, scores: Sequence[Scored]) -> dict[str, float]:
    """MC2: the right answers' probability by that of all answers."""
    most = max(score.log_prob for score in scores)
    weights = [math.exp(score.log_prob - most) for score in scores]
    return {"share": sum(weights[number] for number in item.right) / sum(weights)}


HUB = "truthfulqa/truthful_qa@741b8276f2d1982aa3d5b832d3ee81ed3b896490:"
PARTS = {
    "items": Part(
        ("truthfulqa/TruthfulQA.csv", "TruthfulQA.csv"),
        f"{HUB}multiple_choice/validation-00000-of-00001.parquet",
    )
}
TASKS = (
    Task(
        "truthfulqa_mc1",
        version=1,
        size=817,
        parts=PARTS,
        items=partial(items, kind="mc1"),
        main={"paper": "none", "lm-eval": "none"},
    ),
    Task(
        "truthfulqa_mc2",
        version=1,
        size=817,
        parts=PARTS,
        items=partial(items, kind="mc2"),
        main={"paper": "share", "lm-eval": "share"},
        score=share,
    ),
)
