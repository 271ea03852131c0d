"""Text files with one document a line."""

from collections.abc import Iterator
from pathlib import Path

from puna.corpus.record import RawDocument, SkippedRecord, digest
from puna.corpus.sources import streams


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Read every line that is not empty, in UTF-8."""
    for number, (offset, raw) in enumerate(streams.lines(path)):
        url = f"{path.name}#{number + 1}"
        if raw is None:
            yield SkippedRecord(streams.TOO_LARGE, url, offset)
            continue
        if not raw.strip():
            continue
        try:
            text = raw.decode("utf-8-sig" if not number else "utf-8")
        except UnicodeDecodeError as error:
            yield SkippedRecord("not UTF-8", url, offset + error.start)
            continue
        yield RawDocument(url, text, offset, digest(raw))
