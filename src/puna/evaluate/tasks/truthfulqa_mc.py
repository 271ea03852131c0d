"""TruthfulQA as options: MC1, whether the best answer is the likeliest; MC2, the share of probability that
right answers have (Lin et al. 2021)."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

from puna.evaluate.data import Data, Part, Row
from puna.evaluate.scoring import Scored
from puna.evaluate.task import Choice, Options, Task, choice
from puna.text.lists import listed


def answers(row: Row, kind: str) -> tuple[list[str], tuple[int, ...]]:
    """(answers, numbers of the right ones, the best one first) of the hub's rows or the publisher's."""
    if "mc1_targets" in row:
        targets = row[f"{kind}_targets"]
        return list(targets["choices"]), tuple(n for n, label in enumerate(targets["labels"]) if label)
    lists = [row[f"{sort} Answers"].split(";") for sort in ("Correct", "Incorrect")]
    right, wrong = [list(dict.fromkeys(filter(None, map(str.strip, texts)))) for texts in lists]
    right = [row["Best Answer"].strip()] if kind == "mc1" else right
    return right + wrong, tuple(range(len(right)))


def items(data: Data, options: Options, kind: str) -> Iterator[Choice]:
    """The same prompt in both profiles: six questions with answers in front."""
    primer = listed(__file__, "truthfulqa.json")["questions"]
    head = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in primer)
    for row in data.rows():
        texts, right = answers(row, kind)
        question = f"Q: {row['question' if 'question' in row else 'Question']}\nA:"
        yield choice(row, question, texts, right, head=head)


def share(item: Choice, scores: Sequence[Scored]) -> dict[str, float]:
    """MC2: the right answers' probability by that of all answers."""
    most = max(score.log_prob for score in scores)
    weights = [math.exp(score.log_prob - most) for score in scores]
    return {"share": sum(weights[number] for number in item.right) / sum(weights)}


REVISION = "truthfulqa/truthful_qa@741b8276f2d1982aa3d5b832d3ee81ed3b896490"
HUB = f"{REVISION}:multiple_choice/validation-00000-of-00001.parquet"
PARTS = {"items": Part(("truthfulqa/TruthfulQA.csv", "TruthfulQA.csv"), HUB)}
MC1, MC2 = (partial(items, kind=kind) for kind in ("mc1", "mc2"))
TASKS = (
    Task("truthfulqa_mc1", 1, 817, PARTS, MC1, {"paper": "none", "lm-eval": "none"}),
    Task("truthfulqa_mc2", 1, 817, PARTS, MC2, {"paper": "share", "lm-eval": "share"}, score=share),
)
