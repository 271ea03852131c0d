"""losses.jsonl: lines appended once, known by their digest, cut at a step."""

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest

from puna.train.losses import Losses, append_line, last_loss


def written(path: Path, steps: int) -> Losses:
    losses = Losses(path)
    losses.begin()
    for step in range(1, steps + 1):
        losses.append({"step": step, "loss": 5.0 - step})
    return losses


def test_the_digest_is_that_of_the_file_and_goes_on_behind_a_cut(tmp_path: Path) -> None:
    five, three = (written(tmp_path / str(steps) / "losses.jsonl", steps) for steps in (5, 3))
    for losses in (five, three):
        assert losses.digest == hashlib.sha256(losses.path.read_bytes()).hexdigest()
    again = Losses(five.path)
    assert again.go_on(five.path, 3, three.digest) and five.path.read_bytes() == three.path.read_bytes()
    for step in (4, 5):
        again.append({"step": step, "loss": 5.0 - step})
    assert again.digest == five.digest


def test_lines_of_another_training_are_taken_over(tmp_path: Path) -> None:
    five, three = (written(tmp_path / str(steps) / "losses.jsonl", steps) for steps in (5, 3))
    own = Losses(tmp_path / "own" / "losses.jsonl")
    assert own.go_on(five.path, 3, three.digest) and own.digest == three.digest
    assert own.path.read_bytes() == three.path.read_bytes()
    assert five.path.read_bytes().count(b"\n") == 5


@pytest.mark.parametrize("content", [None, b"", b'{"step": 1, "loss": 4.0}\n{"st', b"0\n0\n0\n"])
def test_other_lines_are_refused_and_left(tmp_path: Path, content: bytes | None) -> None:
    three = written(tmp_path / "three.jsonl", 3)
    path = tmp_path / "losses.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert not Losses(path).go_on(path, 3, three.digest)
    assert (path.read_bytes() if path.exists() else None) == content


def test_the_last_loss_is_that_of_a_step_that_was_taken(tmp_path: Path) -> None:
    losses = written(tmp_path / "losses.jsonl", 3)
    losses.append({"step": 4, "loss": None, "skipped": 1})
    losses.append({"step": 5, "loss": 9.0, "gradient_norm": None, "skipped": 2})
    assert last_loss(losses.path) == 2.0


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes seven bytes and is full then."""
    losses = written(tmp_path / "losses.jsonl", 2)
    before, real = losses.path.read_bytes(), Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file, self.tell, self.truncate = file, file.tell, file.truncate

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: memoryview) -> int:
            if self.tell() > len(before):
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self.file.write(data[:7]))

    monkeypatch.setattr(Path, "open", lambda path, *how, **more: Full(real(path, *how, **more)))
    with pytest.raises(OSError, match="No space left on device") as found:
        append_line(losses.path, {"step": 3, "loss": 1.0})
    monkeypatch.undo()
    assert found.value.filename == str(losses.path) and losses.path.read_bytes() == before
