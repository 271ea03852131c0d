"""Data sets of texts, as RedPajama, C4 and others publish them: JSON lines or Parquet, a row with its text
and what is known of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus.readers.plain.rows import rows
from puna.corpus.record import Found, Skipped, digest

TEXT_KEYS = ("text", "raw_content", "content")
OTHER_KEYS = ("url", "title", "licence", "license", "meta")


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every row that has a text. url, title and licence are taken from it or from its `meta`. Offsets: see
    `rows`."""
    for number, (offset, identity, row) in enumerate(rows(path, TEXT_KEYS, OTHER_KEYS)):
        url = f"{path.name}#{number + 1}"
        text = "" if isinstance(row, str) else _string(row, *TEXT_KEYS)
        if isinstance(row, str) or not text.strip():
            yield Skipped(row if isinstance(row, str) else "no text", url, offset)
            continue
        known = {**(row["meta"] if isinstance(row.get("meta"), dict) else {}), **row}
        licence = _string(known, "licence", "license")
        yield Found(
            _string(known, "url") or url,
            text,
            offset,
            identity or digest(text),
            _string(known, "title"),
            licence,
        )


def _string(row: dict[str, Any], *keys: str) -> str:
    return next((row[key] for key in keys if isinstance(row.get(key), str)), "")
