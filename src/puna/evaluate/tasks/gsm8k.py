"""GSM8K, test: school problems solved step by step (Cobbe et al. 2021), behind the eight worked examples of
Wei et al. 2022; `gsm8k_maj` draws 100 solutions and counts the answers (maj1@100).

`lm-eval` is its task gsm8k_cot: its checks by pattern, beside the one here ("number").
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from puna.evaluate.answers import majority, number
from puna.evaluate.data import Data, Part
from puna.evaluate.task import PROFILES, Generation, Options, Scores, Task
from puna.text.lists import listed

STRICT = re.compile(r"The answer is (-?[0-9.,]+).")


def plain(text: str) -> str:
    """A number as lm-eval compares it."""
    return re.sub(r",|\$|\.$", "", text).lower()


def check(text: str, gold: str, profile: str) -> float:
    if profile == "paper":
        return float(number(text) == number(gold))
    found = STRICT.search(text)
    return float(found is not None and plain(found[1].strip()) == plain(gold))


def votes(item: Any, texts: Sequence[str], read: Callable[[str], object]) -> Scores:
    """maj1@k, how often several answers had the most votes, and what one sample reaches."""
    answers = [read(text) for text in texts]
    vote, mean = majority(answers), sum(answer == item.gold for answer in answers) / len(answers)
    return {"majority": float(vote.winner == item.gold), "tied": float(vote.tied > 1), "accuracy": mean}


def items(data: Data, options: Options, drawn: int = 0) -> Iterator[Generation]:
    """Questions in the order of the file. drawn: samples of each where they are drawn; 0: a greedy one."""
    shots = listed(__file__, "gsm8k.json")["shots"][: options.shots]
    for row in data.rows():
        gold = row["answer"].rpartition("####")[2].strip()
        yield Generation(
            id=str(row.number), question=f"Q: {row['question']}\nA:", gold=number(gold),
            shots=tuple(f"Q: {shot['question']}\nA: {shot['target']}\n\n" for shot in shots),
            check=partial(check, gold=gold, profile=options.profile),
            stops=("Q:",) if options.profile == "paper" else ("Q:", "</s>", "<|im_end|>"),
            **sampling(options, drawn),
        )  # fmt: skip


def sampling(options: Options, drawn: int) -> dict[str, Any]:
    """Fields of an item whose solutions are drawn as in the paper's table 7, or written greedily."""
    if not drawn:
        return {}
    return {"samples": options.samples or drawn, "temperature": 0.6, "top_p": 0.95}


HUB = "openai/gsm8k@e53f048856ff4f594e959d75785d2c2d37b678ee:main/test-00000-of-00001.parquet"
PARTS = {"items": Part(("gsm8k_test.jsonl", "test.jsonl"), HUB)}
MAJORITY = dict.fromkeys(PROFILES, "majority")
VOTE = partial(votes, read=number)
TASKS = (
    Task("gsm8k", 1, 1319, PARTS, items, shots=8),
    Task("gsm8k_maj", 1, 1319, PARTS, partial(items, drawn=100), MAJORITY, 8, VOTE),
)
