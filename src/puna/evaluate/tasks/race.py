"""RACE middle and high, test: English exams of Chinese schools (Lai et al. 2017).

`paper` asks every question. `lm-eval` asks the last one of each article, behind the others with their
answers.
"""

from collections.abc import Iterator
from itertools import groupby

from puna.evaluate.data import Data, Part, Row
from puna.evaluate.task import Choice, Options, Task, choice

BLANK = "  _  ."
Question = tuple[str, list[str], int]  # its text, options, number of the right one


def questions(row: Row) -> Iterator[Question]:
    """Questions of a row: the publisher has an article in a file, the hub a question in a row."""
    one = "question" in row
    names = ("question", "options", "answer") if one else ("questions", "options", "answers")
    columns = ([row[name]] if one else row[name] for name in names)
    for text, options, answer in zip(*columns, strict=True):
        yield text, list(options), "ABCD".index(answer)


def solved(question: str, options: list[str], right: int) -> str:
    """A question with its answer, as lm-eval writes it."""
    if question.endswith(BLANK):
        return f"{question[:-5]}{options[right]}\n"
    return f"Question: {question}\nAnswer: {options[right]}\n"


def items(data: Data, options: Options) -> Iterator[Choice]:
    """Questions in the order of their articles."""
    number = 0
    for article, rows in groupby(data.rows(), key=lambda row: row["article"]):
        group = list(rows)
        asked = [question for row in group for question in questions(row)]
        before = "".join(solved(*each) for each in asked[:-1])
        for text, texts, right in asked if options.profile == "paper" else asked[-1:]:
            behind = f"Q: {text}\n\nA:" if options.profile == "paper" else before + text
            yield choice(group[0], f"Article: {article}\n\n{behind}", texts, right, id=str(number))
            number += 1


def race(level: str, size: int, articles: int) -> Task:
    """The task of a level of schools."""
    names = (f"race_{level}_test.jsonl", f"test/{level}/*.txt", f"RACE/test/{level}/*.txt")
    hub = f"ehovy/race@2fec9fd81f1dc971569a9b729c43f2f0e6436637:{level}/test-00000-of-00001.parquet"
    main, parts = {"paper": "characters", "lm-eval": "none"}, {"items": Part(names, hub)}
    return Task(f"race_{level}", 1, size, parts, items, main, sizes={"lm-eval": articles})


TASKS = (race("middle", 1436, 362), race("high", 3498, 1045))
