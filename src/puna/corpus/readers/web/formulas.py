"""Formulas of a page as TeX between dollars, each once: KaTeX, MathJax, MathML, and images with TeX."""

import html
import re

_NAME = r"[a-zA-Z][a-zA-Z0-9-]*"
# What begins a formula or repeats one: elements, by their names or attributes.
_START = re.compile(
    r"""<(?:(?P<math>(?:[a-z]{1,10}:)?math)(?=[\s>/])|(?P<script>script)\b(?=[^>]{0,300}\btype\s*=\s*["']?math/)"""
    r"""|(?P<mjx>mjx-container)\b|(?P<image>img)\b(?=[^>]{0,3000}(?:latex|mathtex|mimetex|codecogs|mwe-math))"""
    r"""|(?P<wrapper>span|div)\b(?=[^>]{0,500}\bclass\s*=\s*["']?(?:[^"'>]{0,200}\s)?(?:katex-display|katex|"""
    r"""mwe-math-element|MathJax(?:_\w+)?|MJXc-display|mjx-chtml|MJX_Assistive_MathML)[\s"'>]))[^>]*>""",
    re.IGNORECASE,
)
_ANNOTATION = re.compile(
    r"""<(?:[a-z]{1,10}:)?annotation\b[^>]{0,200}\bencoding\s*=\s*["']?[^"'>]{0,40}tex[^>]*>(.*?)</""",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = r"""\b{}\s*=\s*(?:"([^"]*)"|'([^']*)')"""
_ALTTEXT, _ALT = (re.compile(_ATTRIBUTE.format(name), re.IGNORECASE) for name in ("alttext", "alt"))
_DISPLAY = re.compile(
    r"""display\s*=\s*["']?(?:block|true)|mode\s*=\s*display|katex-display|MathJax_Display|MJXc-display""",
    re.IGNORECASE,
)
_STYLE = re.compile(r"\{?\\(?:displaystyle|textstyle)\b\s*(.*?)\}?\Z", re.DOTALL)
_LATEX_IMAGE = re.compile(
    r"""\bclass\s*=\s*["'][^"'>]{0,200}(?:latex|mwe-math)|/latex\.php|codecogs|m(?:ime|ath)tex"""
)
_REPEATS = re.compile(
    r"\s*<(?:script\b[^>]{0,300}math/|(?:span|div)\b[^>]{0,300}MathJax)"
)  # behind what it repeats
_MATH = re.compile(r"<((?:[a-z]{1,10}:)?math)(?=[\s>/])[^>]*>")
MAX_SCANS = 20  # of a page, on average, in the search for ends of elements


def as_tex(source: str | bytes) -> str:
    """Return a page in which TeX stands for each formula, between $, or $$ where it is displayed.

    What shows it a second time goes (KaTeX's and MathJax's letters, previews, images). A formula without TeX
    of its own is written from its MathML.
    """
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    parts: list[str] = []
    at, room = 0, MAX_SCANS * len(text)
    while room > 0 and (found := _START.search(text, at)):
        parts.append(text[at : found.start()])
        kind = found.lastgroup or ""
        if kind == "image":
            end, shown = found.end(), _of_image(found[0])
        else:
            end, scanned = _end(text, found, found[kind], room)
            room -= 2 * scanned
            content = text[found.end() : end]
            shown = _formula(kind, found[0], content, bool(_REPEATS.match(text, end)))
        at = found.end() if shown is None else end
        parts.append(found[0] if shown is None else shown)
    return "".join(parts) + text[at:]


def _end(text: str, start: re.Match[str], name: str, room: int) -> tuple[int, int]:
    """Return where an element ends, behind its end tag, and how many characters were read to find it.

    Behind its start tag, if it has no end in `room` characters.
    """
    if start[0].endswith("/>"):
        return start.end(), 0
    depth, stop = 1, min(len(text), start.end() + room)
    tags = re.compile(rf"<(/?){re.escape(name)}(?=[\s>/])[^>]*>", re.IGNORECASE)
    for tag in tags.finditer(text, start.end(), stop):
        depth += -1 if tag[1] else not tag[0].endswith("/>")
        if not depth:
            return tag.end(), tag.end() - start.end()
    return start.end(), stop - start.end()


def _of_image(tag: str) -> str | None:
    alt = _ALT.search(tag)
    if not alt or not _LATEX_IMAGE.search(tag):
        return None
    return _between_dollars(html.unescape(alt[1] or alt[2] or "").strip("$"), tag)


def _formula(kind: str, tag: str, content: str, repeats: bool) -> str | None:
    """Return what stands for an element, "" for a repetition; None to go on inside it.

    repeats: behind it the same formula comes again, as its source.
    """
    if kind == "script":
        return _between_dollars(content.rpartition("<")[0], tag)
    if kind == "math":
        return _between_dollars(_tex(tag, content), tag)
    if repeats and ("MathJax" in tag or "mjx" in tag.lower()):
        return ""
    if math := _MATH.search(content):
        end, _ = _end(content, math, math[1], len(content))
        return _between_dollars(_tex(math[0], content[math.end() : end]), tag + math[0] + content[:200])
    return None  # its letters are all there is


def _tex(tag: str, content: str) -> str:
    """Return the TeX of a <math> element: its annotation, its alttext, or written from its elements."""
    if annotation := _ANNOTATION.search(content):
        return html.unescape(annotation[1])
    if (alttext := _ALTTEXT.search(tag)) and (alttext[1] or alttext[2]):
        return html.unescape(alttext[1] or alttext[2])
    return _from_mathml(content)


def _between_dollars(tex: str, tag: str) -> str:
    tex = re.sub(r"%?\s*(?:<!\[CDATA\[|\]\]>)|(?m:^\s*%.*$)", "", tex)
    styled = _STYLE.fullmatch(" ".join(tex.split()))
    displayed = _DISPLAY.search(tag)
    tex = (styled[1] if styled and _is_balanced(styled[1]) else " ".join(tex.split())).strip()
    if not tex:
        return ""
    dollars = "$$" if displayed else "$"
    return f"{dollars}{html.escape(tex, quote=False)}{dollars}"


def _is_balanced(tex: str) -> bool:
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", tex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return not depth


# How TeX writes elements of MathML from their children, in order.
_WRITTEN = {
    "msup": "{}^{{{}}}",
    "msub": "{}_{{{}}}",
    "msubsup": "{}_{{{}}}^{{{}}}",
    "mfrac": "\\frac{{{}}}{{{}}}",
    "mroot": "\\sqrt[{1}]{{{0}}}",
    "munder": "{}_{{{}}}",
    "mover": "{}^{{{}}}",
    "munderover": "{}_{{{}}}^{{{}}}",
}
_SKIPPED = frozenset(("annotation", "annotation-xml", "mphantom"))
_TOKEN = re.compile(rf"<(/?)(?:[a-z]{{1,10}}:)?({_NAME})([^>]*)>|<[^>]*>|([^<]+)")


def _from_mathml(content: str) -> str:
    """Write MathML as TeX: fractions, roots, scripts, tables; of other elements what is in them."""
    stack: list[tuple[str, str, list[str]]] = [("math", "", [])]
    for closing, name, attributes, text in _TOKEN.findall(content):
        if text:
            if any(element in _SKIPPED for element, _, _ in stack[-2:]):
                continue
            if text.strip():
                stack[-1][2].append(" ".join(html.unescape(text).split()))
        elif not name:
            continue
        elif closing:
            if len(stack) > 1 and stack[-1][0] == name.lower():
                element, own, children = stack.pop()
                stack[-1][2].append(_written(element, own, children))
        elif attributes.endswith("/"):
            if name.lower() in ("mrow", "none", "mprescripts", "mi", "mn"):
                stack[-1][2].append("")
        elif len(stack) < 200:
            stack.append((name.lower(), attributes, []))
    while len(stack) > 1:
        element, own, children = stack.pop()
        stack[-1][2].append(_written(element, own, children))
    return " ".join("".join(stack[0][2]).split())


def _written(element: str, attributes: str, children: list[str]) -> str:
    inside = "".join(children)
    if element in _SKIPPED:
        return ""
    if element in _WRITTEN:
        count = 3 if element in ("msubsup", "munderover") else 2
        if len(children) == count:
            base = children[0] if len(children[0]) < 2 or children[0].isalnum() or element[1] == "f" else None
            first = children[0] if base is not None or element == "mroot" else f"{{{children[0]}}}"
            return _WRITTEN[element].format(first, *children[1:])
    if element == "msqrt":
        return f"\\sqrt{{{inside}}}"
    if element == "mtext":
        return f"\\text{{{inside}}}" if inside.strip() else " "
    if element == "mo" and len(inside) == 1 and inside in "=+−-<>≤≥≠≈∈→⇒×·±":
        return f" {inside} "
    if element == "mi" and len(inside) > 1 and inside.isascii() and inside.isalpha():
        known = inside in ("sin", "cos", "tan", "log", "ln", "exp", "lim", "max", "min", "det")
        return f"\\{inside} " if known else f"\\mathrm{{{inside}}}"
    if element == "mtd":
        return inside + " & "
    if element == "mtr":
        return inside.removesuffix(" & ") + " \\\\ "
    if element == "mtable":
        return "\\begin{matrix}" + inside.removesuffix(" \\\\ ") + "\\end{matrix}"
    if element == "mfenced":
        opening, closing = (
            re.search(rf"""{name}\s*=\s*["']([^"']*)""", attributes) for name in ("open", "close")
        )
        separated = ", ".join(children)
        return f"{opening[1] if opening else '('}{separated}{closing[1] if closing else ')'}"
    return inside
