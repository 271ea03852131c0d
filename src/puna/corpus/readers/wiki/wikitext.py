"""Wikitext -> clean text: no links, comments, references, tables, nor markup; templates that are part of a
sentence expanded.

What stays: prose, headings, lists ("- "), formulas as LaTeX between dollar signs, code as it is. What goes:
everything else, and sections that are lists of sources and links. Every step takes time linear in the text,
whatever the text: no pattern goes over the same characters again and again, and text inside more than DEPTH
closed brackets is dropped.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from puna.corpus.readers.wiki.languages import DROPPED_NAMESPACES, LINK_SECTIONS, names
from puna.corpus.readers.wiki.templates import (
    EQUALS,
    PIPE,
    SUBSCRIPT,
    SUPERSCRIPT,
    TABLE_ENDS,
    expand,
    script,
)

DEPTH = 40  # as MediaWiki's own limit on templates inside templates
HELD = re.compile(r"\x00(\d+)\x00")
DROPPED_TAGS = names("""
ref, references, gallery, timeline, score, imagemap, hiero, graph, mapframe, maplink, inputbox, templatestyles, templatedata,
categorytree, table, indicator, phonos
""")
VERBATIM_TAGS = names("syntaxhighlight, source, pre, nowiki, code, math, chem, ce")
OPENED = re.compile(
    rf"<!--|<({'|'.join(sorted(DROPPED_TAGS | VERBATIM_TAGS))})(?=[\s/>])[^<>]*>", re.IGNORECASE
)
CLOSED = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in DROPPED_TAGS | VERBATIM_TAGS}
HEADING_START = re.compile(r"^==", re.MULTILINE)
BRACKET = re.compile(
    r"\[\[([^\[\]{}\n]*)\]\]|\{\{([^\[\]{}]*)\}\}|\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\})|^==",
    re.MULTILINE,
)  # a link or template without brackets inside is one match
OPENER = {"}}": "{{", "]]": "[[", "|}": "{|"}
AFTER_TABLE = re.compile(r"(?<!\s)[ \t]*+\n[ \t]*+\n\s*+(?![|!{]|\Z)")
EXTERNAL = re.compile(
    r"\[(?:(?:https?:|ftps?:|news:|irc:|gopher:)?//|mailto:)[^\s\[\]<>]*+[ \t]*+([^\[\]\n]*+)\]",
    re.IGNORECASE,
)
BREAK = re.compile(r"<(?:br|hr|/p|/div|/ul|/ol|/tr|/dd|/dt|/?blockquote|/?poem)\b[^<>]*>", re.IGNORECASE)
ITEM = re.compile(r"<li\b[^<>]*>", re.IGNORECASE)
SCRIPTS = re.compile(r"<(sup|sub)>([-+−–\dn]{1,8})</\1>", re.IGNORECASE)
LONG_REFERENCE = re.compile(r"&#\d{9,};?")  # of no character; Python refuses to read more than 4,300 digits
TAG = re.compile(r"</?[A-Za-z][^<>]{0,1000}>")
VARIANT = re.compile(r"-\{(?:[^{}|]{1,40}\|)?([^{}|]*)\}-")  # Serbian: -{text}- keeps its script
SWITCH = re.compile(r"__[^\W\d_a-zа-яђ-џ][^\W\da-zа-яђ-џ]{2,40}__")
QUOTES = re.compile(r"'{2,}")
SPACES = re.compile(r"[ \t\u00a0\u2002-\u200a\u202f\u3000]+")
EMPTY_PARENTHESES = re.compile(r"(?:(?<= )|^)[(（][ ,;:/–-]*[)）] ?")
EMPTY_QUOTES = re.compile(r"(?:(?<= )|^)(?:« ?»|„ ?[“”]) ?")
WITHOUT_VALUE = re.compile(r"(?<![\w/.-])[^\W\d_][\w/.-]{0,30}: ?(?=[;,)])")  # "(IPA: ; born 1950)"
AFTER_OPENING = re.compile(r"([(（])[ ,;]+")
BEFORE_CLOSING = re.compile(r"(?<![ ,;:])[ ,;:]+([)）])")
TWICE = re.compile(r"([,;])(?: [,;])+")
SPACE_BEFORE = re.compile(r"(?<! ) +([,.](?=\s|$))")
WORD = re.compile(r"[^\W_]|\x00")
ITEM_LEFTOVER = re.compile(r"(?:[-–—.,;:]+ )+")  # at the start of an item, behind a dropped template
TABLE_LEFTOVER = ("|", "!", "{|", "}}")
INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
Line = tuple[int, str]  # level of a heading, or 0; its text


def plain(
    text: str, dropped_namespaces: frozenset[str] = frozenset(), title: str = "", language: str = "en"
) -> str:
    """Clean text of an article.

    dropped_namespaces: lower-case names of file and category namespaces, besides those of the 20 languages.
    title: for {{PAGENAME}}.
    language: of the wiki ("de"); it decides how numbers and a few templates are written.
    """
    held: list[str] = []
    namespaces = DROPPED_NAMESPACES | dropped_namespaces
    for mark in ("\x00", PIPE, EQUALS):
        text = text.replace(mark, "")
    text = _extract_tags(text, held)
    text = _unnest(text, lambda inner: _link(inner, namespaces), lambda inner: expand(inner, title, language))
    text = EXTERNAL.sub(r"\1", text)
    text = SCRIPTS.sub(
        lambda match: script(match[2], SUPERSCRIPT if match[1].lower() == "sup" else SUBSCRIPT), text
    )
    text = _unescape(TAG.sub("", ITEM.sub("\n* ", BREAK.sub("\n", text))))
    text = SWITCH.sub("", VARIANT.sub(r"\1", text.replace(PIPE, "|").replace(EQUALS, "=")))
    text = "\n".join(_sections(_lines(text)))
    return HELD.sub(
        lambda match: held[int(match[1])] if len(match[1]) < 9 and int(match[1]) < len(held) else "", text
    )


def _unescape(text: str) -> str:
    return html.unescape(LONG_REFERENCE.sub("", text)) if "&" in text else text


class _Ahead:
    """The first match of a pattern at or after a position that only grows: no character is searched twice."""

    def __init__(self, pattern: re.Pattern[str], text: str, at: int = 0) -> None:
        self.pattern, self.text = pattern, text
        self.found = pattern.search(text, at)

    def __call__(self, at: int) -> re.Match[str] | None:
        if self.found and self.found.start() < at:
            self.found = self.pattern.search(self.text, at)
        return self.found


def _extract_tags(text: str, held: list[str]) -> str:
    """Take out comments and the tags whose content is no wikitext: dropped with it, or held back behind a
    mark.

    As in MediaWiki a tag ends at the first closing one; without one, it is left out and its content stays. A
    dropped tag does not go over a heading.
    """
    out: list[str] = []
    at = 0
    heading = _Ahead(HEADING_START, text)
    closings: dict[str, _Ahead] = {}
    while opened := OPENED.search(text, at):
        out.append(text[at : opened.start()])
        at = opened.end()
        name = (opened[1] or "").lower()
        if not name:
            end = text.find("-->", at)
            at = len(text) if end < 0 else end + 3
            if out[-1].endswith("\n") and text.startswith("\n", at):
                at += 1  # a comment on a line of its own
            continue
        if opened[0].endswith("/>"):
            continue
        if name not in closings:
            closings[name] = _Ahead(CLOSED[name], text, at)
        closed = closings[name](at)
        if closed is None:
            continue
        if name in DROPPED_TAGS:
            ahead = heading(at)
            if ahead is None or ahead.start() > closed.start():
                at = closed.end()
            continue
        content = _unescape(text[at : closed.start()])
        at = closed.end()
        if shown := _verbatim(name, opened[0], content):
            out.append(f"\x00{len(held)}\x00")
            held.append(shown)
    out.append(text[at:])
    return "".join(out)


def _verbatim(name: str, tag: str, content: str) -> str:
    if name in ("math", "chem", "ce"):
        content = " ".join(content.split())
        if name != "math":
            content = f"\\ce{{{content}}}" if content else ""
        mark = "$$" if "block" in tag else "$"
        return f"{mark}{content}{mark}" if content else ""
    return (
        content if name == "nowiki" else content.replace("<nowiki>", "").replace("</nowiki>", "").strip("\n")
    )


@dataclass(slots=True)
class _Open:
    """An opened bracket: its kind, where its parts begin, and how many closed brackets lie inside one another
    in it."""

    kind: str
    start: int
    height: int = 0


def _unnest(text: str, link: Callable[[str], str], template: Callable[[str], str]) -> str:
    """Replace templates, tables and links, the inner ones first. What is never closed is text; a heading ends
    whatever is open."""
    out: list[str] = []
    stack: list[_Open] = []
    opened = {"{{": 0, "[[": 0, "{|": 0}

    def close(kind: str) -> None:
        height, table = 0, -1
        while True:
            top = stack.pop()
            opened[top.kind] -= 1
            height = max(height, top.height)
            if top.kind == kind:
                break
            if top.kind == "{|":
                table = top.start
        if kind == "{|":
            shown = ""
        else:
            if table >= 0:
                out[table:] = [_after_table("".join(out[table:]))]
            inner = "".join(out[top.start :])
            shown = "" if height >= DEPTH else link(inner) if kind == "[[" else template(inner)
        del out[top.start :]
        out.append(shown)
        if stack:
            stack[-1].height = max(stack[-1].height, height + 1)

    def give_up() -> None:
        table = next((item.start for item in stack if item.kind == "{|"), -1)
        if table >= 0:
            out[table:] = [_after_table("".join(out[table:]))]
        stack.clear()
        opened.update(dict.fromkeys(opened, 0))

    at = 0
    for match in BRACKET.finditer(text):
        if match.start() > at:
            out.append(text[at : match.start()])
        at = match.end()
        if match.lastindex == 1:
            out.append(link(match[1]))
        elif match.lastindex == 2:
            inner = match[2]
            if "\n==" in inner:
                give_up()
                out.append(inner)
            elif opened["{|"] and inner.partition("|")[0].strip().lower() in TABLE_ENDS:
                close("{|")
            else:
                out.append(template(inner))
        elif (token := match[0].lstrip(" \t:")) == "==":
            end = text.find("\n", at)
            if stack and text[at : end if end >= 0 else len(text)].rstrip().endswith("=="):
                give_up()
            out.append(match[0])
        elif token in opened:
            stack.append(_Open(token, len(out)))
            opened[token] += 1
        elif opened[OPENER[token]]:
            close(OPENER[token])
    out.append(text[at:])
    give_up()
    return "".join(out)


def _after_table(inner: str) -> str:
    """What follows a table that is never closed: it ends where a blank line is followed by something that is
    no row."""
    end = AFTER_TABLE.search(inner)
    return "\n\n" + inner[end.end() :] if end else ""


def _link(inner: str, dropped_namespaces: frozenset[str]) -> str:
    target, bar, label = inner.partition("|")
    shown_as_is = target.startswith(":")
    target = target.lstrip(": ").strip().replace("_", " ")
    prefix, colon, rest = target.partition(":")
    if colon and not shown_as_is and prefix.strip().lower() in dropped_namespaces:
        return ""
    if "\n\n" in inner:
        return inner  # opened and closed in different paragraphs: no link
    if colon and not shown_as_is and not bar and rest and INTERLANGUAGE.fullmatch(prefix):
        return ""
    if label.strip():
        return label.rpartition("|")[2] if "|" in label else label
    if colon and rest.startswith("//"):
        return target.partition(" ")[2]
    if bar:  # the pipe trick: [[city (country)|]] shows "city"
        target = rest if colon else target
        name, opening, _ = target.partition("(")
        return (name if opening and target.endswith(")") else target.partition(",")[0]).strip()
    return target


def _lines(text: str) -> list[Line]:
    """Headings, list items as "- ", and other lines; leftovers of tables and lines without a letter or digit
    are empty."""
    out: list[Line] = []
    for line in text.split("\n"):
        line = line.strip()
        level = 0
        if line.startswith(TABLE_LEFTOVER):
            line = ""
        elif line.startswith("=") and line.endswith("=") and (body := line.strip("=")):
            level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
            line = body.strip()
        elif line.startswith(("*", "#", ":", ";")):
            body = line.lstrip("*#:; ")
            mark = line[: len(line) - len(body)].rstrip()[-1]
            leftover = ITEM_LEFTOVER.match(body)
            body = body[leftover.end() :] if leftover else body
            if mark == ";" and " : " in body:
                term, _, definition = body.partition(" : ")
                body = f"{term.rstrip()}: {definition}"
            line = "" if body.startswith(TABLE_LEFTOVER) else f"- {body}" if mark in "*#" else body
        out.append((level, _tidy(line) if line else ""))
    return out


def _tidy(line: str) -> str:
    """Without quotes of bold and italic, empty parentheses, doubled spaces and marks, which dropped templates
    leave behind."""
    if "''" in line:
        line = _without_quotes(line)
    line = SPACES.sub(" ", line)
    if "(" in line or "（" in line:
        line = BEFORE_CLOSING.sub(
            r"\1", AFTER_OPENING.sub(r"\1", EMPTY_PARENTHESES.sub("", WITHOUT_VALUE.sub("", line)))
        )
    if "«" in line or "„" in line:
        line = EMPTY_QUOTES.sub("", line)
    line = SPACE_BEFORE.sub(r"\1", TWICE.sub(r"\1", line)).strip()
    return line if WORD.search(line) else ""


def _without_quotes(line: str) -> str:
    """As MediaWiki's doQuotes: in l'''Encyclopédie'' the first of the three is an apostrophe, as the marks
    would not pair otherwise."""
    runs = list(QUOTES.finditer(line))
    lengths = [len(run[0]) for run in runs]
    bold, italic = (sum(length in kinds or length > 5 for length in lengths) for kinds in ((3, 4, 5), (2, 5)))
    apostrophe = -1
    if bold % 2 and italic % 2:
        best = 3
        for number, run in enumerate(runs):
            if len(run[0]) == 3:
                before = line[max(0, run.start() - 2) : run.start()]
                rank = (
                    2
                    if before.endswith(" ") or not before
                    else 0
                    if len(before) < 2 or before[0] == " "
                    else 1
                )
                if rank < best:
                    apostrophe, best = number, rank
    out, at = [], 0
    for number, run in enumerate(runs):
        literal = {4: 1}.get(len(run[0]), max(0, len(run[0]) - 5)) + (number == apostrophe)
        out += [line[at : run.start()], "'" * literal]
        at = run.end()
    return "".join([*out, line[at:]])


def _sections(lines: list[Line]) -> list[str]:
    """Blank lines around headings and at most one between lines; sections without text and sections of links
    dropped."""
    out: list[Line] = []
    at = depth = 0

    def end_section(level: int) -> None:
        """Before a heading of this level drop headings without text, and short lines that announced a list or
        table now gone."""
        while out and (not out[-1][1] or out[-1][0] >= level or (level <= depth and _announces(*out[-1]))):
            out.pop()

    while at < len(lines):
        level, line = lines[at]
        at += 1
        if not level:
            if line or (out and out[-1][1]):
                out.append((0, line))
            continue
        end_section(level)
        if line.lower().rstrip(" :") in LINK_SECTIONS:
            end = next(
                (number for number in range(at, len(lines)) if 0 < lines[number][0] <= level), len(lines)
            )
            shown = [other for inner, other in lines[at:end] if other and not inner]
            if 5 * sum(map(_is_prose, shown)) <= len(shown):
                at = end
                continue
        if line:
            depth = level
            out += [(0, ""), (level, line), (0, "")]
    end_section(1)
    start = next((number for number, (_, line) in enumerate(out) if line), 0)
    return [line for _, line in out[start:]]


def _announces(level: int, line: str) -> bool:
    return not level and len(line) < 150 and line.endswith(":") and not line.startswith("- ")


def _is_prose(line: str) -> bool:
    """Neither a list item nor a short line that is no sentence."""
    return not line.startswith("- ") and (len(line) >= 100 or line[-1] in ".!?")
