"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from puna.run.threads import bound_spinning
from tests import tiny

bound_spinning()  # before torch is imported: tests run beside each other

# The same examples on every machine, and no deadline on busy ones. HYPOTHESIS_PROFILE=default looks for new
# ones.
settings.register_profile("puna", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "puna"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data that is kept outside the repository; tests that need it skip where it is
    absent."""
    folder = Path(os.environ.get("PUNA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "raw").is_dir():
        pytest.skip(f"no real data at {folder}: set PUNA_DATA to a folder with raw/, models/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def digests_of_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tasks of evaluation first read is remembered for this session alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("puna.evaluate.data.cache", lambda: folder)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.toml, its raw files and the finished run out/small; tests change copies of it."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = tiny.write(folder)
    result = tiny.puna("run", recipe, "--out", folder / "out")
    assert "report: " in result.stdout
    assert result.stderr.startswith(f"{recipe} → {folder}/out/small\n")
    return folder
