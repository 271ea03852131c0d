"""Source code out of packages and out of rows of GitHub files: whose licence counts, what is refused and
why."""

import errno
import gzip
import io
import json
import random
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from puna.corpus.readers.code import github, package, source_file
from puna.corpus.record import RawDocument, SkippedRecord
from puna.errors import UserError

SOURCE = b"def graze(plain):\n    return [llama for llama in plain]\n"
OTHER = "licence not MIT, BSD or Apache: "
MIT_REFERENCE = b"Licensed under the MIT license."
GPL_REFERENCE = b"Licensed under the GNU General Public License."


def found_in(items: list[RawDocument | SkippedRecord]) -> list[RawDocument]:
    return [item for item in items if isinstance(item, RawDocument)]


def reasons(items: list[RawDocument | SkippedRecord]) -> list[str]:
    return [item.reason for item in items if isinstance(item, SkippedRecord)]


def wheel(path: Path, metadata: str, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "p-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: p\nVersion: 1\n{metadata}\n\nLong text"
        )
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarball(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("metadata", "files", "licence"),
    [
        ("License-Expression: MIT OR Apache-2.0", {}, "MIT OR Apache-2.0"),
        ("Classifier: License :: OSI Approved :: BSD License", {}, "BSD"),
        (
            "Classifier: License :: OSI Approved :: BSD License",
            {"LICENSE": b"Under the simplified BSD license."},
            "BSD-2-Clause",
        ),
        ("License: Apache 2.0", {}, "Apache-2.0"),
        ("License: UNKNOWN", {"p-1.dist-info/licenses/LICENSE": MIT_REFERENCE}, "MIT"),
        ("License-Expression: MIT OR GPL-2.0-only", {"LICENSE": GPL_REFERENCE}, "MIT OR GPL-2.0-only"),
    ],
)
def test_code_under_a_free_licence_is_kept(
    tmp_path: Path, metadata: str, files: dict[str, bytes], licence: str
) -> None:
    path = wheel(tmp_path / "p.whl", metadata, {"p/a.py": SOURCE, "p/data.bin": b"\0", **files})
    (found,) = found_in(list(package.read(path)))
    assert (found.licence, found.url, found.text) == (licence, "pypi:p==1/p/a.py", SOURCE.decode())


@pytest.mark.parametrize(
    ("metadata", "files", "reason"),
    [
        (
            "Classifier: License :: OSI Approved :: GNU Lesser General Public License v2 or later (LGPLv2+)",
            {},
            "LGPL",
        ),
        ("License-Expression: GPL-3.0-only", {}, "GPL-3.0-only"),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: GNU General Public License (GPL)",
            {},
            "GPL AND MIT",
        ),
        ("License: UNKNOWN", {}, "unknown"),
        ("License: MIT", {"LICENSE": b"Commons Clause. " + MIT_REFERENCE}, "MIT AND Commons-Clause"),
        ("License: MIT", {"LICENSE": GPL_REFERENCE}, "MIT AND GPL"),
        ("License: UNKNOWN", {"LICENSE": MIT_REFERENCE, "LICENSE.other": GPL_REFERENCE}, "MIT AND GPL"),
    ],
)
def test_code_under_another_licence_is_dropped(
    tmp_path: Path, metadata: str, files: dict[str, bytes], reason: str
) -> None:
    items = list(package.read(wheel(tmp_path / "p.whl", metadata, {"p/a.py": SOURCE, **files})))
    assert not found_in(items) and reasons(items) == [OTHER + reason]


def test_the_packages_own_licence_counts_not_that_of_one_inside(tmp_path: Path) -> None:
    files = {
        "a/_vendor/six-1.dist-info/METADATA": b"Name: six\nVersion: 1\nLicense: MIT\n\n",
        "a/b.py": SOURCE,
    }
    assert reasons(list(package.read(wheel(tmp_path / "p.whl", "License: GPL-3.0", files)))) == [
        OTHER + "GPL-3.0"
    ]


def test_the_licence_of_a_part_beside_the_packages_own_is_not_the_packages(tmp_path: Path) -> None:
    files = {
        "p-1.dist-info/LICENSE": b"The MIT License",
        "p-1.dist-info/LICENSE.python": b"GPL-compatible, says the PSF license agreement",
    }
    (found,) = package.read(wheel(tmp_path / "a.whl", "License: MIT", {**files, "a.py": SOURCE}))
    assert isinstance(found, RawDocument) and found.licence == "MIT"
    files["p-1.dist-info/LICENSE"] = b"GNU General Public License, version 2"
    assert reasons(
        list(package.read(wheel(tmp_path / "b.whl", "License: MIT", {**files, "a.py": SOURCE})))
    ) == [OTHER + "MIT AND GPL"]


def test_the_nearest_statement_decides(tmp_path: Path) -> None:
    files = {
        "p/a.py": SOURCE,
        "p/own.py": b"# SPDX-License-Identifier: GPL-2.0-only\n" + SOURCE,
        "p/inside/LICENSE": GPL_REFERENCE,
        "p/inside/deep/b.py": SOURCE,
        "p/inside/deep/own.py": b"# SPDX-License-Identifier: Apache-2.0\n" + SOURCE,
        "p/strange/COPYING": b"Do what I mean.",
        "p/strange/c.py": SOURCE,
    }
    items = list(package.read(wheel(tmp_path / "p.whl", "License: MIT", files)))
    assert {item.title: item.licence for item in found_in(items)} == {
        "p/a.py": "MIT",
        "p/inside/deep/own.py": "Apache-2.0",
    }
    assert reasons(items) == [OTHER + "GPL-2.0-only", OTHER + "GPL", OTHER + "LicenseRef-unknown"]


@pytest.mark.parametrize(
    ("manifest", "content", "name", "licence"),
    [
        ("PKG-INFO", "Metadata-Version: 2.1\nName: p\nVersion: 1\nLicense: MIT\n", "pypi:p==1", "MIT"),
        ("package.json", '{"name": "p", "version": "1", "license": "MIT"}', "npm:p@1", "MIT"),
        (
            "package.json",
            '{"name": "p", "version": "1", "licenses": [{"type": "MIT"}, {"type": "GPL"}]}',
            "npm:p@1",
            "MIT OR GPL",
        ),
        (
            "Cargo.toml",
            '[package]\nname = "p"\nversion = "1"\nlicense = "MIT/Apache-2.0"',
            "crates:p@1",
            "MIT OR Apache-2.0",
        ),
        (
            "pyproject.toml",
            '[project]\nname = "p"\nversion = "1"\nlicense = {text = "MIT"}',
            "pypi:p==1",
            "MIT",
        ),
        ("LICENSE", MIT_REFERENCE.decode(), "p-1.tar.gz", "MIT"),
    ],
)
def test_source_archives_of_several_kinds_equal_their_folders(
    tmp_path: Path, manifest: str, content: str, name: str, licence: str
) -> None:
    files = {
        f"p-1/{manifest}": content.encode(),
        "p-1/src/a.py": SOURCE,
        "p-1/src/a.rs": b"// Copyright 2010 X\nfn main() {}\n",
    }
    items = found_in(list(package.read(tarball(tmp_path / "p-1.tar.gz", files))))
    assert [(item.url, item.licence) for item in items] == [
        (f"{name}/p-1/src/{file}", licence) for file in ("a.py", "a.rs")
    ]
    with tarfile.open(tmp_path / "p-1.tar.gz") as archive:
        archive.extractall(tmp_path / "x", filter="data")
    assert [(item.text, item.licence) for item in found_in(list(package.read(tmp_path / "x")))] == [
        (item.text, licence) for item in items
    ]


@pytest.mark.parametrize("content", ["{", "[]", '{"license": 3}', "[" * 100_000, "\0"])
def test_broken_manifests_tell_nothing(tmp_path: Path, content: str) -> None:
    for manifest in ("package.json", "Cargo.toml", "pyproject.toml"):
        files = {manifest: content.encode(), "LICENSE": MIT_REFERENCE, "a.py": SOURCE}
        assert len(found_in(list(package.read(tarball(tmp_path / "p.tgz", files))))) == 1


def test_filters(tmp_path: Path) -> None:
    files = {
        "a/empty.py": b"\n",
        "a/latin.py": "# ö".encode("latin-1"),
        "a/long.js": b"x" * 1001,
        "a/wide.js": (b"x" * 150 + b"\n") * 5,
        "a/signs.py": b"=+-*/" * 15 + b"\n",
        "a/huge.py": b"x = 1\n" * 1_000_000,
        "a/header.py": b"# Copyright 2010 X\n",
        "a/node_modules/b/index.js": SOURCE,
        "a/third_party/b.c": SOURCE,
        "a/b.min.js": SOURCE,
        "a/b_pb2.py": SOURCE,
        "a/made.go": b"// Code generated by herd. DO NOT EDIT.\npackage a\n",
        "a/made.cs": b"// <auto-generated>\nclass A {}\n",
    }
    items = list(package.read(wheel(tmp_path / "p.whl", "License: MIT", files)))
    assert not found_in(items)
    assert reasons(items) == [
        "empty file",
        "not UTF-8",
        "line over 1,000 characters",
        "average line over 100 characters",
        "few alphanumeric characters",
        "file over 5 MB",
        "nothing but a licence header",
        *["copy of other people's code"] * 2,
        *["generated file"] * 4,
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a/generator.py", "# Generates code for herds.\nx = 1\n"),
        ("a/b.py", "x = 1  # this file was generated by hand\n"),
        ("vendors.py", "x = 1\n"),
        ("a/b.py", '"""Tools for files that are generated."""\nx = 1\n'),
    ],
)
def test_what_only_speaks_of_it_is_kept(name: str, text: str) -> None:
    assert isinstance(source_file.filter_file(text.encode(), name, "u", 0, "MIT"), RawDocument)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = wheel(tmp_path / "p.whl", "License: MIT", {"a.py": SOURCE})
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match="damaged or ends early"):
        list(package.read(path))
    path = tarball(tmp_path / "p.tar.gz", {"LICENSE": MIT_REFERENCE, "a.py": SOURCE * 5000})
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match="damaged or ends early"):
        list(package.read(path))


def read_on(path: Path) -> list[RawDocument | SkippedRecord]:
    """What is read before the damage, which is told."""
    items = []
    with pytest.raises(UserError, match="damaged or ends early"):
        for item in package.read(path):
            items.append(item)  # what came before the error is wanted
    return items


def test_an_archive_that_breaks_off_gives_what_is_before(tmp_path: Path) -> None:
    noise = random.Random(1)
    files = {
        f"p/{number:02}.py": b"# %s\n" % noise.randbytes(40).hex().encode() + SOURCE for number in range(50)
    }
    path = tarball(tmp_path / "p.tar.gz", {"LICENSE": MIT_REFERENCE, **files})
    path.write_bytes(path.read_bytes()[:-800])
    found = found_in(read_on(path))
    assert 25 < len(found) < 50 and {item.licence for item in found} == {"MIT"}
    assert [item.title for item in found] == list(files)[: len(found)]


def broken(path: Path, *names: str) -> Path:
    """A zip with wrong checksums of these files."""
    with zipfile.ZipFile(path) as archive:
        places = [archive.getinfo(name).header_offset + 30 + len(name) for name in names]
    raw = bytearray(path.read_bytes())
    for place in places:
        raw[place] ^= 1
    path.write_bytes(raw)
    return path


def test_a_damaged_file_of_a_wheel_costs_only_itself_and_is_told(tmp_path: Path) -> None:
    path = broken(wheel(tmp_path / "p.whl", "License: MIT", {f"{name}.py": SOURCE for name in "abc"}), "b.py")
    assert [item.title for item in found_in(read_on(path))] == ["a.py", "c.py"]


def test_what_a_licence_speaks_for_that_cannot_be_read_is_dropped(tmp_path: Path) -> None:
    files = {
        "a/LICENSE": MIT_REFERENCE,
        "a/a.py": SOURCE,
        "b/LICENSE": GPL_REFERENCE,
        "b/b.py": SOURCE,
        "c.py": SOURCE,
    }
    items = read_on(broken(wheel(tmp_path / "p.whl", "License: MIT", files), "a/LICENSE"))
    assert [item.title for item in found_in(items)] == ["c.py"] and reasons(items) == [
        OTHER + "LicenseRef-unknown",
        OTHER + "GPL",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LICENSE", MIT_REFERENCE.ljust(4_900_000)),
        ("package.json", b'{"name": "p", "version": "1", "license": "%s"}' % (b"x" * 4_900_000)),
        ("package.json", b'{"name": "%s", "version": "1", "license": "MIT"}' % (b"x" * 4_900_000)),
        ("PKG-INFO", b"Name: p\nVersion: 1\nLicense-Expression: MIT %s\n" % (b"x" * 4_900_000)),
    ],
)
def test_licences_and_metadata_are_not_held_in_memory(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "p.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(20):
            archive.writestr(f"{number}/{name}", content)
    tracemalloc.start()
    try:
        assert list(package.read(path)) == []
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


# Rows of GitHub files


ROWS: list[dict[str, Any]] = [
    {"content": SOURCE.decode(), "path": "herd/a.py", "repo_name": "puna/herd", "license": "mit"},
    {
        "content": "// Copyright 2010 X\n#include <a.h>\nint main;\n",
        "path": "b c.c",
        "repo_name": "puna/herd",
        "license": "bsd-3-clause",
    },
    {"content": SOURCE.decode(), "path": "a.py", "repo_name": "puna/free", "license": "gpl-3.0"},
    {
        "content": "# SPDX-License-Identifier: GPL-2.0\nx = 1\n",
        "path": "a.py",
        "repo_name": "puna/herd",
        "license": "mit",
    },
    {"content": "x", "path": "data.csv", "repo_name": "puna/herd", "license": "mit"},
    {"content": None, "path": "a.py", "repo_name": "puna/herd", "license": "mit"},
    {"content": SOURCE.decode(), "path": "a.py", "repo_name": "puna/herd", "license": None},
]


def check_rows(items: list[RawDocument | SkippedRecord]) -> None:
    assert [(item.url, item.licence, item.text, item.title) for item in found_in(items)] == [
        ("https://github.com/puna/herd/blob/HEAD/herd/a.py", "MIT", SOURCE.decode(), "herd/a.py"),
        (
            "https://github.com/puna/herd/blob/HEAD/b%20c.c",
            "BSD-3-Clause",
            "#include <a.h>\nint main;\n",
            "b c.c",
        ),
    ]
    assert reasons(items) == [
        OTHER + "gpl-3.0",
        OTHER + "GPL-2.0",
        "not a source file",
        "no text",
        OTHER + "unknown",
    ]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_rows_as_json_lines(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "rows"
    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    path.write_bytes(pack(content))
    items = list(github.read(path))
    check_rows(items)
    assert [item.offset for item in items][:2] == [0, content.index(b"\n") + 1]
    path.write_bytes(pack(content + b"{\n[]\n\xff\n"))
    assert reasons(list(github.read(path)))[-3:] == ["not valid JSON", "no text", "not UTF-8"]


def test_rows_as_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "size": 1} for row in ROWS]), path, row_group_size=3)
    items = list(github.read(path))
    check_rows(items)
    assert [item.offset for item in items] == list(range(len(ROWS)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged or ends early"):
        list(github.read(path))
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UserError, match="no column content"):
        list(github.read(path))


def test_tables_of_a_readme_keep_their_rows(tmp_path: Path) -> None:
    table = "| Kind | kg |\n|:-----|---:|\n| llama | 130 |\n| | |\n"
    readme = f"# Herd\n\nWhat an animal weighs.\n\n{table}\n    | a |\n"
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"content": readme, "path": "README.md", "repo": "r/r", "license": "mit"}))
    (found,) = found_in(list(github.read(path)))
    assert found.text == readme


@pytest.mark.parametrize(
    ("content", "fields", "licence"),
    [
        ("text", {"meta": {"path": "a.py", "repo_name": "r/r", "license": "apache-2.0"}}, "Apache-2.0"),
        ("code", {"path": "a.py", "repo_name": "r/r", "license": "bsd-2-clause"}, "BSD-2-Clause"),
        (
            "content",
            {
                "max_stars_repo_path": "a.py",
                "max_stars_repo_name": "r/r",
                "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
            },
            "(MIT) AND (Apache-2.0)",
        ),
    ],
)
def test_the_column_names_of_sets_made_from_it(
    tmp_path: Path, content: str, fields: dict[str, Any], licence: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({content: SOURCE.decode(), **fields}))
    (found,) = found_in(list(github.read(path)))
    assert (found.url, found.licence) == ("https://github.com/r/r/blob/HEAD/a.py", licence)


def test_a_file_of_a_folder_that_cannot_be_read_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "LICENSE").write_bytes(MIT_REFERENCE)
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).write_bytes(SOURCE)
    opened, closed = Path.open, {"b.py"}

    def open_(path: Path, *arguments: Any) -> Any:
        if path.name in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", open_)
    items = list(package.read(tmp_path))
    assert [item.url[-4:] for item in items] == ["a.py", "b.py", "c.py"] and reasons(items) == [
        "cannot be read"
    ]
    closed.add("LICENSE")
    with pytest.raises(UserError, match="LICENSE cannot be read: Permission denied"):
        list(package.read(tmp_path))
