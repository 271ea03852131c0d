"""Rows with named columns, as data sets are published: JSON (plain or compressed) or Parquet.

JSON is a row a line, or one value over many lines: a list of rows, an object that holds them, one row, or
rows one after the other.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus.record import digest
from puna.corpus.sources import streams
from puna.errors import UserError

BATCH_ROWS = 128
NOT_JSON = "not valid JSON"
Row = tuple[int, str, dict[str, Any] | str]


def rows(path: Path, texts: tuple[str, ...], others: tuple[str, ...]) -> Iterator[Row]:
    """Read (offset, digest of its bytes, row), in order; of a bad row the reason, a short fixed phrase.

    Offsets are bytes of the unpacked JSON lines (where a line is not UTF-8, of the first wrong byte), or row
    numbers of a Parquet file, whose rows have no bytes of their own and "" as digest. A line that holds a
    list stands for the objects in it. Rows over 64 MB are passed over, with a reason; one in a Parquet file,
    whose values have no sizes before they are read, takes at most 3.2 times its size of memory meanwhile, and
    none where it is alone in its row group. texts: columns one of which a Parquet file must have; others:
    those that are read besides. Raises UserError for a damaged file.
    """
    with path.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    return _parquet(path, texts, others) if parquet else _json(path)


def _json(path: Path) -> Iterator[Row]:
    if _is_one_value(path):
        yield from _values(path)
        return
    for offset, raw in streams.lines(path):
        if raw is None:
            yield offset, "", streams.TOO_LARGE
            continue
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8-sig" if not offset else "utf-8"))
        except UnicodeDecodeError as error:
            yield offset + error.start, "", "not UTF-8"
        except (ValueError, RecursionError):
            yield offset, "", NOT_JSON
        else:
            for item in row if isinstance(row, list) and row else [row]:
                yield offset, digest(raw), item if isinstance(item, dict) else "no text"


def _is_one_value(path: Path) -> bool:
    """Whether JSON is one value over many lines: the first line is none, and the second no row by itself."""
    first = b""
    for _, raw in streams.lines(path):
        if raw is None:  # a line over 64 MB: a list can be read row by row
            return not first and _head(path)[:1] == b"["
        line = raw.removeprefix(codecs.BOM_UTF8).strip()
        if not line:
            continue
        if first:
            return first in (b"[", b"{") or not _is_row(line)
        first = line
        if first[:1] not in b"[{" or _is_row(first):
            return False
    return False


def _head(path: Path) -> bytes:
    return next(streams.chunks(path), b"").removeprefix(codecs.BOM_UTF8).lstrip()


def _is_row(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict | list)
    except (ValueError, RecursionError):
        return False


class _Text:
    """The text of a file as far as it is needed. at: where to read on; offset: bytes before that."""

    def __init__(self, path: Path) -> None:
        self._pieces, self._decoder = streams.chunks(path), codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.offset = "", 0, 0
        self.raw = ""  # of the value last read

    def more(self) -> bool:
        """Read on, as much again as is there; False at the end of the file. Raises UnicodeDecodeError."""
        self._skip()
        wanted, pieces = min(2 * len(self.text) + 1, streams.LARGEST_RECORD), [self.text]
        while wanted > 0 and (piece := next(self._pieces, None)) is not None:
            pieces.append(self._decoder.decode(piece))
            wanted -= len(pieces[-1])
        self.text = "".join(pieces)
        return len(pieces) > 1

    def _skip(self) -> None:
        self.offset += len(self.text[: self.at].encode())
        self.text, self.at = self.text[self.at :], 0

    def peek(self) -> str:
        """Return the next character that is no white space and no comma; "" at the end of the file."""
        while True:
            rest = self.text[self.at : self.at + 1]
            while rest and (rest.isspace() or rest == ","):
                self.at += 1
                rest = self.text[self.at : self.at + 1]
            if rest or not self.more():
                return rest

    def value(self) -> Any:
        """Read a value. Raises ValueError where there is none, MemoryError where it is too large."""
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if len(self.text) - self.at > streams.LARGEST_RECORD:
                    raise MemoryError from None
                if not self.more():
                    raise
            else:
                self.raw, self.at = self.text[self.at : end], end
                return value


def _values(path: Path) -> Iterator[Row]:
    """Read the rows of one JSON value; what is damaged or too large ends it, with one reason."""
    text = _Text(path)
    try:
        if text.peek() == "[":
            text.at += 1
        while (start := text.peek()) and start != "]":
            value = text.value()
            offset = text.offset + len(text.text[: text.at - len(text.raw)].encode())
            for item in _rows_in(value):
                yield offset, digest(text.raw), item if isinstance(item, dict) else "no text"
    except UnicodeDecodeError:
        yield text.offset, "", "not UTF-8"
    except MemoryError:
        yield text.offset, "", streams.TOO_LARGE
    except (ValueError, RecursionError):
        yield text.offset, "", NOT_JSON


def _rows_in(value: Any) -> list[Any]:
    """Return the rows of a value: those of a list, of an object that holds a list or nothing but rows."""
    if isinstance(value, list):
        return value or [value]
    if isinstance(value, dict) and value:
        lists = [inner for inner in value.values() if isinstance(inner, list) and inner]
        if len(lists) == 1 and all(isinstance(item, dict) for item in lists[0]):
            return (
                [value] if any(isinstance(value.get(key), str) for key in ("text", "content")) else lists[0]
            )
        if all(isinstance(inner, dict) for inner in value.values()):
            return list(value.values())
    return [value]


def _parquet(path: Path, texts: tuple[str, ...], others: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=streams.CHUNK) as file:
            names = file.schema_arrow.names
            columns = [name for name in (*texts, *others) if name in names]
            if not set(columns) & set(texts):
                raise UserError(
                    f"no column {', '.join(texts)} in this Parquet file; it has {', '.join(names)}"
                )
            number = 0
            for group in range(file.num_row_groups):
                for row in _group(file, group, columns, texts):
                    yield number, "", row
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        size = path.stat().st_size
        raise UserError(f"the Parquet file of {size:,} bytes is damaged or ends early") from error


def _group(
    file: Any, number: int, columns: list[str], texts: tuple[str, ...]
) -> Iterator[dict[str, Any] | str]:
    """Rows of a row group, as many at once as are no larger together than one may be."""
    group = file.metadata.row_group(number)
    chunks = [group.column(at) for at in range(group.num_columns)]
    own = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    size = max((chunk.total_uncompressed_size for chunk in own), default=0)
    if size > streams.LARGEST_RECORD and group.num_rows == 1:
        yield streams.TOO_LARGE
        return
    at_once = max(1, min(BATCH_ROWS, streams.LARGEST_RECORD * group.num_rows // max(1, 4 * size)))
    for batch in file.iter_batches(columns=columns, batch_size=at_once, row_groups=[number]):
        yield from _batch(batch, texts)


def _batch(batch: Any, texts: tuple[str, ...]) -> Iterator[dict[str, Any] | str]:
    """Rows of a batch; texts of type binary are decoded where they are UTF-8."""
    for at in range(batch.num_rows):
        one = batch.slice(at, 1)
        # What a slice refers to is not copied; nbytes counts its own bytes.
        if one.nbytes > streams.LARGEST_RECORD:
            yield streams.TOO_LARGE
            continue
        (row,) = one.to_pylist()
        for name in texts:
            if isinstance(value := row.get(name), bytes):
                row[name] = _decoded(value)
        yield row


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
