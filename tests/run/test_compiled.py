"""What is compiled and kept."""

import ctypes
import pwd
from pathlib import Path

import pytest

from puna.run import compiled


@pytest.mark.skipif(not compiled.compiler(), reason="no C++ compiler")
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


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "one.cpp"
    path.write_text('extern "C" long long one() { return 1; }\n')
    return path


@pytest.mark.skipif(not compiled.compiler(), reason="no C++ compiler")
def test_a_compiler_may_have_words_behind_it(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = " ".join(compiled.compiler())
    monkeypatch.setenv("CXX", f"env LANG=C {command} -O1")
    assert compiled.compiler() == ["env", "LANG=C", *command.split(), "-O1"]
    assert compiled.load(source, {"one": "->n"}).one() == 1
    assert compiled.kind(source) != "torch" and not compiled.problem(source)


@pytest.mark.parametrize(
    "cause",
    [
        "no such compiler",
        "it fails",
        "half a quotation",
        "cache cannot be written",
        "no home folder",
        "no library",
    ],
)
def test_a_library_that_does_not_load_is_not_what_computes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    if cause == "cache cannot be written":
        (tmp_path / "occupied").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "occupied"))
    elif cause == "no home folder":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    elif cause == "no library":
        (tmp_path / "compiler").write_text('#!/bin/sh\nfor last; do :; done\necho x > "$last"\n')
        (tmp_path / "compiler").chmod(0o755)
        monkeypatch.chdir(tmp_path)  # where it writes a file called --version
        monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    else:
        named = {"no such compiler": "/no/such/compiler", "it fails": "false", "half a quotation": 'g++ "'}
        monkeypatch.setenv("CXX", named[cause])
    assert compiled.kind(source) == "torch"
    assert compiled.load(source, {"one": "->n"}) is None
    assert compiled.problem(source)
