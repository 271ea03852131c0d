"""Texts that stay as they are: Markdown, reStructuredText, AsciiDoc, Org, or plain text whose line ends
count."""

import re
from collections.abc import Iterator
from pathlib import Path

from puna.corpus.record import Found, Skipped, digest
from puna.corpus.sources import streams

LARGEST_BYTES = 64_000_000
# What generators of sites put before a page: fields between lines of dashes (YAML) or plus signs (TOML).
FIELDS = re.compile(
    r"\ufeff?\n{0,9}(-{3}|\+{3})[ \t]*\n((?:(?!\1|\.{3})[^\n]*\n){0,400}?)(?:\1|\.{3})[ \t]*(?:\n|\Z)"
)
FIELD = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*(?:\[[\w.-]+\]|[^\W\d][\w .-]{0,60}[:=])")
TITLE = re.compile(
    r"""^title[ \t]*[:=][ \t]*(?:"([^"\n]+)"|'((?:[^'\n]|'')+)'|([^\s>|"'#][^\n]*))""",
    re.MULTILINE | re.IGNORECASE,
)
MARK = re.compile(
    r" {0,3}#{1,2}[ \t]+|={1,2}[ \t]+|#\+title:[ \t]*|:title:[ \t]*|<h1[^>]*>", re.IGNORECASE
)  # before a heading
RULE = re.compile(r"([=~*^#-])\1{2,}")  # below a heading, or above and below
# Lines that may stand before a heading: badges, tags and comments of HTML, labels, fields and comments of
# other markups.
_LINK = r"!?\[(?:[^\[\]!]|!(?!\[)|!?\[[^\[\]]*\]\([^()]*\))*+\](?:\([^()]*\)|\[[^\[\]]*\])"
BEFORE = re.compile(rf"\s*+(?:(?:<[^>]*>|{_LINK})\s*+)*+|\s*(?:\.\.|:[\w-]+:|//|#\+|%|<!--).*")
MARKUP = re.compile(
    r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])?|<[^>]+>|[*`]+|\[(?=[^\]]*\])|\](?:\([^)]*\)|\[[^\]]*\])?|[ \t]#+[ \t]*\Z"
)
HEAD_CHARACTERS = 2_000
LONGEST_TITLE = 300


def read(path: Path) -> Iterator[Found | Skipped]:
    """One document: the text without the fields before it, its title from these or from a heading at its
    beginning."""
    raw = streams.whole(path, LARGEST_BYTES)
    text = None if raw is None else streams.text_of(raw)
    if raw is None or text is None:
        yield Skipped("text over 64 MB" if raw is None else "not text", path.name, 0)
        return
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    title = ""
    if (fields := FIELDS.match(text)) and FIELD.match(fields[2]):
        text = text[fields.end() :]
        if named := TITLE.search(fields[2]):
            title = named[1] or (named[2] or "").replace("''", "'") or named[3].partition(" #")[0].strip()
    title = title or _heading(text)
    yield (
        Found(path.name, text, 0, digest(raw), title[:LONGEST_TITLE])
        if text.strip()
        else Skipped("no text", path.name, 0)
    )


def _heading(text: str) -> str:
    """The heading that a text begins with, without its marks; "" for none."""
    lines = [line.rstrip() for line in text[:HEAD_CHARACTERS].split("\n")]
    for place, (first, second) in enumerate(zip(lines, [*lines[1:], ""], strict=True)):
        if mark := MARK.match(first):
            return MARKUP.sub("", first[mark.end() :]).strip()
        if first and RULE.fullmatch(second) and not BEFORE.fullmatch(first) and not RULE.fullmatch(first):
            return MARKUP.sub("", first).strip()
        if not BEFORE.fullmatch(first) and not (
            RULE.fullmatch(first) and RULE.fullmatch("".join(lines[place + 2 : place + 3]))
        ):
            break
    return ""
