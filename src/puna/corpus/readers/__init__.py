"""One file per raw format. Each has `read(path)`, which gives every record of a raw file as Found or Skipped,
in order. Where taking out a record's text is work, `read(path, refuses)` asks first whether its URL is opted
out of.

A bad record is skipped with a short fixed reason, and what lies behind it is read where it can be found.
Memory is bounded by a record (a line, a paper, a book, a page), not by the file. A file that breaks off or is
not of its format gives what can be read and then raises UserError saying where; no other exception leaves a
reader, whatever the file holds.
"""

from collections.abc import Callable, Iterator
from typing import Any

Read = Callable[..., Iterator[Any]]


def reader(name: str) -> Read:
    """The function that reads raw files of one format."""
    # Loaded at the first call: each brings a parser of its own.
    from puna.corpus.readers.code import github, package
    from puna.corpus.readers.latex import arxiv
    from puna.corpus.readers.plain import book, jsonl, lines, stackexchange, text
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
    }
    return table[name]
