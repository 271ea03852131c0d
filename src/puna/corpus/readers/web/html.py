"""HTML pages in files of their own."""

from collections.abc import Iterator
from pathlib import Path

from puna.corpus.readers.web.page import CUT, read_page
from puna.corpus.record import RawDocument, SkippedRecord, digest
from puna.corpus.sources import streams


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Yield the page of an HTML file, with its title and main text."""
    raw = streams.read_all(path, streams.LARGEST_RECORD)
    if raw is None:
        yield SkippedRecord(streams.TOO_LARGE, path.name, 0)
        return
    page = read_page(raw)
    if page.reason:
        yield SkippedRecord(page.reason, path.name, 0)
        return
    yield RawDocument(path.name, page.text, 0, digest(raw), page.title, page.licence, page.whole, CUT)
