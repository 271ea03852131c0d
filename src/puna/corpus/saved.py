"""What a killed merge leaves for the next one: a folder of files that only grow, and how far each counts.

`state.json` says how long each file was when it was saved, and the CRC-32 of that much of it; it is replaced
in one rename, once the files are on disk. What came after is cut off. Where anything is not as it was saved,
nothing of it is believed.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from puna.run.files import sync, write_atomically

STATE = "state.json"
READ_AT_ONCE = 1 << 20


class Saved:
    """The folder of a merge. key: of what the merge depends on; what was saved under another is not taken."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._files: dict[str, tuple[int, int]] = {}  # path in the folder -> bytes, CRC-32

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last, with the files as they were then.

        None, and an empty folder, where nothing was, where it was under another key, or where it is damaged.
        """
        try:
            digest, _, body = (self.folder / STATE).read_text().partition("\n")
            saved = json.loads(body) if digest == hashlib.sha256(body.encode()).hexdigest() else {}
            self._files = {name: (size, crc) for name, (size, crc) in saved["files"].items()}
            whole = saved["key"] == self.key and all(map(self._is_whole, self._files))
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            self._files = {}
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            return None
        for path in list(self.folder.rglob("*.bin")):
            if known := self._files.get(path.relative_to(self.folder).as_posix()):
                os.truncate(path, known[0])
            else:
                path.unlink()
        return saved["content"]

    def save(self, content: dict[str, Any], paths: Iterable[Path]) -> None:
        """Save the files with these paths as they are now, and what else there is to know, in JSON types."""
        files = {}
        for path in paths:
            name, size = path.relative_to(self.folder).as_posix(), path.stat().st_size
            done, crc = self._files.get(name, (0, 0))
            if size > done:
                sync(path)
                crc = _crc(path, done, size, crc)
            files[name] = (size, crc)
        body = json.dumps({"key": self.key, "files": files, "content": content})
        write_atomically(self.folder / STATE, f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}")
        sync(self.folder)
        self._files = files

    def _is_whole(self, name: str) -> bool:
        size, crc = self._files[name]
        path = self.folder / name
        return path.stat().st_size >= size and _crc(path, 0, size) == crc


def _crc(path: Path, start: int, end: int, crc: int = 0) -> int:
    """CRC-32 of a file up to `end`, from the one up to `start`."""
    with path.open("rb") as file:
        file.seek(start)
        while part := file.read(min(READ_AT_ONCE, end - file.tell())):
            crc = zlib.crc32(part, crc)
    return crc
