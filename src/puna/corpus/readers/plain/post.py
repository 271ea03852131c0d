"""The HTML of a post as text."""

import re
from typing import Any

from puna.text.raised import subscript, superscript

# Line ends that a block asks for before and after it.
BLOCKS = dict.fromkeys(("p", "pre", "ul", "ol", "dl", "blockquote", "hr", "table"), 2)
BLOCKS |= dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), 2)
BLOCKS |= dict.fromkeys(("tr", "div", "dt", "dd", "li", "thead", "tbody"), 1)
DROPPED = frozenset(["img", "script", "style", "-comment"])
WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")
RAISED = {"sup": superscript, "sub": subscript}
NOTE_MARK = re.compile(r"\s*[\[(]\w{1,3}[\])]\s*")
WORDS = re.compile(r"[^\W\d_]{3}.*\s|\s.*[^\W\d_]{3}", re.DOTALL)
LONGEST_RAISED = 30  # characters; people write whole notes in small letters
DEEPEST = 8  # lists are indented up to this depth


def html_to_text(html: str) -> str:
    """Convert a post's HTML to text: paragraphs apart, list items on lines of their own, code as it is.

    Links keep their text, images leave nothing. Formulas (MathJax) are text and stay. What is raised or
    lowered keeps its value, and a row of a table has a line, with all its cells.
    """
    from selectolax.lexbor import LexborHTMLParser

    body: Any = LexborHTMLParser(html).body
    if body is None:
        return ""
    writer = _Writer()
    # Without recursion, since quotes may be nested to any depth. Each entry: the next node, its parent's tag,
    # whether its white space stays.
    waiting: list[tuple[Any, str, bool]] = [(body.child, "", False)]
    while waiting:
        node, parent, keep_space = waiting.pop()
        if node is None:
            writer.close(parent)
            continue
        waiting.append((node.next, parent, keep_space))
        tag = node.tag
        if tag == "-text":
            writer.text(node.text_content or "", keep_space)
        elif tag == "br":
            writer.breaks = min(2, writer.breaks + 1)
        elif tag in RAISED and not node.css_first("pre, p, ul, ol, img") and (text := _raised(node, tag)):
            writer.text(text, keep_space)
        elif tag not in DROPPED:
            writer.open(tag, node.attributes.get("start") if tag == "ol" else None)
            waiting.append((node.child, tag, keep_space or tag == "pre"))
    return "\n".join(line.rstrip() for line in "".join(writer.out).split("\n")).strip("\n")


def _raised(node: Any, tag: str) -> str:
    """Return the text of <sup> or <sub>, what is raised inside it first; marks of notes stay as they are."""
    parts = []
    child = node.child
    while child is not None:
        inner = child.tag in RAISED
        parts.append(_raised(child, child.tag) if inner else child.text(deep=True) or "")
        child = child.next
    text = "".join(parts)
    if len(text) > LONGEST_RAISED or NOTE_MARK.fullmatch(text) or WORDS.search(text):
        return text
    return RAISED[tag](text)


class _Writer:
    """Text with as many line ends between blocks as they ask for, and marks before list items."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.breaks = 0  # line ends due before the next text
        self.mark = ""  # due before the next text too
        self.cells = 0  # of the open row
        self.in_cell = False
        self.lists: list[int] = []  # of each open list: its next number, or -1

    def open(self, tag: str, start: str | None) -> None:
        if tag in ("ul", "ol"):
            self.request_breaks(1 if self.lists else 2)
            number = 1 if tag == "ol" else -1
            self.lists.append(int(start) if start and re.fullmatch("[0-9]{1,9}", start) else number)
        elif tag == "li":
            self.request_breaks(1)
            number = self.lists[-1] if self.lists else -1
            self.mark = "  " * min(len(self.lists) - 1, DEEPEST) + ("- " if number < 0 else f"{number}. ")
            if number >= 0:
                self.lists[-1] += 1
        elif tag in ("td", "th"):
            self.open_cell()
        else:
            self.request_breaks(BLOCKS.get(tag, 0))

    def open_cell(self) -> None:
        self.cells += 1
        self.in_cell = False
        if self.cells > 1 and (self.breaks or not self.out):
            self.mark += "| "  # cells before it are empty
        elif self.cells > 1:
            while self.out and not self.out[-1].rstrip(" "):
                self.out.pop()
            self.out[-1:] = [*(part.rstrip(" ") for part in self.out[-1:]), " | "]
        self.in_cell = True

    def close(self, tag: str) -> None:
        if tag in ("tr", "table"):
            self.cells, self.in_cell = 0, False
            self.mark = "" if self.mark.startswith("|") else self.mark
        if tag in ("ul", "ol") and self.lists:
            self.lists.pop()
            self.request_breaks(1 if self.lists else 2)
        else:
            if tag == "pre" and self.out:
                self.out[-1] = self.out[-1].rstrip("\n")
            self.request_breaks(BLOCKS.get(tag, 0))

    def request_breaks(self, breaks: int) -> None:
        if self.in_cell:
            if breaks and self.out and not self.breaks and not self.out[-1].endswith((" ", "\n")):
                self.out.append(" ")
        elif self.out and not self.mark:
            self.breaks = max(self.breaks, breaks)

    def text(self, text: str, keep_space: bool) -> None:
        at_start = self.breaks or self.mark or not self.out or self.out[-1].endswith((" ", "\n"))
        if not keep_space:
            text = WHITE_SPACE.sub(" ", text)
            text = text.lstrip(" ") if at_start else text
        elif self.breaks or self.mark or not self.out:
            text = text.lstrip("\n")
        if not text or (self.breaks and not text.strip()):
            return
        self.out += ["\n" * self.breaks, self.mark, text]
        self.breaks, self.mark = 0, ""
