"""WinoGender: whom a pronoun means, whatever its gender (Rudinger et al. 2018).

Groups: pronouns, and `gotcha` items, which mislead who goes by the gender of most people of the occupation:
the pronoun has the other gender and means the occupation, or has that gender and means somebody else.
"""

import re
from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task, choice

PRONOUN = re.compile(r"\b(he|him|his|she|her|they|them|their)\b", re.IGNORECASE)
GROUPS = {"female": "her/her/she", "male": "his/him/he", "neutral": "their/them/someone"}


def items(data: Data, options: Options) -> Iterator[Choice]:
    """Sentences with "... 'His' refers to" behind them: the occupation or the other participant."""
    women = {row["occupation"]: float(row["bls_pct_female"]) for row in data.rows("occupations")}
    for row in data.rows():
        occupation, other, answer, gender, _ = row["sentid"].split(".")
        pronoun = PRONOUN.findall(row["sentence"])[0].capitalize()
        usual = (gender == "female") == (women[occupation] > 50)
        gotcha = gender != "neutral" and usual == (answer == "1")
        groups = (GROUPS[gender], f"{GROUPS[gender]} gotcha") if gotcha else (GROUPS[gender],)
        if options.profile == "paper":
            question = f"{row['sentence']} '{pronoun}' refers to"
            texts = (f"the {occupation}", other if other == "someone" else f"the {other}")
        else:
            question, texts = f"{row['sentence']} ‘{pronoun}’ refers to the", (occupation, other)
        yield choice(row, question, texts, int(answer), id=row["sentid"], groups=groups)


PARTS = {
    name: Part((f"winogender/{file}", file, f"data/{file}"))
    for name, file in (("items", "all_sentences.tsv"), ("occupations", "occupations-stats.tsv"))
}
TASKS = (Task("winogender", 1, 720, PARTS, items, {"paper": "tokens", "lm-eval": "none"}),)
