"""TruthfulQA, answers that are written (Lin et al. 2021), behind six questions with answers.

Whether they are true and informative, judges tell afterwards (`puna.evaluate.judge`).
"""

from collections.abc import Iterator

from puna.evaluate.data import Data
from puna.evaluate.task import PROFILES, Generation, Options, Task
from puna.evaluate.tasks import truthfulqa_mc
from puna.evaluate.tasks.toxicity import unjudged, unknown


def items(data: Data, options: Options) -> Iterator[Generation]:
    """The same questions in both profiles, as with options."""
    for item in truthfulqa_mc.items(data, options, "mc1"):
        yield Generation(id=item.id, head=item.head, question=item.question, check=unknown, max_new_tokens=50)


MAIN = dict.fromkeys(PROFILES, "true and informative")
TASKS = (Task("truthfulqa", 1, 817, truthfulqa_mc.PARTS, items, MAIN, score=unjudged),)
