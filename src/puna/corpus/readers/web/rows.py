"""Rows of a table as lines, and line numbers beside code; rows.h does the same.

A row is one line if its cells are short, whatever elements they hold: cells are joined with " | ", and an
empty one keeps its column, as do those that reach over several columns or rows.
"""

import re
from collections.abc import Iterable

MAX_CELL_LENGTH = 200  # characters; a row with a longer cell is taken for layout: its cells are not joined
MAX_COLUMNS, MAX_COLUMN_SPAN = 200, 20  # what is wider is layout
SPAN = re.compile(r"""(?:(col)|row)span[ \t\r\n]*=[ \t\r\n]*["']?([0-9]{1,4})""")
# Parts of the class or id of what holds line numbers, by Pygments, Rouge, GitHub, Gitea, highlight.js, Prism,
# Chroma, SyntaxHighlighter, Crayon.
GUTTERS = (
    *("gutter", "lineno", "line-num", "line_num", "linenum", "ineNum", "lines-num", "blob-num", "ln-n"),
    *("-nums", "lnt", "lnum", '"ln"', "'ln'"),
)
_TAG = r"<(?!/?[tT])[!-;=?-~ \t\r\n]{0,300}>"
NUMBERS = re.compile(rf"(?:[ \t\r\n]|{_TAG})*+[0-9](?:[0-9.: \t\r\n]|{_TAG})*+(?=</?[tT])")
NO_TEXT = re.compile(rf"(?:[ \t\r\n]|{_TAG})*+(?=</?[tT])")
ONE_NUMBER = re.compile(
    r"(?:<[a-z][!-;=?-~ \t\r\n]{0,300}>)?[ \t\r\n]*[0-9]{1,6}[ \t\r\n.:|]*(?:</[a-z]{1,9}>)?[ \t\r\n]*(?=</)"
)


def is_between_cells(tag: str) -> bool:
    """Tell whether an element holds rows or cells, but no text of its own."""
    return tag in ("table", "thead", "tbody", "tfoot", "tr")


def is_gutter(attributes: str) -> bool:
    """Tell whether an element is for line numbers, by its attributes."""
    return any(part in attributes for part in GUTTERS)


def cell_of_numbers(source: str, at: int, attributes: str) -> int:
    """Return where the content of a cell that holds line numbers ends, 0 for any other cell."""
    if not is_gutter(attributes):
        return 0
    found = NUMBERS.match(source, at)
    if not found and "data-line-number" in attributes:
        found = NO_TEXT.match(source, at)
    return found.end() if found else 0


def number_inside(source: str, at: int, attributes: str) -> int:
    """Return where the content of an element that holds one line number ends, 0 for any other element."""
    found = ONE_NUMBER.match(source, at) if is_gutter(attributes) else None
    return found.end() if found else 0


class Row:
    """The row of a table that is being read.

    height: of the stack of open elements with the row's own, 0 where no row is open. first, node, first_node:
    its first block, its own node and that of its first cell. cells: with those that reach in. columns: of
    its blocks, -1 for text outside of cells. spans: how many rows more the cell above reaches
    into, by column.
    """

    def __init__(self) -> None:
        self.height = self.first = self.node = self.first_node = self.cells = self.next = 0
        self.column = -1
        self.plain = True
        self.columns: list[int] = []
        self.begin_table()

    def begin_table(self) -> None:
        """Forget what is known of the columns."""
        self.spans: list[int] = []
        self.width = 0  # of the last row that was well filled

    def begin(self, height: int, first: int, node: int, first_node: int) -> None:
        """Begin a row at its first cell."""
        self.height, self.first, self.node, self.first_node = height, first, node, first_node
        self.cells = self.next = 0
        self.column, self.plain = -1, True
        self.columns.clear()

    def begin_cell(self, attributes: str) -> None:
        """Find the column of the next cell."""
        spans = self.spans
        while self.next < len(spans) and spans[self.next]:
            spans[self.next] -= 1
            self.next += 1
            self.cells += 1
        self.cells += 1
        self.column = self.next
        wide = tall = 1
        if "pan" in attributes or "PAN" in attributes:
            for across, count in SPAN.findall(attributes.lower()):
                if across:
                    wide = int(count) if 0 < int(count) <= MAX_COLUMN_SPAN else 1
                else:
                    tall = max(1, int(count))
        if self.next + wide > MAX_COLUMNS:
            self.plain = False
            return
        if tall > 1:
            spans += [0] * (self.next + wide - len(spans))
            spans[self.next : self.next + wide] = [tall - 1] * wide
        self.next += wide

    def end(self) -> int:
        """End the row's cells: return how many columns it has."""
        width = self.next
        for column in range(self.next, len(self.spans)):
            if self.spans[column]:
                self.spans[column] -= 1
                self.cells += 1
                width = column + 1
        return width

    def line(self, texts: Iterable[str]) -> str:
        """End the row: return its blocks' texts as one line, "" where they are to stay apart."""
        width = self.end()
        self.height, cells = 0, self.cells
        self.column = -1
        if not self.plain or cells < 2 or not self.columns or -1 in self.columns:
            return ""
        by_column: dict[int, str] = {}
        for column, text in zip(self.columns, texts, strict=True):
            text = text.replace("\n", " ")
            by_column[column] = f"{by_column[column]} {text}" if column in by_column else text
        filled = len(by_column)
        if max(map(len, by_column.values())) >= MAX_CELL_LENGTH or (filled < 2 and width != self.width):
            return ""
        known = width == self.width or 2 * filled >= width
        if 2 * filled >= width:
            self.width = width
        columns = range(width) if known else sorted(by_column)
        return "".join(["| " + by_column.get(at, "") + " " * (at in by_column) for at in columns])[2:].rstrip(
            " "
        )
