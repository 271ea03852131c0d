"""The licence of a page, as the page itself says: links with rel=license, metadata, a notice in its foot.

In the order in which they count: what the head says of the page (link, meta, JSON-LD); links marked as
licences (Abelson et al., "ccREL: The Creative Commons Rights Expression Language", 2008); links to a licence
in the foot of a page, or behind words that give it for the page. What stands in a figure, a caption, a
gallery or a comment is of that alone.
"""

import html
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from puna.corpus import licences
from puna.corpus.readers.web.elements import names

# Elements that may be a zone of a page, or hold one.
_TAG_NAMES = names("""
    div footer figure figcaption picture blockquote q table aside section article main ul ol dl p li small
""")
# (Names in both cases take half the time of names in any case.)
_NAMES = [*_TAG_NAMES, *map(str.upper, _TAG_NAMES)]
_FIRST = "".join({name[0] for name in _NAMES})  # letters
_TAG = re.compile(rf"<(/?)(?=[{_FIRST}])({'|'.join(_NAMES)})(?=[\s>])([^>]*)>")
_LINK = re.compile(r"""<(a|link|meta)\s((?:[^>"']|"[^"]*"|'[^']*')*)>""", re.IGNORECASE)
_WORDS = ("icense", "icence", "reative", "ublicdomain")  # inside such a tag
_ATTRIBUTE = re.compile(r"""([a-zA-Z:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_JSON_START = re.compile(r"""ld\+json["']?[^>]{0,300}>""", re.IGNORECASE)
_SCRIPT_END = re.compile("</script", re.IGNORECASE)
_FOOT = re.compile(r"foot|colophon|copyright|licen[cs]e|legal|rights|site-?info|imprint")
_ITEM = re.compile(
    r"caption|thumb|gallery|image|img|photo|picture|figure|slide|media|video|player|embed|credit|comment|card"
)
_ITEM_NAMES = ("figure", "figcaption", "picture", "blockquote", "q", "table")
_META = names("""
    dcterms.rights dc.rights dcterms.license dc.license dc.rights.license dcterms.rights.uri dc.rights.uri
    license licence rights copyright og:license cc:license dcterms:license dcterms:rights
""")
# "This work is licensed under", in the languages that most pages are in.
_FOR_THE_PAGE = re.compile(
    r"(?:this|the|all|our|text|contents?|page|work|(?:web)?site|wiki|article|post|blog|material|noted|stated"
    r"|diese[rs]?|das|die|der|alle|inhalte?|werk|ce|cette|le|les|tous|est[ae]|el|los|todos?|quest[oa]|il|dit|deze"
    r"|este|o|os|ten|эт[оаи]|все|текст)\b[^.]{0,120}?"
    r"(?:\blicen[sc]|\blizen[sz]|\blicenz|\blicença|\bлиценз|\bavailable|\breleased|\bpublished|\bdistributed"
    r"|\bsteht|\bstehen|mis[e]? à disposition)[^.]{0,60}\Z",
    re.IGNORECASE,
)
_OF_AN_ITEM = re.compile(
    r"\b(?:photo|photograph|image|picture|figure|fig|video|icon|map|logo|cover|foto|bild|bilder|abbildung|imagen|imagem|immagine|фото)s?\b"
    r"(?:[^.]|(?<=\b[A-Z])\.){0,80}\Z",
    re.IGNORECASE,
)
_CREDIT = re.compile(
    r"(?:photo|foto|image|bild|picture|imagen|фото)\w{0,6}\s*(?:credits?)?\s*(?::|by|von|par|por|©|\()"
    r"(?:[^.]|(?<=\b[A-Z])\.){0,80}\Z",
    re.IGNORECASE,
)
_ITEM_TYPES = names("Image Video Audio Media Dataset Software Product Photograph Map Comment")
MAX_LICENCES = 3  # more are those of things on the page
MAX_TAG_LENGTH = 2000


def licence(source: str | bytes) -> str:
    """Return the licence of a page as an SPDX expression, "" where none is named for the page."""
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    of_head = _from_json(text)
    marked: list[tuple[int, str]] = []  # links: place, licence
    others: list[tuple[int, str]] = []
    last = -1
    for place in sorted(place for word in _WORDS for place in _places(text, word)):
        start = text.rfind("<", max(0, place - MAX_TAG_LENGTH), place)
        tag = _LINK.match(text, start) if start > last else None
        if not tag or tag.end() < place:
            continue
        last, attributes = start, _attributes(tag[2])
        if tag[1].lower() != "a":
            of_head += _from_head(tag[1].lower(), attributes)
        elif spdx := licences.of_address(attributes.get("href", "")):
            is_marked = "license" in attributes.get("rel", "").lower().split()
            (marked if is_marked else others).append((start, spdx))
    found = of_head or _of_the_page(text, marked, True) or _of_the_page(text, others, False)
    distinct = list(dict.fromkeys(found))
    return " AND ".join(distinct) if len(distinct) <= MAX_LICENCES else ""


def _of_the_page(text: str, links: list[tuple[int, str]], marked: bool) -> list[str]:
    """Return the licences, of links (place, licence), that are those of the page.

    marked: the links are marked as licences, and need no words that say so.
    """
    zones = _Zones(text)
    found: list[str] = []
    for place, spdx in links:
        if spdx in found or zones.has("item", place):
            continue
        if marked or _gives(_words_before(text, place), zones.has("foot", place)):
            found.append(spdx)
    return found


def _places(text: str, word: str) -> Iterator[int]:
    """Yield where a word stands. (A regular expression takes ten times as long.)"""
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + 1)


class _Zones:
    """The elements around a place of a page that tell what stands there; places are asked for in order."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.open: list[tuple[str, str]] = []

    def has(self, zone: str, place: int) -> bool:
        """Tell whether an element of a zone is open."""
        for closes, name, attributes in _TAG.findall(self.text, self.at, place):
            if closes:
                _close(self.open, name.lower())
            elif len(self.open) < 512:
                self.open.append((name.lower(), _zone(name.lower(), attributes)))
        self.at = place
        return any(own == zone for _, own in self.open)


@lru_cache(4096)
def _zone(name: str, attributes: str) -> str:
    if name in _ITEM_NAMES:
        return "item"
    if name == "footer":
        return "foot"
    if "class" not in attributes and "id" not in attributes:
        return ""
    said = attributes.lower()
    if "&" not in said and not _FOOT.search(said) and not _ITEM.search(said):
        return ""
    named = _attributes(attributes)
    words = f"{named.get('class', '')} {named.get('id', '')}".lower()
    if name not in ("main", "article", "section") and _ITEM.search(words):
        return "item"
    return "foot" if _FOOT.search(words) else ""


def _close(zones: list[tuple[str, str]], name: str) -> None:
    for height in range(len(zones) - 1, max(-1, len(zones) - 64), -1):
        if zones[height][0] == name:
            del zones[height:]
            return


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, *values in _ATTRIBUTE.findall(text):
        found.setdefault(name.lower(), html.unescape("".join(values)).strip())
    return found


def _from_head(name: str, attributes: dict[str, str]) -> list[str]:
    if name == "link":
        is_licence = {"license", "copyright"} & set(attributes.get("rel", "").lower().split())
        found = licences.of_address(attributes.get("href", "")) if is_licence else ""
    else:
        about = next((attributes[key] for key in ("name", "property", "itemprop") if key in attributes), "")
        content = attributes.get("content", "") if about.lower() in _META else ""
        found = licences.of_address(content) or licences.of_notice(content)
    return [found] if found else []


def _words_before(text: str, at: int) -> str:
    before = html.unescape(re.sub(r"<[^>]*>", " ", text[max(0, at - 400) : at].partition(">")[2]))
    return " ".join(before.split())[-220:]


def _gives(words: str, in_foot: bool) -> bool:
    """Tell whether a link to a licence is one to that of the page, by the words in front of it."""
    if in_foot:
        return not _CREDIT.search(words)
    return bool(_FOR_THE_PAGE.search(words)) and not _OF_AN_ITEM.search(words)


def _from_json(text: str) -> list[str]:
    found: list[str] = []
    for place in _places(text, "ld+json"):
        start = _JSON_START.match(text, place)
        end = _SCRIPT_END.search(text, start.end()) if start else None
        script = text[start.end() : end.start()] if start and end else ""
        if "icense" not in script:
            continue
        try:
            values: Any = json.loads(script)
        except (ValueError, RecursionError):
            continue
        waiting = values if isinstance(values, list) else [values]
        for value in waiting[:50]:
            if isinstance(value, dict):
                graph = value.get("@graph", [])
                for item in [value, *(graph if isinstance(graph, list) else [])[:50]]:
                    found += _of_object(item)
    return found


def _of_object(item: Any) -> list[str]:
    """Return what an object of schema.org that is the page, or its article, has as licence."""
    if not isinstance(item, dict) or any(word in str(item.get("@type", "")) for word in _ITEM_TYPES):
        return []
    value = item.get("license", "")
    named = []
    for one in value if isinstance(value, list) else [value]:
        address = one.get("@id") or one.get("url") or one.get("name") if isinstance(one, dict) else one
        spdx = licences.of_address(str(address)) or licences.of_notice(str(address))
        named += [spdx] if spdx else []
    return named
