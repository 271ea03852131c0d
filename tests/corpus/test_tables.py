"""Arrays are written in pieces and appear once they are complete."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.tables import Array


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
