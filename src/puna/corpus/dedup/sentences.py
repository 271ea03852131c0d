"""Repeated spans of three sentences, as C4 removes them (Raffel et al. 2020, section 2.2), in bounded memory.

C4 keeps one of any span of three sentences that comes more than once in the data set. Here that is the first,
in the order of the documents. Two sentences are equal when their letters are, whatever their case and white
space. Where sentences end: text/sentences.py.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from puna.corpus.dedup.lines import HashSet, line_hashes
from puna.corpus.record import Record
from puna.text.hashing import DELETED, NEXT_WORD, SPACE, line_table, mix
from puna.text.sentences import SENTENCE_END, cut

SPAN = 3
REPEATED = "C4: fewer than 3 sentences not seen before"


@dataclass(frozen=True)
class RepeatedSentences:
    """Step: take out sentences that came before, and drop pages of which fewer than `minimum` are left.

    Language and scores stay those of the whole page.
    """

    spans: "Spans"
    minimum: int

    def apply(self, records: list[Record]) -> None:
        unseen = self.spans.unseen([record.text for record in records])
        for record, (text, sentences) in zip(records, unseen, strict=True):
            if text == record.text:
                continue
            if sentences < self.minimum:
                record.drop(REPEATED)
            else:
                record.change(text, "repeated sentences")


@functools.cache
def sentence_table() -> Any:
    """Normal form of each code point, as in `line_table`: the lower-case letter; nothing for white space."""
    table = line_table() & ~DELETED
    digits = np.flatnonzero(table == ord("0"))
    table[digits] = digits
    table[(table & SPACE) != 0] |= DELETED
    return table


class Spans:
    """The different spans of the texts so far, in at most `memory_bytes` (16 bytes each).

    A full memory is emptied. seen: the spans. found, removed: sentences so far; scopes: how often the memory
    began empty.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.seen = HashSet(memory_bytes, keeps_news=True)
        self.found = self.removed = 0

    @property
    def scopes(self) -> int:
        return self.seen.scopes

    def unseen(self, texts: list[str]) -> list[tuple[str, int]]:
        """Remove from each text the sentences of spans that came before, here or in an earlier text.

        Returns each text and how many sentences it has left. A span counts as seen even if its text is
        dropped later. The results do not depend on how the texts are cut into calls.
        """
        on_lines = [SENTENCE_END.sub(r"\g<0>\n", text) for text in texts]  # each sentence on one of its own
        hashes, starts = line_hashes(on_lines, sentence_table())
        solid = np.flatnonzero(hashes)  # a blank line is no sentence
        text_of = np.repeat(np.arange(len(texts)), np.diff(starts))[solid]
        first, *others = (hashes[solid[offset : len(solid) - SPAN + 1 + offset]] for offset in range(SPAN))
        for other in others:
            first = first * np.uint64(NEXT_WORD) + other
        spans = np.maximum(mix(first), np.uint64(1))
        across_texts = text_of[: len(spans)] != text_of[SPAN - 1 :]
        spans[across_texts] = 0  # always new
        repeated = np.flatnonzero(~self.seen.mark_new(spans))
        gone = np.zeros(len(solid), np.bool_)
        for offset in range(SPAN):
            gone[repeated + offset] = True
        self.found, self.removed = self.found + len(solid), self.removed + int(gone.sum())
        left = np.bincount(text_of[~gone], minlength=len(texts))
        marks = np.zeros(len(hashes), np.bool_)
        marks[solid[gone]] = True
        changed = set(text_of[gone].tolist())
        results = []
        for number, text in enumerate(texts):
            if number in changed:
                text = _without(text, marks[starts[number] : starts[number + 1]].tolist())
            results.append((text, int(left[number])))
        return results


def _without(text: str, gone: list[bool]) -> str:
    """A text without the marked sentences, and without the lines that they leave empty."""
    marks = iter(gone)
    lines = []
    for line in text.split("\n"):
        lines.append("".join([sentence for sentence in cut(line) if not next(marks)]).strip())
    return "\n".join([line for line in lines if line])
