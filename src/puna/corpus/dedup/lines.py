"""Repeated lines, as CCNet removes them (Wenzek et al. 2020, section 3.1), in bounded memory.

A line is stripped and lower-cased, its digits become 0, and control characters and a fixed set of punctuation
marks are deleted; the rest is hashed to 64 bits. Two policies: `HashSet` keeps the first copy of a line,
`unrepeated` removes every copy of a line that comes more than once, as CCNet's own code does. Both see as
much of the corpus as their memory holds: that is their scope, and then a new one begins, so a line may be
kept once in each scope. CCNet's own scope is 50 of a dump's 1,600 shards.

Unlike in CCNet, a line that normalises to nothing (hash 0) is never a duplicate, so blank lines between
paragraphs stay.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from puna.corpus.record import Record, digest
from puna.errors import UserError
from puna.text import hashing
from puna.text.hashing import CODE, DELETED, SPACE, library, line_table, pointer

SMALLEST_TABLE = 1 << 12
CHUNK = 1 << 16  # characters
# A table of 8-byte slots, three quarters full, and the half as large one that it was moved from.
BYTES_PER_LINE = 16
BLANK_LINES = re.compile(r"\n{3,}")


class LineHashes:
    """Step: hash the lines, to be looked for in all of the corpus."""

    def apply(self, records: list[Record]) -> None:
        hashes, starts = line_hashes([record.text for record in records])
        for record, start, end in zip(records, starts[:-1], starts[1:], strict=True):
            record.line_hashes = hashes[start:end]


@dataclass(frozen=True)
class RepeatedLines:
    """Step: keep the lines that did not come before, and drop what has none.

    join: where lines went between blank ones, one blank line stays.
    """

    join: bool

    def apply(self, records: list[Record]) -> None:
        for record in records:
            text, marks = record.text, record.kept_lines
            if not marks.all():
                text = keep_lines(text, marks).strip("\n")
                if self.join and "\n\n\n" in text:
                    text = BLANK_LINES.sub("\n\n", text)
            if text:
                record.change(text, "repeated lines")
            else:  # its excerpt is of what it had
                record.id, record.size = digest(""), 0
                record.drop("only repeated lines")


def line_hashes(texts: list[str], table: Any = None) -> tuple[Any, Any]:
    """Hash all lines of all texts in order, uint64 [lines]; and where each text's begin, int64 [texts + 1].

    A text has one line more than it has "\\n". 0 stands for a line that normalises to nothing. table: what
    becomes of each code point, in the form of `line_table`, which is the default.
    """
    if table is None:
        table = line_table()  # held here: two threads at their first call make two, and one is thrown away
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([text.count("\n") + 1 for text in texts], out=offsets[1:])
    if not texts:
        return np.zeros(0, np.uint64), offsets
    if not library():
        return _hashes_in_chunks("\n".join(texts), table), offsets
    raw = b"\n".join([hashing.encode(hashing.lower_irregular(text)) for text in texts])
    hashes = np.empty(offsets[-1], np.uint64)
    library().line_hashes(raw, len(raw), pointer(table), pointer(hashes))
    return hashes, offsets


def _hashes_in_chunks(text: str, table: Any) -> Any:
    """Hash lines in numpy, about CHUNK characters at once: each takes 60 bytes meanwhile."""
    hashes, start = [], 0
    while start <= len(text):
        end = text.find("\n", start + CHUNK)
        end = len(text) if end < 0 else end
        hashes.append(_hashes(text[start:end], table))
        start = end + 1
    return np.concatenate(hashes)


def _hashes(text: str, table: Any) -> Any:
    codes = hashing.code_points(hashing.lower_irregular(text))
    entries = table[codes]
    newline = codes == ord("\n")
    line = np.cumsum(newline)
    hashes = np.zeros(newline.sum() + 1, np.uint64)
    solid = np.flatnonzero((entries & SPACE) == 0)  # "\n" itself is white space
    first, last = np.full(len(hashes), len(codes)), np.full(len(hashes), -1)
    first[line[solid[::-1]]], last[line[solid]] = solid[::-1], solid
    position = np.arange(len(codes))
    stripped = (position >= first[line]) & (position <= last[line])
    kept = np.flatnonzero(stripped & ((entries & DELETED) == 0))
    line_of_kept = line[kept]
    starts = np.flatnonzero(np.diff(line_of_kept, prepend=-1))
    sums = hashing.string_hashes(entries[kept] & CODE, starts)
    hashes[line_of_kept[starts]] = np.maximum(sums, np.uint64(1))
    return hashes


class HashSet:
    """The different hashes of a scope, in at most `memory_bytes` (16 bytes each).

    When one more does not fit, a new scope begins with an empty memory; `scopes` counts them. What `mark_new`
    returns does not depend on how the hashes are cut into calls. keeps_news: `news` is asked for.
    """

    def __init__(self, memory_bytes: int, keeps_news: bool = False) -> None:
        self.most = int(memory_bytes) // BYTES_PER_LINE
        if self.most < SMALLEST_TABLE:
            raise UserError(
                f"{memory_bytes} bytes are too few to remember lines; "
                f"give at least {SMALLEST_TABLE * BYTES_PER_LINE}"
            )
        self.scopes = 1
        self._news: list[Any] | None = [] if keeps_news else None
        self._clear()

    def _clear(self) -> None:
        self.sizes = [self.most * 4 // 3 + 1]  # slots: the last size and its halves
        while self.sizes[0] // 2 >= SMALLEST_TABLE:
            self.sizes.insert(0, self.sizes[0] // 2)
        self.count = np.zeros(1, np.int64)
        self.table = np.zeros(self.sizes.pop(0) if library() else 0, np.uint64)  # in numpy: the sorted hashes

    def mark_new(self, hashes: Any) -> Any:
        """Add hashes (uint64 [n]); whether each is new in its scope, bool [n]; hash 0 always is."""
        hashes = np.ascontiguousarray(hashes, np.uint64)
        is_new = np.zeros(len(hashes), np.bool_)
        done = 0
        while done < len(hashes):
            put = self._put if library() else self._put_sorted
            done += put(hashes[done:], is_new[done:])
            if done < len(hashes):
                self._make_room()
        if self._news is not None:
            self._news.append(hashes[is_new & (hashes != 0)])
        return is_new

    def news(self) -> Any:
        """Return what was new since the last call, uint64 [n]: added in order, all news make an equal set."""
        news = np.concatenate([np.zeros(0, np.uint64), *(self._news or ())])
        self._news = []
        return news

    def _put(self, hashes: Any, is_new: Any) -> int:
        """Fill in `is_new` until the table is as full as it may be; return how many hashes were processed."""
        room = min(self.most, len(self.table) * 3 // 4)
        addresses = pointer(hashes), len(hashes), pointer(is_new), pointer(self.count)
        return library().mark_new(pointer(self.table), len(self.table), room, *addresses)

    def _put_sorted(self, hashes: Any, is_new: Any) -> int:
        """`_put` in numpy, over a sorted array."""
        values, positions = np.unique(hashes, return_index=True)
        at = np.searchsorted(self.table, values)
        known = np.zeros(len(values), np.bool_)
        inside = at < len(self.table)
        known[inside] = self.table[at[inside]] == values[inside]
        new = ~known & (values != 0)
        room = self.most - len(self.table)
        done = len(hashes) if new.sum() <= room else int(np.sort(positions[new])[room])
        new &= positions < done
        is_new[positions[new]] = True
        is_new[:done] |= hashes[:done] == 0
        self.table = np.concatenate([self.table, values[new]])
        self.table.sort()
        return done

    def _make_room(self) -> None:
        if library() and self.sizes:
            larger = np.zeros(self.sizes.pop(0), np.uint64)
            library().move(pointer(self.table), len(self.table), pointer(larger), len(larger))
            self.table = larger
        else:
            self.scopes += 1
            self._clear()


def scope_lines(memory_bytes: int) -> int:
    """Lines in a scope of `unrepeated`: 8 bytes for each, and two copies of them while it sorts."""
    return max(1, int(memory_bytes) // 24)


def unrepeated(batches: Iterable[Any], memory_bytes: int) -> Iterator[Any]:
    """Apply CCNet's own rule: for each batch of hashes, whether each line comes once in its scope (bool).

    A line that comes twice is dropped both times. A batch's answer comes when its last scope is complete, so
    the texts must be read a second time: zip(unrepeated(first pass), second pass). A scope is `scope_lines`
    lines, wherever batches begin or end.
    """
    size = scope_lines(memory_bytes)
    scope, held = np.empty(size, np.uint64), 0
    # For each batch: how many lines are without an answer, then the answers so far.
    waiting: deque[list[Any]] = deque()

    def answer() -> Iterator[Any]:
        ordered = np.sort(scope[:held])
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        done = 0
        while waiting and (done < held or waiting[0][0] == 0):
            hashes = scope[done : min(held, done + waiting[0][0])]
            at = np.searchsorted(repeated, hashes)
            single = (hashes == 0) | (at == len(repeated))
            single[~single] = repeated[at[~single]] != hashes[~single]
            done += len(hashes)
            waiting[0][0] -= len(hashes)
            waiting[0].append(single)
            if waiting[0][0] == 0:
                yield np.concatenate(waiting.popleft()[1:])

    for batch in batches:
        waiting.append([len(batch), np.zeros(0, np.bool_)])
        rest = np.asarray(batch, np.uint64)
        while len(rest):
            taken, rest = rest[: size - held], rest[size - held :]
            scope[held : held + len(taken)] = taken
            held += len(taken)
            if held == size:
                yield from answer()
                held = 0
    yield from answer()


def keep_lines(text: str, keep: Any) -> str:
    """Return a text with only those of its lines that `keep` (bool [lines]) marks."""
    lines = zip(text.split("\n"), keep.tolist(), strict=True)
    return "\n".join([line for line, is_kept in lines if is_kept])
