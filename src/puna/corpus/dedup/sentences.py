"""Spans of three sentences that were seen before, as C4 removes them (Raffel et al. 2020, section 2.2), with
a bound on memory.

C4 keeps one of any span of three sentences that comes more than once in the data set. Here that is the first,
in the order of the documents. Two sentences are equal when their letters are, whatever their case and white
space. Where sentences end: text/sentences.py.
"""

import functools
from typing import Any

import numpy as np

from puna.corpus.dedup.lines import Seen, line_hashes
from puna.text.hashing import DELETED, NEXT_WORD, SPACE, line_table, mix
from puna.text.sentences import SENTENCE_END, cut

SPAN = 3
REPEATED = "C4: fewer than 3 sentences not seen before"


@functools.cache
def sentence_table() -> Any:
    """What becomes of each code point, in the form of `line_table`: the lower-case letter, or nothing for
    white space."""
    table = line_table() & ~DELETED
    digits = np.flatnonzero(table == ord("0"))
    table[digits] = digits
    table[(table & SPACE) != 0] |= DELETED
    return table


class Spans:
    """The spans of the texts so far, in at most `memory_bytes` (16 bytes for each different one); what is
    full is forgotten.

    found, removed: sentences so far; scopes: how often it began with an empty memory.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._seen = Seen(memory_bytes)
        self.found = self.removed = 0

    @property
    def scopes(self) -> int:
        return self._seen.scopes

    def unseen(self, texts: list[str]) -> list[tuple[str, int]]:
        """Each text without the sentences of any span that came before, here or in an earlier text, and how
        many sentences it has left.

        A span counts as seen even if its text is dropped later. What is given does not depend on how the
        texts are cut into calls.
        """
        hashes, starts = line_hashes([SENTENCE_END.sub(r"\g<0>\n", text) for text in texts], sentence_table())
        solid = np.flatnonzero(hashes)  # a blank line is no sentence
        text_of = np.repeat(np.arange(len(texts)), np.diff(starts))[solid]
        first, *others = (hashes[solid[place : len(solid) - SPAN + 1 + place]] for place in range(SPAN))
        for other in others:
            first = first * np.uint64(NEXT_WORD) + other
        spans = np.maximum(mix(first), np.uint64(1))
        spans[text_of[: len(spans)] != text_of[SPAN - 1 :]] = (
            0  # from one text into the next, which is no span
        )
        repeated = np.flatnonzero(~self._seen.first_time(spans))
        gone = np.zeros(len(solid), np.bool_)
        for place in range(SPAN):
            gone[repeated + place] = True
        self.found, self.removed = self.found + len(solid), self.removed + int(gone.sum())
        left = np.bincount(text_of[~gone], minlength=len(texts))
        marks = np.zeros(len(hashes), np.bool_)
        marks[solid[gone]] = True
        changed = set(text_of[gone].tolist())
        return [
            (
                _without(text, marks[starts[number] : starts[number + 1]].tolist())
                if number in changed
                else text,
                int(left[number]),
            )
            for number, text in enumerate(texts)
        ]


def _without(text: str, gone: list[bool]) -> str:
    """The text without some of its sentences, and without the lines that they leave empty."""
    marks = iter(gone)
    kept = (
        "".join([sentence for sentence in cut(line) if not next(marks)]).strip() for line in text.split("\n")
    )
    return "\n".join([line for line in kept if line])
