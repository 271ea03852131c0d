"""Comments and user macros of LaTeX."""

import re
from dataclasses import dataclass

COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
COMMENT_LINE = re.compile(r"^[ \t]*%.*\n?", re.MULTILINE)
COMMENT_BLOCK = re.compile(r"\\begin\{comment\}.*?\\end\{comment\}", re.DOTALL)
VERBATIM = re.compile(r"(\\begin\{(verbatim\*?|lstlisting|minted|Verbatim)\}.*?\\end\{\2\})", re.DOTALL)
DEFINITION = re.compile(
    r"\\(?:re|provide)?newcommand\*?\s*(?:\{\s*\\([A-Za-z@]+|[^A-Za-z\s])\s*\}|\\([A-Za-z@]+|[^A-Za-z\s]))\s*(?:\[\s*(\d)\s*\])?\s*"
    r"|\\(?:long\s*)?[gex]?def\s*\\([A-Za-z@]+)\s*((?:#\d)*)(?=\{)"
    r"|\\DeclareMathOperator(\*?)\s*\{?\s*\\([A-Za-z@]+)\s*\}?\s*"
)
PROVIDE = re.compile(r"\\providecommand")
MACRO = re.compile(r"\\([A-Za-z@]+|[^A-Za-z\s])[ \t]*")
ROUNDS, GROWTH = 12, 8
# Expanding these would rewrite LaTeX itself rather than the author's shorthands.
UNTOUCHED = frozenset(
    {"begin", "end", "section", "subsection", "chapter", "item", "ref", "cite", "label", "\\", "{", "}", "%", "&", "#", "$", "_"}
)


@dataclass(frozen=True)
class _Macro:
    arguments: int
    default: str | None
    body: str


def strip_comments(text: str) -> str:
    """LaTeX without comments: from a % that is not \\% to the line's end; verbatim blocks keep theirs."""
    parts = VERBATIM.split(text)
    out = []
    for place in range(0, len(parts), 3):  # text, verbatim block, its name, text, ...
        plain = COMMENT_LINE.sub("", parts[place])
        out.append(COMMENT_BLOCK.sub("", COMMENT.sub(r"\1", plain)))
        if place + 1 < len(parts):
            out.append(parts[place + 1])
    return "".join(out)


def group(text: str, at: int, opening: str = "{", closing: str = "}") -> tuple[str, int] | None:
    """(content, place behind it) of the balanced group that starts at `at`, or None."""
    if text[at : at + 1] != opening:
        return None
    depth, place = 0, at
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 2
            continue
        if character == opening:
            depth += 1
        elif character == closing:
            depth -= 1
            if not depth:
                return text[at + 1 : place], place + 1
        elif character == "{" and opening != "{":
            inner = group(text, place)
            if inner is None:
                return None
            place = inner[1]
            continue
        place += 1
    return None


def definitions(text: str) -> tuple[dict[str, _Macro], str]:
    """Macros that a text defines, the last definition of a name winning, and the text without the definitions."""
    macros: dict[str, _Macro] = {}
    out, at = [], 0
    while match := DEFINITION.search(text, at):
        place, default = match.end(), None
        if match[1] or match[2]:
            name, count = match[1] or match[2], int(match[3] or 0)
            if count and text[place : place + 1] == "[" and (optional := group(text, place, "[", "]")):
                default, place = optional
                place += len(text[place:]) - len(text[place:].lstrip()) if place < len(text) else 0
        elif match[4]:
            name, count = match[4], len(match[5]) // 2
        else:
            name, count = match[7], 0
        body = group(text, place)
        if body is None:  # not a definition that we understand: it stays
            out.append(text[at : match.end()])
            at = match.end()
            continue
        out.append(text[at : match.start()])
        at = body[1]
        content = f"\\operatorname{match[6]}{{{body[0]}}}" if match[7] else body[0]
        if name not in UNTOUCHED and not (name in macros and PROVIDE.match(match[0])):
            macros[name] = _Macro(count, default, content)
    return macros, "".join(out) + text[at:]


def expand_macros(preamble: str, body: str) -> str:
    """The body with every macro that preamble or body defines replaced by its text, arguments filled in, macros inside macros too.

    A macro that calls itself is expanded a bounded number of times and the text never grows beyond a bound.
    """
    macros, _ = definitions(preamble)
    more, body = definitions(body)
    macros |= more
    macros = {name: macro for name, macro in macros.items() if not re.search(rf"\\{re.escape(name)}(?![A-Za-z@])", macro.body)}
    limit = GROWTH * len(body) + 100_000
    for _ in range(ROUNDS):
        expanded = _expand_once(body, macros)
        if expanded == body or len(expanded) > limit:
            break
        body = expanded
    return body


def _expand_once(text: str, macros: dict[str, _Macro]) -> str:
    out, at = [], 0
    for match in MACRO.finditer(text):
        macro = macros.get(match[1])
        if macro is None or match.start() < at:
            continue
        end = match.end() if macro.arguments else match.start() + 1 + len(match[1])
        filled = _arguments(text, end, macro)
        if filled is None:
            continue
        values, end = filled
        body = _filled(macro.body, values)
        if body[-1:].isalpha() and re.search(r"\\[A-Za-z@]+$", body) and text[end : end + 1].isalpha():
            body += " "  # \foo{}x must not become \barx
        out += [text[at : match.start()], body]
        at = end
    return "".join(out) + text[at:]


def _arguments(text: str, at: int, macro: _Macro) -> tuple[list[str], int] | None:
    """(values, place behind them) of a macro's arguments: groups, or single characters and commands as TeX takes them."""
    values: list[str] = []
    if macro.default is not None:
        optional = group(text, at, "[", "]")
        values.append(optional[0] if optional else macro.default)
        at = optional[1] if optional else at
    while len(values) < macro.arguments:
        while text[at : at + 1] in (" ", "\n", "\t"):
            at += 1
        if at >= len(text):
            return None
        if braces := group(text, at):
            value, at = braces
        elif command := re.compile(r"\\(?:[A-Za-z@]+|.)", re.DOTALL).match(text, at):
            value, at = command[0], command.end()
        else:
            value, at = text[at], at + 1
        values.append(value)
    return values, at


def _filled(body: str, values: list[str]) -> str:
    return re.sub(r"#(\d)", lambda found: values[int(found[1]) - 1] if 0 < int(found[1]) <= len(values) else "", body)
