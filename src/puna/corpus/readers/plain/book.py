"""Books as plain text, in the form of Project Gutenberg: its header, licence and notes cut, hard-wrapped
paragraphs joined."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from puna.corpus.readers.web.page import page_text
from puna.corpus.record import Found, Skipped, digest
from puna.corpus.sources import streams
from puna.text.hashing import WITHOUT_SPACES

START = re.compile(
    r"^[ \t]*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*{3}[ \t]*$",
    re.MULTILINE | re.IGNORECASE | re.DOTALL,
)
OLD_START = re.compile(r"^\*END[ *]*THE SMALL PRINT.*$", re.MULTILINE | re.IGNORECASE)
END = re.compile(
    r"^[ \t]*(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG|End of (?:The |the )?Project Gutenberg)",
    re.MULTILINE | re.IGNORECASE,
)
ENCODING = re.compile(
    rb"^Character set encoding:[ \t]*((?:iso-|windows-|cp|koi8|mac|big5|gb|euc-|shift)[\w-]*)",
    re.MULTILINE | re.IGNORECASE,
)
TITLE = re.compile(r"^Title:[ \t]*(.+(?:\n[ \t]+\S.*)*)", re.MULTILINE)
# First paragraphs that are the makers' and not the book's.
CREDITS = re.compile(
    r"[ \t]*(?:Produced by|E-?text prepared by|Transcribed (?:by|from)|HTML version by|This (?:e-?text|eBook) was (?:produced|prepared)"
    r"|\(?This file was (?:produced|made)|\[?(?:Note|Project Gutenberg Note)\s?:? [^\n]{0,200}\n?[^\n]{0,200}"
    r"(?:Project Gutenberg|archive\.org|original (?:images|pages))"
    r"|\[?Transcriber'?s?'? notes?\b)",
    re.IGNORECASE,
)
NOTES = re.compile(r"^[ \t]*[\[*=_]*Transcriber['’]?s?['’]? notes?[\s:.*=_]*$", re.MULTILINE | re.IGNORECASE)
NOTE = re.compile(
    r"\[(?:Transcriber['’]?s?['’]? note|Note Project Gutenberg)[^\[\]]{0,2000}\]\n?", re.IGNORECASE
)
# Marks of pictures, whose captions stay.
PICTURE = re.compile(r"\[Illustration(?::([^\[\]]{0,2000}))?\]", re.IGNORECASE)
HEAD_CHARACTERS = 20_000
LARGEST_BYTES = 64_000_000
# Letters of scripts that put no spaces between words, and the marks that stand among them.
UNSPACED = re.compile(
    f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in WITHOUT_SPACES)}\u3000-\u303f\uff00-\uff60]"
)
FIRST_UNSPACED = chr(WITHOUT_SPACES[0][0])
WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd]"
)
NARROWEST = 50  # columns a line; texts with shorter lines are verse or lists
# of the lines' width: where the next word would have gone beyond it, a line was broken for want of room
FULL = 0.85


def read(path: Path) -> Iterator[Found | Skipped]:
    """One book; a text without Gutenberg's marks is taken whole."""
    raw = streams.whole(path, LARGEST_BYTES)
    if raw is None:
        yield Skipped("book over 64 MB", path.name, 0)
        return
    if b"<html" in raw[:2000].lower():
        name, text = page_text(raw)
        body, framed = _inside(text)
        body = without_notes(body)
    else:
        whole = streams.text_of(raw, _encoding(raw[:HEAD_CHARACTERS]))
        if whole is None or not whole.strip():
            yield Skipped("not text", path.name, 0)
            return
        text = whole.replace("\r\n", "\n").replace("\r", "\n")
        heading = TITLE.search(text[:HEAD_CHARACTERS])
        name = " ".join(heading.group(1).split()) if heading else ""
        body, framed = _inside(text)
        body = unwrap(without_notes(body))
    body = re.sub(r"\n{3,}", "\n\n", PICTURE.sub(lambda picture: (picture[1] or "").strip(), body)).strip(
        "\n"
    )
    licence = "public domain (Project Gutenberg)" if framed else ""
    yield Found(path.name, body, 0, digest(raw), name, licence) if body else Skipped("no text", path.name, 0)


def _encoding(head: bytes) -> str:
    """The encoding that a book's header names, Windows-1252 for Latin-1, which it contains; "" for none and
    what nobody knows."""
    named = ENCODING.search(head)
    name = named[1].decode().lower() if named else ""
    try:
        b"a".decode(name)
    except (LookupError, UnicodeError):
        return ""
    return "cp1252" if name in ("iso-8859-1", "iso-latin-1") else name


def _inside(text: str) -> tuple[str, bool]:
    """(the text between Gutenberg's header and licence, whether it has any of them)."""
    head = text[:HEAD_CHARACTERS]
    start = START.search(head) or OLD_START.search(head)
    body = text[start.end() if start else 0 :]
    end = END.search(body)
    return (body[: end.start()] if end else body).strip("\n"), bool(start or end)


def without_notes(body: str) -> str:
    """Leave out what the makers of the electronic text added: first paragraphs that name them, their notes at
    the end or in brackets."""
    head, rest = body[:HEAD_CHARACTERS], body[HEAD_CHARACTERS:]
    while CREDITS.match(head):
        paragraph = re.search(r"\n[ \t]*\n", head)
        head = head[paragraph.end() :].lstrip("\n") if paragraph else ""
    body = head + rest
    for notes in NOTES.finditer(body):
        if notes.start() > 0.8 * len(body):
            body = body[: notes.start()]
            break
    return NOTE.sub("", body).strip("\n")


def unwrap(text: str) -> str:
    """Join the lines of each paragraph of running text; verse, tables, lists and headings keep theirs.

    A paragraph is running text when its lines start at the book's margin and each was broken where the next
    word had no room. The margin is the commonest indentation; lines beyond it begin paragraphs where no empty
    line does.
    """
    paragraphs = [
        lines
        for part in re.split(r"\n[ \t]*\n|\n(?=\u3000)", text)
        if (lines := [line.rstrip().expandtabs() for line in part.split("\n") if line.strip()])
    ]
    indents: dict[int, int] = {}
    for lines in paragraphs:
        for line in lines:
            indent = len(line) - len(line.lstrip())
            indents[indent] = indents.get(indent, 0) + 1
    margin = min(indents, key=lambda indent: (-indents[indent], indent), default=0)
    paragraphs = [
        [line[min(margin, len(line) - len(line.lstrip())) :] for line in lines] for lines in paragraphs
    ]
    ends = [line for lines in paragraphs for line in lines[:-1]]
    width = _Width(_most(map(_columns, ends)), _most(map(len, ends)))
    paragraphs = [part for lines in paragraphs for part in _parted(lines, width)]
    return "\n\n".join(
        _joined(lines, width) if _runs(lines, width) else "\n".join(lines) for lines in paragraphs
    )


class _Width(NamedTuple):
    """How long the lines of a book are: in columns, and in characters, by which some break Chinese that has
    Latin words in it."""

    columns: int
    characters: int

    def fills(self, line: str, following: str, part: float) -> bool:
        """Whether a line was broken because the next one's first word had no room; between words, in at least
        so much of the width."""
        if _is_narrow(line) and _is_narrow(following):
            least = part * self.columns
            return len(line) >= least or len(line) + _room(following) >= least
        room = _room(following)
        if UNSPACED.match(line[-1]) or UNSPACED.match(following):
            return _columns(line) + room >= self.columns or len(line) + room / 2 >= self.characters
        return _columns(line) + room >= part * self.columns


def _most(lengths: Iterable[int]) -> int:
    """The length that nine of ten do not exceed."""
    ordered = sorted(lengths)
    return ordered[len(ordered) * 9 // 10] if ordered else 0


def _columns(text: str) -> int:
    """How wide a text stands in letters of one width, where those of China, Japan and Korea take two."""
    return len(text) if _is_narrow(text) else len(text) + len(WIDE.findall(text))


def _is_narrow(text: str) -> bool:
    """Whether it has no letter of a script without spaces, nor any that takes two columns."""
    return text.isascii() or max(text) < FIRST_UNSPACED


def _parted(lines: list[str], width: _Width) -> list[list[str]]:
    """The paragraphs of lines between two empty ones: where indented lines begin paragraphs of running text,
    each by itself."""
    starts = [place for place, line in enumerate(lines) if not place or line[0].isspace()]
    parts = [lines[start:end] for start, end in pairwise([*starts, len(lines)])]
    runs = all(len(part) < 2 or _runs([part[0].strip(), *part[1:]], width) for part in parts)
    return parts if runs and len(lines) >= 2.5 * len(parts) else [lines]


def _joined(lines: list[str], width: _Width) -> str:
    """The lines of running text as one, with a space between two unless the script has none. A line that ends
    long before it had to, a heading or the last of a speech, keeps its end."""
    parts = [lines[0].strip()]
    for line, following in pairwise(map(str.strip, lines)):
        if not width.fills(line, following, 0.5):
            parts.append("\n")
        elif not (UNSPACED.match(line[-1]) and UNSPACED.match(following)):
            parts.append(" ")
        parts.append(following)
    return "".join(parts)


def _runs(lines: list[str], width: _Width) -> bool:
    """Whether the lines of a paragraph are running text, broken for want of room."""
    if (
        len(lines) < 2
        or width.columns < NARROWEST
        or any(line.startswith("  ") for line in lines[1:])
        or any("   " in line.strip() for line in lines)
    ):
        return False
    full = sum(width.fills(line, following.lstrip(), FULL) for line, following in pairwise(lines))
    return full >= 0.8 * (len(lines) - 1)


def _room(line: str) -> int:
    """Columns that a line's first word needs behind another. Where there are no spaces: those that are left
    free at most, so that no mark begins a line, or no word is cut."""
    if not UNSPACED.match(line):
        return 1 + _columns(line.split(maxsplit=1)[0])
    return 6 if WIDE.match(line) else 16
