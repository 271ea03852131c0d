"""Main text of an HTML page, for every reader that meets one."""

import re
from typing import NamedTuple

import numpy as np

from puna.corpus.readers.web import formulas, main_text, rights
from puna.corpus.readers.web.blocks import FORMULAS, RIGHTS, Blocks, split
from puna.corpus.readers.web.characters import NOTE, RAISED_MARKS
from puna.corpus.readers.web.charset import as_utf8, decode
from puna.corpus.readers.web.elements import ITEM, PRE, ROW
from puna.corpus.readers.web.nature import is_decoded, is_html, unpack
from puna.text.raised import ENDINGS, subscript, superscript

TIGHT = (ITEM, ROW, PRE)  # kinds of blocks that follow one of the same kind without a blank line
NOT_HTML, NOT_UNPACKED, NO_TEXT = "not HTML", "cannot be decoded", "no text"
CONTENTS = "only a list of links"
_SUP, _SUB = RAISED_MARKS["sup"], RAISED_MARKS["sub"]
_MARKS = re.compile(f"[{_SUP}{_SUB}{NOTE}]")
# Innermost raised or lowered text of one line: which, and what.
_RAISED = re.compile(rf"{_SUP[0]}([^{_SUP}{_SUB}\n]*){_SUP[1]}|{_SUB[0]}([^{_SUP}{_SUB}\n]*){_SUB[1]}")
CUT = "boilerplate"  # what is not main text
MAX_NESTED = 8  # superscripts of superscripts
_NOTE_MARK = re.compile(r"[\[({]?\s?[\w*†‡§¶#](?:[\w*†‡§¶#,;. –-]{0,10}[\w*†‡§¶#.])?\s?[\])}]?")
_SPACE_BEFORE_NOTE = re.compile(rf" ?{NOTE}(?=[ .,;:!?)]|\Z)")  # of a note that went
_BRACKETS = re.compile(r"\[[^\[\]]{1,60}\]")
_AFTER_SENTENCE = re.compile(r"[^\W\d_][.,;:!?…]?[”\"’»]?\Z")
_WORDS = re.compile(r"[^\W\d_]{2}[^\w\n]+[^\W\d_]{2}")
_NUMBERS = re.compile(r"[0-9]{1,3}(?:[,–-] ?[0-9]{1,3}){0,5}")


class Page(NamedTuple):
    """What is read of a page. reason: why it has no text, "" where it has; licence: an SPDX identifier.

    whole: characters of all its blocks, of which the main text is a part.
    """

    title: str
    text: str
    licence: str = ""
    reason: str = ""
    whole: int = 0


def read_page(html: bytes, content_type: str = "") -> Page:
    """Read a page, packed or not. content_type: the HTTP header, which may name the encoding.

    What it is and how it is encoded its bytes tell first (nature.py, charset.py). `main_text.keep` drops
    navigation, forms, comments and boilerplate. Paragraphs are separated by a blank line, list items start
    with "- ", cells of a table row are joined with " | ", and preformatted text keeps its lines. Formulas are
    TeX between dollars; superscripts and subscripts keep their value (text/raised.py), and marks of
    footnotes go.
    """
    unpacked = unpack(html)
    if unpacked is None:
        return Page("", "", reason=NOT_UNPACKED)
    if not is_html(unpacked):
        return Page("", "", reason=NOT_HTML)
    source: bytes | str | None = as_utf8(unpacked, content_type)
    if source is None:
        source = decode(unpacked, content_type)
        if not is_decoded(source):
            return Page("", "", reason=NOT_HTML)
    blocks = split(source)
    licence = rights.licence(source) if blocks.seen & RIGHTS else ""
    if blocks.seen & FORMULAS:
        blocks = split(formulas.as_tex(source))
    kept = main_text.keep(blocks)
    text = "" if (is_contents := main_text.is_contents(blocks, kept)) else render(blocks, kept)
    reason = "" if text else CONTENTS if is_contents else NO_TEXT
    return Page(raise_and_lower(blocks.title), text, licence, reason, int(blocks.lengths.sum()))


def render(blocks: Blocks, keep: np.ndarray) -> str:
    """Return the text of the blocks for which `keep` is true."""
    kept = [
        (text, kind)
        for text, kind, wanted in zip(blocks.texts, blocks.kinds.tolist(), keep.tolist(), strict=True)
        if wanted
    ]
    text = _joined(kept)
    if _SUP[0] not in text and _SUB[0] not in text:
        return text
    return _joined([(plain, kind) for text, kind in kept if (plain := raise_and_lower(text))])


def _joined(blocks: list[tuple[str, int]]) -> str:
    parts: list[str] = []
    previous_kind = 0
    for text, kind in blocks:
        if parts:
            parts.append("\n" if kind == previous_kind and kind in TIGHT else "\n\n")
        parts.append("- " + text if kind == ITEM else text)
        previous_kind = kind
    return "".join(parts)


def raise_and_lower(text: str) -> str:
    """Return a block's text with superscripts and subscripts as plain text, without marks of footnotes."""
    if _SUP[0] not in text and _SUB[0] not in text:
        return text
    starts = _MARKS.match(text)
    for _ in range(MAX_NESTED):
        moved = _RAISED.sub(_move, text)
        if moved == text:
            break
        text = moved
    text = _MARKS.sub("", _SPACE_BEFORE_NOTE.sub("", text)).rstrip(" ")
    return text.lstrip(" ") if starts else text


def _move(found: re.Match[str]) -> str:
    raised, lowered = found.groups()
    small = (lowered if raised is None else raised).replace(NOTE, "")
    if not found.start() and _WORDS.search(small):
        return small  # a note in small print, which is no index of anything
    if raised is None:
        return subscript(small)
    before = found.string[max(0, found.start() - 3) : found.start()]
    return NOTE if is_note(raised, before) else superscript(small)


def is_note(raised: str, before: str) -> bool:
    """Tell whether a raised text is the mark of a footnote, and no part of what stands before it.

    It is, if it is short and a link or called a note, in square brackets, or numbers behind the end of a
    sentence's part. Numbers behind a word alone may be an exponent (weight / height²): they stay.
    """
    bare = raised.replace(NOTE, "").strip()
    if _BRACKETS.fullmatch(bare):
        return True
    if NOTE in raised:
        return bool(_NOTE_MARK.fullmatch(bare)) and bare.lower() not in (*ENDINGS.split(), "tm", "sm")
    sentence = _AFTER_SENTENCE.search(before)
    return bool(sentence and len(sentence[0]) > 1 and _NUMBERS.fullmatch(bare))
