"""StackExchange's Posts.xml: each question with its answers, the best first.

The dumps give one 7z archive a site; `7z x SITE.7z Posts.xml` unpacks what is read here. A folder above a
Posts.xml, or the file itself, names its site, by its whole address or as "stackoverflow.com-Posts".
"""

import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from puna.corpus.readers.plain.post import html_to_text
from puna.corpus.record import RawDocument, SkippedRecord, digest
from puna.corpus.sources import streams
from puna.errors import UserError
from puna.text.lists import listed

QUESTION, ANSWER = "1", "2"
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
CACHE_KIB = 32_000  # memory for posts that wait to be sorted; beyond it they go to a temporary file
LONGEST_BODY = 300_000  # characters; posts have at most 30,000 of Markdown
TOO_LONG = "post over 300,000 characters"
IMAGES_ONLY, WITHOUT_TEXT = "answer of images only", "answer without text"
INTEGER = re.compile(r"-?[0-9]{1,18}")
# Sites with addresses of their own, beside NAME.stackexchange.com and NAME.stackoverflow.com.
OWN_ADDRESSES = ("stackoverflow.com", "superuser.com", "serverfault.com", "askubuntu.com", "mathoverflow.net",
                 "stackapps.com")  # fmt: skip
SITE = re.compile(
    r"(?<![a-z0-9-])(?:www\.)?((?:[a-z0-9-]+(?:\.meta)?\.)stackexchange\.com"
    rf"|(?:meta\.|[a-z]{{2}}\.(?:meta\.)?)?(?:{'|'.join(map(re.escape, OWN_ADDRESSES))}))(?![a-z0-9])",
    re.IGNORECASE,
)
LINKED_SITE = re.compile(rf"https?://{SITE.pattern}/(?:questions|q|a|users|tags|posts)/", re.IGNORECASE)
FEWEST_LINKS, LINKS_LOOKED_AT = 3, 1_000
# Names of sites of stackexchange.com (stackexchange.com/sites, 2024), for folders that leave out the rest.
SHORT_NAMES = frozenset(listed(__file__, "names.json")["stackexchange_sites"].split())
# What a folder's name may have around the name of a site: of dumps, dates, parts and copies.
AROUND = re.compile(
    r"(?:[-_. ](?:posts|dump|data|xml|7z|\d[\d-]*|part\d*|copy|extracted|unpacked))+$", re.IGNORECASE
)
FOLDERS_ABOVE = 3  # that may name the site
# Days from which posts are under a version of CC BY-SA (stackoverflow.com/help/licensing).
VERSIONS = (("2018-05-02", "4.0"), ("2011-04-08", "3.0"), ("2008-", "2.5"))
STATED = re.compile(r"CC[ -]BY-SA[ -]([\d.]+)")
IMAGE = re.compile(r"<img\b", re.IGNORECASE)


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
    site, linked = site_of(path), Counter[str]()
    errors: list[UserError] = []
    # A temporary database: in memory first, on disk as it grows.
    posts = sqlite3.connect("", check_same_thread=False)
    try:
        posts.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        posts.execute(
            "CREATE TABLE post (question INT, is_answer INT, rank INT, id INT, number INT, "
            "title TEXT, licence TEXT, body BLOB)"
        )
        posts.executemany("INSERT INTO post VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _posts(path, errors, linked))
        if not SITE.fullmatch(site):
            site = _by_links(linked) or site
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


def site_of(path: Path) -> str:
    """Return the address of a dump's site, as the path names it; the folder's name where it names none.

    A name without an ending, as "cooking" or "math.meta", is a site of stackexchange.com, but for those that
    have addresses of their own.
    """
    path = path.absolute()
    file = re.sub(r"[-_.]?posts\.xml.*", "", path.name, flags=re.IGNORECASE)
    folders = [folder.name for folder in path.parents][:FOLDERS_ABOVE]
    for name in [file, *folders]:
        if site := SITE.search(name):
            return site[1].lower()
    name = AROUND.sub("", folders[0] if folders else "")
    short, dot, meta = name.lower().partition(".")
    if short in SHORT_NAMES and meta in ("", "meta"):
        return f"{short}{dot}{meta}.stackexchange.com"
    return next((site for site in OWN_ADDRESSES if site.partition(".")[0] == name.lower()), name)


def _by_links(linked: Counter[str]) -> str:
    """Return the site that most links in the posts lead to, since they mostly stay within it; "" for none."""
    (site, count), *_ = linked.most_common(1) or [("", 0)]
    return site if count >= FEWEST_LINKS and 2 * count > linked.total() else ""


def _licence(stated: str, created: str) -> str:
    """Return a post's licence as SPDX: what the dump states, else by its day; "CC-BY-SA" without either."""
    if version := STATED.search(stated):
        return f"CC-BY-SA-{version[1]}"
    return next((f"CC-BY-SA-{version}" for day, version in VERSIONS if created >= day), stated or "CC-BY-SA")


def _posts(path: Path, errors: list[UserError], linked: Counter[str]) -> Iterator[tuple[Any, ...]]:
    """Questions and answers as rows of the table; an error of the file goes to `errors`.

    linked: counts the sites to whose pages the posts link.
    """
    number = -1
    try:
        for number, row in enumerate(streams.xml_elements(path, ("row",))):
            kind, identity = _value(row, "PostTypeId"), _integer(_value(row, "Id"))
            question = identity if kind == QUESTION else _integer(_value(row, "ParentId"))
            if kind not in (QUESTION, ANSWER) or identity is None or question is None:
                continue
            rank = -(_integer(_value(row, "Score")) or 0) if kind == ANSWER else 0
            title, licence, body = (_value(row, key) for key in ("Title", "ContentLicense", "Body"))
            if body and "://" in body and sum(linked.values()) < LINKS_LOOKED_AT:
                linked.update(link[1].lower() for link in LINKED_SITE.finditer(body))
            licence = _licence(licence or "", _value(row, "CreationDate") or "")
            stored = _skip_reason(body) or zlib.compress((body or "").encode(), 1)
            yield question, kind == ANSWER, rank, identity, number, title or "", licence or "", stored
    except UserError as error:
        errors.append(error)


def _skip_reason(body: str | None) -> str:
    """Return why a post is skipped that has this body, "" where it is not."""
    if body is None:
        return "not text"
    if body.endswith(streams.CUT):
        return streams.TOO_LARGE
    return TOO_LONG if len(body) > LONGEST_BODY else ""


def _thread(
    site: str, question: int, rows: Iterator[tuple[Any, ...]]
) -> Iterator[RawDocument | SkippedRecord]:
    """The document of one question, from its rows in order, and every answer that is not in it."""
    first = next(rows)
    _, is_answer, _, identity, number, title, licence, body = first
    url = f"https://{site}/questions/{identity}"
    if is_answer or isinstance(body, str):
        if not is_answer:
            yield SkippedRecord(body, url, number)
        for _, is_answer, _, answer, offset, *_ in (first, *rows):
            if is_answer:
                yield SkippedRecord("answer without its question", f"https://{site}/a/{answer}", offset)
        return
    bodies = [zlib.decompress(body).decode()]
    licences = {licence}
    answers: list[str] = []
    without = "no answer"
    for _, is_answer, _, post, offset, _, licence, body in rows:
        reason, text = "" if is_answer else "question came before", ""
        if isinstance(body, str):
            reason = body
        elif not reason:
            body = zlib.decompress(body).decode()
            text = html_to_text(body)
            reason = "" if text else IMAGES_ONLY if IMAGE.search(body) else WITHOUT_TEXT
        if reason:
            without = "no answer with text"
            yield SkippedRecord(reason, f"https://{site}/{'a' if is_answer else 'questions'}/{post}", offset)
        else:
            bodies.append(body)
            licences.add(licence)
            answers.append("A:" + (f"\n{text}" if text[0].isspace() else f" {text}"))
    if not answers:
        yield SkippedRecord(without, url, number)
        return
    text = "\n\n".join(part for part in (title, html_to_text(bodies[0]), *answers) if part)
    yield RawDocument(url, text, number, digest("\0".join(bodies)), title, " AND ".join(sorted(licences)))


def _value(row: Any, name: str) -> str | None:
    """Return an attribute of a row, "" without one; None where it refers to half a surrogate pair."""
    try:
        return str(row.get(name, ""))
    except UnicodeDecodeError:
        return None


def _integer(text: str | None) -> int | None:
    return int(text) if text and INTEGER.fullmatch(text) else None
