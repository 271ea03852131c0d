"""Lines of an article that are about the page and not its subject: hatnotes, and lines that announce a table.

A hatnote leads to pages of like names, or behind a heading to the main article. Where no template makes it,
it is a line in italics with a link in it, indented or at the article's beginning; that holds in all languages
("Wikipedia:Hatnote").
"""

import re

from puna.corpus.readers.wiki.languages import TABLE_WORDS

_INDENT = r"[ \t]*+[:→⇒»>][ \t:→⇒»>]*+"
_LINK = r"'{0,3}\[\[[^\[\]\n]{1,200}\]\]'{0,3}"
# In italics from its first letter to its last; or a label with nothing but links behind it.
CANDIDATE = re.compile(
    rf"^(?:{_INDENT})?'{{2}}(?!')(?P<italic>[^\n]{{1,400}})'{{2}}[ \t.]*(?:\n|\Z)"
    rf"|^{_INDENT}'{{0,3}}(?P<label>[^\W\d][^\[\]\n.:;(]{{2,40}})[:：]'{{0,3}} ?"
    rf"(?:{_LINK}[^\[\]\n.]{{0,8}}){{1,8}}\.?[ \t]*(?:\n|\Z)"
    rf"|^{_INDENT}(?P<plain>[^\W\d'][^\n]{{1,400}})(?:\n|\Z)",
    re.MULTILINE,
)
ITALICS = re.compile(r"(?<!')''(?!')")
SPOKEN = re.compile('["“”„«»‘—]')
# Lines before an article's first word: templates and their parameters, pictures, tables, comments, switches.
BEFORE_TEXT = re.compile(r"[ \t]*(?:\{\{|\}\}|\||!|\{\||\[\[[^\[\]|]+:|<|__|[\x00-\x04]|\Z)")
LINES_BEFORE, LONGEST_BEFORE = 60, 4_000  # that are looked at, and characters in them
LONGEST_HATNOTE, MOST_HATNOTES = 400, 4
_TABLE = re.compile(rf"(?:{'|'.join(sorted(TABLE_WORDS))})", re.IGNORECASE)


def without_hatnotes(text: str) -> str:
    """Drop hatnotes from wikitext without comments."""
    return CANDIDATE.sub(lambda match: "" if _is_hatnote(match) else match[0], text)


def _is_hatnote(match: re.Match[str]) -> bool:
    inner = match["italic"] or match["plain"] or ""
    indented = match[0].lstrip()[0] != "'"
    if (
        len(match[0]) > LONGEST_HATNOTE
        or "[[" not in match[0]
        or SPOKEN.search(inner)
        or ITALICS.search(inner)
    ):
        return False
    place = _place(match.string, match.start())
    if place == "beginning":
        # The article's own first words are bold.
        return "'''" not in match[0] and (not match["plain"] or "'''" in match.string[match.end() :][:500])
    return place == "heading" and indented and match["plain"] is None


def _place(text: str, at: int) -> str:
    """Return what stands before a line, others of the kind left out: "heading", "beginning", "" for text."""
    lines = text[max(0, at - LONGEST_BEFORE) : at].split("\n")[:-1]
    others = 0
    for line in lines[: -LINES_BEFORE - 1 : -1]:
        if line.startswith("=") and line.rstrip().endswith("="):
            return "heading"
        if not BEFORE_TEXT.match(line):
            others += 1
            if others > MOST_HATNOTES or not CANDIDATE.fullmatch(line):
                return ""
    return "beginning" if len(lines) <= LINES_BEFORE and at <= LONGEST_BEFORE else ""


def announces_table(line: str) -> bool:
    """Tell whether a line is one short sentence that says what a table shows."""
    return len(line) < 200 and ". " not in line and _TABLE.search(line) is not None
