"""HTML pages lying in files of their own."""

from collections.abc import Iterator
from pathlib import Path

from puna.corpus.readers.web.page import page_text
from puna.corpus.record import Found, Skipped, digest
from puna.corpus.sources import streams


def read(path: Path) -> Iterator[Found | Skipped]:
    """One page: the title, then its main text."""
    raw = b"".join(streams.chunks(path))
    title, text = page_text(raw)
    if not text:
        yield Skipped("no text", path.name, 0)
        return
    yield Found(path.name, text, 0, digest(raw), title)
