"""Comments, conditionals and verbatim text of LaTeX."""

import functools
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

from puna.text.lists import listed

_LISTS = listed(__file__, "names.json")
VERBATIM = frozenset(_LISTS["verbatim"].split())
# Environments of the author's own whose content is verbatim, or left out (packages listings, fancyvrb,
# minted, tcolorbox, comment).
_DEFINED = re.compile(
    r"^[^%\n]*?\\(?:(?:lstnewenvironment|(?:Define|Custom)VerbatimEnvironment|newtcblisting|DeclareTCBListing"
    r")\*?\s*(?:\[[^\]\n]{0,200}\]\s*){0,4}\{\s*(?P<listing>[A-Za-z@*]+)\s*\}"
    r"|newminted\s*(?:\[(?P<minted>[A-Za-z]+)\])?\s*\{\s*(?P<code>[A-Za-z]+)\s*\}"
    r"|(?P<comment>exclude|include|special)comment\s*\{\s*(?P<block>[A-Za-z@*]+)\s*\})",
    re.MULTILINE,
)
_DEFINES = re.compile(
    r"\\(?:exclude|include|special)comment|lstnewenv|VerbatimEnv|\\newminted|tcblisting|TCBListing"
)
# Signs that mean something to TeX, and what stands for them inside verbatim text until the paper is done.
_MASK = str.maketrans("\\{}$%[]#&", "".join(map(chr, range(0xF8E0, 0xF8E9))))
_UNMASK = {masked: chr(sign) for sign, masked in _MASK.items()}
_MASKED = re.compile("[\uf8e0-\uf8e8]")


@functools.lru_cache(maxsize=64)
def _token(blocks: frozenset[str]) -> re.Pattern[str]:
    """What a % or a backslash may be part of, in the order in which TeX would see it."""
    names = "|".join(re.escape(name) for name in sorted({*blocks, "alltt"}))
    return re.compile(
        rf"\\begin\s*\{{(?P<block>{names})\}}"
        r"|(?P<inline>\\(?:verb|lstinline|mintinline\s*\{[^{}\n]{0,100}\})\*?"
        r"(?P<mark>[^A-Za-z\s*{])[^\n]{0,500}?(?P=mark))"
        r"|\\(?:url|path|nolinkurl|href|burl)\s*\{[^{}\n]{0,2000}\}"
        r"|\\(?:.|\n)"
        r"|(?P<comment>(?:(?<=\n)|\A)[ \t]*%[^\n]*(?:\n|\Z)|%[^\n]*)"
    )


@dataclass(frozen=True)
class Blocks:
    """Names of environments whose content is no TeX: verbatim, or left out as comments."""

    verbatim: frozenset[str] = VERBATIM
    comments: frozenset[str] = frozenset(["comment"])


def blocks(texts: Iterable[str]) -> Blocks:
    """Find the environments that a paper's files define as verbatim or as comments."""
    verbatim, comments = set(VERBATIM), {"comment"}
    for text in texts:
        if not _DEFINES.search(text):
            continue
        for match in _DEFINED.finditer(text):
            if match["comment"] == "exclude":
                comments.add(match["block"])
            elif match["comment"]:
                comments.discard(match["block"])
            else:
                verbatim.add(match["listing"] or match["minted"] or match["code"] + "code")
    return Blocks(frozenset(verbatim | comments), frozenset(comments))


def unmask(text: str) -> str:
    """Give verbatim text its signs back."""
    return text.translate(_UNMASK) if not text.isascii() and _MASKED.search(text) else text


_CONDITIONAL = re.compile(
    r"\\newif\s*\\if(?P<flag>[A-Za-z@]+)|(?P<zero>\\if\s?0(?=\s))"
    r"|\\(?P<name>if[A-Za-z@]*|else|fi|[A-Za-z@]+?(?:true|false))(?![A-Za-z@])"
)
# These begin with \if and have no \fi.
_WITHOUT_FI = frozenset(_LISTS["without_fi"].split())


def strip_comments(text: str, known: Blocks = Blocks(), mask: bool = False) -> str:
    """Leave out LaTeX's comments: from a % that is not \\% to the line's end, and comment environments.

    A % in verbatim text or a URL stays. mask: signs of verbatim text that TeX would act on elsewhere are
    masked, so that nothing in it is taken for a command; `unmask` gives them back.
    """
    out = io.StringIO()
    at = 0
    unclosed: set[str] = set()  # environments that end nowhere further on
    token, masked = _token(known.verbatim), _MASK if mask else {}
    while match := token.search(text, at):
        if match["comment"] is not None:
            out.write(text[at : match.start()])
            at = match.end()
        elif (block := match["block"]) is not None and block not in unclosed:
            end = text.find(f"\\end{{{block}}}", match.end())
            out.write(text[at : match.start()])
            if end < 0:
                unclosed.add(block)
                at = match.end()
                out.write(match[0])
                continue
            if block not in known.comments:
                content = text[match.end() : end]
                closing = text[end : end + len(block) + 6]
                out.write(match[0] + (content if block == "alltt" else content.translate(masked)) + closing)
            at = end + len(block) + 6
        else:
            out.write(text[at : match.start()])
            out.write(match[0].translate(masked) if match["inline"] else match[0])
            at = match.end()
    out.write(text[at:])
    return out.getvalue()


def resolve_conditionals(text: str) -> str:
    """Keep the branches that TeX takes of \\iffalse, \\iftrue and the author's own \\newif flags.

    Other conditionals stay as they are.
    """
    flags: dict[str, bool] = {}
    out: list[str] = []
    at, live = 0, True
    # Open conditionals: (value, live before, parts written before, where it began); None for unknown ones.
    stack: list[tuple[bool, bool, int, int] | None] = []
    for match in _CONDITIONAL.finditer(text):
        name = match["name"] or ("iffalse" if match["zero"] else "")
        if match["flag"]:
            flags.setdefault(match["flag"], False)
        elif name == "else" or name == "fi":
            if not stack or (known := stack[-1]) is None:
                stack = stack[:-1] if name == "fi" else stack
                continue
            if live:
                out.append(text[at : match.start()])
            at = match.end()
            if name == "fi":
                stack.pop()
            live = known[1] and (name == "fi" or not known[0])
        elif name.startswith("if") and name not in _WITHOUT_FI:
            value = {"iffalse": False, "iftrue": True}.get(name, flags.get(name[2:]))
            if value is None or not live:
                stack.append(None)
                continue
            stack.append((value, live, len(out), match.start()))
            out.append(text[at : match.start()])
            at, live = match.end(), value
        elif live and (setting := re.fullmatch(r"(.+?)(true|false)", name)) and setting[1] in flags:
            flags[setting[1]] = setting[2] == "true"
    if not live:  # a branch that is not taken and never ends: it was no conditional
        known = next(entry for entry in stack if entry is not None and not entry[0])
        del out[known[2] + 1 :]
        at = known[3]
    return "".join(out) + text[at:]
