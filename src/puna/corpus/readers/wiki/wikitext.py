"""Conversion of wikitext to clean text.

Prose, headings, lists ("- "), formulas (as LaTeX between dollar signs) and code are kept, and templates
inside sentences are expanded. Comments, references, tables, all other markup, and sections that only list
sources and links are dropped. Every step takes time linear in the text, whatever the text: no pattern
searches the same characters repeatedly, and text inside more than MAX_DEPTH closed brackets is dropped.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from puna.corpus.readers.wiki.languages import DROPPED_NAMESPACES, LINK_SECTIONS, names
from puna.corpus.readers.wiki.notes import announces_table, without_hatnotes
from puna.corpus.readers.wiki.templates import EQUALS, LOST, PIPE, TABLE_ENDS, expand
from puna.corpus.readers.wiki.variants import one_variant
from puna.text.raised import subscript, superscript

LISTING = "\x04"  # stands where a table or gallery was
LINK = "\x05"  # around the text of a link to another site
MAX_DEPTH = 40  # MediaWiki's own limit on templates inside templates
PLACEHOLDER = re.compile(r"\x00(\d+)\x00")
DROPPED_TAGS = names("""
ref, references, gallery, timeline, score, imagemap, hiero, graph, mapframe, maplink, inputbox,
templatestyles, templatedata, categorytree, table, indicator, phonos
""")
INLINE_TAGS = names(
    "ref, templatestyles, templatedata, indicator, phonos, hiero, score, categorytree, maplink"
)
VERBATIM_TAGS = names("syntaxhighlight, source, pre, nowiki, code, math, chem, ce")
_TAGS = sorted(DROPPED_TAGS | VERBATIM_TAGS)
START_TAG = re.compile(rf"<!--|<({'|'.join(_TAGS)})(?=[\s/>])[^<>]*>", re.IGNORECASE)
END_TAG = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in _TAGS}
HEADING_START = re.compile(r"^==", re.MULTILINE)
# A link or template without brackets inside is one match.
BRACKET = re.compile(
    r"\[\[([^\[\]{}\n]*)\]\]|\{\{([^\[\]{}]*)\}\}"
    r"|\{\{|\}\}|\[\[|\]\](?!\](?!\]))|^[ \t:]*\{\||^[ \t]*\|\}(?!\})|^==",
    re.MULTILINE,
)
OPENER = {"}}": "{{", "]]": "[[", "|}": "{|"}
AFTER_TABLE = re.compile(r"(?<!\s)[ \t]*+\n[ \t]*+\n\s*+(?![|!{]|\Z)")
EXTERNAL = re.compile(
    r"\[(?:(?:https?:|ftps?:|news:|irc:|gopher:)?//|mailto:)[^\s\[\]<>]*+[ \t]*+([^\[\]\n]*+)\]",
    re.IGNORECASE,
)
BREAK = re.compile(r"<(?:br|hr|/p|/div|/ul|/ol|/tr|/dd|/dt|/?blockquote|/?poem)\b[^<>]*>", re.IGNORECASE)
ITEM = re.compile(r"<li\b[^<>]*>", re.IGNORECASE)
# Raised or lowered text, which may hold other tags, but none of its kind.
SCRIPTS = re.compile(
    r"<(su[pb])\b[^<>]{0,200}(?<!/)>((?:[^<>]|<(?!/?su[pb]\b)[^<>]{0,200}>){0,200}?)</\1\s*>", re.IGNORECASE
)
NOTE_MARK = re.compile(r"\s*(?:\[[^\[\]]*\]|[(（][^()（）]{1,3}[)）]|\w{1,2}\)|\[[^\]]*)\s*")
RAISED_WORD = re.compile(r"[^\W\d_]{2}[^\d_]*")
SINGLE_LETTER = re.compile(r"(?:(?<![^\W_])(?![IVXLCDM])[^\W\d_]|[)\]])['’\s]*\Z")
SCRIPTS_DEEP = 3  # a power of a power of a power
# A reference to no character; Python refuses to parse more than 4,300 digits.
LONG_REFERENCE = re.compile(r"&#\d{9,};?")
TAG = re.compile(r"</?[A-Za-z][^<>]{0,1000}>")
SWITCH = re.compile(r"__[^\W\d_a-zа-яђ-џ][^\W\da-zа-яђ-џ]{2,40}__")
QUOTES = re.compile(r"'{2,}")
SPACES = re.compile(r"[ \t\u00a0\u2002-\u200a\u202f\u3000]+")
ODD_SPACE = re.compile(r"[\t\u00a0\u2002-\u200a\u202f\u3000]")
EMPTY_PARENTHESES = re.compile(r"(?:(?<= )|^)[(（][ ,;:/–-]*[)）] ?")
EMPTY_QUOTES = re.compile(r"(?:(?<= )|^)(?:« ?»|„ ?[“”]) ?")
WITHOUT_VALUE = re.compile(r"(?<![\w/.-])[^\W\d_][\w/.-]{0,30}: ?(?=[;,)])")  # "(IPA: ; born 1950)"
AFTER_OPENING = re.compile(r"([(（])[ ,;]+")
BEFORE_CLOSING = re.compile(r"(?<![ ,;:])[ ,;:]+([)）])")
TWICE = re.compile(r"([,;])(?: [,;])+")
SPACE_BEFORE = re.compile(r"(?<! ) +([,.](?=\s|$))")
WORD = re.compile(r"[^\W_]|\x00")
ITEM_LEFTOVER = re.compile(r"(?:[-–—.,;:]+ )+")  # at the start of an item, behind a dropped template
# "* 1967: {{unknown}}": a label that is left without its value.
LABEL = re.compile(rf"[*#:;]++[^{LOST}.!?]{{1,60}}(?:[:：=]|[ \xa0][-–—])['\s]*{LOST}[\s{LOST}.,;]*")
# "(LOST, rarely LOST; from Latin)": words that lead to what is lost, in parentheses; names of a thing, which
# stand before its lost pronunciation, are written otherwise.
PARENTHESES_WITH_LOST = re.compile(rf"[(（][^()（）]{{0,200}}{LOST}[^()（）]{{0,200}}[)）]")
LEADS_TO_LOST = re.compile(rf"([(（,;{LOST}])\s*(?:[a-zß-öø-ž]+[: ]+){{1,3}}(?={LOST})")
TABLE_LEFTOVER = ("|", "!", "{|", "}}")
MAX_AROUND_LINK = 60  # characters of an item beside its link to another site
INTERLANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]+)*")
Line = tuple[int, str]  # level of a heading, LINKED, or 0, and text
LINKED = -1  # an item of a list that is a link to another site and little else


def plain(
    text: str, dropped_namespaces: frozenset[str] = frozenset(), title: str = "", language: str = "en"
) -> str:
    """Convert the wikitext of an article to clean text.

    dropped_namespaces: lower-case names of file and category namespaces, besides those of the 20 languages.
    title: for {{PAGENAME}}. language: of the wiki ("de"), for numbers and templates of one language.
    """
    verbatim: list[str] = []
    namespaces = DROPPED_NAMESPACES | dropped_namespaces
    for character in ("\x00", PIPE, EQUALS, LOST, LISTING, LINK):
        text = text.replace(character, "")
    text = one_variant(without_hatnotes(_extract_tags(text, verbatim)))
    text = _unnest(text, lambda inner: _link(inner, namespaces), lambda inner: expand(inner, title, language))
    text = EXTERNAL.sub(rf"{LINK}\1{LINK}", text)
    text = _without_scripts(text)
    text = _unescape(TAG.sub("", ITEM.sub("\n* ", BREAK.sub("\n", text))))
    text = SWITCH.sub("", one_variant(text.replace(PIPE, "|").replace(EQUALS, "=")))
    text = "\n".join(_sections(_lines(text)))

    def restore(match: re.Match[str]) -> str:
        number = int(match[1]) if len(match[1]) < 9 else len(verbatim)
        return verbatim[number] if number < len(verbatim) else ""

    return PLACEHOLDER.sub(restore, text)


def _without_scripts(text: str) -> str:
    """Write raised and lowered text without tags, inner ones first."""
    for _ in range(SCRIPTS_DEEP):
        text, count = SCRIPTS.subn(_script, text)
        if not count:
            break
    return text


def _script(match: re.Match[str]) -> str:
    inner = _unescape(TAG.sub("", match[2])).replace(LINK, "")
    content = QUOTES.sub("", inner)
    bare = content.rstrip(",.;: ")
    content, behind = bare, content[len(bare) :]
    if "\x00" in content:
        return content + behind
    if match[1].lower() == "sub":
        return subscript(content) + behind
    # A word behind a word or a number, as in "XVIII<sup>vet</sup>", is raised for its looks.
    if (
        "'" not in inner
        and RAISED_WORD.fullmatch(content)
        and not SINGLE_LETTER.search(match.string[max(0, match.start() - 8) : match.start()])
    ):
        return content + behind
    return behind if NOTE_MARK.fullmatch(content) else superscript(content) + behind


def _unescape(text: str) -> str:
    return html.unescape(LONG_REFERENCE.sub("", text)) if "&" in text else text


class _NextMatch:
    """First match of a pattern at or after a position that only grows, so that nothing is searched twice."""

    def __init__(self, pattern: re.Pattern[str], text: str, at: int = 0) -> None:
        self.pattern, self.text = pattern, text
        self.match = pattern.search(text, at)

    def __call__(self, at: int) -> re.Match[str] | None:
        if self.match and self.match.start() < at:
            self.match = self.pattern.search(self.text, at)
        return self.match


def _extract_tags(text: str, verbatim: list[str]) -> str:
    """Remove comments and dropped tags, and replace verbatim content, added to a list, by placeholders.

    As in MediaWiki, a tag ends at the first end tag of its name; a tag that is never closed is removed and
    its content stays. A dropped tag does not extend over a heading.
    """
    out: list[str] = []
    at = 0
    heading = _NextMatch(HEADING_START, text)
    end_tags: dict[str, _NextMatch] = {}
    while start_tag := START_TAG.search(text, at):
        out.append(text[at : start_tag.start()])
        at = start_tag.end()
        name = (start_tag[1] or "").lower()
        if not name:
            end = text.find("-->", at)
            at = len(text) if end < 0 else end + 3
            if out[-1].endswith("\n") and text.startswith("\n", at):
                at += 1  # a comment on a line of its own
            continue
        if start_tag[0].endswith("/>"):
            continue
        if name not in end_tags:
            end_tags[name] = _NextMatch(END_TAG[name], text, at)
        end_tag = end_tags[name](at)
        if end_tag is None:
            continue
        if name in DROPPED_TAGS:
            next_heading = heading(at)
            if next_heading is None or next_heading.start() > end_tag.start():
                at = end_tag.end()
                if name not in INLINE_TAGS:
                    out.append(LISTING)
            continue
        content = _verbatim(name, start_tag[0], _unescape(text[at : end_tag.start()]))
        at = end_tag.end()
        if content:
            out.append(f"\x00{len(verbatim)}\x00")
            verbatim.append(content)
    out.append(text[at:])
    return "".join(out)


def _verbatim(name: str, tag: str, content: str) -> str:
    if name in ("math", "chem", "ce"):
        content = " ".join(content.split())
        if name != "math":
            content = f"\\ce{{{content}}}" if content else ""
        dollars = "$$" if "block" in tag else "$"
        return f"{dollars}{content}{dollars}" if content else ""
    if name == "nowiki":
        return content
    return content.replace("<nowiki>", "").replace("</nowiki>", "").strip("\n")


@dataclass(slots=True)
class _Open:
    """Open bracket: its kind, where its content starts in the output, how deep closed ones nest in it."""

    kind: str
    start: int
    height: int = 0


def _unnest(  # noqa: C901 -- one pass over the brackets, with one stack of those that are open
    text: str, link: Callable[[str], str], template: Callable[[str], str]
) -> str:
    """Replace templates, tables and links, inner ones first.

    What is never closed is text, and a heading ends whatever is open.
    """
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
        if table >= 0 and kind != "{|":
            out[table:] = [_after_table("".join(out[table:]))]
        inner = "".join(out[top.start :])
        del out[top.start :]
        if kind == "{|" or height >= MAX_DEPTH:
            out.append(LISTING if kind == "{|" else "")
        else:
            out.append(link(inner) if kind == "[[" else template(inner))
        if stack:
            stack[-1].height = max(stack[-1].height, height + 1)

    def end_open() -> None:
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
                end_open()
                out.append(inner)
            elif opened["{|"] and inner.partition("|")[0].strip().lower() in TABLE_ENDS:
                close("{|")
            else:
                out.append(template(inner))
        elif (token := match[0].lstrip(" \t:")) == "==":
            end = text.find("\n", at)
            if stack and text[at : end if end >= 0 else len(text)].rstrip().endswith("=="):
                end_open()
            out.append(match[0])
        elif token in opened:
            stack.append(_Open(token, len(out)))
            opened[token] += 1
        elif opened[OPENER[token]]:
            close(OPENER[token])
    out.append(text[at:])
    end_open()
    return "".join(out)


def _after_table(inner: str) -> str:
    """Return what follows a table that is never closed, which ends at a blank line with no row behind it."""
    end = AFTER_TABLE.search(inner)
    return "\n\n" + inner[end.end() :] if end else ""


def _link(inner: str, dropped_namespaces: frozenset[str]) -> str:
    """Return the text of the link [[inner]]."""
    if LOST in inner or LISTING in inner:
        inner = inner.replace(LOST, "").replace(LISTING, "")
    target, bar, label = inner.partition("|")
    is_plain_link = target.startswith(":")  # [[:File:A.jpg]] links to the file and does not show it
    target = target.lstrip(": ").strip().replace("_", " ")
    prefix, colon, rest = target.partition(":")
    if colon and not is_plain_link and prefix.strip().lower() in dropped_namespaces:
        return ""
    if "\n\n" in inner:
        return inner  # opened and closed in different paragraphs: no link
    if colon and not is_plain_link and not bar and rest and INTERLANGUAGE.fullmatch(prefix):
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
    """Return headings, list items as "- ", and other lines.

    Leftovers of tables and lines without a letter or digit are empty, and so are lines that announce a table
    which is dropped, and labels of a value that is.
    """
    out: list[Line] = []
    for line in text.split("\n"):
        level = 0
        if LISTING in line:
            before, _, line = line.partition(LISTING)
            line = before + line.replace(LISTING, "")
            if not before.strip():
                _drop_announcement(out)
        if line.startswith(("*", "#")) and (LINK in line or "://" in line):
            level = LINKED * (len("".join(line.split(LINK)[::2])) < MAX_AROUND_LINK)
        line = line.replace(LINK, "")
        if LOST in line:
            line = PARENTHESES_WITH_LOST.sub(lambda found: LEADS_TO_LOST.sub(r"\1", found[0]), line)
            line = line.replace(f" {LOST};", ";")
            line = "" if len(line) < 200 and LABEL.fullmatch(line) else line.replace(LOST, "")
        line = line.strip()
        if line.startswith(TABLE_LEFTOVER):
            line = ""
        elif line.startswith("=") and line.endswith("=") and (body := line.strip("=")):
            level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
            line = body.strip()
        elif line.startswith(("*", "#", ":", ";")):
            line = _item(line)
        out.append((level, _tidy(line) if line else ""))
    return out


def _drop_announcement(lines: list[Line]) -> None:
    """Drop the last line where it announces a table that follows."""
    at = len(lines) - 1
    while at >= 0 and lines[at] == (0, ""):
        at -= 1
    if at >= 0 and (_announces(*lines[at]) or (not lines[at][0] and announces_table(lines[at][1]))):
        lines[at] = (0, "")


def _item(line: str) -> str:
    """Return the text of an item of a list, of a definition, or of an indented line."""
    body = line.lstrip("*#:; ")
    marker = line[: len(line) - len(body)].rstrip()[-1]
    leftover = ITEM_LEFTOVER.match(body)
    body = body[leftover.end() :] if leftover else body
    if marker == ";" and " : " in body:
        term, _, definition = body.partition(" : ")
        body = f"{term.rstrip()}: {definition}"
    if body.startswith(TABLE_LEFTOVER):
        return ""
    return f"- {body}" if marker in "*#" else body


def _tidy(line: str) -> str:
    """Remove quotes of bold and italic, and what dropped templates leave behind.

    That is empty parentheses and quotation marks, and doubled spaces, commas and semicolons.
    """
    if "''" in line:
        line = _without_quotes(line)
    if "  " in line or ODD_SPACE.search(line):
        line = SPACES.sub(" ", line)
    if "(" in line or "（" in line:
        line = EMPTY_PARENTHESES.sub("", WITHOUT_VALUE.sub("", line))
        line = BEFORE_CLOSING.sub(r"\1", AFTER_OPENING.sub(r"\1", line))
    if "«" in line or "„" in line:
        line = EMPTY_QUOTES.sub("", line)
    if " ," in line or " ;" in line or " ." in line:
        line = SPACE_BEFORE.sub(r"\1", TWICE.sub(r"\1", line))
    line = line.strip()
    return line if WORD.search(line) else ""


def _without_quotes(line: str) -> str:
    """Remove quotes as MediaWiki's doQuotes does.

    Where bold and italic do not pair, as in l'''Encyclopédie'', one of three quotes is an apostrophe.
    """
    runs = list(QUOTES.finditer(line))
    lengths = [len(run[0]) for run in runs]
    bold = sum(length in (3, 4, 5) or length > 5 for length in lengths)
    italic = sum(length in (2, 5) or length > 5 for length in lengths)
    with_apostrophe = None
    if bold % 2 and italic % 2:
        triples = [run for run in runs if len(run[0]) == 3]
        with_apostrophe = min(triples, key=lambda run: _apostrophe_rank(line, run.start()), default=None)
    out, at = [], 0
    for run, length in zip(runs, lengths, strict=True):
        apostrophes = 1 if length == 4 else max(0, length - 5)
        if run is with_apostrophe:
            apostrophes += 1
        out += [line[at : run.start()], "'" * apostrophes]
        at = run.end()
    return "".join([*out, line[at:]])


def _apostrophe_rank(line: str, at: int) -> int:
    """Rank three quotes as apostrophe and two: 0 behind a word of one letter, 1 a longer one, 2 a space."""
    before = line[max(0, at - 2) : at]
    if not before or before.endswith(" "):
        return 2
    return 0 if len(before) < 2 or before[0] == " " else 1


def _sections(lines: list[Line]) -> list[str]:
    """Drop sections without text and sections of links, and set blank lines.

    These are around headings; elsewhere at most one follows another line.
    """
    out: list[Line] = []
    at = depth = 0
    last_prose = max(
        (at for at, (level, line) in enumerate(lines) if not level and _is_prose(line)), default=0
    )

    def end_section(level: int) -> None:
        """Drop headings without text, and lines that announce a dropped list, before a heading of a level."""
        while out and (not out[-1][1] or out[-1][0] >= level or (level <= depth and _announces(*out[-1]))):
            out.pop()

    while at < len(lines):
        level, line = lines[at]
        at += 1
        if level <= 0:
            if line or (out and out[-1][1]):
                out.append((0, line))
            continue
        end_section(level)
        end = at
        while end < len(lines) and not 0 < lines[end][0] <= level:
            end += 1
        section = [(inner, other) for inner, other in lines[at:end] if other and inner <= 0]
        if line.lower().rstrip(" :") in LINK_SECTIONS:
            others = sum(_is_prose(other) for _, other in section)
        else:  # at the end of an article such a list has a name that is not known in every language
            others = sum(not inner for inner, _ in section) if section and end > last_prose else len(lines)
        if 5 * others <= len(section):
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
    """Tell whether a line is a sentence or a long line, and no list item."""
    return not line.startswith("- ") and (len(line) >= 100 or line.endswith((".", "!", "?")))
