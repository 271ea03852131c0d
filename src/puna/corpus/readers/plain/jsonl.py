"""Data sets of texts, as RedPajama, C4 and others publish them: JSON or Parquet, one text a row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus.readers.plain.rows import rows
from puna.corpus.record import RawDocument, SkippedRecord, digest

TEXT_KEYS = ("text", "raw_content", "content")
OTHER_KEYS = ("url", "title", "licence", "license", "meta")


def read(path: Path) -> Iterator[RawDocument | SkippedRecord]:
    """Read every row that has a text; url, title and licence are its own or those of its `meta`.

    Offsets: see `rows`.
    """
    for number, (offset, raw_digest, row) in enumerate(rows(path, TEXT_KEYS, OTHER_KEYS)):
        url = f"{path.name}#{number + 1}"
        text = "" if isinstance(row, str) else _string(row, *TEXT_KEYS)
        if isinstance(row, str) or not text.strip():
            in_bytes = not isinstance(row, str) and any(isinstance(row.get(key), bytes) for key in TEXT_KEYS)
            reason = row if isinstance(row, str) else "not UTF-8" if in_bytes else "no text"
            yield SkippedRecord(reason, url, offset)
            continue
        meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
        fields = {**meta, **row}
        url = _string(fields, "url") or url
        title, licence = _string(fields, "title"), _string(fields, "licence", "license")
        yield RawDocument(url, text, offset, raw_digest or digest(text), title, licence)


def _string(row: dict[str, Any], *keys: str) -> str:
    """Return the first of these keys that is a string; "" for none."""
    return next((row[key] for key in keys if isinstance(row.get(key), str)), "")
