"""Arrays and tables are written in pieces and appear once they are complete."""

import contextlib
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.record import Record, dropped_schema, record_schema
from puna.corpus.tables import Rows, count_rows, writing_array, writing_table


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
        with writing_array(Path(folder) / "a.npy") as array:
            for piece in pieces:
                array.add(piece)
        np.save(Path(folder) / "b.npy", np.concatenate(pieces))
        assert (Path(folder) / "a.npy").read_bytes() == (Path(folder) / "b.npy").read_bytes()


def test_an_array_that_is_not_whole_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), writing_array(tmp_path / "a.npy") as array:
        array.add(np.zeros((1, 2)))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def records(start: int, stop: int) -> list[Record]:
    return [Record(source="é", url=str(n), offset=n, text="text" * n) for n in range(start, stop)]


def test_rows_that_were_cut_back_go_on_and_are_the_table(tmp_path: Path) -> None:
    with writing_table(tmp_path / "a.parquet", dropped_schema()) as writer:
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


@contextlib.contextmanager
def no_room(size: int) -> Iterator[None]:
    """Let no file grow over a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [1_000, 60_000, 150_000])  # at the first bytes, in the middle, near the end
def test_on_a_full_disk_nothing_unfinished_stays(tmp_path: Path, size: int) -> None:
    random = np.random.default_rng(0)
    incompressible = ["".join(map(chr, random.integers(32, 2_000, 50_000))) for _ in range(3)]
    rows = Rows(tmp_path / "rows.bin", record_schema())
    for text in incompressible:
        rows.add(Record(text=text))
        rows.flush()
    with (
        no_room(size),
        pytest.raises(OSError),
        writing_table(tmp_path / "a.parquet", record_schema()) as table,
    ):
        for text in incompressible:
            table.add(Record(text=text))
            table.flush()
    with no_room(size), pytest.raises(OSError):
        rows.finish(tmp_path / "b.parquet")
    with no_room(size), pytest.raises(OSError), writing_array(tmp_path / "c.npy") as array:
        for _ in range(10):
            array.add(np.zeros(2_500))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.bin"]
    rows.finish(tmp_path / "b.parquet")  # there is room again
    assert count_rows(tmp_path / "b.parquet") == 3
