"""What was saved is found again as it was then, or nothing is."""

from pathlib import Path

import pytest

from puna.corpus.saved import STATE, Saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Saved twice: of `a` 4 bytes count, of `in/b` 2; more was written since."""
    saved = Saved(tmp_path, "key")
    assert saved.load() is None
    (tmp_path / "in").mkdir()
    a, b = tmp_path / "a.bin", tmp_path / "in" / "b.bin"
    a.write_bytes(b"123")
    saved.save({"n": 1}, [a])
    a.write_bytes(b"1234")
    b.write_bytes(b"56")
    saved.save({"n": 2}, [a, b])
    a.write_bytes(b"12345")
    b.write_bytes(b"567")
    (tmp_path / "in" / "c.bin").write_bytes(b"later")
    return tmp_path


def test_files_are_cut_back_to_what_was_saved(folder: Path) -> None:
    assert Saved(folder, "key").load() == {"n": 2}
    assert {path.name: path.read_bytes() for path in folder.rglob("*.bin")} == {
        "a.bin": b"1234",
        "b.bin": b"56",
    }


def test_what_is_saved_after_that_counts(folder: Path) -> None:
    saved = Saved(folder, "key")
    saved.load()
    with (folder / "a.bin").open("ab") as file:
        file.write(b"more")
    saved.save({"n": 3}, [folder / "a.bin"])
    assert Saved(folder, "key").load() == {"n": 3}
    assert {path.name: path.read_bytes() for path in folder.rglob("*.bin")} == {"a.bin": b"1234more"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.bin", b"123"),
        ("a.bin", b"x2345"),
        ("a.bin", None),
        ("in/b.bin", b""),
        (STATE, b""),
        (STATE, b"\xff"),
        (STATE, b"0\n{}"),
        (STATE, b"[]"),
        (STATE, None),
    ],
)
def test_damage_leaves_nothing(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert Saved(folder, "key").load() is None and not list(folder.iterdir())


def test_a_changed_state_and_another_key_leave_nothing(folder: Path) -> None:
    state = folder / STATE
    state.write_text(state.read_text().replace('"n": 2', '"n": 3'))
    assert Saved(folder, "key").load() is None
    Saved(folder, "key").save({}, [])
    assert Saved(folder, "other").load() is None
