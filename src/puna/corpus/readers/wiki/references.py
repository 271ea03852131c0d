"""Web pages cited by Wikipedia: positive examples of the reference classifier (paper, section 2.1).

Templates that build a URL from an identifier (DOI, ISBN, number of a video) are not expanded.
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

from puna.corpus.readers.wiki.languages import ARCHIVE, CITATION
from puna.corpus.sources import streams
from puna.text.urls import normalise_url

VERBATIM = re.compile(
    r"<!--|<(nowiki|pre|syntaxhighlight|source|math|score|timeline)\b[^<>]*>", re.IGNORECASE
)
REF = re.compile(r"<ref\b([^<>]*)>|</ref\s*>", re.IGNORECASE)
MAX_UNCLOSED_CHARACTERS = 2_000  # of a <ref> that is never closed; it ends at an empty line, too
OPEN = r"(?P<open>\{\{\s*(?P<name>[^|{}\[\]<>\n]{0,60}))"
START = r"(?P<url>\[?(?:(?<![A-Za-z0-9])https?:|(?<=\[)|(?<==))//"
PARAMETER = r"(?P<parameter>\|\s*(?:(?P<key>\w[\w -]{0,40}?)\s*=\s*)?)"
CHARACTERS = r"""[^\s\[\]<>"{}|']+|'(?!')|\{(?!\{)|\}(?!\})"""
CLOSE = r"(?P<close>\}\})"
# Tokens of a text outside templates, where a pipe is part of a URL, and inside of them, where it ends one.
TOKENS = (
    re.compile(rf"{OPEN}|{START}(?:{CHARACTERS}|\|)+)", re.IGNORECASE),
    re.compile(rf"{OPEN}|{CLOSE}|{PARAMETER}|{START}(?:{CHARACTERS})+)", re.IGNORECASE),
)
URL_END = re.compile(r"&(?:lt|gt|nbsp|#0*(?:60|62|160)|#x0*(?:3[ce]|a0));", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});")
ARCHIVE_KEY = re.compile(r"archi|arhiv|arkiv|arquiv|arxiu|архив|архів|wayback", re.IGNORECASE)
QUERIED = re.compile(r"[?&]url=([^&]+)", re.IGNORECASE)
CAPTURED = re.compile(
    r"https?:/{1,2}(?=\w)(.+)|(?:\A|/)\d{4,14}[a-z_*]{0,4}/([\w-]+\.[\w-].*)", re.IGNORECASE | re.DOTALL
)


def references(wikitext: str) -> list[str]:
    """Return the URLs of the pages that an article cites as written there, each page once, in linear time.

    These are the http URLs in any <ref> and in citation templates outside of one, except in comments and
    <nowiki>. For an archived copy it is the original page if the URL names that, else none.
    """
    bodies, rest = _split_refs(_remove_verbatim(wikitext).replace("{{!}}", "%7C").replace("{{=}}", "="))
    by_page: dict[str, str] = {}
    for text, is_cited in [*((body, True) for body in bodies), (rest, False)]:
        for url in _urls(text, is_cited):
            if key := normalise_url(url):
                by_page.setdefault(key, url)
    return list(by_page.values())


def cited(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (article, URL of a page it cites) for the articles of a dump.

    An article is given by its URL if the dump names its wiki, else by its title. Raises UserError, after all
    complete pages, where the dump is truncated.
    """
    base = ""
    for element in streams.xml_elements(path, ("base", "page")):
        if element.tag.rpartition("}")[2] == "base":
            base = (element.text or "").rpartition("/")[0]
            continue
        values: dict[str, Any] = {
            child.tag.rpartition("}")[2]: child.text or "" for child in element.iter("{*}*")
        }
        if values.get("ns", "0").strip() != "0" or values.get("model", "wikitext") != "wikitext":
            continue
        title = values.get("title", "")
        article = f"{base}/{quote(title.replace(' ', '_'), safe='/:(),!*')}" if base else title
        for url in references(values.get("text", "")):
            yield article, url


class Citations:
    """Set of pages by normalised URL, at 8 bytes each; two pages collide with a chance of 2^-64."""

    def __init__(self, urls: Iterable[str]) -> None:
        keys = array("Q", (_key(name) for url in urls if (name := normalise_url(url))))
        self._keys = np.unique(np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, url: str) -> bool:
        name = normalise_url(url)
        key = np.uint64(_key(name))
        index = int(np.searchsorted(self._keys, key))
        return bool(name) and index < len(self._keys) and bool(self._keys[index] == key)


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _remove_verbatim(text: str) -> str:
    """Remove comments, and tags whose content is no wikitext."""
    parts: list[str] = []
    at = 0
    never_closed: set[str] = set()  # tags that are not searched for again, so that time stays linear
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


def _split_refs(text: str) -> tuple[list[str], str]:
    """Return (contents of <ref> tags, all other text)."""
    bodies: list[str] = []
    outside: list[str] = []
    at, start = 0, -1
    for tag in [*REF.finditer(text), None]:
        if tag is not None and tag[1] is not None and tag[1].endswith("/"):
            continue
        if start >= 0:
            at = end = tag.start() if tag else len(text)
            if tag is None or tag[1] is not None:  # the next one opens before this one is closed
                at = end = min(end, start + MAX_UNCLOSED_CHARACTERS)
                if (empty := text.find("\n\n", start, end)) >= 0:
                    at = end = empty
            bodies.append(text[start:end])
            start = -1
        if tag is not None and tag[1] is not None:
            outside.append(text[at : tag.start()])
            at = start = tag.end()
    outside.append(text[at:])
    return bodies, " ".join(outside)


@dataclass
class _Template:
    """Open template, or the text outside of any, with its URLs; archived copies count only without others."""

    cited: bool
    in_archive: bool = False  # the current parameter holds an archived copy
    value_start: int = -1  # of the current parameter
    originals: list[str] = field(default_factory=list)
    archived: list[str] = field(default_factory=list)

    def add(self, url: str) -> None:
        copy = ARCHIVE.match(url)
        if copy is None and not self.in_archive:
            self.originals.append(url)
        elif copy is not None and (original := _original(copy[1])):
            self.archived.append(original)


def _urls(text: str, is_cited: bool) -> Iterator[str]:
    """Yield the URLs of citations in a text; all of them if the text itself is a citation."""
    stack = [_Template(is_cited)]
    at = 0
    while token := TOKENS[len(stack) > 1].search(text, at):
        at = token.end()
        top = stack[-1]
        if token["open"]:
            name = token["name"].replace("_", " ").strip()
            stack.append(_Template(top.cited or CITATION.match(name) is not None))
        elif token["url"]:
            if top.cited:
                bare = not token["url"].startswith("[") and token.start() != top.value_start
                top.add(_clean_url(token["url"].removeprefix("["), bare))
        elif token["close"]:
            stack.pop()
            yield from top.originals or top.archived
        else:
            top.in_archive, top.value_start = ARCHIVE_KEY.search(token["key"] or "") is not None, at
    for template in stack:
        yield from template.originals or template.archived


def _clean_url(url: str, bare: bool) -> str:
    """Return a URL as MediaWiki reads it: entities decoded, a bare one without punctuation at its end."""
    url = URL_END.split(url, maxsplit=1)[0]
    url = ENTITY.sub(lambda match: html.unescape(match[0]), url)
    if bare:
        url = url.rstrip(",;.:!?" if "(" in url else ",;.:!?)")
    return f"https:{url}" if url.startswith("//") else url


def _original(rest: str) -> str:
    """Return the URL that an archived copy is of, "" if it is not named. rest: what follows the host."""
    if queried := QUERIED.search("?" + rest):
        url = queried[1]
        return unquote(url) if url[:10].lower().startswith(("http%3a", "https%3a")) else url
    captured = CAPTURED.search(rest)
    if not captured:
        return ""
    return captured[0] if captured[1] else f"http://{captured[2]}"
