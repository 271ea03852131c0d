"""What the tests of several ways to find duplicates share."""

from typing import Any

import pytest

from puna.corpus.dedup import lines
from puna.text import hashing


@pytest.fixture(params=["compiled", "numpy"])
def either_code(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that run with the C++ source and without."""
    if request.param == "numpy":
        monkeypatch.setattr(lines, "library", lambda: None)
        monkeypatch.setattr(lines, "CHUNK", 50)
    elif hashing.library() is None:
        pytest.skip("no C++ compiler here")
