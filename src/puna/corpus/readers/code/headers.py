"""The comments at the top of a source file: what they say, and the file without its licence header.

The paper (section 2.1): "removed boilerplate, such as headers, with regular expressions". Only statements
on copyright and licence go. Others in the same comment stay, and so do `#!` and coding lines, `#include` and
other directives, Markdown headings and documentation.
"""

import re
from dataclasses import dataclass, field

from puna.corpus.sources import code_files
from puna.text.lists import listed

_PROLOGUE = re.compile(
    r"\s*(?:#![^\n]*\n\s*)?(?:<\?(?:php|hh)\b[ \t]*\n?|<\?xml\b[^>\n]*\?>[ \t]*\n?)?"
    r"(?:\s*<!doctype[^>\n]*>[ \t]*\n?)?",
    re.IGNORECASE,
)
_MARK = re.compile(
    r"[ \t]*(?:/\*+!?|\*+/|\*+|//[/!]*|#+|--+|;+|%+|!+|\(\*+|\{-+|<!--|\.\. |'|\"\"\"|'''|\|)?"
)
_DIRECTIVE = re.compile(
    r"#[ \t]*(?:include|define|if|ifdef|ifndef|pragma|undef|import|error|else|endif|line)\b|#\[|#!\[|#'"
    r"|\.\. (?:[\w:-]+::|_|\[|\|)"
)
_HEAD_LINES = 400

# A line that begins like this begins a statement of its own.
_NOTICE = re.compile(
    r"\W*(?:portions )?(?:copyright|copyleft|\(c\)|©|all rights reserved|spdx-|licen[cs]e[sd]?\b"
    r"|the (?:mit|bsd|apache) licen[cs]e)"
    r"|[@:\\]\w|\$\w+:",
    re.IGNORECASE,
)
_TAG = re.compile(r"[@:\\](?:copyright|licen[cs]e|copyleft)\b", re.IGNORECASE)
# A statement with one of these is about copyright or licence.
_RIGHTS = re.compile("|".join(listed(__file__, "rights.json")), re.IGNORECASE)
# One that follows such a statement and has one of these is so, too.
_LEGAL = re.compile(
    r"licen[cs]|copyright|warrant|\bliab|redistribut|conditions (?:are|of)|following conditions"
    r"|(?:under|to) (?:the |these )?terms|terms (?:and|of the)|disclaim|damages|permission"
    r"|(?:this|above|following) notice"
    r"|\bth(?:e|is) software (?:is|in|may|without|was)|original software|provided (?:that|by)|is provided"
    r"|endorse|\brights\b|\bfee\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?:;][\"')\]]*\s*$")
_NOTICE_WORDS = re.compile(
    r"copyright|©|spdx-|licen[cs]ed under|permission is hereby|redistribution and use", re.IGNORECASE
)
_CONTINUES = re.compile(r"(?:[,&]|\b(?:and|or|of|the|by|to))\s*$", re.IGNORECASE)
_SHORT_LINE = 55  # a notice of copyright on a shorter line is not wrapped


@dataclass
class _Comment:
    """One comment: lines start..end of a file.

    kind: "line", "block" or "string". content: each line without its marks. marks: what begins and ends a
    block.
    """

    kind: str
    start: int
    end: int
    content: list[str] = field(default_factory=list)
    marks: tuple[str, str] = ("", "")


def top_comment(text: str, name: str) -> str:
    """Return what the comments at the top of a file say, without their marks."""
    _, _, comments = _parse_top(text, name)
    return "\n".join("\n".join(comment.content) for comment in comments)


def without_header(text: str, name: str) -> str:
    """Return a source text without what the comments at its top say about copyright and licence."""
    prologue, lines, comments = _parse_top(text, name)
    out: list[str] = []
    done = 0
    changed = False
    for comment in comments:
        rest = _without_notices(comment, lines)
        if rest is None:
            continue
        changed = True
        out += lines[done : comment.start]
        done = comment.end
        if rest:
            out += rest
        else:
            while done < len(lines) and not lines[done].strip():
                done += 1
    if not changed:
        return text
    body = out + lines[done:]
    first = next((number for number, line in enumerate(body) if line.strip()), len(body))
    return prologue + "\n".join(body[first:])


def _parse_top(text: str, name: str) -> tuple[str, list[str], list[_Comment]]:
    """Split a source text: (prologue, lines after it, the comments that these begin with)."""
    comment_marks = code_files.comment_marks(name)
    if comment_marks is None:
        return "", [], []
    match = _PROLOGUE.match(text)
    start = match.end() if match else 0
    lines = text[start:].split("\n")
    marks, blocks = comment_marks
    comments: list[_Comment] = []
    row = 0
    while row < min(len(lines), _HEAD_LINES):
        line = lines[row].lstrip()
        block = next((pair for pair in blocks if line.startswith(pair[0])), None)
        mark = next((mark for mark in marks if line.startswith(mark)), None)
        if not line.strip():
            row += 1
            continue
        if block:
            comment = _block_comment(lines, row, block)
        elif mark and not (mark in ("#", ".. ") and _DIRECTIVE.match(line)):
            comment = _line_comment(lines, row, mark)
        else:
            break
        if comment is None:
            break
        comments.append(comment)
        row = comment.end
    return text[:start], lines, comments


def _block_comment(lines: list[str], start: int, marks: tuple[str, str]) -> _Comment | None:
    """Return the block comment that starts here; None where it does not end, or code follows its end."""
    opened = lines[start].index(marks[0]) + len(marks[0])
    for row in range(start, len(lines)):
        close = lines[row].find(marks[1], opened if row == start else 0)
        if close < 0:
            continue
        if lines[row][close + len(marks[1]) :].strip():
            return None
        raw = list(lines[start : row + 1])
        raw[-1] = raw[-1][:close]
        raw[0] = raw[0][opened:]
        content = [_content(line) for line in raw]
        kind = "string" if marks[1] in ('"""', "'''") else "block"
        while lines[start][opened : opened + 1] in ("*", "!"):  # /** and /*! are documentation
            opened += 1
        return _Comment(kind, start, row + 1, content, (lines[start][:opened], marks[1]))
    return None


def _line_comment(lines: list[str], start: int, mark: str) -> _Comment:
    end = start
    while end < len(lines) and lines[end].lstrip().startswith(mark):
        if mark in ("#", ".. ") and _DIRECTIVE.match(lines[end].lstrip()):
            break
        end += 1
    if mark == ".. ":  # a reStructuredText comment goes on as long as it is indented
        while end < len(lines) and (lines[end].startswith("   ") or not lines[end].strip()):
            end += 1
        while not lines[end - 1].strip():
            end -= 1
    return _Comment("line", start, end, [_content(line) for line in lines[start:end]])


def _content(line: str) -> str:
    match = _MARK.match(line)
    text = line[match.end() if match else 0 :].strip()
    text = text.rstrip("*#/ \t") if text.endswith(("*", "#", "//")) else text
    return text if any(map(str.isalnum, text)) else ""


def _without_notices(comment: _Comment, lines: list[str]) -> list[str] | None:
    """Return the lines that stay of a comment; None when all do."""
    drop = _is_notice(comment.content)
    if not any(drop):
        return None
    keep = [bool(text) and not dropped for text, dropped in zip(comment.content, drop, strict=True)]
    if comment.kind == "string":  # documentation, unless it is a licence and nothing else
        return [] if not any(keep) and _NOTICE_WORDS.search(" ".join(comment.content)) else None
    if not any(keep):
        return []
    # Each run of dropped and blank lines that holds a dropped one shrinks to one blank line, to none at
    # either end.
    out: list[str] = []
    row = 0
    while row < len(keep):
        end = row
        while end < len(keep) and not keep[end]:
            end += 1
        if end == row:
            out.append(lines[comment.start + row])
            row += 1
            continue
        run = lines[comment.start + row : comment.start + end]
        if any(drop[row:end]):
            blank = [line for line, text in zip(run, comment.content[row:end], strict=True) if not text]
            run = blank[:1] if row and end < len(keep) else []
        out += run
        row = end
    if comment.kind == "block":
        opened, closed = comment.marks
        if not keep[0] and drop[: keep.index(True)].count(True):
            out.insert(0, opened.rstrip())
        if not keep[-1] and any(drop[len(keep) - keep[::-1].index(True) :]):
            out.append(" " + closed if closed == "*/" else closed)
    return out


def _is_notice(content: list[str]) -> list[bool]:
    """For each line of a comment, whether it is part of a statement about copyright or licence."""
    notice = [False] * len(content)
    legal = False  # whether the last statement was one
    row = 0
    while row < len(content):
        if not content[row]:
            row += 1
            continue
        end = row + 1
        while end < len(content) and content[end] and not _begins(content[end - 1], content[end]):
            end += 1
        statement = " ".join(content[row:end])
        if content[row][0] in "@:\\":
            legal = bool(_TAG.match(statement))
        else:
            legal = bool(_RIGHTS.search(statement)) or (legal and bool(_LEGAL.search(statement)))
        notice[row:end] = [legal] * (end - row)
        row = end
    return notice


def _begins(last: str, line: str) -> bool:
    """Whether a line begins a statement of its own, given the one above it."""
    if _NOTICE.match(line) or _SENTENCE_END.search(last):
        return True
    if len(last) >= _SHORT_LINE or not line[0].isupper():
        return False
    return bool(_NOTICE.match(last)) and not _CONTINUES.search(last)
