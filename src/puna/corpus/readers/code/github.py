"""GitHub files as rows, as BigQuery's `bigquery-public-data.github_repos` is exported: JSON lines (plain or
compressed) or Parquet.

A row has a file's content, its path, its repository and the repository's licence. The names of the columns
are BigQuery's or those of the sets made from it (RedPajama, CodeParrot, The Stack).
"""

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus import licences
from puna.corpus.readers.code import source_file
from puna.corpus.readers.plain.rows import rows
from puna.corpus.record import Found, Refuses, Skipped
from puna.corpus.sources import code_files

CONTENT = ("content", "code", "text")
PATH = ("path", "sample_path", "max_stars_repo_path", "file_name", "filename")
REPOSITORY = ("repo_name", "sample_repo_name", "repository_name", "max_stars_repo_name", "repo")
LICENCE = ("license", "licence", "licenses", "max_stars_repo_licenses")


def read(path: Path, refuses: Refuses = None) -> Iterator[Found | Skipped]:
    """Every row, in order. Offsets: see `rows`."""
    for number, (offset, _, row) in enumerate(rows(path, CONTENT, (*PATH, *REPOSITORY, *LICENCE, "meta"))):
        where = f"{path.name}#{number + 1}"
        if isinstance(row, str):
            yield Skipped(row, where, offset)
            continue
        meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
        known = {**meta, **{key: value for key, value in row.items() if value is not None}}
        content = _first(known, CONTENT)
        name, repository = str(_first(known, PATH) or ""), str(_first(known, REPOSITORY) or "")
        url = (
            f"https://github.com/{repository}/blob/HEAD/{urllib.parse.quote(name)}"
            if name and repository
            else where
        )
        if refuses and (reason := refuses(url)):
            yield Skipped(reason, url, offset)
        elif not isinstance(content, str | bytes) or not content:
            yield Skipped("no text", url, offset)
        elif not code_files.is_source_code(name):
            yield Skipped("not a source file", url, offset)
        else:
            raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
            yield source_file.judge(raw, name, url, offset, _licence(_first(known, LICENCE)))


def _first(row: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _licence(value: Any) -> str:
    """SPDX expression of a row's licence; of several, all must be met."""
    if isinstance(value, list | tuple):
        return " AND ".join(f"({licence})" for licence in map(_licence, value) if licence)
    return licences.named(value) if isinstance(value, str) else ""
