"""Wikipedia's XML dumps: every article as clean text, its title first.

Skipped with a reason are pages outside the main namespace, redirects, disambiguation pages (lists of links
without prose), and articles of which no text is left.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from puna.corpus.readers.wiki.languages import DISAMBIGUATION
from puna.corpus.readers.wiki.wikitext import plain
from puna.corpus.record import RawDocument, Refuses, SkippedRecord, digest
from puna.corpus.sources import streams

# Since 7 June 2023 Wikipedia's text is offered under version 4.0, what was written before included
# (wikimediafoundation.org, Terms of use, section 7).
LICENCE, LATER_LICENCE, CHANGED = "CC-BY-SA-3.0", "CC-BY-SA-4.0", "20230607"
DUMPED = re.compile(r"(?<!\d)(20\d\d)-?([01]\d)-?([0-3]\d)(?!\d)")  # in the name of a dump
GENERATOR = re.compile(r"MediaWiki 1\.(\d+)\.\d+(?:-wmf\.(\d+))?")
FIRST_LATER = (41, 13)  # MediaWiki 1.41.0-wmf.13 ran on Wikipedia from the week after
DROPPED_NAMESPACE_KEYS = ("-2", "6", "14")  # media, file, category
REDIRECT = re.compile(r"\s*+#\w++\s*+:?\s*+\[\[")  # in any language, as #WEITERLEITUNG [[...]]
CUT = "markup, references, tables and lists of links"
LANGUAGE = re.compile(r"https?://([a-z-]+)\.")


def read(path: Path, refuses: Refuses = None) -> Iterator[RawDocument | SkippedRecord]:
    """Yield every page of a dump. Raises UserError, after all complete pages, where the XML is truncated."""
    base, language, dropped_namespaces = "", "en", set()
    number = 0
    named = DUMPED.search(path.name)
    licence = _licence("".join(named.groups()) if named else "")
    for element in streams.xml_elements(path, ("base", "generator", "namespace", "page"), "revision"):
        tag = element.tag.rpartition("}")[2]
        if tag == "base":
            base = (element.text or "").rpartition("/")[0]
            host = LANGUAGE.match(base)
            language = host[1] if host else "en"
        elif tag == "generator":
            version = GENERATOR.match(element.text or "")
            if version and not named and (int(version[1]), int(version[2] or 99)) >= FIRST_LATER:
                licence = LATER_LICENCE
        elif tag == "namespace":
            if element.get("key") in DROPPED_NAMESPACE_KEYS and element.text:
                dropped_namespaces.add(element.text.lower())
        elif tag == "page":
            try:
                item = _article(element, base, language, frozenset(dropped_namespaces), number, refuses)
                if isinstance(item, RawDocument):
                    day = _day(element)
                    stated = licence if licence == LATER_LICENCE else _licence(day.replace("-", ""))
                    item = replace(item, licence=stated, date=day)
            except UnicodeDecodeError:  # a character reference to a surrogate
                item = SkippedRecord("not text", "", number)
            yield item
            number += 1


def _licence(day: str) -> str:
    """Return the licence of a text that was dumped or last written on a day, as "20230607"; "" unknown."""
    return LATER_LICENCE if day >= CHANGED else LICENCE


def _day(page: Any) -> str:
    """Return the day of a page's last revision, as "2023-06-07"; "" where it names none."""
    stamps = [element.text or "" for element in page.iter("{*}timestamp")]
    return max(stamps, default="")[:10]


def _article(
    page: Any, base: str, language: str, dropped_namespaces: frozenset[str], number: int, refuses: Refuses
) -> RawDocument | SkippedRecord:
    values = {element.tag.rpartition("}")[2]: element for element in page.iter("{*}*")}
    title = (values["title"].text or "") if "title" in values else ""
    url = f"{base}/{quote(title.replace(' ', '_'), safe='/:(),!*')}" if base else title
    if refuses and (reason := refuses(url)):
        return SkippedRecord(reason, url, number)
    text = (values["text"].text or "") if "text" in values else ""
    if text.endswith(streams.CUT):
        return SkippedRecord(streams.TOO_LARGE, url, number)
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
    body = f"{title}\n\n{body}"
    return RawDocument(url, body, number, digest(text), title, whole=len(text), cut=CUT)
