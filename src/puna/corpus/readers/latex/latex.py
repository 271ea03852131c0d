"""Comments, conditionals and verbatim text of LaTeX."""

import io
import re

# What a % or a backslash may be part of, in the order in which TeX would see it.
_TOKEN = re.compile(
    r"\\begin\s*\{(?P<block>verbatim\*?|Verbatim\*?|BVerbatim|lstlisting|minted|alltt|comment)\}"
    r"|\\(?:verb|lstinline)\*?(?P<mark>[^A-Za-z\s*{])[^\n]{0,500}?(?P=mark)"
    r"|\\(?:url|path|nolinkurl|href|burl)\s*\{[^{}\n]{0,2000}\}"
    r"|\\(?:.|\n)"
    r"|(?P<comment>(?:(?<=\n)|\A)[ \t]*%[^\n]*(?:\n|\Z)|%[^\n]*)"
)
_CONDITIONAL = re.compile(
    r"\\newif\s*\\if(?P<flag>[A-Za-z@]+)|(?P<zero>\\if\s?0(?=\s))"
    r"|\\(?P<name>if[A-Za-z@]*|else|fi|[A-Za-z@]+?(?:true|false))(?![A-Za-z@])"
)
# These begin with \if and have no \fi.
_WITHOUT_FI = frozenset(
    ["iff", "ifthenelse", "ifdef", "ifcsdef", "ifundef", "ifcsundef", "ifbool", "iftoggle",
     "ifstrequal", "ifstrempty", "ifblank", "ifnumequal", "ifnumcomp", "ifnumless", "ifnumgreater",
     "ifinlist", "ifboolexpr", "ifboolexpe", "ifdefempty", "ifdefstring"]
)  # fmt: skip


def strip_comments(text: str) -> str:
    """Leave out LaTeX's comments: from a % that is not \\% to the line's end, and comment environments.

    A % in verbatim text or a URL stays.
    """
    out = io.StringIO()
    at = 0
    unclosed: set[str] = set()  # environments that end nowhere further on
    while match := _TOKEN.search(text, at):
        if match["comment"] is not None:
            out.write(text[at : match.start()])
            at = match.end()
        elif (block := match["block"]) is not None and block not in unclosed:
            end = text.find(f"\\end{{{block}}}", match.end())
            if end < 0:
                unclosed.add(block)
                end = match.end()
            else:
                end += len(block) + 6
            is_comment = block == "comment" and block not in unclosed
            out.write(text[at : match.start() if is_comment else end])
            at = end
        else:
            out.write(text[at : match.end()])
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
