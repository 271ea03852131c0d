"""Arrays and tables are written in pieces and appear once they are complete."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.record import Record, dropped_schema
from puna.corpus.tables import Array, Rows, Writer, count_rows


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.sampled_from([(), (3,)]),
    st.sampled_from(["uint64", "uint32", "bool"]),
)
def test_an_array_written_in_pieces_is_the_array(
    counts: list[int], width: tuple[int, ...], kind: str
) -> None:
    pieces = [np.arange(count * (width or (1,))[0]).astype(kind).reshape(count, *width) for count in counts]
    with tempfile.TemporaryDirectory() as folder:
        with Array(Path(folder) / "a.npy") as array:
            for piece in pieces:
                array.add(piece)
        np.save(Path(folder) / "b.npy", np.concatenate(pieces))
        assert (Path(folder) / "a.npy").read_bytes() == (Path(folder) / "b.npy").read_bytes()


def test_an_array_that_is_not_whole_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Array(tmp_path / "a.npy") as array:
        array.add(np.zeros((1, 2)))
        raise KeyboardInterrupt
    assert not (tmp_path / "a.npy").exists()


def records(start: int, stop: int) -> list[Record]:
    return [Record(source="é", url=str(n), offset=n, text="text" * n) for n in range(start, stop)]


def test_rows_that_were_cut_back_go_on_and_are_the_table(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.parquet", dropped_schema()) as writer:
        for record in records(0, 5):
            writer.add(record)
        writer.flush()
        for record in records(5, 9):
            writer.add(record)
    rows = Rows(tmp_path / "rows.bin", dropped_schema())
    for record in records(0, 5):
        rows.add(record)
    rows.flush()
    length = rows.path.stat().st_size
    rows.add(records(7, 8)[0])
    rows.flush()
    with rows.path.open("r+b") as file:
        file.truncate(length)
    again = Rows(rows.path, dropped_schema())
    for record in records(5, 9):
        again.add(record)
    again.finish(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert count_rows(tmp_path / "b.parquet") == 9
    assert pq.ParquetFile(tmp_path / "b.parquet").num_row_groups == 2


def test_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    Rows(tmp_path / "rows.bin", dropped_schema()).finish(tmp_path / "a.parquet")
    assert count_rows(tmp_path / "a.parquet") == 0
    assert pq.read_schema(tmp_path / "a.parquet").equals(dropped_schema())
