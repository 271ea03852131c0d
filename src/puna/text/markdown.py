"""HTML of chat pages as the Markdown that a model would have written: ShareGPT keeps answers as HTML."""

import re
from itertools import groupby

from selectolax.lexbor import LexborHTMLParser, LexborNode

# An answer as a page shows it is elements alone; HTML that is talked about has words around it.
_TAGS = "(?:div|p|ol|ul|pre|h[1-6]|table|blockquote)"
_HTML = re.compile(rf"\s*<{_TAGS}\b[^>]*>.*</{_TAGS}>\s*\Z", re.DOTALL)
_BUTTON = re.compile(r"\s*(?:Copy(?: code)?)+\s*\Z")
_PASTED = re.compile(r"\s*([\w+#.-]{0,20})Copy code")
_NOISE = re.compile(r"\A\d+ / \d+(?=\D)|Copy\d+ chars / \d+ words")
_BLANK_LINES = re.compile(r"\n{3,}")
_SUBLIST = re.compile(r"\n\n(?=- |\d+\. )")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_FENCE = re.compile(r"`{3,}")
_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*", "del": "~~"}
_FIXED = {"script": "", "style": "", "button": "", "svg": "", "br": "\n", "hr": "\n---\n"}


def is_html(text: str) -> bool:
    """Whether a text is a page's elements as a whole, and no text that has some HTML in it."""
    return text.lstrip()[:1] == "<" and _HTML.match(text) is not None


def from_html(html: str) -> str:
    """Return the Markdown of a fragment: headings, lists, tables, links, quotes, code with its language.

    The page's "Copy code" buttons go, and the counters of versions ("2 / 3") before an answer.
    """
    root = LexborHTMLParser(html).body
    text = "" if root is None else _blocks(root)
    return _BLANK_LINES.sub("\n\n", _NOISE.sub("", text.strip())).strip()


def _blocks(node: LexborNode) -> str:
    """Return the blocks of an element, a blank line between."""
    parts: list[str] = []
    children = [(_block(child), child) for child in node.iter(include_text=True)]
    for is_inline, group in groupby(children, key=lambda each: each[0] is None):
        if is_inline:
            lines = "".join(_inline(child) for _, child in group).split("\n")
            parts.append("\n".join(line.strip() for line in lines).strip())
        else:
            parts += [block or "" for block, _ in group]
    return "\n\n".join(filter(None, parts))


def _block(node: LexborNode) -> str | None:
    """Return a block's text; None for what stands in a line."""
    tag = node.tag or ""
    if tag in ("ul", "ol"):
        return _list(node, tag == "ol")
    if tag == "pre":
        return _code(node)
    if tag == "table":
        rows = [
            [_blocks(each).replace("\n", " ").replace("|", "\\|") for each in row.css("th, td")]
            for row in node.css("tr")
        ]
        return "\n".join(
            f"| {' | '.join(cells)} |"
            for cells in [*rows[:1], *[["---"] * len(row) for row in rows[:1]], *rows[1:]]
        )
    if tag == "blockquote":
        return "\n".join(f"> {line}".rstrip() for line in _blocks(node).split("\n"))
    if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
        return "#" * int(tag[1]) + " " + _blocks(node).replace("\n", " ")
    return _blocks(node) if tag in ("div", "p", "section", "article", "main") else None


def _inline(node: LexborNode) -> str:
    tag = node.tag or "-"
    if tag == "-text":
        return _SPACE.sub(" ", node.text_content or "")
    if tag in _FIXED or tag[0] in "-_":
        return _FIXED.get(tag, "")
    if tag == "code":
        return f"`{node.text()}`"
    # A block that the parser found in a line, such as a list in a span, keeps its lines.
    inside = "".join(_block(child) or _inline(child) for child in node.iter(include_text=True))
    if tag == "a" and (target := node.attributes.get("href")):
        return f"[{inside.strip()}]({target})"
    bare, mark = inside.strip(), _MARKS.get(tag, "")
    return inside.replace(bare, mark + bare + mark, 1) if bare else inside  # space around it stays outside


def _list(node: LexborNode, numbered: bool) -> str:
    start = node.attributes.get("start") or "1"
    lines = []
    items = filter(None, (_blocks(item) or _inline(item).strip() for item in node.iter(include_text=True)))
    for number, item in enumerate(items, int(start) if start.isdecimal() else 1):
        mark = f"{number}. " if numbered else "- "
        lines.append(mark + _SUBLIST.sub("\n", item).replace("\n", "\n" + " " * len(mark)))
    return re.sub(r"[ \t]+$", "", "\n".join(lines), flags=re.MULTILINE)


def _code(node: LexborNode) -> str:
    """Return a code block. Before the code the page has its language and a button, in one way or another."""
    inner, whole = node.css_first("code") or node, node.text()
    code, named = inner.text(), re.search(r"language-([\w+#.-]+)", inner.attributes.get("class") or "")
    head, _, tail = whole.partition(code) if code else ("", "", "" if _BUTTON.search(whole) else whole)
    code += tail
    if pasted := _PASTED.match(code):
        head, code = pasted[1], code[pasted.end() :]
    language = named[1] if named else _BUTTON.sub("", head).strip()
    fence = "`" * (max(map(len, _FENCE.findall(code)), default=2) + 1)
    return f"{fence}{language}\n{code.strip(chr(10))}\n{fence}" if code.strip() else ""
