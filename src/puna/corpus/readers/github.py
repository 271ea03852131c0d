"""GitHub files as rows, as BigQuery's `bigquery-public-data.github_repos` is exported: JSON lines (plain or compressed) or Parquet.

A row has a file's content, its path, its repository and the repository's licence. The names of the columns are BigQuery's or those
of the sets made from it (RedPajama, CodeParrot, The Stack).
"""

import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus import licences
from puna.corpus.document import Found, Refuses, Skipped
from puna.corpus.readers import source_file, streams
from puna.errors import UserError

CONTENT = ("content", "code", "text")
PATH = ("path", "sample_path", "max_stars_repo_path", "file_name", "filename")
REPOSITORY = ("repo_name", "sample_repo_name", "repository_name", "max_stars_repo_name", "repo")
LICENCE = ("license", "licence", "licenses", "max_stars_repo_licenses")
BATCH_ROWS = 128


def read(path: Path, refuses: Refuses = None) -> Iterator[Found | Skipped]:
    """Every row, in order. Offsets are bytes of the unpacked JSON lines, or row numbers of a Parquet file."""
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    for number, (offset, row) in enumerate(_parquet(path) if parquet else _json(path)):
        where = f"{path.name}#{number + 1}"
        if isinstance(row, str):
            yield Skipped(row, where, offset)
            continue
        meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
        known = {**meta, **{key: value for key, value in row.items() if value is not None}}
        content = _first(known, CONTENT)
        name, repository = str(_first(known, PATH) or ""), str(_first(known, REPOSITORY) or "")
        url = f"https://github.com/{repository}/blob/HEAD/{urllib.parse.quote(name)}" if name and repository else where
        if refuses and (reason := refuses(url)):
            yield Skipped(reason, url, offset)
        elif not isinstance(content, str | bytes) or not content:
            yield Skipped("no text", url, offset)
        elif not source_file.wanted(name):
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


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for offset, raw in streams.lines(path):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8-sig" if not offset else "utf-8"))
        except UnicodeDecodeError:
            yield offset, "not UTF-8"
        except (ValueError, RecursionError):
            yield offset, "not valid JSON"
        else:
            yield offset, row if isinstance(row, dict) else "no text"


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in (*CONTENT, *PATH, *REPOSITORY, *LICENCE, "meta") if name in file.schema_arrow.names]
            if not set(columns) & set(CONTENT):
                raise UserError(f"no column {', '.join(CONTENT)} in this Parquet file; it has {', '.join(file.schema_arrow.names)}")
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"the Parquet file of {path.stat().st_size:,} bytes is damaged or ends early") from error
