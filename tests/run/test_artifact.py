"""Artifacts: all or nothing, and every change is noticed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.run import artifact
from puna.run.artifact import Artifact


def made(tmp_path: Path, name: str = "a") -> Artifact:
    work = tmp_path / f"{name}-work"
    (work / "inner").mkdir(parents=True)
    (work / "one.txt").write_text("one")
    (work / "inner" / "two.bin").write_bytes(bytes(1000))
    return artifact.commit(
        work, tmp_path / name, stage="s", fingerprint="f", inputs={"x": "y"}, metrics={"count": 2}
    )


def test_a_commit_is_whole_and_deterministic(tmp_path: Path) -> None:
    one, two = made(tmp_path, "a"), made(tmp_path, "b")
    assert one.digest == two.digest and not (tmp_path / "a-work").exists()
    assert (tmp_path / "a" / "artifact.json").read_bytes() == (tmp_path / "b" / "artifact.json").read_bytes()
    assert one.bytes == 1003 and set(one.files) == {"one.txt", "inner/two.bin"}
    one.verify()


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "more"])
def test_every_change_is_named(tmp_path: Path, damage: str) -> None:
    one = made(tmp_path)
    path = one.path("inner/two.bin")
    if damage == "bit":
        path.write_bytes(bytes(999) + b"\1")
    elif damage == "cut":
        path.write_bytes(bytes(999))
    elif damage == "gone":
        path.unlink()
    else:
        one.path("three").write_text("")
    told = {
        "bit": "does not match its digest",
        "cut": "999 bytes instead of 1000",
        "gone": "is missing",
        "more": "does not know: three",
    }
    with pytest.raises(UserError, match=told[damage]):
        artifact.load(one.folder).verify()


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_in_the_manifest_is_noticed(at: int, bit: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        one = made(Path(folder))
        path = one.folder / "artifact.json"
        raw = bytearray(path.read_bytes())
        raw[at % len(raw)] ^= 1 << bit
        path.write_bytes(raw)
        try:
            again = artifact.load(one.folder)
        except UserError as error:
            assert "damaged" in str(error)
        else:  # a change of layout that says the same
            assert again == one


def test_what_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not an artifact: it has no artifact\.json"):
        artifact.load(tmp_path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet=st.characters(codec="utf-8")), inner),
)


@given(JSON)
def test_equal_settings_have_equal_fingerprints(value: object) -> None:
    assert artifact.fingerprint(value) == artifact.fingerprint(artifact.canonical(value))
    if isinstance(value, dict):
        assert artifact.fingerprint(value) == artifact.fingerprint(dict(reversed(value.items())))
    assert artifact.fingerprint(value) != artifact.fingerprint([value, 1])


@pytest.mark.parametrize("value", [{1, 2}, object(), lambda: 0, b"x", Path("x")])
def test_what_cannot_be_hashed_raises(value: object) -> None:
    with pytest.raises(TypeError, match="cannot fingerprint"):
        artifact.fingerprint({"a": value})


def test_nan_is_no_setting() -> None:
    with pytest.raises(ValueError, match="JSON"):
        artifact.fingerprint(float("nan"))


def test_removal_takes_the_manifest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(tmp_path)
    monkeypatch.setattr("shutil.rmtree", lambda *a, **k: None)  # as if killed right after
    artifact.remove(one.folder)
    assert one.path("one.txt").exists() and not (one.folder / "artifact.json").exists()


def test_a_manifest_inside_an_artifact_is_a_file_of_it(tmp_path: Path) -> None:
    """As where one artifact is copied into another."""
    (tmp_path / "work" / "inner").mkdir(parents=True)
    (tmp_path / "work" / "inner" / artifact.MANIFEST).write_text("{}")
    made = artifact.commit(
        tmp_path / "work", tmp_path / "made", stage="s", fingerprint="f", inputs={}, metrics={}
    )
    made.verify()
    assert list(made.files) == [f"inner/{artifact.MANIFEST}"]
    (made.folder / "inner" / artifact.MANIFEST).write_text("[]")
    with pytest.raises(UserError, match="does not match its digest"):
        made.verify()
