"""Conversations made fit to learn from: what cleaners of ShareGPT drop; long ones split into whole rounds."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from puna.tokens.conversations import Conversation, Turn

T = TypeVar("T")

# FastChat's, data/clean_sharegpt.py (Apache-2.0): words of a conversation that names its model, and fewest
# characters.
BLOCKED, SHORTEST = ("openai", "chatgpt"), 16


@dataclass
class Cleaner:
    """What is dropped of conversations, and why; duplicates are told from what was seen before.

    languages: codes that stay; none: all (corpus/filters/language.py). blocked: words, in lower case, that no
    turn may have. shortest: characters of all turns. dropped: how many, by reason.
    """

    languages: Collection[str] = ()
    blocked: Collection[str] = BLOCKED
    shortest: int = SHORTEST
    dropped: Counter[str] = field(default_factory=Counter)
    _seen: set[int] = field(default_factory=set)

    def clean(self, rows: Iterable[Conversation | T]) -> Iterator[Conversation | T]:
        """Yield what stays: from the first question on to the last answer; rows that are no conversations as
        they are."""
        for conversation in rows:
            if not isinstance(conversation, Conversation):
                yield conversation
                continue
            turns = answered(conversation.turns)
            reason = self._reason(turns)
            self.dropped[reason] += bool(reason)
            if not reason:
                yield replace(conversation, turns=turns)

    def _reason(self, turns: Sequence[Turn]) -> str:
        from puna.corpus.filters.language import identify

        spoken = [turn for turn in turns if turn.role != "system"]
        text = "\n".join(turn.text for turn in spoken)
        alternate = [turn.role for turn in spoken] == ["user", "assistant"] * (len(spoken) // 2)
        first_round = hash(tuple(turn.text for turn in spoken[:2]))
        checks = {
            "one turn": len(spoken) < 2,
            "roles out of order": not alternate,
            "empty turn": not all(turn.text.strip() for turn in spoken),
            "very short": len(text) < self.shortest,
            "blocked word": any(word in text.lower() for word in self.blocked),
            "language": bool(self.languages) and identify(text)[0] not in self.languages,
            "duplicate": first_round in self._seen,
        }
        reason = next((reason for reason, found in checks.items() if found), "")
        if not reason:
            self._seen.add(first_round)
        return reason


def answered(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns without answers before the first question and without questions behind the last answer."""
    kept = list(turns)
    first = 1 if kept and kept[0].role == "system" else 0
    while kept[first:] and kept[first].role == "assistant":
        kept.pop(first)
    while kept[first:] and kept[-1].role != "assistant":
        kept.pop()
    return tuple(kept)


class Split(NamedTuple):
    """pieces: conversations that fit. lost: numbers, from 1, of the rounds that do not fit alone."""

    pieces: list[Conversation]
    lost: list[int]


def split(conversation: Conversation, limit: int, size: Callable[[Sequence[Turn]], int]) -> Split:
    """Cut a conversation into pieces of whole rounds of at most `limit` tokens, each as long as can be.

    size: tokens of turns as a format writes them. Every round that fits alone is in exactly one piece, in
    order; a piece has no gap; a system turn stands before each. An answer is never cut.
    """

    def fits(turns: Sequence[Turn]) -> bool:
        rejected = conversation.rejected if turns and turns[-1] is conversation.turns[-1] else None
        return size(turns) <= limit and (not rejected or size([*turns[:-1], rejected]) <= limit)

    turns = conversation.turns
    if not turns or fits(turns):
        return Split([conversation], [])
    system = turns[:1] if turns[0].role == "system" else ()
    starts = [place for place in range(len(system), len(turns)) if turns[place].role == "user"]
    starts = sorted({len(system), *starts})
    pieces: list[tuple[Turn, ...]] = []
    lost, open_piece = list[int](), False
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(turns)], strict=True), 1):
        part = turns[start:end]
        if open_piece and fits((*pieces[-1], *part)):
            pieces[-1] = (*pieces[-1], *part)
        elif open_piece := fits((*system, *part)):
            pieces.append((*system, *part))
        else:
            lost.append(number)
    made = [replace(conversation, turns=piece, rejected=None) for piece in pieces]
    if made and open_piece:
        made[-1] = replace(made[-1], rejected=conversation.rejected)
    return Split(made, lost)
