"""Rows with named columns, as data sets are published: JSON lines (plain or compressed) or Parquet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus.record import digest
from puna.corpus.sources import streams
from puna.errors import UserError

BATCH_ROWS = 128
Row = tuple[int, str, dict[str, Any] | str]


def rows(path: Path, texts: tuple[str, ...], others: tuple[str, ...]) -> Iterator[Row]:
    """Read (offset, digest of its bytes, row), in order; of a bad row the reason, a short fixed phrase.

    Offsets are bytes of the unpacked JSON lines (where a line is not UTF-8, of the first wrong byte), or row
    numbers of a Parquet file, whose rows have no bytes of their own and "" as digest. A line that holds a
    list stands for the objects in it. texts: columns one of which a Parquet file must have; others: those
    that are read besides. Raises UserError for a damaged file.
    """
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    return _parquet(path, texts, others) if parquet else _json(path)


def _json(path: Path) -> Iterator[Row]:
    for offset, raw in streams.lines(path):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8-sig" if not offset else "utf-8"))
        except UnicodeDecodeError as error:
            yield offset + error.start, "", "not UTF-8"
        except (ValueError, RecursionError):
            yield offset, "", "not valid JSON"
        else:
            for item in row if isinstance(row, list) and row else [row]:
                yield offset, digest(raw), item if isinstance(item, dict) else "no text"


def _parquet(path: Path, texts: tuple[str, ...], others: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in (*texts, *others) if name in names]
            if not set(columns) & set(texts):
                raise UserError(
                    f"no column {', '.join(texts)} in this Parquet file; it has {', '.join(names)}"
                )
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    yield number, "", row
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        size = path.stat().st_size
        raise UserError(f"the Parquet file of {size:,} bytes is damaged or ends early") from error
