"""Forward cursor over the bytes of a web archive, compressed or not, which can recover behind damage."""

import re
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from puna.corpus.sources import streams

BLANK_LINES = re.compile(rb"[\r\n]*")
GZIP_MAGIC = b"\x1f\x8b\x08"
SEARCH_WINDOW_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 16


class Archive:
    """Forward cursor over the decompressed bytes of an archive.

    `damage` is set when the compressed stream cannot be read on: reads then return what was decompressed
    before it, and `recover` finds the next gzip member that starts a record. starts_record: tells whether
    bytes are the start of a record.
    """

    def __init__(self, path: Path, starts_record: Callable[[bytes], bool]) -> None:
        self.path, self.starts_record = path, starts_record
        self.damage: streams.Damaged | None = None
        self.bytes_pushed_back = 0  # in total
        self._open(0)

    def _open(self, start: int) -> None:
        self._pieces = streams.members(self.path, start)
        self._buffer, self._at = b"", 0
        self._buffer_start = 0  # position of the buffer's first byte in what was decompressed since `start`
        # Gzip members: start of the content in what was decompressed, start of the member in the file.
        self._members: deque[tuple[int, int]] = deque()
        self._last_member = -1
        # Up to where a pattern is known to have no match, so that nothing is searched twice.
        self._searched_until: dict[re.Pattern[bytes], int] = {}

    def _fill(self) -> bool:
        """Decompress one more piece; return False at the end and at damage."""
        if self.damage is not None:
            return False
        try:
            member, piece = next(self._pieces)
        except StopIteration:
            return False
        except streams.Damaged as damage:
            self.damage = damage
            return False
        self._buffer_start += self._at
        if member is not None and member != self._last_member:
            self._members.append((self._buffer_start + len(self._buffer) - self._at, member))
            self._last_member = member
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return True

    def offset(self) -> int:
        """Return where the cursor is in the file: its gzip member's offset, without members its own."""
        position = self._buffer_start + self._at
        while len(self._members) > 1 and self._members[1][0] <= position:
            self._members.popleft()
        return self._members[0][1] if self._members else position

    def peek(self, size: int) -> bytes:
        """Return up to `size` bytes ahead without moving the cursor."""
        while len(self._buffer) - self._at < size and self._fill():
            pass
        return self._buffer[self._at : self._at + size]

    def read(self, size: int) -> bytes:
        """Read `size` bytes, fewer only at the end or at damage."""
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
        """Skip up to `size` bytes and return how many there were."""
        missing = size - len(self._take(size))
        while missing and self._fill():
            missing -= len(self._take(missing))
        return size - missing

    def push_back(self, content: bytes) -> None:
        """Put the last bytes that were read back in front of the cursor."""
        self.bytes_pushed_back += len(content)
        self._buffer = content + self._buffer[self._at :]
        self._buffer_start += self._at - len(content)
        self._at = 0

    def skip_blank_lines(self) -> None:
        """Move to the next byte that ends no line."""
        while True:
            blank = BLANK_LINES.match(self._buffer, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._buffer) or not self._fill():
                return

    def read_until(self, pattern: re.Pattern[bytes], max_bytes: int) -> bytes | None:
        """Read to the end of the first match of a pattern; None if no match ends within `max_bytes`."""
        searched = self._searched_until.get(pattern, 0) - self._buffer_start - self._at
        while True:
            match = pattern.search(self._buffer, self._at + max(0, searched - 3), self._at + max_bytes)
            if match:
                return self._take(match.end() - self._at)
            searched = min(max_bytes, len(self._buffer) - self._at)
            if searched >= max_bytes or not self._fill():
                self._searched_until[pattern] = self._buffer_start + self._at + searched
                return None

    def skip_to_next_record(self, start: re.Pattern[bytes], read: bytes) -> None:
        """Move to the next match of `start` or the next gzip member that starts a record, else to the end.

        start: matches a line end and the first line of a record. read: what was just read of the record to
        leave; it is searched too, except for its first byte.
        """
        self.push_back(read)
        while True:
            match = start.search(self._buffer, self._at)
            candidates = [match.start() + 1] if match else []
            for content_start, _ in self._members:
                candidate = content_start - self._buffer_start
                if candidate <= self._at:
                    continue
                if self.starts_record(self._buffer[candidate : candidate + MAX_HEADER_BYTES]):
                    candidates.append(candidate)
                    break
            if candidates:
                self._at = min(candidates)
                return
            # Keep the last line, which may be incomplete.
            self._at = max(self._at, self._buffer.rfind(b"\n"), len(self._buffer) - MAX_HEADER_BYTES)
            if not self._fill():
                self._at = len(self._buffer)
                return

    def recover(self) -> bool:
        """Move behind damage to the next gzip member that starts a record; return False if there is none."""
        if self.damage is None or self.damage.early:
            return False
        with self.path.open("rb") as file:
            window_start = self.damage.member + 1
            while True:
                file.seek(window_start)
                window = file.read(SEARCH_WINDOW_BYTES)
                candidate = window.find(GZIP_MAGIC)
                if candidate < 0:
                    if len(window) < SEARCH_WINDOW_BYTES:
                        return False
                    window_start += SEARCH_WINDOW_BYTES - len(GZIP_MAGIC) + 1
                    continue
                while candidate >= 0:
                    file.seek(window_start + candidate)
                    try:
                        head = zlib.decompressobj(31).decompress(file.read(4096), 4096)
                    except zlib.error:
                        head = b""
                    if self.starts_record(head):
                        self.damage = None
                        self._open(window_start + candidate)
                        return True
                    candidate = window.find(GZIP_MAGIC, candidate + 1)
                window_start += max(1, len(window) - len(GZIP_MAGIC) + 1)
