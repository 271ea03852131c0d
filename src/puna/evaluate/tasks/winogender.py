"""WinoGender: whom a pronoun means, whatever its gender (Rudinger et al. 2018).

Groups: pronouns, and `gotcha` items, which mislead who goes by the gender of most people of the occupation:
the pronoun has the other gender and means the occupation, or has that gender and means somebody else.
"""

import re
from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task

PRONOUN = re.compile(r"\b(he|him|his|she|her|they|them|their)\b", re.IGNORECASE)
GROUPS = {"female": "her/her/she", "male": "his/him/he", "neutral": "their/them/someone"}


def items(data: Data, options: Options) -> Iterator[Choice]:
    """Sentences with "... 'His' refers to" behind them: the occupation or the other participant."""
    women = {row["occupation"]: float(row["bls_pct_female"]) for row in data.rows("occupations")}
    for row in data.rows():
        occupation, other, answer, gender, _ = row["sentid"].split(".")
        found = PRONOUN.search(row["sentence"])
        pronoun = found[0].capitalize() if found else ""
        group = GROUPS[gender]
        usual = (gender == "female") == (women[occupation] > 50)
        gotcha = gender != "neutral" and usual == (answer == "1")
        if options.profile == "paper":
            question = f"{row['sentence']} '{pronoun}' refers to"
            texts = (f" the {occupation}", f" {other}" if other == "someone" else f" the {other}")
        else:
            question = f"{row['sentence']} ‘{pronoun}’ refers to the"
            texts = (f" {occupation}", f" {other}")
        yield Choice(
            id=row["sentid"],
            question=question,
            options=texts,
            right=(int(answer),),
            groups=(group, f"{group} gotcha") if gotcha else (group,),
        )


PARTS = {
    name: Part((f"winogender/{file}", file, f"data/{file}"))
    for name, file in (("items", "all_sentences.tsv"), ("occupations", "occupations-stats.tsv"))
}
MAIN = {"paper": "tokens", "lm-eval": "none"}
TASKS = (Task("winogender", version=1, size=720, parts=PARTS, items=items, main=MAIN),)
