"""RACE middle and high, test: English exams of Chinese schools (Lai et al. 2017).

`paper` asks every question. `lm-eval` asks the last one of each article, behind the others with their
answers.
"""

import ast
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from puna.evaluate.data import Data, Part, Row
from puna.evaluate.task import Choice, Options, Task

BLANK = "  _  ."
Question = tuple[str, str, list[str], int]  # article, question, options, number of the right one


def questions(rows: Iterator[Row]) -> Iterator[Question]:
    """Questions of articles, in any form: the publisher's (an article a file), one question a row, and one
    article a row with `problems` written as a literal."""
    for row in rows:
        if "problems" in row:
            problems: Any = ast.literal_eval(row["problems"])
            kept = [(each["question"], each["options"], each["answer"]) for each in problems]
        elif "questions" in row:
            kept = list(zip(row["questions"], row["options"], row["answers"], strict=True))
        else:
            kept = [(row["question"], row["options"], row["answer"])]
        for question, options, answer in kept:
            yield row["article"], question, list(options), "ABCD".index(answer)


def solved(question: str, answer: str) -> str:
    """A question with its answer, as lm-eval writes it."""
    if question.endswith(BLANK):
        return f"{question[:-5]}{answer}\n"
    return f"Question: {question}\nAnswer: {answer}\n"


def items(data: Data, options: Options) -> Iterator[Choice]:
    """Questions in the order of their articles."""
    number = 0
    for article, group in groupby(questions(data.rows()), key=lambda each: each[0]):
        asked = list(group)
        head = f"Article: {article}\n\n"
        if options.profile == "paper":
            frames = [(head + f"Q: {each[1]}\n\nA:", each) for each in asked]
        else:
            before = "".join(solved(each[1], each[2][each[3]]) for each in asked[:-1])
            frames = [(head + before + asked[-1][1], asked[-1])]
        for text, (_, _, texts, right) in frames:
            answers = tuple(f" {each}" for each in texts)
            yield Choice(id=str(number), question=text, options=answers, right=(right,))
            number += 1


def race(level: str, size: int) -> Task:
    """The task of a level of schools."""
    names = (f"race_{level}_test.jsonl", f"test/{level}/*.txt", f"RACE/test/{level}/*.txt")
    hub = f"ehovy/race@2fec9fd81f1dc971569a9b729c43f2f0e6436637:{level}/test-00000-of-00001.parquet"
    main = {"paper": "characters", "lm-eval": "none"}
    parts = {"items": Part(names, hub)}
    return Task(f"race_{level}", version=1, size=size, parts=parts, items=items, main=main)


TASKS = (race("middle", 1436), race("high", 3498))
