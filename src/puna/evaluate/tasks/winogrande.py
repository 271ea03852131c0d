"""WinoGrande xl, validation: whom a pronoun means, by partial scoring (Sakaguchi et al. 2019).

Both names stand in the sentence up to the blank, and the rest of the sentence is scored behind each.
"""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice


def items(data: Data, options: Options) -> Iterator[Choice]:
    """The same prompt in both profiles; a copy that is split at the blank has `contexts`."""
    for row in data.rows():
        if "contexts" in row:
            questions, rest, right = row["contexts"], row["continuation"], int(row["label"])
        else:
            before, _, rest = row["sentence"].partition("_")
            questions, right = [before + row[f"option{number}"] for number in "12"], int(row["answer"]) - 1
        yield choice(row, "", [rest.strip()] * 2, right, questions=tuple(questions))


NAMES = ("winogrande_val.jsonl", "winogrande_val.even.jsonl", "dev.jsonl", "winogrande_1.1/dev.jsonl")
REVISION = "allenai/winogrande@01e74176c63542e6b0bcb004dcdea22d94fb67b5"
PARTS = {"items": Part(NAMES, f"{REVISION}:winogrande_xl/validation-00000-of-00001.parquet")}
MAIN = {"paper": "none", "lm-eval": "none"}
TASKS = (Task("winogrande", 1, 1267, PARTS, items, MAIN),)
