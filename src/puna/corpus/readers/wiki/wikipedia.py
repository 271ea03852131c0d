"""Wikipedia's XML dumps: every article as clean text, its title first.

Skipped with a reason: pages outside the main namespace, redirects, disambiguation pages (lists of links
without prose), and articles of which no text is left.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from puna.corpus.readers.wiki.languages import DISAMBIGUATION
from puna.corpus.readers.wiki.wikitext import plain
from puna.corpus.record import Found, Refuses, Skipped, digest
from puna.corpus.sources import streams

LICENCE = "CC-BY-SA-3.0"
MEDIA_KEY, FILE_KEY, CATEGORY_KEY = "-2", "6", "14"
REDIRECT = re.compile(
    r"\s*+#\w++\s*+:?\s*+\[\["
)  # in any language: #REDIRECT [[...]], #WEITERLEITUNG [[...]]
LANGUAGE = re.compile(r"https?://([a-z-]+)\.")


def read(path: Path, refuses: Refuses = None) -> Iterator[Found | Skipped]:
    """Every article of a dump. Raises UserError, after all whole pages, where the XML breaks off."""
    base, language, namespaces = "", "en", set()
    number = 0
    for element in streams.xml_elements(path, ("base", "namespace", "page")):
        tag = element.tag.rpartition("}")[2]
        if tag == "base":
            base = (element.text or "").rpartition("/")[0]
            host = LANGUAGE.match(base)
            language = host[1] if host else "en"
        elif (
            tag == "namespace" and element.get("key") in (MEDIA_KEY, FILE_KEY, CATEGORY_KEY) and element.text
        ):
            namespaces.add(element.text.lower())
        elif tag == "page":
            try:
                item = _article(element, base, language, frozenset(namespaces), number, refuses)
            except UnicodeDecodeError:  # a reference to half a pair of UTF-16
                item = Skipped("not text", "", number)
            yield item
            number += 1


def _article(
    page: Any, base: str, language: str, namespaces: frozenset[str], number: int, refuses: Refuses
) -> Found | Skipped:
    values = {element.tag.rpartition("}")[2]: element for element in page.iter("{*}*")}
    title = (values["title"].text or "") if "title" in values else ""
    url = f"{base}/{quote(title.replace(' ', '_'), safe='/:(),!*')}" if base else title
    if refuses and (reason := refuses(url)):
        return Skipped(reason, url, number)
    text = (values["text"].text or "") if "text" in values else ""
    if "ns" in values and (values["ns"].text or "0").strip() != "0":
        return Skipped("not an article", url, number)
    if "model" in values and values["model"].text != "wikitext":
        return Skipped("not wikitext", url, number)
    if "redirect" in values or REDIRECT.match(text):
        return Skipped("redirect", url, number)
    if DISAMBIGUATION.search(text):
        return Skipped("disambiguation page", url, number)
    body = plain(text, namespaces, title, language)
    if not body:
        return Skipped("no text", url, number)
    return Found(url, f"{title}\n\n{body}", number, digest(text), title, LICENCE)
