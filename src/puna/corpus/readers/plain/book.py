"""Books as plain text, in the form of Project Gutenberg: header, licence and notes cut, lines unwrapped."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from puna.corpus.readers.web.page import read_page
from puna.corpus.record import RawDocument, SkippedRecord, digest
from puna.corpus.sources import streams
from puna.text.characters import UNSPACED_SCRIPTS
from puna.text.lists import listed

_LISTS = listed(__file__, "names.json")
START = re.compile(
    r"^[ \t]*\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*{3}[ \t]*$",
    re.MULTILINE | re.IGNORECASE | re.DOTALL,
)
OLD_START = re.compile(r"^\*END[ *]*THE SMALL PRINT.*$", re.MULTILINE | re.IGNORECASE)
# A mark of an end, of the whole file or of a volume inside it, with the lines that belong to it.
END = re.compile(
    r"^[ \t]*(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|\*{0,3} ?(?:The )?End of (?:the |this )?Project Gutenberg"
    r"|\*{0,3} ?Ende (?:dieses|des|von) Project Gutenberg|\*{0,3} ?Fin de (?:ce|cet|l'"
    r"|el) ?Project Gutenberg)"
    r"[^\n]*(?:\n(?![ \t]*\n)[^\n]*){0,5}",
    re.MULTILINE | re.IGNORECASE,
)
# What Gutenberg puts around a volume: licences, headers, the small print. Each runs to the mark that ends it,
# or to the paragraph that has nothing of it.
SMALL_PRINT = re.compile(
    r"^[ \t]*\*{3} ?START: FULL LICENSE[^\n]*\n|^\*{0,3} ?START\W{0,8}THE SMALL PRINT[^\n]*\n"
    r"|^[ \t]*\**(?:The |This is (?:the )?)?(?:Project Gutenberg(?:'s)? (?:e-?text|e-?book)\b"
    r"|Project Gutenberg License\b)[^\n]*",
    re.MULTILINE | re.IGNORECASE,
)
OF_SMALL_PRINT: list[str] = _LISTS["small_print"]
SMALL_PRINT_END = re.compile(r"^\**END[ *]*(?:THE )?SMALL PRINT[^\n]*$", re.MULTILINE | re.IGNORECASE)
# A paragraph that only Gutenberg's own text has.
OWN = re.compile(
    r"Project Gutenberg|gutenberg\.(?:org|net)|\be-?texts?\b|\bebooks?\b|\bSMALL PRINT\b"
    r"|^\s*(?:Title|Author|Editor|Translator|Release Date|Posting Date|Language|Character set encoding"
    r"|Last updated)[ \t]*:"
    r"|^\s*\[(?:e-?text|e-?book|Last updated|Most recently updated|Release date|Yes, we are)\b"
    r"|^\s*\*{3} ?(?:START|END)\b|^\s*(?:Produced|E-?text prepared|Transcribed) by\b",
    re.IGNORECASE | re.MULTILINE,
)
LONGEST_LICENCE = 30_000  # characters
SHORT = 300  # characters; a whole volume has more than what stands between two marks of an end
ENCODING = re.compile(
    rb"^Character set encoding:[ \t]*((?:iso-|windows-|cp|koi8|mac|big5|gb|euc-|shift)[\w-]*)",
    re.MULTILINE | re.IGNORECASE,
)
TITLE = re.compile(r"^Title:[ \t]*(.+(?:\n[ \t]+\S.*)*)", re.MULTILINE)
# "Transcriber's note" in the languages of most of Gutenberg's books.
_NOTE_NAMES = "|".join(_LISTS["transcribers_notes"])
# First paragraphs by the producers of the electronic text.
CREDITS = re.compile(
    r"[ \t]*(?:Produced by|E-?text prepared by|Transcribed (?:by|from)|HTML version by"
    r"|This (?:e-?text|eBook) was (?:produced|prepared)"
    r"|\(?This file was (?:produced|made)|\[?(?:Note|Project Gutenberg Note)\s?:? [^\n]{0,200}\n?[^\n]{0,200}"
    r"(?:Project Gutenberg|archive\.org|original (?:images|pages))"
    rf"|\[?(?:{_NOTE_NAMES})(?!\w))",
    re.IGNORECASE,
)
# A heading behind an empty line, or in a box of dashes.
_HEADING = r"(?:\A|\n[ \t+|=*_-]*\n)[ \t]*[\[*=_+|-]*[ \t]*"
NOTES = re.compile(rf"{_HEADING}(?:{_NOTE_NAMES})(?!\w)[\s:.*=_+|\-\]]*$", re.MULTILINE | re.IGNORECASE)
# With brackets in it, as of "[sic]", and several paragraphs.
NOTE = re.compile(
    rf"\[(?:{_NOTE_NAMES}|Note Project Gutenberg)(?!\w)(?:[^\[\]]|\[[^\[\]]{{0,200}}\]){{0,4000}}\]\n?",
    re.IGNORECASE,
)
# A list of the book's printing errors or of the transcriber's corrections, at its end.
ERRATA = re.compile(rf"{_HEADING}(?:{'|'.join(_LISTS['errata'])})[\s:.*=_\]]*$", re.MULTILINE | re.IGNORECASE)
# Places of pictures and ornaments, whose captions stay.
_PICTURES = "|".join(_LISTS["pictures"])
PICTURE = re.compile(
    rf"\[(?:{_PICTURES})(?:[ \t]*\d{{1,4}}[a-z]?)?(?:[ \t]*:((?:[^\[\]]"
    rf"|\[[^\[\]]{{0,200}}\]){{0,2000}}))?\.?\]",
    re.IGNORECASE,
)
# Lines of stars and the like, which part sections.
STARS = re.compile(r"\n[ \t]*(?:(?:[*·•⁂~][ \t]{0,12}){2,}|[*⁂][ \t]*)(?=\n|\Z)")
HEAD_CHARACTERS = 20_000
# Letters of scripts that put no spaces between words, and the punctuation among them.
_UNSPACED_RANGES = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_SCRIPTS)
UNSPACED = re.compile(f"[{_UNSPACED_RANGES}\u3000-\u303f\uff00-\uff60]")
FIRST_UNSPACED = chr(UNSPACED_SCRIPTS[0][0])
# Letters that take two columns in a monospaced font.
WIDE = re.compile(
    "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd]"
)
NARROWEST = 50  # columns a line; texts with shorter lines are verse or lists
# Of the lines' width: a line is full, so was wrapped, where the next word would have gone beyond this.
FULL = 0.85


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Read one book; a text without Gutenberg's header and licence is taken as a whole."""
    raw = streams.read_all(path, streams.LARGEST_RECORD)
    if raw is None:
        yield SkippedRecord(streams.TOO_LARGE, path.name, 0)
        return
    if b"<html" in raw[:2000].lower():
        page = read_page(raw)
        title, text, whole = page.title, page.text, page.whole
        body, is_gutenberg = _without_frame(text)
        body = without_notes(body)
    else:
        decoded = streams.decode(raw, _encoding(raw[:HEAD_CHARACTERS]))
        if decoded is None or not decoded.strip():
            yield SkippedRecord("not text", path.name, 0)
            return
        text = decoded.replace("\r\n", "\n").replace("\r", "\n")
        whole = len(text)
        heading = TITLE.search(text[:HEAD_CHARACTERS])
        title = " ".join(heading.group(1).split()) if heading else ""
        body, is_gutenberg = _without_frame(text)
        body = unwrap(without_notes(body))
    body = PICTURE.sub(lambda picture: (picture[1] or "").strip(), body)
    body = STARS.sub("\n", "\n" + body)
    body = re.sub(r"\n{3,}", "\n\n", body).strip("\n")
    licence = "public domain (Project Gutenberg)" if is_gutenberg else ""
    if body:
        yield RawDocument(path.name, body, 0, digest(raw), title, licence, whole, "header, licence and notes")
    else:
        yield SkippedRecord("no text", path.name, 0)


def _encoding(head: bytes) -> str:
    """Return the encoding that a book's header names; "" for none and for unknown ones.

    Windows-1252 for Latin-1, since it contains that.
    """
    named = ENCODING.search(head)
    name = named[1].decode().lower() if named else ""
    try:
        b"a".decode(name)
    except (LookupError, UnicodeError):
        return ""
    return "cp1252" if name in ("iso-8859-1", "iso-latin-1") else name


def _without_frame(text: str) -> tuple[str, bool]:
    """Cut Gutenberg's header and licence: (the text between them, whether there was any of them).

    The end that counts is the last one with a text before it; marks of the ends of volumes before, and the
    headers and licences between volumes, go by themselves.
    """
    head = text[:HEAD_CHARACTERS]
    start = START.search(head) or OLD_START.search(head)
    body = text[start.end() if start else 0 :]
    ends = _ends(body)
    parts, at = [], 0
    for end in ends:
        parts.append(body[at : end.start()])
        at = _own_end(body, end.end())
    rest = "" if ends and not _is_volume(body[at:]) else body[at:]
    kept = [_without_small_print(part) for part in (*parts, rest)]
    return "\n\n".join(part for part in kept if part.strip()).strip("\n"), bool(start or ends)


def _ends(text: str) -> list[re.Match[str]]:
    """Return the marks of ends: lines with a name in them. (The pattern alone takes ten times as long.)"""
    found: list[re.Match[str]] = []
    names = (name.start() for spelled in ("utenberg", "UTENBERG") for name in re.finditer(spelled, text))
    for place in sorted(names):
        line = text.rfind("\n", 0, place) + 1
        if (not found or line >= found[-1].end()) and (end := END.match(text, line)):
            found.append(end)
    return found


def _is_volume(text: str) -> bool:
    """Whether what stands behind a mark of an end is a volume, and no licence or blurb."""
    paragraphs = [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    first_own = next((row for row, part in enumerate(paragraphs) if OWN.search(part)), len(paragraphs))
    return sum(map(len, paragraphs[:first_own])) > SHORT or (
        START.search(text) is not None or _unowned(paragraphs) > len(text) / 2
    )


def _unowned(paragraphs: list[str]) -> int:
    """Return the characters of paragraphs that may be a book's."""
    return sum(len(part) for part in paragraphs if not OWN.search(part))


def _without_small_print(text: str) -> str:
    """Leave out headers, licences and small print inside a text, between volumes or at its end."""
    if not any(words in text for words in OF_SMALL_PRINT):
        return text
    out, at = [], 0
    while match := SMALL_PRINT.search(text, at):
        out.append(text[at : match.start()])
        ends = (pattern.search(text, match.end()) for pattern in (START, SMALL_PRINT_END))
        end = min((end.end() for end in ends if end and end.end() < match.end() + LONGEST_LICENCE), default=0)
        at = end or _own_end(text, match.start())
        if at <= match.start():
            out.append(text[match.start() : match.end()])
            at = match.end()
    out.append(text[at:])
    return "".join(out)


def _own_end(text: str, at: int) -> int:
    """Return where paragraphs that only Gutenberg's own text has end."""
    while paragraph := re.compile(r"\s*(?:[^\n]+(?:\n(?![ \t]*\n)|\Z)?)+").match(text, at):
        if not OWN.search(paragraph[0]):
            break
        at = paragraph.end()
    return at


def without_notes(body: str) -> str:
    """Leave out what the producers of the electronic text added.

    That is first paragraphs that name them, and their notes at the end or in brackets.
    """
    body = NOTE.sub("", body).strip("\n")
    head, rest = body[:HEAD_CHARACTERS], body[HEAD_CHARACTERS:]
    while CREDITS.match(head):
        paragraph = re.search(r"\n[ \t]*\n", head)
        head = head[paragraph.end() :].lstrip("\n") if paragraph else ""
    body = head + rest
    for pattern in (NOTES, ERRATA):
        for notes in pattern.finditer(body, int(0.8 * len(body))):
            body = body[: notes.start()]
            break
    return body.strip("\n")


def unwrap(text: str) -> str:
    """Join the lines of each paragraph of running text; verse, tables, lists and headings keep theirs.

    A paragraph is running text when its lines start at the book's margin and each was wrapped where the next
    word had no room. The margin is the commonest indentation; lines beyond it begin paragraphs where no empty
    line does.
    """
    paragraphs = []
    for paragraph in re.split(r"\n[ \t]*\n|\n(?=\u3000)", text):
        lines = [line.rstrip().expandtabs() for line in paragraph.split("\n") if line.strip()]
        if lines:
            paragraphs.append(lines)
    indents = Counter(_indent(line) for lines in paragraphs for line in lines)
    margin = min(indents, key=lambda indent: (-indents[indent], indent), default=0)
    paragraphs = [[line[min(margin, _indent(line)) :] for line in lines] for lines in paragraphs]
    wrapped = [line for lines in paragraphs for line in lines[:-1]]
    width = _Width(_ninth_decile(map(_columns, wrapped)), _ninth_decile(map(len, wrapped)))
    paragraphs = [part for lines in paragraphs for part in _split_at_indents(lines, width)]
    return "\n\n".join(
        _joined(lines, width) if _is_running_text(lines, width) else "\n".join(lines) for lines in paragraphs
    )


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


class _Width(NamedTuple):
    """How long the lines of a book are, in columns and in characters.

    By characters, since some wrap Chinese that has Latin words in it so.
    """

    columns: int
    characters: int

    def is_wrapped(self, line: str, following: str, share: float) -> bool:
        """Whether a line ends because the next one's first word had no room.

        share: of the width, which a line that was wrapped between two words takes at least.
        """
        if _is_narrow(line) and _is_narrow(following):
            least = share * self.columns
            return len(line) >= least or len(line) + _room(following) >= least
        room = _room(following)
        if UNSPACED.match(line[-1]) or UNSPACED.match(following):
            return _columns(line) + room >= self.columns or len(line) + room / 2 >= self.characters
        return _columns(line) + room >= share * self.columns


def _ninth_decile(lengths: Iterable[int]) -> int:
    """Return the length that nine of ten do not exceed."""
    ordered = sorted(lengths)
    return ordered[len(ordered) * 9 // 10] if ordered else 0


def _columns(text: str) -> int:
    """Return the columns of a text in a monospaced font, where Chinese, Japanese and Korean take two each."""
    return len(text) if _is_narrow(text) else len(text) + len(WIDE.findall(text))


def _is_narrow(text: str) -> bool:
    """Whether a text has no letter of a script without spaces, nor any that takes two columns."""
    return text.isascii() or max(text) < FIRST_UNSPACED


def _split_at_indents(lines: list[str], width: _Width) -> list[list[str]]:
    """Split the lines between two empty ones where indented lines begin paragraphs of running text."""
    starts = [row for row, line in enumerate(lines) if not row or line[0].isspace()]
    parts = [lines[start:end] for start, end in pairwise([*starts, len(lines)])]
    if len(lines) < 2.5 * len(parts):
        return [lines]
    for part in parts:
        if len(part) > 1 and not _is_running_text([part[0].strip(), *part[1:]], width):
            return [lines]
    return parts


def _joined(lines: list[str], width: _Width) -> str:
    """Join the lines of running text, with a space between two unless the script has none.

    A line that ends long before it had to, a heading or the last of a speech, keeps its end.
    """
    parts = [lines[0].strip()]
    for line, following in pairwise(map(str.strip, lines)):
        if not width.is_wrapped(line, following, 0.5):
            parts.append("\n")
        elif not (UNSPACED.match(line[-1]) and UNSPACED.match(following)):
            parts.append(" ")
        parts.append(following)
    return "".join(parts)


def _is_running_text(lines: list[str], width: _Width) -> bool:
    """Whether the lines of a paragraph are running text, wrapped for want of room."""
    if len(lines) < 2 or width.columns < NARROWEST:
        return False
    if any(line.startswith("  ") for line in lines[1:]) or any("   " in line.strip() for line in lines):
        return False
    wrapped = sum(width.is_wrapped(line, following.lstrip(), FULL) for line, following in pairwise(lines))
    return wrapped >= 0.8 * (len(lines) - 1)


def _room(line: str) -> int:
    """Return the columns that a line's first word needs behind another.

    Where a script has no spaces: those that are left free at most, so that no punctuation mark begins a line,
    or no word is cut.
    """
    if not UNSPACED.match(line):
        return 1 + _columns(line.split(maxsplit=1)[0])
    return 6 if WIDE.match(line) else 16
