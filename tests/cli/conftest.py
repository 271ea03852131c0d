"""A finished run, made once."""

from pathlib import Path

import pytest

from tests import tiny
from tests.tiny import puna


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.toml, its raw files and the finished run out/small; tests change copies of it."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = tiny.write(folder)
    result = puna("run", recipe, "--out", folder / "out")
    assert "report: " in result.stdout
    assert result.stderr.startswith(f"{recipe} → {folder}/out/small\n")
    return folder
