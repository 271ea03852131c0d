"""The bytes of a web archive, packed or not, read forward in one pass, and how to go on behind damage."""

import re
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from puna.corpus.sources import streams

BLANKS = re.compile(rb"[\r\n]*")
GZIP = b"\x1f\x8b\x08"
WINDOW = 1 << 20
LONGEST_HEADER = 1 << 16


class Archive:
    """A forward cursor over an unpacked archive. `damage` is set when the compressed stream cannot be read
    on: then every read gives what was unpacked before it, and `recover` finds the next gzip member that
    begins a record.

    begins: whether some bytes are the beginning of a record.
    """

    def __init__(self, path: Path, begins: Callable[[bytes], bool]) -> None:
        self.path, self.begins = path, begins
        self.damage: streams.Damaged | None = None
        self.given_back = 0  # bytes in all
        self._open(0)

    def _open(self, start: int) -> None:
        self._pieces = streams.members(self.path, start)
        self._buffer, self._at = b"", 0
        self._place = 0  # of the buffer's first byte in what has been unpacked since `start`
        self._members: deque[tuple[int, int]] = (
            deque()
        )  # (where its content begins, where it begins in the file)
        self._last = -1
        self._clear: dict[
            re.Pattern[bytes], int
        ] = {}  # up to which place there is no match of a mark: nothing is searched twice

    def _fill(self) -> bool:
        """Unpack one piece more; False at the end and at damage."""
        if self.damage is not None:
            return False
        try:
            member, piece = next(self._pieces)
        except StopIteration:
            return False
        except streams.Damaged as damage:
            self.damage = damage
            return False
        self._place += self._at
        if member is not None and member != self._last:
            self._members.append((self._place + len(self._buffer) - self._at, member))
            self._last = member
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return True

    def offset(self) -> int:
        """Where the present place is in the file: its gzip member's first byte, in a file without members the
        byte itself."""
        here = self._place + self._at
        while len(self._members) > 1 and self._members[1][0] <= here:
            self._members.popleft()
        return self._members[0][1] if self._members else here

    def peek(self, size: int) -> bytes:
        """Up to `size` bytes ahead, without moving."""
        while len(self._buffer) - self._at < size and self._fill():
            pass
        return self._buffer[self._at : self._at + size]

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end or at damage."""
        taken = self._take(size)
        if len(taken) == size:
            return taken
        parts, missing = [taken], size - len(taken)
        while missing and self._fill():
            parts.append(self._take(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _take(self, size: int) -> bytes:
        taken = self._buffer[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def skip(self, size: int) -> int:
        """Go `size` bytes on; how many there were."""
        missing = size - len(self._take(size))
        while missing and self._fill():
            missing -= len(self._take(missing))
        return size - missing

    def give_back(self, content: bytes) -> None:
        """Put back the last bytes read."""
        self.given_back += len(content)
        self._buffer = content + self._buffer[self._at :]
        self._place += self._at - len(content)
        self._at = 0

    def skip_blank_lines(self) -> None:
        while True:
            blank = BLANKS.match(self._buffer, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._buffer) or not self._fill():
                return

    def until(self, mark: re.Pattern[bytes], most: int) -> bytes | None:
        """The bytes up to and with the first match of `mark`, None if none ends within `most` bytes."""
        searched = self._clear.get(mark, 0) - self._place - self._at
        while True:
            found = mark.search(self._buffer, self._at + max(0, searched - 3), self._at + most)
            if found:
                return self._take(found.end() - self._at)
            searched = min(most, len(self._buffer) - self._at)
            if searched >= most or not self._fill():
                self._clear[mark] = self._place + self._at + searched
                return None

    def next_record(self, start: re.Pattern[bytes], read: bytes) -> None:
        """Go on to the next record: the next match of `start` (a line end and the first line of a record) or
        the next gzip member that begins one; else to the end. read: what has just been read of the record to
        leave; it is searched too, but for its first byte.
        """
        self.give_back(read)
        while True:
            found = start.search(self._buffer, self._at)
            places = [found.start() + 1] if found else []
            for begin, _ in self._members:
                place = begin - self._place
                if place > self._at and self.begins(self._buffer[place : place + LONGEST_HEADER]):
                    places.append(place)
                    break
            if places:
                self._at = min(places)
                return
            # Keep the last line, which may not be whole yet.
            self._at = max(self._at, self._buffer.rfind(b"\n"), len(self._buffer) - LONGEST_HEADER)
            if not self._fill():
                self._at = len(self._buffer)
                return

    def recover(self) -> bool:
        """Go on behind damage, at the next gzip member that begins a record; False where there is none."""
        if self.damage is None or self.damage.early:
            return False
        with self.path.open("rb") as file:
            at = self.damage.member + 1
            while True:
                file.seek(at)
                window = file.read(WINDOW)
                found = window.find(GZIP)
                if found < 0:
                    if len(window) < WINDOW:
                        return False
                    at += WINDOW - len(GZIP) + 1
                    continue
                while found >= 0:
                    file.seek(at + found)
                    try:
                        first = zlib.decompressobj(31).decompress(file.read(4096), 4096)
                    except zlib.error:
                        first = b""
                    if self.begins(first):
                        self.damage = None
                        self._open(at + found)
                        return True
                    found = window.find(GZIP, found + 1)
                at += max(1, len(window) - len(GZIP) + 1)
