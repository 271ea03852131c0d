"""GitHub files as rows: JSON lines (plain or compressed) or Parquet, exported from BigQuery.

A row of `bigquery-public-data.github_repos` has a file's content, its path, its repository and the
repository's licence. The names of the columns are BigQuery's or those of the sets made from it (RedPajama,
CodeParrot, The Stack).
"""

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus import licences
from puna.corpus.readers.code import source_file
from puna.corpus.readers.plain.rows import rows
from puna.corpus.record import RawDocument, Refuses, SkippedRecord
from puna.corpus.sources import code_files

CONTENT = ("content", "code", "text")
PATH = ("path", "sample_path", "max_stars_repo_path", "file_name", "filename")
REPOSITORY = ("repo_name", "sample_repo_name", "repository_name", "max_stars_repo_name", "repo")
LICENCE = ("license", "licence", "licenses", "max_stars_repo_licenses")


def read(path: Path, refuses: Refuses = None) -> Iterator[RawDocument | SkippedRecord]:
    """Read every row, in order. Offsets: see `rows`."""
    for number, (offset, _, row) in enumerate(rows(path, CONTENT, (*PATH, *REPOSITORY, *LICENCE, "meta"))):
        row_name = f"{path.name}#{number + 1}"
        if isinstance(row, str):
            yield SkippedRecord(row, row_name, offset)
            continue
        meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
        fields = {**meta, **{key: value for key, value in row.items() if value is not None}}
        content = _first(fields, CONTENT)
        name, repository = str(_first(fields, PATH) or ""), str(_first(fields, REPOSITORY) or "")
        url = row_name
        if name and repository:
            url = f"https://github.com/{repository}/blob/HEAD/{urllib.parse.quote(name)}"
        if refuses and (reason := refuses(url)):
            yield SkippedRecord(reason, url, offset)
        elif not isinstance(content, str | bytes) or not content:
            yield SkippedRecord("no text", url, offset)
        elif not code_files.is_source_code(name):
            yield SkippedRecord("not a source file", url, offset)
        else:
            raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
            yield source_file.filter_file(raw, name, url, offset, _licence(_first(fields, LICENCE)))


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _licence(value: Any) -> str:
    """Return the SPDX expression of a row's licence; of several, all must be met."""
    if isinstance(value, list | tuple):
        return " AND ".join(f"({licence})" for licence in map(_licence, value) if licence)
    return licences.named(value) if isinstance(value, str) else ""
