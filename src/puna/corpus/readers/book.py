"""Books as plain text, in the form of Project Gutenberg: its header and licence cut, hard-wrapped paragraphs joined."""

import re
from collections.abc import Iterator
from pathlib import Path

from puna.corpus.document import Found, Skipped, digest
from puna.corpus.readers import streams
from puna.corpus.readers.page import page_text

START = re.compile(r"^[ \t]*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*{3}[ \t]*$", re.MULTILINE | re.IGNORECASE | re.DOTALL)
OLD_START = re.compile(r"^\*END[ *]*THE SMALL PRINT.*$", re.MULTILINE | re.IGNORECASE)
END = re.compile(
    r"^[ \t]*(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:The |the )?Project Gutenberg)", re.MULTILINE | re.IGNORECASE
)
TITLE = re.compile(r"^Title:[ \t]*(.+(?:\n[ \t]+\S.*)*)", re.MULTILINE)
CREDITS = re.compile(
    r"^(?:Produced by|E-?text prepared by|Transcribed (?:by|from)|This (?:e-?text|eBook) was (?:produced|prepared))", re.IGNORECASE
)
HEAD_CHARACTERS = 20_000


def read(path: Path) -> Iterator[Found | Skipped]:
    """One book; a text without Gutenberg's marks is taken whole."""
    raw = b"".join(streams.chunks(path))
    if b"<html" in raw[:2000].lower():
        heading, body = page_text(raw)
        yield Found(path.name, body, 0, digest(raw), heading) if body else Skipped("no text", path.name, 0)
        return
    text = streams.text_of(raw)
    if text is None or not text.strip():
        yield Skipped("not text", path.name, 0)
        return
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    head = text[:HEAD_CHARACTERS]
    title = TITLE.search(head)
    start = START.search(head) or OLD_START.search(head)
    body = text[start.end() if start else 0 :]
    end = END.search(body)
    body = _without_credits((body[: end.start()] if end else body).strip("\n"))
    licence = "public domain (Project Gutenberg)" if start or end else ""
    name = " ".join(title.group(1).split()) if title else ""
    yield Found(path.name, unwrap(body), 0, digest(raw), name, licence)


def _without_credits(body: str) -> str:
    """Leave out a first paragraph that names the transcribers."""
    first, _, rest = body.partition("\n\n")
    return rest.lstrip("\n") if CREDITS.match(first.strip()) else body


def unwrap(text: str) -> str:
    """Join the lines of each paragraph of running text; verse, tables and headings keep their lines.

    A paragraph is running text when its lines start at the margin and all but its last reach at least half the usual width of the
    book's lines.
    """
    paragraphs = re.split(r"\n[ \t]*\n", text)
    lengths = sorted(len(line) for paragraph in paragraphs for line in paragraph.split("\n")[:-1])
    usual = lengths[len(lengths) * 3 // 4] if lengths else 0
    joined = []
    for paragraph in paragraphs:
        lines = [line.rstrip() for line in paragraph.split("\n") if line.strip()]
        running = len(lines) > 1 and all(len(line) >= usual // 2 and not line.startswith("  ") for line in lines[:-1])
        if running and not any("   " in line for line in lines):
            joined.append(" ".join(line.strip() for line in lines))
        elif lines:
            joined.append("\n".join(lines))
    return "\n\n".join(joined)
