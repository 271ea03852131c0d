"""Markdown and words that the cards share."""

from collections.abc import Iterable
from typing import Any

READERS = {  # what each reader reads
    "warc": "pages of a web crawl",
    "html": "web pages",
    "wikipedia": "articles of a wiki's dump",
    "stackexchange": "questions and answers of a site's dump",
    "arxiv": "papers in LaTeX",
    "book": "books",
    "code": "source code of packages",
    "github": "source code of repositories",
    "text": "texts as they are",
    "lines": "texts, one a line",
    "jsonl": "texts of a published dataset",
    "none": "files that no reader takes",
}


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Format a table; bars and line ends in its cells cannot break it."""
    rule = ["---", *(["---:"] * (len(head) - 1))]
    lines = [head, rule, *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")


def largest(counts: dict[str, int], most: int = 6) -> str:
    """List the largest of some counts, and how many others there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {count:,}" for name, count in ordered[:most]]
    if len(ordered) > most:
        shown.append(f"{len(ordered) - most} others")
    return ", ".join(shown) or "none"


def period(months: Iterable[str]) -> str:
    """Say from which month to which, as "2023-05 to 2024-03"; "unknown" without any."""
    span = sorted({min(found), max(found)}) if (found := list(months)) else ["unknown"]
    return " to ".join(span)
