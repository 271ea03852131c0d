"""Licence headers of all comment styles go; everything else stays."""

import ast
import importlib.util
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.code import headers
from puna.corpus.sources import code_files
from tests.timing import within

MIT = ["Copyright (c) 2010 The Herders", "Licensed under the MIT license."]


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("a.sh", "#!/bin/sh\n# Copyright 2010 X\n# Licensed under the GPL\n\necho\n", "#!/bin/sh\necho\n"),
        (
            "a.py",
            "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# Copyright 2010 X\nx = 1\n",
            "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nx = 1\n",
        ),
        ("a.c", "/* Copyright X */\n#include <a.h>\n", "#include <a.h>\n"),
        ("a.c", "// SPDX-License-Identifier: MIT\n#define X 1\n", "#define X 1\n"),
        ("a.c", "#include <a.h>\n/* Copyright X */\n", None),
        ("a.c", "/* Copyright X */ int x;\n", None),
        ("a.c", "/* Copyright X, never closed\nint x;\n", None),
        ("a.py", "# A tool for llamas\nx = 1\n", None),
        ("a.py", '# Copyright X\n"""Docstring\nof two lines."""\n', '"""Docstring\nof two lines."""\n'),
        ("a.py", '"""Copyright 2010 X.\n\nLicensed under the MIT license.\n"""\nx = 1\n', "x = 1\n"),
        ("a.py", '"""Helpers.\n\nCopyright 2010 X.\n"""\nx = 1\n', None),
        ("a.py", '"""Reads license files."""\nx = 1\n', None),
        ("a.js", '// Copyright X\n"use strict";\n', '"use strict";\n'),
        ("a.rs", "// Copyright X\n#[macro_use]\nmod a;\n", "#[macro_use]\nmod a;\n"),
        ("a.md", "# Heading\n\nText about licences.\n", None),
        ("a.md", "<!-- Copyright 2010 X -->\n# Heading\n", "# Heading\n"),
        ("a.html", "<!DOCTYPE html>\n<!--\n  Copyright 2010 X\n-->\n<p>\n", "<!DOCTYPE html>\n<p>\n"),
        ("a.php", "<?php\n/* Copyright 2010 X */\necho 1;\n", "<?php\necho 1;\n"),
        (
            "a.php",
            "#!/usr/bin/php\n<?php /* Copyright 2010 X */\necho 1;\n",
            "#!/usr/bin/php\n<?php echo 1;\n",
        ),
        (
            "a.el",
            ";;; a.el --- Herding\n\n;; Copyright 2010 X\n\n(herd)\n",
            ";;; a.el --- Herding\n\n(herd)\n",
        ),
        ("a.tex", "% Copyright 2010 X\n\\section{A}\n", "\\section{A}\n"),
        ("a.ml", "(* Copyright 2010 X *)\nlet x = 1\n", "let x = 1\n"),
        ("a.hs", "{- Copyright 2010 X\n-}\nmodule A where\n", "module A where\n"),
        (
            "a.hs",
            "{-# LANGUAGE GADTs #-}\n-- Copyright 2010 X\nmodule A where\n",
            "{-# LANGUAGE GADTs #-}\nmodule A where\n",
        ),
        ("a.sql", "-- Copyright 2010 X\nSELECT 1;\n", "SELECT 1;\n"),
        ("a.lua", "--[[ Copyright 2010 X\n]]\nreturn 1\n", "return 1\n"),
        ("a.R", "#' Copyright of herds\nf <- 1\n", None),
        ("a.R", "# Copyright 2010 X\n#' Herds\nf <- 1\n", "#' Herds\nf <- 1\n"),
        ("a.rst", ".. Copyright 2010 X\n   and others\n\nTitle\n=====\n", "Title\n=====\n"),
        ("a.rst", ".. module:: herd\n\nTitle\n", None),
        ("a.f90", "! Copyright 2010 X\nprogram a\n", "program a\n"),
        ("Makefile", "# Copyright 2010 X\nall:\n", "all:\n"),
        (
            "a.c",
            "/*\n * herd.c: herds llamas\n * Copyright 2010 X\n * All rights reserved.\n */\nint x;\n",
            "/*\n * herd.c: herds llamas\n */\nint x;\n",
        ),
        (
            "a.c",
            "/* Copyright 2010 X\n *\n * Herds llamas. */\nint x;\n",
            "/*\n * Herds llamas. */\nint x;\n",
        ),
        (
            "a.py",
            "# Copyright 2010 X\n# This module herds llamas.\nx = 1\n",
            "# This module herds llamas.\nx = 1\n",
        ),
        (
            "a.py",
            "# Copyright 2010 The Long and Winding Name of a Company and of\n# Its Owners\nx = 1\n",
            "x = 1\n",
        ),
        (
            "a.java",
            "/**\n * Herds.\n * @author X\n * @license MIT\n */\nclass A {}\n",
            "/**\n * Herds.\n * @author X\n */\nclass A {}\n",
        ),
        ("a.c", "/* Copyright 2010 X */\n\n/* Herds. */\nint x;\n", "/* Herds. */\nint x;\n"),
        ("a.unknown", "# Copyright 2010 X\n", None),
    ],
)
def test_headers(name: str, text: str, kept: str | None) -> None:
    assert headers.without_header(text, name) == (text if kept is None else kept)


SUFFIXES = {"# ": "py", "// ": "c", "-- ": "sql", "; ": "scm", "% ": "erl", "! ": "f90", "' ": "vb"}
CODE_LINE = st.text(alphabet="abcdefgh ij=+()", min_size=1, max_size=30).filter(lambda line: line.strip())


@given(st.sampled_from(sorted(SUFFIXES)), st.lists(CODE_LINE, min_size=1, max_size=8))
def test_what_follows_a_header_stays_and_so_does_a_text_without_one(mark: str, body: list[str]) -> None:
    name = f"a.{SUFFIXES[mark]}"
    text = "\n".join(body)
    assert headers.without_header(text, name) == text
    header = "\n".join(mark + line for line in MIT)
    assert headers.without_header(f"{header}\n\n{text}", name).strip("\n") == text.strip("\n")


@given(
    st.text(alphabet="#/*-<!>\"'{}() \nCopyright 2010%;.", max_size=200),
    st.sampled_from(sorted(code_files.MARKS_BY_SUFFIX)),
)
def test_only_whole_lines_of_comments_go(text: str, extension: str) -> None:
    kept = headers.without_header(text, f"a.{extension}")
    assert headers.without_header(kept, f"a.{extension}") is not None
    assert set(kept.split("\n")) - {""} <= set(text.split("\n")) | {
        line.rstrip() for line in kept.split("\n") if not any(map(str.isalnum, line))
    }


@pytest.mark.parametrize(
    "line", ["# Copyright 2010\n", "#" * 50 + "\n", "/*\n", "/* a\n", '"""\n', "# a. \n", "\n", " "]
)
@pytest.mark.parametrize("name", ["a.py", "a.c", "a.rst"])
def test_time_is_linear(line: str, name: str) -> None:
    within(2, lambda: headers.without_header(line * 50_000, name))


@pytest.mark.parametrize("package", ["transformers", "pyarrow", "numpy"])
def test_installed_python_is_the_same_program_without_its_headers(package: str) -> None:
    folder = Path(importlib.util.find_spec(package).origin or "").parent  # type: ignore[union-attr]
    changed = 0
    step = 100 if package == "transformers" else 8
    for path in itertools.islice(sorted(folder.rglob("*.py")), 0, 4000, step):
        text = path.read_text("utf-8")
        kept = headers.without_header(text, path.name)
        changed += kept != text
        assert ast.dump(ast.parse(kept)) == ast.dump(ast.parse(text)), path
        assert "Licensed under the Apache License" not in kept[:1000]
    assert changed or package == "numpy"
