"""Texts that stay as they are: Markdown, reStructuredText, AsciiDoc, Org, plain text with its line ends."""

import re
from collections.abc import Iterator
from pathlib import Path

from puna.corpus.record import RawDocument, SkippedRecord, digest
from puna.corpus.sources import streams

# Front matter of static site generators: fields between lines of dashes (YAML) or plus signs (TOML).
FRONT_MATTER = re.compile(
    r"\ufeff?\n{0,9}(-{3}|\+{3})[ \t]*\n((?:(?!\1|\.{3})[^\n]*\n){0,400}?)(?:\1|\.{3})[ \t]*(?:\n|\Z)"
)
FIELD = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*(?:\[[\w.-]+\]|[^\W\d][\w .-]{0,60}[:=])")
TITLE = re.compile(
    r"""^title[ \t]*[:=][ \t]*(?:"([^"\n]+)"|'((?:[^'\n]|'')+)'|([^\s>|"'#][^\n]*))""",
    re.MULTILINE | re.IGNORECASE,
)
# What stands before a heading; then what stands below it, or above and below.
MARK = re.compile(r" {0,3}#{1,2}[ \t]+|={1,2}[ \t]+|#\+title:[ \t]*|:title:[ \t]*|<h1[^>]*>", re.IGNORECASE)
RULE = re.compile(r"([=~*^#-])\1{2,}")
# Lines that may stand before a heading: badges, tags and comments of HTML, labels, fields and comments of
# other markups.
_LINK = r"!?\[(?:[^\[\]!]|!(?!\[)|!?\[[^\[\]]*\]\([^()]*\))*+\](?:\([^()]*\)|\[[^\[\]]*\])"
BEFORE = re.compile(rf"\s*+(?:(?:<[^>]*>|{_LINK})\s*+)*+|\s*(?:\.\.|:[\w-]+:|//|#\+|%|<!--).*")
MARKUP = re.compile(
    r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?|<[^>]+>|[*`]+|\[(?=[^\]]*\])"
    r"|\](?:\([^)]*\)|\[[^\]]*\])?|[ \t]#+[ \t]*\Z"
)
HEAD_CHARACTERS = 2_000
LONGEST_TITLE = 300


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Read one document: the text without front matter, its title from there or from its first heading."""
    raw = streams.read_all(path, streams.LARGEST_RECORD)
    text = None if raw is None else streams.decode(raw)
    if raw is None or text is None:
        yield SkippedRecord(streams.TOO_LARGE if raw is None else "not text", path.name, 0)
        return
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title, whole = "", len(text)
    if (front_matter := FRONT_MATTER.match(text)) and FIELD.match(front_matter[2]):
        text = text[front_matter.end() :]
        if named := TITLE.search(front_matter[2]):
            title = named[1] or (named[2] or "").replace("''", "'") or named[3].partition(" #")[0].strip()
    if text.strip():
        title = title or _heading(text)
        title = title[:LONGEST_TITLE]
        yield RawDocument(path.name, text, 0, digest(raw), title, whole=whole, cut="front matter")
    else:
        yield SkippedRecord("no text", path.name, 0)


def _heading(text: str) -> str:
    """Return the heading that a text begins with, without its marks; "" for none."""
    lines = [line.rstrip() for line in text[:HEAD_CHARACTERS].split("\n")]
    for row, (first, second) in enumerate(zip(lines, [*lines[1:], ""], strict=True)):
        if mark := MARK.match(first):
            return MARKUP.sub("", first[mark.end() :]).strip()
        if first and RULE.fullmatch(second) and not BEFORE.fullmatch(first) and not RULE.fullmatch(first):
            return MARKUP.sub("", first).strip()
        third = "".join(lines[row + 2 : row + 3])
        ruled = RULE.fullmatch(first) and RULE.fullmatch(third)
        if not ruled and not BEFORE.fullmatch(first):
            break
    return ""
