"""JSON lines, as RedPajama, C4 and others publish them: an object a line with its text and what is known of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus.document import Found, Skipped, digest
from puna.corpus.readers import streams

TEXT_KEYS = ("text", "raw_content", "content")


def read(path: Path) -> Iterator[Found | Skipped]:
    """Every object that has a text. url, title and licence are taken from it or from its `meta`."""
    for number, (offset, raw) in enumerate(streams.lines(path)):
        url = f"{path.name}#{number + 1}"
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8-sig" if not number else "utf-8"))
        except UnicodeDecodeError as error:
            yield Skipped("not UTF-8", url, offset + error.start)
            continue
        except (ValueError, RecursionError):
            yield Skipped("not valid JSON", url, offset)
            continue
        text = next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), "") if isinstance(row, dict) else ""
        if not text.strip():
            yield Skipped("no text", url, offset)
            continue
        known = {**(row["meta"] if isinstance(row.get("meta"), dict) else {}), **row}
        licence = _string(known, "licence", "license")
        yield Found(_string(known, "url") or url, text, offset, digest(raw), _string(known, "title"), licence)


def _string(row: dict[str, Any], *keys: str) -> str:
    return next((row[key] for key in keys if isinstance(row.get(key), str)), "")
