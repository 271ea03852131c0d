"""Parquet tables and NumPy arrays on disk, which appear under their names once they are complete.

Both are written and read about a megabyte at a time, so that memory does not grow with them.
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from puna.corpus.record import Record
from puna.run.files import replacing
from puna.run.machine import release_memory

Item = TypeVar("Item")
BATCH_CHARACTERS = 1_000_000  # of text in memory at once, on the way to a file
RECORD_CHARACTERS = 1_000  # what a record without text counts as
BATCHES_RELEASED = 4  # after so many, freed memory goes back to the system, or it piles up (1% of the time)


def characters_of(record: Record) -> int:
    """Return what a record counts for, of the BATCH_CHARACTERS that are in memory at once."""
    return len(record.text) + RECORD_CHARACTERS


def batches(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Take items in order, in lists that end as soon as their sizes add up to more than `most`."""
    batch: list[Item] = []
    held = 0
    for item in items:
        batch.append(item)
        held += size(item)
        if held > most:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


class _Batches(ABC):
    """Takes records one by one, and hands them on as Arrow tables of about a megabyte of text."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self._records: list[Record] = []
        self._characters = 0
        self._flushes = 0

    def add(self, record: Record) -> None:
        """Append a record, which must not change any more."""
        self._records.append(record)
        self._characters += characters_of(record)
        if self._characters > BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write the records that wait: in Parquet they are one row group."""
        import pyarrow as pa

        if self._records:
            columns = {name: list(map(attrgetter(name), self._records)) for name in self.schema.names}
            self._write(pa.Table.from_pydict(columns, self.schema))
        self._records, self._characters = [], 0
        self._flushes += 1
        if self._flushes % BATCHES_RELEASED == 0:
            release_memory()

    @abstractmethod
    def _write(self, rows: Any) -> None: ...


class Writer(_Batches):
    """Records on their way to a Parquet file that is open. schema: its columns are attributes of Record."""

    def __init__(self, file: Any, schema: Any) -> None:
        super().__init__(schema)
        self._file = file

    def _write(self, rows: Any) -> None:
        self._file.write_table(rows)


@contextmanager
def writing_table(path: Path, schema: Any, compression: str = "zstd") -> Iterator[Writer]:
    """Write a Parquet file of records that appears under its name when the block ends well.

    compression: zstd for files that stay, lz4 for those that are read once more, and soon.
    """
    import pyarrow.parquet as pq

    with unfinished(path) as part, pq.ParquetWriter(part, schema, compression=compression) as file:
        writer = Writer(file, schema)
        yield writer
        writer.flush()


class Rows(_Batches):
    """Records on their way to a Parquet file, in a file that only grows.

    Cut back to its length after any `flush`, it holds what had been added by then, and more can be added;
    Parquet cannot, since what is where stands at its end. The file is one Arrow stream for each flush.
    """

    def __init__(self, path: Path, schema: Any) -> None:
        super().__init__(schema)
        self.path = path
        path.touch()

    def _write(self, rows: Any) -> None:
        import pyarrow as pa

        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with self.path.open("ab") as file, pa.ipc.new_stream(file, self.schema, options=options) as stream:
            stream.write_table(rows)

    def finish(self, path: Path) -> None:
        """Write all that was added as a Parquet file: a row group for each flush."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.flush()
        size = self.path.stat().st_size
        with (
            unfinished(path) as part,
            pa.OSFile(str(self.path)) as file,
            pq.ParquetWriter(part, self.schema, compression="zstd") as out,
        ):
            while file.tell() < size:
                with pa.ipc.open_stream(file) as stream:
                    out.write_table(stream.read_all())
                self._flushes += 1
                if self._flushes % BATCHES_RELEASED == 0:
                    release_memory()


class Array:
    """Rows on their way to a .npy file that is open."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._like: Any = None
        self._count = 0

    def add(self, rows: "np.ndarray[Any, Any]") -> None:
        """Append rows."""
        if self._like is None:
            self._like = rows[:0].copy()
            self.write_header()
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def write_header(self) -> None:
        """Write, or write over, the file's beginning."""
        # NumPy pads it for any number of rows, so that it can be written over in the end.
        header = {
            "descr": np.lib.format.dtype_to_descr(self._like.dtype),
            "fortran_order": False,
            "shape": (self._count, *self._like.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def writing_array(path: Path) -> Iterator[Array]:
    """Write a .npy file that appears under its name when the block ends well, some rows at a time.

    The first rows give their type and width, so where there may be none, add an empty array first.
    """
    with unfinished(path) as part, part.open("wb") as file:
        array = Array(file)
        yield array
        file.seek(0)
        array.write_header()


def unfinished(path: Path) -> AbstractContextManager[Path]:
    """Give a path to write a file to until it is complete: see `replacing`.

    The name is this process's own: one that was killed a moment ago may still be writing.
    """
    return replacing(path, f".{os.getpid()}")


def count_rows(path: Path) -> int:
    """Return how many rows a Parquet file has."""
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


def link_or_copy(source: str, target: str) -> None:
    """Give a file that does not change any more a second name, or copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def read_records(path: Path) -> Iterator[Record]:
    """Stream the records of a file that was written by `record_schema`."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield from map(Record, *(column.to_pylist() for column in file.read_row_group(number).columns))


def rows_of(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file, as dicts; columns that it does not have are left out."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield from file.read_row_group(number, columns).to_pylist()
