"""MMLU, test: 57 subjects of schools and professions (Hendrycks et al. 2021).

5 examples of the subject from `dev` in front. Averages are over questions, not over subjects. `paper` writes
two spaces before the subject, as the authors' program does, and counts anatomy under Other.
"""

from collections import defaultdict
from collections.abc import Iterator

from puna.evaluate.data import Data, Part, Row
from puna.evaluate.task import Choice, Options, Task
from puna.text.lists import listed

LETTERS = "ABCD"
COLUMNS = ("question", *LETTERS, "answer")


def subject(row: Row) -> str:
    """The subject of a row, or of the publisher's file that it comes from."""
    return row["subject"] if "subject" in row else row.origin.stem.rpartition("_")[0]


def read(row: Row, strip: bool) -> tuple[str, int]:
    """(question with options up to "Answer:", number of the right one) of a row in any form."""
    if "A" in row:
        texts, right = [row[letter] for letter in LETTERS], LETTERS.index(row["answer"])
    else:
        texts, right = row.choices()
    question = row["question"].strip() if strip else row["question"]
    lines = [question, *(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=True)), "Answer:"]
    return "\n".join(lines), right


def items(data: Data, options: Options) -> Iterator[Choice]:
    """Questions in the order of the file."""
    paper = options.profile == "paper"
    categories = {each: name for name, each_of in listed(__file__, "mmlu.json")["categories"].items()
                  for each in each_of.split()}  # fmt: skip
    if paper:
        categories["anatomy"] = "Other"
    examples = defaultdict(list)
    for row in data.rows("dev"):
        text, right = read(row, not paper)
        examples[subject(row)].append(f"{text} {LETTERS[right]}\n\n")
    for row in data.rows():
        text, right = read(row, not paper)
        name = subject(row)
        spaced = (" " if paper else "") + name.replace("_", " ")
        yield Choice(
            id=str(row.number),
            head=f"The following are multiple choice questions (with answers) about {spaced}.\n\n",
            shots=tuple(examples[name][: options.shots]),
            question=text,
            options=tuple(f" {letter}" for letter in LETTERS),
            right=(right,),
            groups=(categories.get(name, "Other"), name),
        )


HUB = "cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe:all/{}-00000-of-00001.parquet"
PARTS = {
    "items": Part(
        ("mmlu_test.jsonl", "test/*_test.csv", "data/test/*_test.csv"), HUB.format("test"), COLUMNS
    ),
    "dev": Part(("mmlu_dev.jsonl", "dev/*_dev.csv", "data/dev/*_dev.csv"), HUB.format("dev"), COLUMNS),
}
MAIN = {"paper": "none", "lm-eval": "none"}
TASKS = (Task("mmlu", version=1, size=14042, parts=PARTS, items=items, main=MAIN, shots=5),)
