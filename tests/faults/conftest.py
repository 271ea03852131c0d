"""`pytest tests/faults` runs what the table names of other files, too, and leaves out none for its length."""

from pathlib import Path

import pytest

from . import elsewhere

ROOT = Path(__file__).parents[2]


def pytest_configure(config: pytest.Config) -> None:
    if [Path(name).resolve() for name in config.args] == [ROOT / "tests" / "faults"]:
        found = [test for test in elsewhere() if (ROOT / test.partition("::")[0]).is_file()]
        config.args += [str(ROOT / test) for test in found]
        if config.option.markexpr == "not slow":
            config.option.markexpr = ""
