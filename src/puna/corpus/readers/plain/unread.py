"""Files that no reader takes: no text, but a row of what was dropped, with the reason."""

from collections.abc import Iterator
from pathlib import Path

from puna.corpus.record import SkippedRecord
from puna.corpus.sources.members import ARCHIVES


def read(path: Path) -> Iterator[SkippedRecord]:
    """Read nothing; give the reason, which says how the file's name ends."""
    name = path.name.lower()
    if name.startswith("."):
        reason = "hidden folder" if path.is_dir() else "hidden file"
    elif name.endswith(ARCHIVES):
        reason = "no reader for some files in the archive"
    else:
        reason = f"no reader for {path.suffix.lower() or 'a name without an ending'}"
    yield SkippedRecord(reason, path.name, 0)
