"""Texts that stay as they are: Markdown, reStructuredText, AsciiDoc, Org, or plain text whose line ends count."""

import re
from collections.abc import Iterator
from pathlib import Path

from puna.corpus.document import Found, Skipped, digest
from puna.corpus.readers import streams

LARGEST_BYTES = 64_000_000
# What generators of sites put before a page: fields between lines of dashes (YAML) or plus signs (TOML).
FIELDS = re.compile(r"\ufeff?(-{3}|\+{3})[ \t]*\n((?:(?!\1)[^\n]*\n){0,200}?)\1[ \t]*(?:\n|\Z)")
FIELD = re.compile(r"[A-Za-z_][\w-]*[ \t]*[:=]")
TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.+)$", re.MULTILINE | re.IGNORECASE)
MARK = re.compile(r" {0,3}#{1,2}[ \t]+|={1,2}[ \t]+|#\+title:[ \t]*", re.IGNORECASE)  # before a heading
RULE = re.compile(r"([=~*^#-])\1{2,}")  # below a heading, or above and below
HEAD_CHARACTERS = 2_000
LONGEST_TITLE = 300


def read(path: Path) -> Iterator[Found | Skipped]:
    """One document: the text without the fields before it, its title from these or from a heading at its beginning."""
    raw = streams.whole(path, LARGEST_BYTES)
    text = None if raw is None else streams.text_of(raw)
    if raw is None or text is None:
        yield Skipped("text over 64 MB" if raw is None else "not text", path.name, 0)
        return
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title = ""
    if (fields := FIELDS.match(text)) and FIELD.match(fields[2].lstrip()):
        text = text[fields.end() :]
        if named := TITLE.search(fields[2]):
            title = named[1].strip().strip("\"'")
    title = title or _heading(text)
    yield Found(path.name, text, 0, digest(raw), title[:LONGEST_TITLE]) if text.strip() else Skipped("no text", path.name, 0)


def _heading(text: str) -> str:
    """The heading that a text begins with, without its marks; "" for none."""
    lines = [line.rstrip() for line in text.lstrip("\n")[:HEAD_CHARACTERS].split("\n")[:3]]
    first, second = (*lines[bool(RULE.fullmatch(lines[0])) :], "", "")[:2]
    if mark := MARK.match(first):
        return re.sub(r"[ \t]+#+$", "", first[mark.end() :]).strip()
    return first.strip() if RULE.fullmatch(second) else ""
