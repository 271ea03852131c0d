"""Readers of raw formats, one file each: `read(path)` yields a RawDocument or a SkippedRecord per record.

Where extracting a record's text is expensive, `read(path, refuses)` first checks if its URL is opted out.
A bad record is skipped with a short fixed reason, and reading goes on at the next record that can be found.
Memory is bounded by a record (a line, a paper, a book, a page), not by the file. A file that is truncated or
not of its format yields what can be read and then raises UserError, which says where; no other exception
leaves a reader, whatever the file holds.
"""

from collections.abc import Callable, Iterator
from typing import Any

Read = Callable[..., Iterator[Any]]


def reader(name: str) -> Read:
    """Return the function that reads raw files of a format."""
    # Imported here, since each imports a parser of its own.
    from puna.corpus.readers.code import github, package
    from puna.corpus.readers.latex import arxiv
    from puna.corpus.readers.plain import book, jsonl, lines, stackexchange, text, unread
    from puna.corpus.readers.web import html, warc
    from puna.corpus.readers.wiki import wikipedia

    table: dict[str, Read] = {
        "warc": warc.read,
        "html": html.read,
        "wikipedia": wikipedia.read,
        "stackexchange": stackexchange.read,
        "arxiv": arxiv.read,
        "book": book.read,
        "text": text.read,
        "code": package.read,
        "github": github.read,
        "lines": lines.read,
        "jsonl": jsonl.read,
        "none": unread.read,
    }
    return table[name]
