"""The web pages that Wikipedia's articles cite: the positive examples of the reference classifier (paper,
section 2.1).

Templates that build an address out of an identifier (doi, ISBN, a video's number) are not expanded.
"""

import hashlib
import html
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from puna.corpus.sources import streams
from puna.text.urls import normalise_url

VERBATIM = re.compile(
    r"<!--|<(nowiki|pre|syntaxhighlight|source|math|score|timeline)\b[^<>]*>", re.IGNORECASE
)
REF = re.compile(r"<ref\b([^<>]*)>|</ref\s*>", re.IGNORECASE)
UNCLOSED_CHARACTERS = 2_000  # of a <ref> that is never closed; it ends at an empty line, too
OPEN = r"(?P<open>\{\{\s*(?P<name>[^|{}\[\]<>\n]{0,60}))"
START = r"(?P<url>\[?(?:(?<![A-Za-z0-9])https?:|(?<=\[)|(?<==))//"
PARAMETER = r"(?P<parameter>\|\s*(?:(?P<key>\w[\w -]{0,40}?)\s*=\s*)?)"
CHARACTERS = r"""[^\s\[\]<>"{}|']+|'(?!')|\{(?!\{)|\}(?!\})"""
CLOSE = r"(?P<close>\}\})"
# The marks of a text outside templates, where a pipe is part of an address, and inside of them, where it ends
# one.
MARKS = (
    re.compile(rf"{OPEN}|{START}(?:{CHARACTERS}|\|)+)", re.IGNORECASE),
    re.compile(rf"{OPEN}|{CLOSE}|{PARAMETER}|{START}(?:{CHARACTERS})+)", re.IGNORECASE),
)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
# Names of the templates that cite, in the 20 languages of the paper, and of those that stand for <ref>.
CITATION = re.compile(
    r"(?:cit(?:e|ation|a|ar|at|ace|eer|iranje|web|lib|per)|vcite2?|cytuj|ref-\w+|lien (?:web|archive)|article|ouvrage|chapitre|"
    r"internetquelle|literatur|webarchive?|webbref|bokref|tidningsref|tidskriftsref|kilde|navedi|цитат|цитиране|статья|книга|публикация|"
    r"стаття|#tag:ref|refn|efn|notetag)\b",
    re.IGNORECASE,
)
ARCHIVE_KEY = re.compile(r"archi|arhiv|arkiv|arquiv|arxiu|архив|архів|wayback", re.IGNORECASE)
ARCHIVE = re.compile(
    r"https?://(?:[\w-]+\.)*(?:(?:web|wayback|liveweb|replay|classic-web)\.archive\.org|archive\.(?:today|is|ph|li|vn|md|fo)|"
    r"archive\.wikiwix\.com|webcitation\.org|archive-it\.org|webarchive\.[\w.-]+|arquivo\.pt|perma\.cc|ghostarchive\.org|megalodon\.jp|"
    r"freezepage\.com|webcache\.googleusercontent\.com)(?::\d+)?(?:[/?]|\Z)(.*)",
    re.IGNORECASE | re.DOTALL,
)
QUERIED = re.compile(r"[?&]url=([^&]+)", re.IGNORECASE)
CAPTURED = re.compile(
    r"https?:/{1,2}(?=\w)(.+)|(?:\A|/)\d{4,14}[a-z_*]{0,4}/([\w-]+\.[\w-].*)", re.IGNORECASE | re.DOTALL
)


def references(wikitext: str) -> list[str]:
    """Addresses of the pages that an article cites, as they are written there, each page once, in time linear
    in the text.

    What counts is any http address in a <ref>, wherever that stands, and in a template of citation outside of
    one; not what a comment or <nowiki> hides. Of an archived copy the original page is given, where the
    address names it; else nothing.
    """
    bodies, rest = _split(_visible(wikitext).replace("{{!}}", "%7C").replace("{{=}}", "="))
    found: dict[str, str] = {}
    for text, cited in [*((body, True) for body in bodies), (rest, False)]:
        for url in _addresses(text, cited):
            if key := normalise_url(url):
                found.setdefault(key, url)
    return list(found.values())


def cited(path: Path) -> Iterator[tuple[str, str]]:
    """(article, address of a page it cites) over the articles of a dump: its address where the dump names its
    wiki, else its title.

    Raises UserError, after all whole pages, where the dump breaks off.
    """
    base = ""
    for element in streams.xml_elements(path, ("base", "page")):
        if element.tag.rpartition("}")[2] == "base":
            base = (element.text or "").rpartition("/")[0]
            continue
        values: dict[str, Any] = {
            part.tag.rpartition("}")[2]: part.text or "" for part in element.iter("{*}*")
        }
        if values.get("ns", "0").strip() != "0" or values.get("model", "wikitext") != "wikitext":
            continue
        title = values.get("title", "")
        article = f"{base}/{quote(title.replace(' ', '_'), safe='/:(),!*')}" if base else title
        for url in references(values.get("text", "")):
            yield article, url


class Citations:
    """A set of pages by their addresses, however written, at 8 bytes each: two of them are mixed up once in
    2^64 pairs."""

    def __init__(self, urls: Iterable[str]) -> None:
        keys = array("Q", (_key(name) for url in urls if (name := normalise_url(url))))
        self._keys = np.unique(np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, url: str) -> bool:
        name = normalise_url(url)
        key = np.uint64(_key(name))
        place = int(np.searchsorted(self._keys, key))
        return bool(name) and place < len(self._keys) and bool(self._keys[place] == key)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _visible(text: str) -> str:
    """Without comments and without what stands in tags whose content is no wikitext."""
    parts: list[str] = []
    at = 0
    never_closed: set[str] = (
        set()
    )  # so that a text of many opening tags is not searched to its end for each of them
    while opening := VERBATIM.search(text, at):
        parts.append(text[at : opening.start()])
        at = opening.end()
        if not opening[1]:
            end = text.find("-->", at)
            at = end + 3 if end >= 0 else len(text)
        elif not opening[0].endswith("/>") and (name := opening[1].lower()) not in never_closed:
            closing = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, at)
            if closing is None:
                never_closed.add(name)
            else:
                parts.append(" ")
                at = closing.end()
    return "".join(parts) + text[at:]


def _split(text: str) -> tuple[list[str], str]:
    """(contents of <ref> tags, all other text)."""
    bodies: list[str] = []
    outside: list[str] = []
    at, start = 0, -1
    for mark in [*REF.finditer(text), None]:
        if mark is not None and mark[1] is not None and mark[1].endswith("/"):
            continue
        if start >= 0:
            at = end = mark.start() if mark else len(text)
            if mark is None or mark[1] is not None:  # the next one opens before this one is closed
                at = end = min(end, start + UNCLOSED_CHARACTERS)
                if (empty := text.find("\n\n", start, end)) >= 0:
                    at = end = empty
            bodies.append(text[start:end])
            start = -1
        if mark is not None and mark[1] is not None:
            outside.append(text[at : mark.start()])
            at = start = mark.end()
    outside.append(text[at:])
    return bodies, " ".join(outside)


@dataclass
class _Frame:
    """A template, or the text outside of any: its addresses, and those of archived copies, which count where
    there are no others."""

    cited: bool
    archive: bool = False  # the parameter at hand is an archived copy
    value_at: int = -1  # where its value starts
    plain: list[str] = field(default_factory=list)
    archived: list[str] = field(default_factory=list)

    def add(self, url: str) -> None:
        copy = ARCHIVE.match(url)
        if copy is None and not self.archive:
            self.plain.append(url)
        elif copy is not None and (original := _original(copy[1])):
            self.archived.append(original)


def _addresses(text: str, cited: bool) -> Iterator[str]:
    stack = [_Frame(cited)]
    at = 0
    while mark := MARKS[len(stack) > 1].search(text, at):
        at = mark.end()
        frame = stack[-1]
        if mark["open"]:
            stack.append(
                _Frame(frame.cited or CITATION.match(mark["name"].replace("_", " ").strip()) is not None)
            )
        elif mark["url"]:
            if frame.cited:
                bare = not mark["url"].startswith("[") and mark.start() != frame.value_at
                frame.add(_address(mark["url"].removeprefix("["), bare))
        elif mark["close"]:
            stack.pop()
            yield from frame.plain or frame.archived
        else:
            frame.archive, frame.value_at = ARCHIVE_KEY.search(mark["key"] or "") is not None, at
    for frame in stack:
        yield from frame.plain or frame.archived


def _address(url: str, bare: bool) -> str:
    """An address as MediaWiki reads it: entities resolved, and a bare one without the sentence's punctuation
    behind it."""
    url = re.split(
        r"&(?:lt|gt|nbsp|#0*(?:60|62|160)|#x0*(?:3[ce]|a0));", url, maxsplit=1, flags=re.IGNORECASE
    )[0]
    url = ENTITY.sub(lambda match: html.unescape(match[0]), url)
    if bare:
        url = url.rstrip(",;.:!?" if "(" in url else ",;.:!?)")
    return f"https:{url}" if url.startswith("//") else url


def _original(rest: str) -> str:
    """The page that an archive's address is a copy of, from what follows the archive's host; "" where it does
    not say."""
    if queried := QUERIED.search("?" + rest):
        return (
            unquote(queried[1]) if queried[1][:10].lower().startswith(("http%3a", "https%3a")) else queried[1]
        )
    captured = CAPTURED.search(rest)
    return captured[0] if captured and captured[1] else f"http://{captured[2]}" if captured else ""
