"""Wikitext -> clean text: no links, comments, references, tables, nor markup; a few templates expanded, the others left out.

One scan over the brackets with a stack gives nesting its due at any depth, in time linear in the text.
"""

import html
import re
from collections.abc import Callable

COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
EMPTY_REF = re.compile(r"<ref[^<>]*/>", re.IGNORECASE)
DROPPED = re.compile(
    r"<(ref|gallery|timeline|score|math|chem|imagemap|hiero|graph|mapframe|inputbox|templatestyles|categorytree)\b[^<>]*?(?<!/)>"
    r".*?</\1\s*>",
    re.IGNORECASE | re.DOTALL,
)
VERBATIM = re.compile(r"<(syntaxhighlight|source|pre|nowiki|code)\b[^<>]*?(?<!/)>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
HELD = re.compile(r"\x00(\d+)\x00")
BRACKET = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\})", re.MULTILINE)
EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:|news:|irc:)?//[^\s\]]*[ \t]*([^\]\n]*)\]|\[mailto:[^\s\]]*[ \t]*([^\]\n]*)\]")
BREAK = re.compile(r"<(?:br|hr|/p|/div|/li|/tr)\b[^<>]*>", re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>")
QUOTES = re.compile(r"'{2,5}")
SWITCH = re.compile(r"__[A-Z]{3,}__")
EMPTY_PARENTHESES = re.compile(r"[ \t]?[(（][\s,;:/–-]*[)）]")
AFTER_OPENING = re.compile(r"([(（])[ \t]*[,;:][ \t,;:]*")
BEFORE_CLOSING = re.compile(r"[ \t,;:]*[,;:][ \t]*([)）])")
SPACES = re.compile(r"(?<=\S)[ \t\u00a0]{2,}")
SPACE_BEFORE = re.compile(r"[ \t]+([,.;:](?=\s|$))", re.MULTILINE)
HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$")
LIST = re.compile(r"^([*#:;]+)[ \t]*(.*)$")
INTERLANGUAGE = re.compile(r"^[a-z]{2,3}(-[a-z]+)*$")
OPENERS = {"}}": "{{", "]]": "[[", "|}": "{|"}
# Templates whose text is part of the sentence: which positional parameter it is; 0 stands for the last one.
SHOWN = {
    "lang": 2, "nowrap": 1, "nobr": 1, "small": 1, "big": 1, "abbr": 1, "sic": 1, "transl": 0, "quote": 1, "cquote": 1, "blockquote": 1,
    "quotation": 1, "em": 1, "strong": 1, "sup": 1, "sub": 1, "smallcaps": 1, "sc": 1, "ill": 1, "interlanguage link": 1, "ship": 2,
    "as of": 1, "currency": 1, "angbr": 1, "nihongo": 1, "visible anchor": 1, "tooltip": 1, "hover title": 0, "code": 1,
    "mono": 1, "var": 1,
}  # fmt: skip
SYMBOLS = {"ndash": "–", "spaced ndash": " – ", "snd": " – ", "mdash": "—", "spaced mdash": " — ", "!": "|", "=": "=", "'": "'", 
           "nbsp": " ",
           "·": "·", "•": "•", "dot": "·", "pi": "π", "snds": " – ", "-": ""}  # fmt: skip


def plain(text: str, dropped_namespaces: frozenset[str] = frozenset({"file", "image", "category", "media"})) -> str:
    """Clean text of an article. dropped_namespaces: lower-case names of the file and category namespaces in the wiki's language."""
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(html.unescape(match[2].strip("\n")))
        return f"\x00{len(held) - 1}\x00"

    text = COMMENT.sub("", text.replace("\x00", ""))
    text = VERBATIM.sub(hold, text)
    text = DROPPED.sub("", EMPTY_REF.sub("", text))
    text = _unnest(text, lambda inner: _link(inner, dropped_namespaces))
    text = EXTERNAL.sub(lambda match: match[1] or match[2] or "", text)
    text = html.unescape(TAG.sub("", BREAK.sub("\n", text)))
    text = SWITCH.sub("", QUOTES.sub("", text))
    text = EMPTY_PARENTHESES.sub("", text)
    text = BEFORE_CLOSING.sub(r"\1", AFTER_OPENING.sub(r"\1", text))
    text = SPACE_BEFORE.sub(r"\1", SPACES.sub(" ", text.replace("\u00a0", " ")))
    text = _lines(text)
    return HELD.sub(lambda match: held[int(match[1])] if int(match[1]) < len(held) else "", text)


def _unnest(text: str, link: Callable[[str], str]) -> str:
    """Replace templates, tables and links, the inner ones first."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    at = 0
    for match in BRACKET.finditer(text):
        stack[-1][1].append(text[at : match.start()])
        at = match.end()
        token = match[0].lstrip(" \t:")
        if token not in OPENERS:
            stack.append((token, []))
            continue
        opener = OPENERS[token]
        if not any(kind == opener for kind, _ in stack):
            continue
        while stack[-1][0] != opener:  # what was opened inside and never closed is plain text
            _, parts = stack.pop()
            stack[-1][1].extend(parts)
        _, parts = stack.pop()
        if opener == "{{":
            stack[-1][1].append(_template("".join(parts)))
        elif opener == "[[":
            stack[-1][1].append(link("".join(parts)))
    stack[-1][1].append(text[at:])
    return "".join(part for kind, parts in stack for part in (parts if kind != "{|" else parts[:0]))


def _template(inner: str) -> str:
    name, _, rest = inner.partition("|")
    name = " ".join(name.split()).lower().replace("_", " ")
    if name in SYMBOLS:
        return SYMBOLS[name]
    place = SHOWN.get(name)
    if name.startswith("lang-"):
        place = 1
    if name not in ("convert", "cvt", "circa", "c.", "frac", "as of") and place is None:
        return ""
    parameters = rest.split("|")
    positional = [value.strip() for value in parameters if not re.match(r"\s*\w+\s*=", value)]
    named = {key.strip(): value.strip() for key, _, value in (p.partition("=") for p in parameters if re.match(r"\s*\w+\s*=", p))}
    if name in ("convert", "cvt"):
        return " ".join(positional[:2]) if len(positional) < 4 or positional[1] not in ("to", "-", "and", "by") else _range(positional)
    if name in ("circa", "c."):
        return f"c. {positional[0]}" if positional else "c."
    if name == "as of":
        return f"As of {' '.join(reversed(positional[:1]))}" if positional else ""
    if name == "frac":
        return "/".join(positional[:2])
    if place is not None and len(positional) >= max(1, place):
        return positional[place - 1]
    return named.get("text", named.get(str(place), ""))


def _range(positional: list[str]) -> str:
    """`5|to|7|km` -> "5 to 7 km"."""
    return " ".join(positional[:4])


def _link(inner: str, dropped_namespaces: frozenset[str]) -> str:
    target, bar, label = inner.partition("|")
    shown_as_is = target.startswith(":")
    target = target.lstrip(": ").strip()
    prefix, colon, rest = target.partition(":")
    if colon and not shown_as_is and prefix.strip().lower() in dropped_namespaces:
        return ""
    if colon and not shown_as_is and not bar and INTERLANGUAGE.match(prefix) and rest:
        return ""
    if bar and label.strip():
        return label.rpartition("|")[2] if "|" in label else label
    if bar:  # the pipe trick: [[city (country)|]] shows "city"
        target = re.sub(r"\s*\([^()]*\)$|,.*$", "", rest if colon else target)
    return target.replace("_", " ")


def _lines(text: str) -> str:
    """Headings on lines of their own, list marks as "- ", leftovers of tables dropped, sections without text dropped."""
    out: list[tuple[int, str]] = []  # (level of a heading or 0, line)
    for line in text.split("\n"):
        line = line.strip()
        if heading := HEADING.match(line):
            while out and (not out[-1][1] or out[-1][0] >= len(heading[1])):
                out.pop()  # an empty section before a heading of its own level or higher
            out += [(0, ""), (len(heading[1]), heading[2]), (0, "")]
            continue
        if listed := LIST.match(line):
            line = f"- {listed[2]}" if listed[1][-1] in "*#" else listed[2]
            if line in ("- ", "-"):
                line = ""
        if line.startswith(("|", "!", "{|", "}}")) or line in ("-", "----"):
            line = ""
        if line or (out and out[-1][1]):
            out.append((0, line))
    while out and (not out[-1][1] or out[-1][0]):
        out.pop()
    return "\n".join(line for _, line in out).strip("\n")
