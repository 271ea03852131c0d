"""What is compiled and kept."""

import ctypes
from pathlib import Path

import pytest

from puna.run import compiled


@pytest.mark.skipif(compiled.compiler() is None, reason="no C++ compiler")
def test_a_changed_header_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, header = tmp_path / "answer.cpp", tmp_path / "answer.h"
    source.write_text('#include "answer.h"\nextern "C" long long answer() { return ANSWER; }\n')
    kinds = []
    for number in (41, 42, 42):
        header.write_text(f"#define ANSWER {number}\n")
        functions = compiled.load(source, {"answer": "->n"})
        assert functions.answer() == number and functions.answer.restype is ctypes.c_int64
        kinds.append(compiled.kind(source))
    assert kinds[0] != kinds[1] == kinds[2]
    assert len(list((tmp_path / "cache").rglob("*.so"))) == 2
