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
from puna.corpus.record import Found, Skipped, digest
from puna.corpus.sources import streams
from puna.errors import UserError

# "The 28 largest websites" (section 2.1) are not named in the paper. These are the 28 largest archives, sites
# about sites (meta) left out, in the listing of the public dump of June 2017, largest first.
LARGEST_SITES = (
    "stackoverflow.com", "math.stackexchange.com", "superuser.com", "askubuntu.com", "serverfault.com", "tex.stackexchange.com",
    "ru.stackoverflow.com", "unix.stackexchange.com", "codereview.stackexchange.com", "physics.stackexchange.com",
    "stats.stackexchange.com", "mathoverflow.net", "english.stackexchange.com", "electronics.stackexchange.com",
    "softwareengineering.stackexchange.com", "pt.stackoverflow.com", "gis.stackexchange.com", "scifi.stackexchange.com",
    "gaming.stackexchange.com", "dba.stackexchange.com", "apple.stackexchange.com", "wordpress.stackexchange.com",
    "codegolf.stackexchange.com", "mathematica.stackexchange.com", "security.stackexchange.com", "drupal.stackexchange.com",
    "salesforce.stackexchange.com", "sharepoint.stackexchange.com",
)  # fmt: skip
QUESTION, ANSWER = "1", "2"
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
CACHE_KIB = 32_000  # memory for posts that wait for their question; beyond it they go to a temporary file
LONGEST_BODY = 300_000  # characters; posts have at most 30,000 of Markdown
INTEGER = re.compile(r"-?[0-9]{1,18}")


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every question that has answers, by number: title, body, then the answers by numeric score, highest
    first (the older one on equal scores). An accepted answer has no other place than its score gives it;
    closed questions count like others.

    Posts are sorted outside memory (SQLite's temporary file, in the folder that SQLITE_TMPDIR or TMPDIR
    names), for the largest site has 90 GB. Raises UserError where the file breaks off, and for a 7z archive.
    """
    with path.open("rb") as file:
        if file.read(6) == SEVEN_ZIP:
            raise UserError(
                f"this is a 7z archive: unpack it with `7z x {path.name} Posts.xml` and give Posts.xml"
            )
    site = path.absolute().parent.name
    broken: list[UserError] = []
    posts = sqlite3.connect(
        "", check_same_thread=False
    )  # a temporary database: in memory first, on disk as it grows
    try:
        posts.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        posts.execute(
            "CREATE TABLE post (question INT, is_answer INT, rank INT, id INT, number INT, title TEXT, licence TEXT, body BLOB)"
        )
        posts.executemany("INSERT INTO post VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _posts(path, broken))
        ordered = posts.execute("SELECT * FROM post ORDER BY question, is_answer, rank, id, number")
        for question, rows in groupby(ordered, key=lambda row: row[0]):
            yield from _thread(site, question, rows)
    except sqlite3.OperationalError as error:
        raise UserError(
            "no room for posts in the temporary folder; name a larger one with SQLITE_TMPDIR"
        ) from error
    finally:
        posts.close()
    if broken:
        raise broken[0]


def _posts(path: Path, broken: list[UserError]) -> Iterator[tuple[Any, ...]]:
    """Questions and answers as rows of the table, whose order is that of the documents; an error of the file
    goes to `broken`."""
    number = -1
    try:
        for number, row in enumerate(streams.xml_elements(path, ("row",))):
            kind, identity = _value(row, "PostTypeId"), _integer(_value(row, "Id"))
            question = identity if kind == QUESTION else _integer(_value(row, "ParentId"))
            if kind not in (QUESTION, ANSWER) or identity is None or question is None:
                continue
            rank = -(_integer(_value(row, "Score")) or 0) if kind == ANSWER else 0
            title, licence, body = (_value(row, key) for key in ("Title", "ContentLicense", "Body"))
            packed = None if body is None else zlib.compress(body[:LONGEST_BODY].encode(), 1)
            yield question, kind == ANSWER, rank, identity, number, title or "", licence or "", packed
    except UserError as error:
        broken.append(error)


def _thread(site: str, question: int, rows: Iterator[tuple[Any, ...]]) -> Iterator[Found | Skipped]:
    """The document of one question, from its rows in order."""
    first = next(rows)
    _, is_answer, _, identity, number, title, licence, packed = first
    url = f"https://{site}/questions/{identity}"
    if is_answer or packed is None:
        if not is_answer:
            yield Skipped("not text", url, number)
        for _, is_answer, _, answer, place, *_ in (first, *rows):
            if is_answer:
                yield Skipped("answer without its question", f"https://{site}/a/{answer}", place)
        return
    bodies = [zlib.decompress(packed).decode()]
    for _, is_answer, _, answer, place, *_, packed in rows:
        if packed is None:
            yield Skipped("not text", f"https://{site}/a/{answer}", place)
        elif is_answer:
            bodies.append(zlib.decompress(packed).decode())
    texts = [html_to_text(body) for body in bodies]
    answers = [f"A: {text}" for text in texts[1:] if text]
    if not answers:
        yield Skipped("no answer", url, number)
        return
    text = "\n\n".join(part for part in (title, texts[0], *answers) if part)
    yield Found(url, text, number, digest("\0".join(bodies)), title, licence or "CC-BY-SA")


def _value(row: Any, name: str) -> str | None:
    """An attribute of a row, "" without one; None for one with a reference to half a pair of UTF-16."""
    try:
        return str(row.get(name, ""))
    except UnicodeDecodeError:
        return None


def _integer(text: str | None) -> int | None:
    return int(text) if text and INTEGER.fullmatch(text) else None
