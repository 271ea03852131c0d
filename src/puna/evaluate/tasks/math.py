"""MATH, test: competition problems (Hendrycks et al. 2021), behind the four worked examples of Minerva
(Lewkowycz et al. 2022); `math_maj` draws 256 solutions and counts the answers (maj1@256).

The same prompt in both profiles; lm-eval, like Minerva, also takes formulas that a computer algebra system
finds equal.
"""

from collections.abc import Iterator
from functools import partial

from puna.evaluate.answers import formula
from puna.evaluate.data import Data, Part
from puna.evaluate.task import Generation, Options, Task
from puna.evaluate.tasks.gsm8k import MAJORITY, sampling, votes
from puna.text.lists import listed


def check(text: str, gold: str | None) -> float:
    return float((found := formula(text)) is not None and found == gold)


def items(data: Data, options: Options, drawn: int = 0) -> Iterator[Generation]:
    """Problems in the order of the file, grouped by subject and level."""
    shots = listed(__file__, "math.json")["shots"][: options.shots]
    for row in data.rows():
        gold, subject = formula(row["solution"]), row["type" if "type" in row else "subject"]
        yield Generation(
            id=str(row.number), question=f"Problem:\n{row['problem']}\n\nSolution:", gold=gold,
            shots=tuple(f"Problem:\n{s['problem']}\n\nSolution: {s['solution']}\n\n" for s in shots),
            check=partial(check, gold=gold), groups=(subject, f"Level {row['level']}"[-7:]),
            stops=("Problem:",), max_new_tokens=512 if options.profile == "paper" else 256,
            **sampling(options, drawn),
        )  # fmt: skip


PARTS = {"items": Part(("math_test.jsonl", "test.jsonl", "math500*.jsonl"))}
VOTE = partial(votes, read=formula)
TASKS = (
    Task("math", 1, 5000, PARTS, items, shots=4),
    Task("math_maj", 1, 5000, PARTS, partial(items, drawn=256), MAJORITY, 4, VOTE),
)
