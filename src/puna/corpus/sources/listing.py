"""The list of a source's raw files, on disk, one a line: a corpus may have millions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from puna.corpus.sources.fetch import RawFile


def path_of(folder: Path, source: str) -> Path:
    """Where the artifact of raw files in `folder` lists those of a source."""
    return folder / f"{source}.jsonl"


def write(listed: IO[bytes], folder: Path, file: RawFile) -> None:
    """Append a raw file to an open list; paths are told from `folder` where a file lies in it."""
    inside = file.path.is_relative_to(folder) and not file.unreadable
    path = file.path.relative_to(folder).as_posix() if inside else None
    entry = {"name": file.name, "digest": file.digest, "bytes": file.bytes, "path": path}
    listed.write(json.dumps(entry).encode() + b"\n")


def read(folder: Path, source: str, root: Path) -> Iterator[RawFile]:
    """The raw files of a source, in order. root: folder that local files are relative to."""
    with path_of(folder, source).open("rb") as listed:
        for line in listed:
            entry: dict[str, Any] = json.loads(line)
            path = folder / entry["path"] if entry["path"] else root / entry["name"]
            yield RawFile(source, entry["name"], str(path), entry["digest"], entry["bytes"])
