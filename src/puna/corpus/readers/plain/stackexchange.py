"""StackExchange's Posts.xml: each question with its answers, the best first.

The dumps give one 7z archive a site; `7z x SITE.7z Posts.xml` unpacks what is read here. The folder of a
Posts.xml names its site.
"""

import re
import sqlite3
import zlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from puna.corpus.readers.plain.post import html_to_text
from puna.corpus.record import RawDocument, SkippedRecord, digest
from puna.corpus.sources import streams
from puna.errors import UserError

QUESTION, ANSWER = "1", "2"
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
CACHE_KIB = 32_000  # memory for posts that wait to be sorted; beyond it they go to a temporary file
LONGEST_BODY = 300_000  # characters; posts have at most 30,000 of Markdown
INTEGER = re.compile(r"-?[0-9]{1,18}")


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Read every question that has answers, by number: title, body, then the answers by score.

    The highest numeric score comes first, and of equal ones the older answer. An accepted answer has no other
    place than its score gives it; closed questions count like others. Posts are sorted outside memory
    (SQLite's temporary file, in the folder that SQLITE_TMPDIR or TMPDIR names), for the largest site has
    90 GB. Raises UserError where the file breaks off, and for a 7z archive.
    """
    with path.open("rb") as file:
        if file.read(6) == SEVEN_ZIP:
            raise UserError(
                f"this is a 7z archive: unpack it with `7z x {path.name} Posts.xml` and give Posts.xml"
            )
    site = path.absolute().parent.name
    errors: list[UserError] = []
    # A temporary database: in memory first, on disk as it grows.
    posts = sqlite3.connect("", check_same_thread=False)
    try:
        posts.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        posts.execute(
            "CREATE TABLE post (question INT, is_answer INT, rank INT, id INT, number INT, "
            "title TEXT, licence TEXT, body BLOB)"
        )
        posts.executemany("INSERT INTO post VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _posts(path, errors))
        ordered = posts.execute("SELECT * FROM post ORDER BY question, is_answer, rank, id, number")
        for question, rows in groupby(ordered, key=lambda row: row[0]):
            yield from _thread(site, question, rows)
    except sqlite3.OperationalError as error:
        raise UserError(
            "no room for posts in the temporary folder; name a larger one with SQLITE_TMPDIR"
        ) from error
    finally:
        posts.close()
    if errors:
        raise errors[0]


def _posts(path: Path, errors: list[UserError]) -> Iterator[tuple[Any, ...]]:
    """Questions and answers as rows of the table; an error of the file goes to `errors`."""
    number = -1
    try:
        for number, row in enumerate(streams.xml_elements(path, ("row",))):
            kind, identity = _value(row, "PostTypeId"), _integer(_value(row, "Id"))
            question = identity if kind == QUESTION else _integer(_value(row, "ParentId"))
            if kind not in (QUESTION, ANSWER) or identity is None or question is None:
                continue
            rank = -(_integer(_value(row, "Score")) or 0) if kind == ANSWER else 0
            title, licence, body = (_value(row, key) for key in ("Title", "ContentLicense", "Body"))
            compressed = None if body is None else zlib.compress(body[:LONGEST_BODY].encode(), 1)
            yield question, kind == ANSWER, rank, identity, number, title or "", licence or "", compressed
    except UserError as error:
        errors.append(error)


def _thread(
    site: str, question: int, rows: Iterator[tuple[Any, ...]]
) -> Iterator[RawDocument | SkippedRecord]:
    """The document of one question, from its rows in order."""
    first = next(rows)
    _, is_answer, _, identity, number, title, licence, body = first
    url = f"https://{site}/questions/{identity}"
    if is_answer or body is None:
        if not is_answer:
            yield SkippedRecord("not text", url, number)
        for _, is_answer, _, answer, offset, *_ in (first, *rows):
            if is_answer:
                yield SkippedRecord("answer without its question", f"https://{site}/a/{answer}", offset)
        return
    bodies = [zlib.decompress(body).decode()]
    for _, is_answer, _, answer, offset, *_, body in rows:
        if body is None:
            yield SkippedRecord("not text", f"https://{site}/a/{answer}", offset)
        elif is_answer:
            bodies.append(zlib.decompress(body).decode())
    texts = [html_to_text(body) for body in bodies]
    answers = [f"A: {text}" for text in texts[1:] if text]
    if not answers:
        yield SkippedRecord("no answer", url, number)
        return
    text = "\n\n".join(part for part in (title, texts[0], *answers) if part)
    yield RawDocument(url, text, number, digest("\0".join(bodies)), title, licence or "CC-BY-SA")


def _value(row: Any, name: str) -> str | None:
    """Return an attribute of a row, "" without one; None where it refers to half a surrogate pair."""
    try:
        return str(row.get(name, ""))
    except UnicodeDecodeError:
        return None


def _integer(text: str | None) -> int | None:
    return int(text) if text and INTEGER.fullmatch(text) else None
