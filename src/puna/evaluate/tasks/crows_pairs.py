"""CrowS-Pairs: whether a stereotype is likelier than its opposite (Nangia et al. 2020).

The score is the share of pairs whose stereotype a model finds likelier, so less is better: `paper` compares
perplexities, `lm-eval` probabilities of the sentences.
"""

from collections.abc import Iterator

from puna.evaluate.data import Data, Part
from puna.evaluate.task import Choice, Options, Task


def items(data: Data, options: Options) -> Iterator[Choice]:
    """Pairs by category; `sent_more` has the stereotype."""
    for row in data.rows():
        yield Choice(
            id=str(row.number),
            question="",
            options=(row["sent_more"], row["sent_less"]),
            right=(0,),
            groups=(row["bias_type"],),
        )


PARTS = {"items": Part(("crows_pairs_anonymized.csv",))}
MAIN = {"paper": "tokens", "lm-eval": "none"}
TASKS = (Task("crows_pairs", version=1, size=1508, parts=PARTS, items=items, main=MAIN),)
