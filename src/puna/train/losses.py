"""losses.jsonl: one line a step with what training found there, appended once.

A checkpoint holds no losses, only the digest of the lines before it, so its size does not grow with the
steps.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

LOSSES = "losses.jsonl"


class Losses:
    """The lines of a training so far, in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path, self._hash = path, hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of all lines so far."""
        return self._hash.hexdigest()

    def begin(self) -> None:
        """Start with no line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self._hash = hashlib.sha256()

    def lines(self) -> list[dict[str, Any]]:
        """All lines so far, in order."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def append(self, entry: dict[str, Any]) -> None:
        """Add the line of one step."""
        self._hash.update(append_line(self.path, entry))

    def go_on(self, source: Path, steps: int, digest: str) -> bool:
        """Take over the first `steps` lines of `source`, this file or that of another training.

        Later lines are cut off, and with them half a one that a kill left at the end. False, and nothing is
        changed, where the lines are not those of `digest`.
        """
        lines = source.read_bytes().splitlines(keepends=True) if source.is_file() else []
        kept = b"".join(lines[:steps])
        found = hashlib.sha256(kept)
        if found.hexdigest() != digest:
            return False
        if source == self.path:
            os.truncate(self.path, len(kept))
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(kept)
        self._hash = found
        return True


def append_line(path: Path, entry: dict[str, Any]) -> bytes:
    """Append an entry to a file of JSON lines; the line. Of one that finds the disk full nothing stays."""
    line = (json.dumps(entry) + "\n").encode()
    with path.open("ab", buffering=0) as file:
        before, rest = file.tell(), memoryview(line)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            file.truncate(before)
            raise OSError(error.errno, error.strerror, str(path)) from error
    return line


def last_loss(path: Path) -> float:
    """The loss of the last step that was taken, in nats per token."""
    for line in reversed(path.read_bytes().splitlines()):
        entry = json.loads(line)
        if not entry.get("skipped"):
            return float(entry["loss"])
    raise ValueError(f"{path} holds no step that was taken")
