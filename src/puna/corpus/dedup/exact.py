"""Documents whose text came before, byte by byte."""

import numpy as np

from puna.corpus.dedup.lines import HashSet
from puna.corpus.funnel import DUPLICATE
from puna.corpus.record import Record


class ExactDuplicates:
    """Step: drop texts that came before, known by the first 64 bits of their ids."""

    def __init__(self, seen: HashSet) -> None:
        self.seen = seen

    def apply(self, records: list[Record]) -> None:
        digests = np.array([int(record.id[:16], 16) for record in records], np.uint64)
        for record, is_new in zip(records, self.seen.mark_new(digests).tolist(), strict=True):
            if not is_new:
                record.drop(DUPLICATE, f"of {record.id}", record.id)
