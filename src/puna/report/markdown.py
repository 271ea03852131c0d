"""The Markdown that Puna writes itself (data card, public summary) as HTML: headings, paragraphs, lists,
tables, and code, bold, slanted and linked words. Everything else stays as it is written, escaped."""

import re
from collections.abc import Callable, Iterator
from itertools import groupby

from puna.report.markup import Html, escape, table

HEADING = re.compile(r"(#{1,6})\s+(.*)")
ITEM = re.compile(r"[-*]\s+(.*)")
CELLS = re.compile(r"(?<!\\)\|")
RULE = re.compile(r"[\s|:-]*-[\s|:-]*")
CODE = re.compile(r"(`[^`]+`)")
INLINE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\[([^\]]+)\]\(((?:https?://|[\w./-]+(?=[)#]))[^\s)]*)\)"), r'<a href="\2">\1</a>'),
    (re.compile(r"\*\*(\S(?:.*?\S)?)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*(\S(?:.*?\S)?)\*(?![\w*])"), r"<em>\1</em>"),
)


def html(text: str, top: int = 3) -> Html:
    """A document as HTML. top: the level that its title, a line with one #, gets on the page."""
    lines = [line.strip() for line in text.splitlines()]
    return Html("".join(_blocks(lines, top)))


def _blocks(lines: list[str], top: int) -> Iterator[str]:
    for kind, group in groupby(lines, _kind):
        yield from _WRITE[kind](list(group), top)


def _kind(line: str) -> str:
    if not line:
        return "space"
    if HEADING.fullmatch(line):
        return "heading"
    if line.startswith("|"):
        return "table"
    return "list" if ITEM.fullmatch(line) else "text"


def inline(text: str) -> Html:
    """Words of a line; what stands between backquotes is not looked into."""
    parts = []
    for part in CODE.split(text):
        told = str(escape(part))
        if CODE.fullmatch(part):
            parts.append(f"<code>{told[1:-1]}</code>")
            continue
        for pattern, replacement in INLINE:
            told = pattern.sub(replacement, told)
        parts.append(told)
    return Html("".join(parts))


def _headings(lines: list[str], top: int) -> Iterator[str]:
    for line in lines:
        found = HEADING.fullmatch(line)
        assert found is not None
        level = min(6, top + len(found[1]) - 1)
        yield f"<h{level}>{inline(found[2])}</h{level}>"


def _list(lines: list[str], top: int) -> Iterator[str]:
    yield f"<ul>{''.join(f'<li>{inline(line[1:].strip())}</li>' for line in lines)}</ul>"


def _paragraph(lines: list[str], top: int) -> Iterator[str]:
    yield f"<p>{inline(' '.join(lines))}</p>"


def _table(lines: list[str], top: int) -> Iterator[str]:
    rows = [[inline(cell.strip().replace("\\|", "|")) for cell in _cells(line)] for line in lines]
    if len(rows) < 2 or not RULE.fullmatch(lines[1]):
        yield from _paragraph(lines, top)
        return
    head, width = rows[0], len(rows[0])
    body = [[*row[:width], *[""] * (width - len(row))] for row in rows[2:]]
    words = [
        place
        for place in range(1, width)
        if any(cell and not cell.replace(",", "").isdigit() for cell in (row[place] for row in body))
    ]
    named = f"table of {_cells(lines[0])[0].strip()}"
    yield table(named, head, body, words=words, shown=False)


def _cells(line: str) -> list[str]:
    return CELLS.split(line.removeprefix("|").removesuffix("|"))


_WRITE: dict[str, Callable[[list[str], int], Iterator[str]]] = {
    "space": lambda lines, top: iter(()),
    "heading": _headings,
    "list": _list,
    "text": _paragraph,
    "table": _table,
}
