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
        pair, groups = (row["sent_more"], row["sent_less"]), (row["bias_type"],)
        yield Choice(id=str(row.number), question="", options=pair, right=(0,), groups=groups)


MAIN = {"paper": "tokens", "lm-eval": "none"}
TASKS = (Task("crows_pairs", 1, 1508, {"items": Part(("crows_pairs_anonymized.csv",))}, items, MAIN),)
