"""MMLU, test: 57 subjects of schools and professions (Hendrycks et al. 2021).

5 examples of the subject from `dev` in front. Averages are over questions, not over subjects. `paper` writes
two spaces before the subject, as the authors' program does, and counts anatomy under Other.
"""

from collections import defaultdict
from collections.abc import Iterator

from puna.evaluate.data import Data, Part, Row
from puna.evaluate.task import Choice, Options, Task, choice
from puna.text.lists import listed

LETTERS = "ABCD"
COLUMNS = ("question", *LETTERS, "answer")  # of the publisher's files, which have no line of names


def read(row: Row, strip: bool) -> tuple[str, str, int]:
    """(subject, question with options up to "Answer:", number of the right one) of a row in any form."""
    if "A" in row:
        subject, right = row.origin.stem.rpartition("_")[0], LETTERS.index(row["answer"])
        texts = [row[letter] for letter in LETTERS]
    else:
        subject, (texts, right) = row["subject"], row.choices()
    question = row["question"].strip() if strip else row["question"]
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=True)]
    return subject, "\n".join([question, *lines, "Answer:"]), right


def items(data: Data, options: Options) -> Iterator[Choice]:
    """Questions in the order of the file."""
    paper = options.profile == "paper"
    lists = listed(__file__, "mmlu.json")["categories"].items()
    categories = {subject: name for name, subjects in lists for subject in subjects.split()}
    categories |= {"anatomy": "Other"} if paper else {}
    examples = defaultdict(list)
    for row in data.rows("dev"):
        subject, text, right = read(row, not paper)
        examples[subject].append(f"{text} {LETTERS[right]}\n\n")
    for row in data.rows():
        subject, text, right = read(row, not paper)
        spaced = (" " if paper else "") + subject.replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {spaced}.\n\n"
        more = {"head": head, "shots": tuple(examples[subject][: options.shots])}
        yield choice(row, text, LETTERS, right, groups=(categories[subject], subject), **more)


HUB = "cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe:all/{}-00000-of-00001.parquet"
PARTS = {
    part: Part((f"mmlu_{name}.jsonl", f"{name}/*.csv", f"data/{name}/*.csv"), HUB.format(name), COLUMNS)
    for part, name in (("items", "test"), ("dev", "dev"))
}
TASKS = (Task("mmlu", 1, 14042, PARTS, items, {"paper": "none", "lm-eval": "none"}, shots=5),)
