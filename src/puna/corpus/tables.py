"""Parquet tables and NumPy arrays on disk, which appear under their names once they are complete.

Both are written and read about a megabyte at a time, so that memory does not grow with them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from puna.run.artifact import sync
from puna.run.machine import release_memory

BATCH_CHARACTERS = 1_000_000  # of text in memory at once, on the way to a file
ROW_CHARACTERS = 1_000  # what a row without text counts as
BATCHES_RELEASED = 4  # after so many, freed memory goes back to the system, or it piles up (1% of the time)


def characters_of(row: dict[str, Any]) -> int:
    """Return what a row counts for, of the BATCH_CHARACTERS that are in memory at once."""
    return len(row.get("text") or "") + ROW_CHARACTERS


class Writer:
    """A Parquet file of rows that appears under its name when the block ends well.

    compression: zstd for files that stay, lz4 for those that are read once more, and soon.
    """

    def __init__(self, path: Path, schema: Any, compression: str = "zstd") -> None:
        self.path, self.schema, self.compression = path, schema, compression
        self._unfinished = unfinished(path)
        self._rows: list[dict[str, Any]] = []
        self._characters = 0
        self._flushes = 0
        self._file: Any = None

    def __enter__(self) -> "Writer":
        import pyarrow.parquet as pq

        self._file = pq.ParquetWriter(self._unfinished, self.schema, compression=self.compression)
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; keys that the schema does not have are left out."""
        self._rows.append(row)
        self._characters += characters_of(row)
        if self._characters > BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, as one row group."""
        import pyarrow as pa

        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
        self._rows, self._characters = [], 0
        self._flushes += 1
        if self._flushes % BATCHES_RELEASED == 0:
            release_memory()

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._file.close()
        if kind is None:
            finish(self._unfinished, self.path)


class Array:
    """A .npy file that appears under its name when the block ends well, written some rows at a time.

    The first rows give their type and width, so where there may be none, add an empty array first.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._unfinished = path, unfinished(path)
        self._file: Any = None
        self._like: Any = None
        self._count = 0

    def __enter__(self) -> "Array":
        self._file = self._unfinished.open("wb")
        return self

    def add(self, rows: "np.ndarray[Any, Any]") -> None:
        """Append rows."""
        if self._like is None:
            self._like = rows[:0].copy()
            self._write_header()
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def _write_header(self) -> None:
        # NumPy pads it for any number of rows, so that it can be written over in the end.
        header = {
            "descr": np.lib.format.dtype_to_descr(self._like.dtype),
            "fortran_order": False,
            "shape": (self._count, *self._like.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(self._file, header)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None:
                self._file.seek(0)
                self._write_header()
        finally:
            self._file.close()
        if kind is None:
            finish(self._unfinished, self._path)


def unfinished(path: Path) -> Path:
    """Return where a file is written until it is complete.

    The name is this process's own: one that was killed a moment ago may still be writing.
    """
    return path.with_suffix(f".{os.getpid()}.part")


def finish(part: Path, path: Path) -> None:
    """Give a complete file its name."""
    sync(part)
    os.replace(part, path)


def batches_of(path: Path, columns: list[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """Stream the rows of a Parquet file as they were written together."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns).to_pylist()


def rows_of(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file."""
    for batch in batches_of(path, columns):
        yield from batch
