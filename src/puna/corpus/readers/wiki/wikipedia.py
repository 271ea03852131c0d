"""Wikipedia's XML dumps: every article as clean text, its title first.

Skipped with a reason are pages outside the main namespace, redirects, disambiguation pages (lists of links
without prose), and articles of which no text is left.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from puna.corpus.readers.wiki.languages import DISAMBIGUATION
from puna.corpus.readers.wiki.wikitext import plain
from puna.corpus.record import RawDocument, Refuses, SkippedRecord, digest
from puna.corpus.sources import streams

LICENCE = "CC-BY-SA-3.0"
DROPPED_NAMESPACE_KEYS = ("-2", "6", "14")  # media, file, category
REDIRECT = re.compile(r"\s*+#\w++\s*+:?\s*+\[\[")  # in any language, as #WEITERLEITUNG [[...]]
LANGUAGE = re.compile(r"https?://([a-z-]+)\.")


def read(path: Path, refuses: Refuses = None) -> Iterator[RawDocument | SkippedRecord]:
    """Yield every page of a dump. Raises UserError, after all complete pages, where the XML is truncated."""
    base, language, dropped_namespaces = "", "en", set()
    number = 0
    for element in streams.xml_elements(path, ("base", "namespace", "page")):
        tag = element.tag.rpartition("}")[2]
        if tag == "base":
            base = (element.text or "").rpartition("/")[0]
            host = LANGUAGE.match(base)
            language = host[1] if host else "en"
        elif tag == "namespace":
            if element.get("key") in DROPPED_NAMESPACE_KEYS and element.text:
                dropped_namespaces.add(element.text.lower())
        elif tag == "page":
            try:
                item = _article(element, base, language, frozenset(dropped_namespaces), number, refuses)
            except UnicodeDecodeError:  # a character reference to a surrogate
                item = SkippedRecord("not text", "", number)
            yield item
            number += 1


def _article(
    page: Any, base: str, language: str, dropped_namespaces: frozenset[str], number: int, refuses: Refuses
) -> RawDocument | SkippedRecord:
    values = {element.tag.rpartition("}")[2]: element for element in page.iter("{*}*")}
    title = (values["title"].text or "") if "title" in values else ""
    url = f"{base}/{quote(title.replace(' ', '_'), safe='/:(),!*')}" if base else title
    if refuses and (reason := refuses(url)):
        return SkippedRecord(reason, url, number)
    text = (values["text"].text or "") if "text" in values else ""
    if "ns" in values and (values["ns"].text or "0").strip() != "0":
        return SkippedRecord("not an article", url, number)
    if "model" in values and values["model"].text != "wikitext":
        return SkippedRecord("not wikitext", url, number)
    if "redirect" in values or REDIRECT.match(text):
        return SkippedRecord("redirect", url, number)
    if DISAMBIGUATION.search(text):
        return SkippedRecord("disambiguation page", url, number)
    body = plain(text, dropped_namespaces, title, language)
    if not body:
        return SkippedRecord("no text", url, number)
    return RawDocument(url, f"{title}\n\n{body}", number, digest(text), title, LICENCE)
