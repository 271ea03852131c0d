"""The HTML of a post as text."""

import re
from typing import Any

from puna.corpus.readers.web.characters import NOTE, RAISED_MARKS
from puna.corpus.readers.web.page import raise_and_lower
from puna.corpus.readers.web.rows import Row

# Line ends that a block asks for before and after it.
BLOCKS = dict.fromkeys(("p", "pre", "ul", "ol", "dl", "blockquote", "hr", "table"), 2)
BLOCKS |= dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), 2)
BLOCKS |= dict.fromkeys(("tr", "div", "dt", "dd", "li", "thead", "tbody"), 1)
DROPPED = frozenset(["img", "script", "style", "-comment"])
ROWS = ("table", "thead", "tbody", "tr")  # between whose elements white space is no text
WITH_ATTRIBUTES = frozenset(["ol", "td", "th", "sup"])
WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")
# The first line of a note below a text: its number, raised.
NOTE_START = re.compile(rf"{RAISED_MARKS['sup'][0]} ?([0-9]{{1,2}})(?![0-9])")
DEEPEST = 8  # lists are indented up to this depth


def html_to_text(html: str) -> str:
    """Convert a post's HTML to text: paragraphs apart, list items on lines of their own, code as it is.

    Links keep their text, images leave nothing. Formulas (MathJax) are text and stay. A table's row is one
    line, whose cells keep their columns as in pages. Superscripts keep their value: see `raise_and_lower`.
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
            text = node.text_content or ""
            if parent not in ROWS or not text.isspace():
                writer.text(text, keep_space)
        elif tag == "br":
            writer.request_line()
        elif tag not in DROPPED:
            writer.open(tag, node.attributes if tag in WITH_ATTRIBUTES else {})
            waiting.append((node.child, tag, keep_space or tag == "pre"))
    lines = "".join(writer.out).split("\n")
    if writer.raised:
        lines = [raise_and_lower(line) for line in _with_notes(lines)]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _with_notes(lines: list[str]) -> list[str]:
    """Mark raised numbers behind words as those of notes, where a line begins with the same raised number."""
    notes = "|".join({start[1] for start in map(NOTE_START.match, lines) if start})
    mark = re.compile(rf"(?<=[^\W\d_]{{4}}){RAISED_MARKS['sup'][0]}(?=(?:{notes}){RAISED_MARKS['sup'][1]})")
    return [mark.sub(RAISED_MARKS["sup"][0] + NOTE, line) for line in lines] if notes else lines


class _Writer:
    """Text with as many line ends between blocks as they ask for, and marks before list items."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.breaks = 0  # line ends due before the next text
        self.mark = ""  # due before the next text too
        self.lists: list[int] = []  # of each open list: its next number, or -1
        self.row = Row()
        self.column = 0  # of the row's text so far
        self.in_cell = False
        self.raised = False  # whether there are superscripts or subscripts

    def open(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag in RAISED_MARKS:
            self.raised = True
            is_note = "ref" in (attributes.get("class") or "")
            self.put(RAISED_MARKS[tag][0] + NOTE * is_note)
        elif tag in ("ul", "ol"):
            self.request_breaks(1 if self.lists else 2)
            number = 1 if tag == "ol" else -1
            start = attributes.get("start") if tag == "ol" else None
            self.lists.append(int(start) if start and re.fullmatch("[0-9]{1,9}", start) else number)
        elif tag == "li":
            self.request_breaks(1)
            number = self.lists[-1] if self.lists else -1
            self.mark = "  " * min(len(self.lists) - 1, DEEPEST) + ("- " if number < 0 else f"{number}. ")
            if number >= 0:
                self.lists[-1] += 1
        elif tag in ("td", "th"):
            self.row.begin_cell(" ".join(f"{name}={value}" for name, value in attributes.items()))
            self.move_to(self.row.column)
            self.in_cell = True
        else:
            if tag == "table":
                self.row.begin_table()
            elif tag == "tr":
                self.row.begin(0, 0, 0, 0)
                self.column, self.in_cell = 0, False
            self.request_breaks(BLOCKS.get(tag, 0))

    def close(self, tag: str) -> None:
        if tag in ("ul", "ol") and self.lists:
            self.lists.pop()
            self.request_breaks(1 if self.lists else 2)
        elif tag in RAISED_MARKS:
            self.out.append(RAISED_MARKS[tag][1])
        elif tag in ("td", "th"):
            self.in_cell = False
        else:
            if tag == "tr":
                self.move_to(self.row.end() - 1)
            if tag == "pre" and self.out:
                self.out[-1] = self.out[-1].rstrip("\n")
            self.request_breaks(BLOCKS.get(tag, 0))

    def move_to(self, column: int) -> None:
        """Separate cells up to that of a column of the row, also where they are empty."""
        for _ in range(self.column, column):
            is_apart = self.breaks or not self.out or self.out[-1].endswith(" ")
            self.put("| " if is_apart else " | ")
            self.column += 1

    def request_line(self) -> None:
        if self.in_cell:
            self.request_breaks(1)
        else:
            self.breaks = min(2, self.breaks + 1)

    def request_breaks(self, breaks: int) -> None:
        if self.in_cell:
            if breaks and self.out and not self.out[-1].endswith((" ", "\n")) and not self.breaks:
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
        self.put(text)

    def put(self, text: str) -> None:
        """Write text as it is, behind what is due before it."""
        self.out += ["\n" * self.breaks, self.mark, text]
        self.breaks, self.mark = 0, ""
