"""User macros of LaTeX, found and expanded inline."""

import functools
import io
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from puna.text.lists import listed

NAME = r"[A-Za-z@]+|[^A-Za-z\s]"
DEFINITION = re.compile(
    r"\\(?:(?P<command>(?:re|provide)?newcommand|providecommand|DeclareRobustCommand"
    r"|(?:re|provide)?newrobustcmd)\*?"
    r"|(?P<document>(?:New|Renew|Provide|Declare)DocumentCommand)"
    r"|(?P<operator>DeclareMathOperator\*?)"
    r"|(?P<paired>DeclarePairedDelimiter))"
    rf"\s*(?:\{{\s*\\(?P<in_braces>{NAME})\s*\}}|\\(?P<bare>{NAME}))\s*"
    rf"|(?:\\(?:long|global|protected|outer)\s*){{0,4}}\\[gex]?def\s*\\(?P<define>{NAME})"
    r"(?P<parameters>(?:[^{}\\\n]|\\[A-Za-z]+(?![A-Za-z])){0,80})(?=\{)"
    rf"|(?:\\global\s*)?\\let\s*\\(?P<alias>{NAME})\s*=?\s*(?P<target>\\(?:{NAME}))"
    r"|\\(?P<environment>(?:re)?newenvironment)\*?\s*\{\s*(?P<block>[A-Za-z@*]+)\s*\}\s*"
)
MACRO = re.compile(rf"\\({NAME})[ \t]*")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
SPACE = re.compile(r"[ \t]*\n?[ \t]*")
ENVIRONMENT = re.compile(r"\s*\{\s*([A-Za-z@*]+)\s*\}")
COMMAND = re.compile(r"\\(?:[A-Za-z@]+|.)", re.DOTALL)
# Expanding these would rewrite LaTeX itself rather than the author's shorthands.
UNTOUCHED = frozenset(
    [*listed(__file__, "names.json")["untouched"].split(), *"\\{}%&#$_()[]^~@/,;:!'`\"=.-+<>| "]
)
UNTOUCHED_ENVIRONMENTS = ("document", "abstract", "figure", "table")
CHOICE = re.compile(r"\\If(?P<kind>NoValue|Value|Boolean|Blank)(?P<answers>TF|T|F)\s*\{\s*#(\d)\s*\}")
MOST_CHOICES = 20
DEEPEST = 40  # macros inside macros
LONGEST_OPTION = 2_000  # characters of an argument in brackets or up to a delimiter
GROWTH = 8  # expanded text may grow to so many times the source
Arguments = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Macro:
    """A command or environment and what it stands for.

    arguments: what is taken from the text, each (kind, value): m a group; o one in brackets, else the value;
    s a star; d all up to the value; t the value itself, which is no argument. end: text of \\end{...}.
    """

    arguments: Arguments
    body: str
    end: str = ""


@dataclass
class Macros:
    """The author's commands and environments by name."""

    commands: dict[str, Macro] = field(default_factory=dict)
    environments: dict[str, Macro] = field(default_factory=dict)
    built_in: set[str] = field(default_factory=set)  # LaTeX's own that an alias stands for: never expanded


class Braces:
    """A text whose balanced groups are found by bisection, after one pass."""

    def __init__(self, text: str) -> None:
        self.text = text

    def group(self, at: int) -> tuple[str, int] | None:
        """Return (content, where it ends) of the group that starts at `at`, or None."""
        if self.text[at : at + 1] != "{":
            return None
        starts, ends = self._groups
        index = bisect_left(starts, at)
        end = ends[index] if index < len(starts) and starts[index] == at else 0
        return (self.text[at + 1 : end - 1], end) if end else None

    @functools.cached_property
    def _groups(self) -> "tuple[array[int], array[int]]":
        """Where groups start, ascending, and end (0: nowhere), in a tenth of a dictionary's memory."""
        starts, ends, unclosed = array("q"), array("q"), []
        for match in BRACE.finditer(self.text):
            if match[0] == "{":
                unclosed.append(len(starts))
                starts.append(match.start())
                ends.append(0)
            elif match[0] == "}" and unclosed:
                ends[unclosed.pop()] = match.end()
        return starts, ends

    def up_to(self, at: int, delimiter: str) -> tuple[str, int] | None:
        """Return (text before the next delimiter outside groups, where that ends), or None."""
        end = self.text.find(delimiter, at, at + LONGEST_OPTION)
        position = at
        while position <= end:
            if position == end:
                return self.text[at:position], position + len(delimiter)
            # With the delimiter's first character: it may be escaped.
            following = BRACE.search(self.text, position, end + 1)
            if following is None:
                position = end
            elif following[0] == "{":
                if (inner := self.group(following.start())) is None:
                    return None
                position = inner[1]
            else:
                position = following.end()
            if position > end:
                end = self.text.find(delimiter, position, at + LONGEST_OPTION)
        return None

    def bracket(self, at: int) -> tuple[str, int] | None:
        return self.up_to(at + 1, "]") if self.text[at : at + 1] == "[" else None

    def space(self, at: int) -> int:
        """Return where white space that starts at `at` ends; it does not go beyond an empty line."""
        match = SPACE.match(self.text, at)
        return match.end() if match else at


def definitions(text: str, macros: Macros, only: Container[str] | None = None) -> str:
    """Add the macros that a text defines, and return the text without the definitions.

    Of two definitions of one name the last one counts. only: names whose definitions are left out; else all.
    """
    braces = Braces(text)
    out = io.StringIO()
    at = 0
    while match := DEFINITION.search(text, at):
        end = _define(match, braces, macros)
        name = match["in_braces"] or match["bare"] or match["define"]
        if end is None or (only is not None and name not in only):  # not understood: it stays
            end = match.end() if end is None else end
            out.write(text[at:end])
        else:
            out.write(text[at : match.start()])
        at = end
    out.write(text[at:])
    return out.getvalue()


def _define(match: re.Match[str], braces: Braces, macros: Macros) -> int | None:
    """Add the macro of one definition; return where that ends, None where it is not understood."""
    if match["alias"]:
        _add_alias(match["alias"], match["target"], macros)
        return match.end()
    declared = _declared_arguments(match, braces)
    if declared is None:
        return None
    arguments, at = declared
    body = braces.group(at)
    if body is None:
        return None
    content, at = body
    end = ""
    if match["environment"] or match["paired"]:
        second = braces.group(braces.space(at))
        if second is None:
            return None
        end, at = second
    if match["environment"]:
        if not match["environment"].startswith("re") and match["block"] not in UNTOUCHED_ENVIRONMENTS:
            macros.environments[match["block"]] = Macro(arguments, content, end)
    elif match["operator"]:
        star = "*" if match["operator"].endswith("*") else ""
        _add_command(match, Macro(arguments, f"\\operatorname{star}{{{content}}}"), macros)
    elif match["paired"]:
        _add_command(match, Macro((("s", ""), ("o", ""), ("m", "")), f"{content} #3 {end}"), macros)
    else:
        _add_command(match, Macro(arguments, content), macros)
    return at


def _add_alias(name: str, target: str, macros: Macros) -> None:
    """Add what \\let makes: the command that `target` is now, or LaTeX's own."""
    if name in UNTOUCHED or name == target[1:]:
        return
    command = macros.commands.get(target[1:])
    if command is None:
        macros.built_in.add(target[1:])
    macros.commands[name] = command or Macro((), target)


def _add_command(match: re.Match[str], macro: Macro, macros: Macros) -> None:
    name = match["in_braces"] or match["bare"] or match["define"] or ""
    provided = "rovide" in (match["command"] or match["document"] or "")
    if name not in UNTOUCHED and not (name in macros.commands and provided):
        macros.commands[name] = macro


def _declared_arguments(match: re.Match[str], braces: Braces) -> tuple[Arguments, int] | None:
    """Read a definition's arguments: (they, where the body starts), None where they are not understood."""
    at = match.end()
    if match["define"]:
        return _parameters(match["parameters"]), at
    if match["command"] or match["environment"]:
        return _counted_arguments(braces, at)
    if not match["document"]:
        return (), at
    spec = braces.group(at)
    arguments = _document_arguments(spec[0]) if spec else None
    return None if spec is None or arguments is None else (arguments, braces.space(spec[1]))


def _counted_arguments(braces: Braces, at: int) -> tuple[Arguments, int]:
    """Read the arguments of \\newcommand: [count][default of the first]; and where they end."""
    count = re.compile(r"\[\s*(\d)\s*\]\s*").match(braces.text, at)
    if not count:
        return (), at
    optional = braces.bracket(count.end())
    arguments = [("m", "")] * int(count[1])
    if optional and arguments:
        arguments[0] = ("o", optional[0])
    return tuple(arguments), braces.space(optional[1] if optional else count.end())


def _parameters(text: str) -> Arguments:
    """Read the arguments of \\def: text before #1 and behind each parameter must be in the source, too."""
    before, *parts = re.split(r"#\d", text)
    arguments = [("t", before)] if before.strip() else []
    return (*arguments, *(("d", part) if part.strip() else ("m", "") for part in parts))


def _document_arguments(spec: str) -> Arguments | None:
    """Read the arguments of \\NewDocumentCommand: m, o, s and O{default}; None for other kinds."""
    arguments: list[tuple[str, str]] = []
    for kind in re.finditer(r"\+?([mos])|O\s*\{([^{}]*)\}|\s+|(.)", spec):
        if kind[3]:
            return None
        if kind[0].strip():
            arguments.append((kind[1], "") if kind[1] else ("o", kind[2]))
    return tuple(arguments)


def expand_macros(preamble: str, body: str) -> str:
    """Expand every macro and environment in a body that preamble or body defines, with their arguments.

    Macros inside macros are expanded, too. Macros that call themselves stay; the text never grows beyond a
    bound.
    """
    macros = Macros()
    definitions(preamble, macros)
    body = definitions(body, macros)
    for name in macros.built_in:
        macros.commands.pop(name, None)
    for name in _in_cycles(macros.commands):
        del macros.commands[name]
    if not macros.commands and not macros.environments:
        return body
    body = _Expansion(macros, GROWTH * len(body) + 100_000).expand(body, 0)
    return _without_helpers(body)


def macros_that(read: Callable[[str], object], texts: Iterable[str]) -> Macros:
    """Return the macros that texts define in whose bodies `read` finds something, or which call such."""
    macros = Macros()
    for text in texts:
        definitions(text, macros)
    for name in _in_cycles(macros.commands):
        del macros.commands[name]
    wanted = {name for name, macro in macros.commands.items() if read(macro.body)}
    for _ in range(3):
        bodies = macros.commands.items()
        wanted |= {name for name, macro in bodies if any(m[1] in wanted for m in MACRO.finditer(macro.body))}
    return Macros({name: macros.commands[name] for name in wanted})


def expand_only(macros: Macros, text: str) -> str:
    """Expand some macros in a text, outside their own definitions."""
    text = definitions(text, Macros(), only=macros.commands.keys())
    return _Expansion(macros, GROWTH * len(text) + 100_000).expand(text, 0)


def _in_cycles(commands: dict[str, Macro]) -> set[str]:
    """Return the commands that call themselves, at whatever remove, and those between two such."""
    calls = {
        name: {called[1] for called in MACRO.finditer(macro.body)} & commands.keys()
        for name, macro in commands.items()
    }
    # Take away what calls nothing that is left; then, with the calls reversed, what nothing left calls.
    for _ in range(2):
        callers: dict[str, list[str]] = {name: [] for name in calls}
        for name, called in calls.items():
            for other in called:
                callers[other].append(name)
        count = {name: len(called) for name, called in calls.items()}
        free = [name for name, left in count.items() if not left]
        while free:
            name = free.pop()
            for caller in callers[name]:
                count[caller] -= 1
                if not count[caller]:
                    free.append(caller)
        left = {name for name, number in count.items() if number}
        calls = {name: {caller for caller in callers[name] if caller in left} for name in left}
    return set(calls)


class _Expansion:
    """One expansion of a paper's macros. room: characters that may still be written."""

    def __init__(self, macros: Macros, room: int) -> None:
        self.macros, self.room = macros, room

    def expand(self, text: str, depth: int) -> str:
        if depth > DEEPEST or self.room < 0 or "\\" not in text:
            return text
        braces = Braces(text)
        out = io.StringIO()
        at = 0
        for match in MACRO.finditer(text):
            if match.start() < at:
                continue
            name, end = match[1], match.start() + 1 + len(match[1])
            closing = False
            if name in ("begin", "end") and self.macros.environments:
                block = ENVIRONMENT.match(text, end)
                macro = self.macros.environments.get(block[1]) if block else None
                end, closing = (block.end() if block else end), name == "end"
            else:
                macro = self.macros.commands.get(name)
            if macro is None or self.room < 0:
                continue
            taken = ([], end) if closing else _take(braces, end, macro)
            if taken is None:
                continue
            values, end = taken
            body = _filled(macro.end if closing else macro.body, values)
            self.room -= len(body) + 1
            body = self.expand(body, depth + 1)
            ends_in_command = re.search(r"\\[A-Za-z@]+\Z", body[-40:]) is not None
            if not macro.arguments and text.startswith("{}", end) and not ends_in_command:
                end += 2
            if ends_in_command and text[end : end + 1].isalpha():
                body += " "  # \foo{}x must not become \barx
            out.write(text[at : match.start()])
            out.write(body)
            at = end
        out.write(text[at:])
        return out.getvalue()


def _take(braces: Braces, at: int, macro: Macro) -> tuple[list[str], int] | None:
    """Take a macro's arguments as TeX does: (values, where they end); None where one is missing."""
    values: list[str] = []
    text = braces.text
    for kind, value in macro.arguments:
        start = braces.space(at)
        if kind == "s":
            values.append("*" if text.startswith("*", start) else "")
            at = start + 1 if values[-1] else at
        elif kind == "o":
            optional = braces.bracket(start)
            values.append(optional[0] if optional else value)
            at = optional[1] if optional else at
        elif kind == "t":
            if not text.startswith(value.strip(), start):
                return None
            at = start + len(value.strip())
        elif kind == "d":
            delimited = braces.up_to(start, value.strip())
            if delimited is None or "\n\n" in delimited[0]:
                return None
            taken, at = delimited
            inner = Braces(taken).group(0)
            values.append(inner[0] if inner and inner[1] == len(taken) else taken)
        else:
            if start >= len(text) or text[start] in "\n}":
                return None
            if inner := braces.group(start):
                taken, at = inner
            elif command := COMMAND.match(text, start):
                taken, at = command[0], command.end()
            else:
                taken, at = text[start], start + 1
            values.append(taken)
    return values, at


def _filled(body: str, values: list[str]) -> str:
    """Return a macro's body with the values of its arguments; a missing one is empty."""

    def value(parameter: re.Match[str]) -> str:
        number = int(parameter[parameter.lastindex or 1])
        return values[number - 1] if 0 < number <= len(values) else ""

    if "#" not in body:
        return body
    for _ in range(MOST_CHOICES):
        if (choice := CHOICE.search(body)) is None:
            break
        body = _chosen(body, choice, bool(value(choice)))
    return re.sub(r"#(\d)", value, body)


def _chosen(body: str, choice: re.Match[str], given: bool) -> str:
    """Replace a question whether an argument was given by one of its two answers (package xparse)."""
    given = given != (choice["kind"] == "NoValue")
    braces, at, answers = Braces(body), choice.end(), {"T": "", "F": ""}
    for name in choice["answers"]:
        answer = braces.group(braces.space(at))
        if answer is None:
            break
        answers[name], at = answer
    return body[: choice.start()] + answers["T" if given else "F"] + body[at:]


_HELPER = re.compile(
    r"\\xspace(?![A-Za-z@])|\\ensuremath\s*(?=\{)"
    r"|\\(?P<edge>begin|end)\s*"
    r"\{(?:equation|align|gather|multline|eqnarray|displaymath|math|flalign|alignat|split)\*?\}"
    r"|\\(?:.|\n)|\$\$?|\n[ \t]*\n"
)


def _without_helpers(text: str, math: bool = False, depth: int = 0) -> str:
    """Leave out what only makes macros work in text and in formulas alike.

    That is \\xspace, and \\ensuremath, which becomes $...$ in text.
    """
    if "\\xspace" not in text and "\\ensuremath" not in text:
        return text
    braces = Braces(text)
    always = math
    out = io.StringIO()
    at = 0
    for match in _HELPER.finditer(text):
        token = match[0]
        if match.start() < at:
            continue
        if token.startswith("\\xspace"):
            out.write(text[at : match.start()])
            at = match.end()
        elif token.startswith("\\ensuremath"):
            inner = braces.group(match.end())
            if inner is None or depth > DEEPEST:
                continue
            content = _without_helpers(inner[0], True, depth + 1)
            out.write(text[at : match.start()])
            out.write(content if math else f"${content}$")
            at = inner[1]
        elif token.startswith("$"):
            math = not math or always
        elif token in ("\\(", "\\[") or match["edge"] == "begin":
            math = True
        elif token in ("\\)", "\\]") or match["edge"] == "end" or token.startswith("\n"):
            math = always
    out.write(text[at:])
    return out.getvalue()
