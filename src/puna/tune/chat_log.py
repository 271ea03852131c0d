"""Chats between people, as apps export them and as people paste them: whose turns are the assistant's is said
by a name.

Lines are "Name: text", with a date and a time before it where an app wrote them (WhatsApp); a line without a
name goes on with the message above it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from puna.errors import UserError
from puna.tokens.conversations import Turn
from puna.tune.clean import answered

SECOND = "@second"  # in place of a name: whoever answers the first message
_DATED = re.compile(
    r"\[?(\d{1,4}[./-]\d{1,2}[./-]\d{1,4}),? {1,2}\d{1,2}[:.]\d{2}(?:[:.]\d{2})?"
    r"(?:[ \u00a0\u202f]?[APap]\.?[Mm]\.?)?(?:\]| -)? (.*)",
    re.DOTALL,
)
_NAMED = re.compile(r"(?:\[?\d{1,2}:\d{2}(?::\d{2})?\]? )?([^\W\d_][^:\n]{0,39}): (.*)", re.DOTALL)
_SENT = re.compile(r"(?:([^:\n]{1,60}): )?(.*)", re.DOTALL)  # what an app says itself has no sender
_NO_TEXT = re.compile(r"<[^<>\n]{3,40}>|(?:image|video|audio|sticker|GIF|document|Contact card) omitted")
_HIDDEN = str.maketrans("", "", "\u200e\u200f\u202a\u202c\ufeff")  # marks of direction that apps put in
_FEW_WORDS = 4  # of a name
Message = tuple[int, str, str, str]  # line, day, sender, text


class Nameless(UserError):
    """No chat between people, or none of them is named as the one whose turns are learned."""


def senders(text: str) -> Counter[str]:
    """Count the messages of each person of a chat log; nothing for a text that is none: two or more people
    have to say something in turns, and most lines are to be theirs."""
    found = _messages(text)
    people = Counter(sender for _, _, sender, _ in found)
    lines = sum(1 for line in text.split("\n") if line.strip())
    return people if len(people) > 1 and 2 * len(found) >= lines else Counter()


def conversations(text: str, as_name: str) -> Iterator[tuple[int, tuple[Turn, ...]]]:
    """Yield (line on which it begins, turns) of the conversations of a chat log.

    A new one begins with the first message of a day that others than `as_name` write. What comes before the
    first question, and questions that stay without an answer at an end, are no part of any. Raises Nameless.
    """
    if not (people := senders(text)):
        raise Nameless("no chat log: its lines are to begin with a name, such as 'Ann: hello'")
    found = _messages(text)
    learned = _person([(sender, said) for _, _, sender, said in found], as_name)
    starts = [0]
    for place in range(1, len(found)):
        day, before = found[place][1], found[starts[-1]][1]
        if day != before and found[place][2] != learned:
            starts.append(place)
    for start, end in zip(starts, [*starts[1:], len(found)], strict=True):
        part = [(sender, said) for _, _, sender, said in found[start:end]]
        if made := _as_roles(part, learned, len(people) > 2):
            yield found[start][0], tuple(made)


def turns(messages: Sequence[tuple[str, str]], as_name: str) -> list[Turn]:
    """Turns of (sender, text) in order, messages in a row of one person joined. Raises Nameless."""
    people = {sender for sender, _ in messages}
    return _as_roles(messages, _person(messages, as_name), len(people) > 2)


def merged(said: Sequence[tuple[str, str]], between: str = "\n") -> list[Turn]:
    """Turns of (role, text), those in a row of one role joined."""
    groups = groupby(said, key=lambda each: each[0])
    return [Turn(role, between.join(text for _, text in texts)) for role, texts in groups]


def _person(messages: Sequence[tuple[str, str]], as_name: str) -> str:
    counts = Counter(sender for sender, _ in messages)
    if as_name == SECOND:
        return next((sender for sender in counts if sender != messages[0][0]), "")
    person = next((sender for sender in counts if sender.lower() == as_name.lower()), None)
    if person is None:
        said = ", ".join(f"{sender} ({count} messages)" for sender, count in counts.most_common(6))
        wrong = f"{as_name} is not in it. " if as_name else ""
        raise Nameless(
            f"{wrong}A chat of {said}: whose turns shall be learned? Say --as {min(counts)!r}, in a "
            "recipe data.NAME.speaker"
        )
    return person


def _as_roles(messages: Sequence[tuple[str, str]], learned: str, name_others: bool) -> list[Turn]:
    form = "{0}: {1}" if name_others else "{1}"
    said = [("assistant", t) if name == learned else ("user", form.format(name, t)) for name, t in messages]
    return list(answered(merged(said)))


def _messages(text: str) -> list[Message]:
    """Messages of a log, those without text left out."""
    lines = [line.translate(_HIDDEN) for line in text.split("\n")]
    dated = [_DATED.match(line) for line in lines]
    if 3 * sum(map(bool, dated)) >= sum(map(bool, lines)):
        sent = [head and _SENT.match(head[2]) for head in dated]
    else:
        sent = [_NAMED.match(line) for line in lines]
        counts = Counter(head[1] for head in sent if head and len(head[1].split()) <= _FEW_WORDS)
        often = {name for name, count in counts.items() if count > 1}
        people = often if len(often) > 1 else set(counts)  # "Note: ..." once is no person where others are
        sent = [head if head and head[1] in people else None for head in sent]
    found: list[Message] = []
    for number, (line, head, day) in enumerate(zip(lines, sent, dated, strict=True), 1):
        if head:
            found.append((number, day[1] if day else "", head[1], head[2]))
        elif found:
            found[-1] = (*found[-1][:3], f"{found[-1][3]}\n{line}")
    said = [(*message[:3], message[3].strip()) for message in found if message[2]]
    return [message for message in said if message[3] and not _NO_TEXT.fullmatch(message[3])]
