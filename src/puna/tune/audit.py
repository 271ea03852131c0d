"""What is wrong with conversations, row by row, before anything is learned from them.

found = audit(read(path), Auditor(FORMATS["vicuna_v1.1"], tokenizer, length=2048))
found.refuse()
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from puna.errors import UserError
from puna.run.files import write_atomically
from puna.tokens.chat import Format, encode
from puna.tokens.conversations import Conversation, Turn
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tune import clean
from puna.tune.readers import DIFFERENT_PROMPTS, NO_CHOICE, UNKNOWN_ROLE, UNREADABLE, BadRow, said

# Kinds of defects, and whether a row that has one is refused. Of the three kinds of duplicates a row has the
# one that says most.
KINDS = {
    **dict.fromkeys((UNREADABLE, UNKNOWN_ROLE, "role order", "empty turn", "no supervised token"), True),
    **dict.fromkeys((NO_CHOICE, DIFFERENT_PROMPTS, "evaluation item"), True),
    **dict.fromkeys(("end not supervised", "over-long", "marker imitated", "control string"), False),
    **dict.fromkeys(("duplicate conversation", "duplicate first round", "duplicate question"), False),
    **dict.fromkeys(("truncated answer", "personal data"), False),
}
DROPPED = frozenset({kind for kind, refused in KINDS.items() if refused} | {"duplicate conversation"})
_FOLLOW = {"": "system user", "system": "user", "user": "assistant"}  # which roles follow which
_FOLLOW |= {"assistant": "user tool", "tool": "assistant tool"}
_CONTROL = re.compile(r"<\|\w{2,40}\|>|</?s>|<unk>|<pad>")
_KEY = re.compile(  # as their makers issue them
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----|\b(?:sk-[\w-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_\w{36,}|"
    r"github_pat_\w{22,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}|hf_[A-Za-z]{30,}|"
    r"eyJ[\w-]{10,999}\.eyJ[\w-]{10,}\.[\w-]{10,})"  # with a bound, or a text of such heads takes minutes
)
# An answer breaks off at a word that something has to follow, at a comma of a long line, or with a word in
# small letters in a line that has ended a sentence before.
LAST_CHARACTERS = 300  # of an answer, in which the beginning of its last sentence is looked for
_BROKEN_OFF = re.compile(
    r"(?:(?i:\b(?:a|an|the|and|or|but|of|to|for|with|from|into|his|her|their|your|our|its|my))|\S{3}.{30,}[,(]|"
    r"[a-z]{2}[.!?][\"')”]? (?:[^.!?:\n]* )?[a-z’']+)\Z"
)


class Finding(NamedTuple):
    """kind: of KINDS. turn: from 1, the rejected answer behind the last; 0: the whole row. told: in words."""

    kind: str
    turn: int
    told: str


class Verdict(NamedTuple):
    """tokens, learned: of the row, or characters without a tokenizer. kept: what stays of it, in whole
    rounds. lost: numbers of rounds that are too long alone."""

    row: Conversation | BadRow
    findings: Sequence[Finding]
    tokens: int = 0
    learned: int = 0
    kept: Sequence[Conversation] = ()
    lost: Sequence[int] = ()


@dataclass
class Auditor:
    """Judges rows one after the other; duplicates are told from what came before.

    length: tokens that a row may have; 0: any. leaks: runs of words of evaluation items (`overlap.items_in`).
    learn: as in `tokens.chat.encode`.
    """

    form: Format
    tokenizer: TextTokenizer | None = None
    length: int = 0
    leaks: Mapping[int, str] = field(default_factory=dict)
    learn: Literal["all", "last"] = "all"
    _seen: dict[tuple[Any, ...], tuple[str, int]] = field(default_factory=dict)

    def verdict(self, row: Conversation | BadRow) -> Verdict:
        findings = [Finding(row.kind, 0, row.message)] if isinstance(row, BadRow) else []
        conversation = row.conversation if isinstance(row, BadRow) else row
        if conversation is None:
            return Verdict(row, findings)
        tokens, learned = self._sizes(conversation.turns)
        findings += _order(conversation.turns)
        findings += _learned(conversation.turns, learned)
        findings += self._texts(conversation)
        findings += self._duplicates(conversation)
        cut = clean.Split([conversation], [])
        if self.tokenizer and self.length and (tokens > self.length or conversation.rejected):
            cut = clean.split(conversation, self.length, lambda turns: self._sizes(turns)[0])
        if cut.lost or len(cut.pieces) > 1:
            most = max(tokens, self._sizes(said(conversation))[0])
            gone = f"; too long alone, and gone: round {', '.join(map(str, cut.lost))}" if cut.lost else ""
            told = f"{most - self.length:,} tokens of {most:,} too many: {len(cut.pieces)} pieces{gone}"
            findings.append(Finding("over-long", 0, told))
        kept = [] if any(finding.kind in DROPPED for finding in findings) else cut.pieces
        return Verdict(row, findings, tokens, learned, kept, cut.lost)

    def _sizes(self, turns: Sequence[Turn]) -> tuple[int, int]:
        """(tokens, those learned) of turns; characters where there is no tokenizer."""
        if self.tokenizer:
            encoded = encode(turns, self.form, self.tokenizer, learn=self.learn)
            return len(encoded.ids), sum(encoded.learned)
        pieces = [(len(piece.text), piece.learn) for piece in self.form.pieces(turns)]
        return sum(size for size, _ in pieces), sum(size for size, learn in pieces if learn)

    def _texts(self, conversation: Conversation) -> Iterator[Finding]:
        from puna.corpus.filters import privacy
        from puna.evaluate import overlap

        for number, turn in enumerate(said(conversation), 1):
            text = turn.text
            if not text.strip() and turn.role != "system":
                yield Finding("empty turn", number, "no text")
            if mark := next((mark for mark in self.form.marks if mark in text), ""):
                yield Finding("marker imitated", number, f"{mark!r} in {self.form.name}")
            if control := _CONTROL.search(text):
                yield Finding("control string", number, f"{control[0]!r} stays text")
            key = _KEY.search(text)
            if told := f"a key: {key[0][:8]}…" if key else privacy.told(privacy.scrub(text)[1]):
                yield Finding("personal data", number, told)
            if self.leaks and (item := next(filter(None, map(self.leaks.get, overlap.runs(text))), "")):
                yield Finding("evaluation item", number, f"shares {overlap.WORDS} words with {item}")
        rejected = conversation.rejected
        if rejected and conversation.turns and rejected.text.strip() == conversation.turns[-1].text.strip():
            yield Finding(NO_CHOICE, 0, "both answers are the same")

    def _duplicates(self, conversation: Conversation) -> Iterator[Finding]:
        texts = [turn.text.strip() for turn in said(conversation) if turn.role != "system"]
        place = (conversation.source, conversation.row)
        keys = {"conversation": texts, "first round": texts[:2], "question": texts[:1]}
        before = [(kind, self._seen.setdefault((kind, *key), place)) for kind, key in keys.items()]
        if repeats := [(kind, of) for kind, of in before if of != place and any(texts[:1])]:
            kind, (source, row) = repeats[0]
            yield Finding(f"duplicate {kind}", 0, f"as {Path(source).name}, row {row}")


def _order(turns: Sequence[Turn]) -> Iterator[Finding]:
    before = ["", *(turn.role for turn in turns)]
    for number, (last, turn) in enumerate(zip(before, turns, strict=False), 1):
        if turn.role not in _FOLLOW[last]:
            yield Finding("role order", number, f"{turn.role} after {last or 'nothing'}")


def _learned(turns: Sequence[Turn], learned: int) -> Iterator[Finding]:
    if not learned:
        yield Finding("no supervised token", 0, "no answer that is learned")
    elif turns[-1].role != "assistant" or not turns[-1].train:
        why = "is not learned" if turns[-1].role == "assistant" else f"is the {turns[-1].role}'s"
        yield Finding("end not supervised", len(turns), f"the last turn {why}")
    for number, turn in enumerate(turns, 1):
        answer = turn.text.rstrip()
        open_end = answer[-1:].islower() or answer[-1:] in {",", "("}
        last = answer[max(answer.rfind("\n") + 1, len(answer) - LAST_CHARACTERS) :]
        broken_off = answer.count("```") % 2 or (open_end and _BROKEN_OFF.search(last))
        if turn.role == "assistant" and turn.train and broken_off:
            yield Finding("truncated answer", number, f"ends with {answer[-40:]!r}")


@dataclass(frozen=True)
class Audit:
    """All verdicts, in order. Rows with defects of DROPPED go, and rounds that are too long alone."""

    verdicts: Sequence[Verdict]

    @property
    def tokens(self) -> int:
        return sum(verdict.tokens for verdict in self.verdicts)

    @property
    def learned_share(self) -> float:
        return sum(verdict.learned for verdict in self.verdicts) / max(self.tokens, 1)

    def counts(self) -> dict[str, int]:
        """Rows that have each kind of defect, in the order of KINDS, none left out."""
        found = Counter(kind for each in self.verdicts for kind in {found.kind for found in each.findings})
        return {kind: found[kind] for kind in KINDS}

    def refuse(self) -> None:
        """Raise UserError where rows have defects that are not to be learned from."""
        wrong = {kind: count for kind, count in self.counts().items() if count and KINDS[kind]}
        if wrong:
            told = ", ".join(f"{kind}: {count:,}" for kind, count in wrong.items())
            findings = ((each.row, finding) for each in self.verdicts for finding in each.findings)
            row, first = next((row, finding) for row, finding in findings if KINDS[finding.kind])
            told += f"; first {row.source}, row {row.row}: {first.kind}, {first.told}; "
            raise UserError(
                f"not to be learned from: {told}`puna tune audit DATA --drop FOLDER` leaves them out"
            )

    def write(self, folder: Path) -> None:
        """Write what stays as `kept.jsonl`, which `readers.read` reads, and what goes as `dropped.jsonl`."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = [as_row(piece) for verdict in self.verdicts for piece in verdict.kept]
        gone = [_dropped(verdict) for verdict in self.verdicts if verdict.lost or not verdict.kept]
        for name, rows in (("kept", kept), ("dropped", gone)):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomically(folder / f"{name}.jsonl", lines)


def _dropped(verdict: Verdict) -> dict[str, Any]:
    row = verdict.row
    conversation = row if isinstance(row, Conversation) else row.conversation
    told = as_row(conversation) if conversation else {"raw": row.raw if isinstance(row, BadRow) else ""}
    why = [f"{finding.kind}: {finding.told}" for finding in verdict.findings]
    return {"origin": f"{row.source}, row {row.row}", "why": why, "lost_rounds": verdict.lost, **told}


def as_row(conversation: Conversation) -> dict[str, Any]:
    """A conversation as a row of messages, with its origin; a rejected answer beside them."""
    rows: list[dict[str, Any]] = []
    for turn in conversation.turns:
        rows.append({"role": turn.role, "content": turn.text})
        rows[-1] |= {"instruction": turn.instruction} if turn.instruction else {}
        rows[-1] |= {} if turn.train else {"train": False}
    rejected = {"rejected": conversation.rejected.text} if conversation.rejected else {}
    return {"messages": rows, **rejected, "origin": f"{conversation.source}, row {conversation.row}"}


def audit(rows: Iterable[Conversation | BadRow], auditor: Auditor) -> Audit:
    """Judge all rows."""
    return Audit([auditor.verdict(row) for row in rows])
