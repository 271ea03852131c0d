"""Files and folders that are whole or not there."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from puna.run import files


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom puna.run import files\nwith files.locked(pathlib.Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with files.locked(tmp_path):
        held = subprocess.run(command, capture_output=True, text=True, check=False)
    assert held.returncode == 1 and "another run is at work" in held.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_small_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    files.write_atomically(path, "old")

    def full(part: Path, raw: bytes) -> int:
        part.write_text("ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, "new")
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "folder") as folder:
        folder.mkdir()
        (folder / "half").write_text("")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
