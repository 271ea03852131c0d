"""Files and folders find their readers, by name and by how they begin."""

import bz2
import errno
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from puna import recipe
from puna.corpus import discover, fetch
from puna.errors import UserError

from .test_fetch import packed


def make(folder: Path) -> None:
    contents = {
        "crawl/a.warc.gz": gzip.compress(b"WARC/1.0\r\n"),
        "crawl/b.arc": b"filedesc://",
        "wiki/dump-articles.xml.bz2": bz2.compress(b"<mediawiki><page></page></mediawiki>"),
        "wiki/strange.xml": b"<other/>",
        "site/Posts.xml": b"<posts></posts>",
        "papers/2101.00001/main.tex": b"\\documentclass{article}",
        "papers/2101.00002/src/main.tex": b"\\documentclass{article}",
        "library/one.txt": b"A book.",
        "library/.hidden.txt": b"not a book",
        "rows/part.jsonl.gz": gzip.compress(b"{}"),
        "pages/index.html": b"<html></html>",
        "project/LICENSE": b"MIT",
        "project/src/a.py": b"pass",
        "wheels/a-1.0-py3-none-any.whl": b"PK",
        "picture.png": b"\x89PNG",
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_every_file_goes_to_a_reader_or_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    found, left = discover.sources([str(tmp_path)])
    assert {reader: [str(Path(uri).relative_to(tmp_path)) for uri in uris] for reader, uris in found.items()} == {
        "warc": ["crawl/a.warc.gz", "crawl/b.arc"],
        "book": ["library/one.txt"],
        "html": ["pages/index.html"],
        "arxiv": ["papers/2101.00001", "papers/2101.00002"],
        "code": ["project", "wheels/a-1.0-py3-none-any.whl"],
        "jsonl": ["rows/part.jsonl.gz"],
        "stackexchange": ["site/Posts.xml"],
        "wikipedia": ["wiki/dump-articles.xml.bz2"],
    }
    assert sorted(Path(path).name for path in left) == ["picture.png", "strange.xml"]


def test_the_recipe_is_one(tmp_path: Path) -> None:
    make(tmp_path)
    text, _ = discover.recipe("mine", [str(tmp_path)], ["is"], tmp_path / "scratch")
    path = tmp_path / "made.toml"
    path.write_text(text)
    made = recipe.load(path)
    assert (
        made.name == "mine"
        and made.corpus.languages == ("is",)
        and [source.name for source in made.corpus.sources if source.ccnet == "on"] == ["crawl"]
    )


def test_a_file_of_addresses_stands_for_what_they_name(tmp_path: Path) -> None:
    digest = "0" * 64
    path = tmp_path / "addresses.txt"
    path.write_text(f"# a comment\nhttps://example.org/a.warc.gz#sha256={digest}\n\nhttps://example.org/dump.xml.bz2#sha256={digest}\n")
    found, left = discover.sources([str(path)])
    assert (
        found
        == {
            "warc": [f"https://example.org/a.warc.gz#sha256={digest}"],
            "wikipedia": [f"https://example.org/dump.xml.bz2#sha256={digest}"],
        }
        and not left
    )


def test_what_is_not_there_or_not_readable_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        discover.sources([str(tmp_path / "nothing")])
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"nothing here that a reader takes: .*a\.png"):
        discover.sources([str(tmp_path)])


def test_a_folder_that_cannot_be_listed_is_named_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "library":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found, left = discover.sources([str(tmp_path)])
    assert f"{tmp_path / 'library'}: Permission denied" in left and "book" not in found and "html" in found


def test_names_that_a_recipe_cannot_hold_as_they_are(tmp_path: Path) -> None:
    """Signs of a pattern stand for themselves; what is no text is left out and named."""
    (tmp_path / "a[1].txt").write_text("A book.")
    (tmp_path / "b*.txt").write_text("Another.")
    (tmp_path / os.fsdecode(b"c\xff.txt")).write_text("A third.")
    text, (left,) = discover.recipe("mine", [str(tmp_path)], [], tmp_path / "scratch")
    assert left.endswith("c\\udcff.txt': the name is not text in UTF-8; rename it")
    path = tmp_path / "made.toml"
    path.write_text(text)
    (source,) = recipe.load(path).corpus.sources
    files = [file for uri in source.uris for file in fetch.local_files("s", fetch.parse(uri), tmp_path)]
    assert [file.name for file in files] == [str(tmp_path / "a[1].txt"), str(tmp_path / "b*.txt")]


TEXTS = {
    "one.txt": b"A book.",
    "deep/two.TXT": b"Another.",
    "rows.jsonl.gz": gzip.compress(b"{}"),
    "a.warc.gz": b"",
    "[1]/dump.xml": b"<mediawiki>",
}
CODE = {"a-1/a.py": b"pass", "a-1/b.py": b"pass", "a-1/notes.txt": b"Text."}


@pytest.mark.parametrize(
    ("name", "files", "expected", "told"),
    [
        (
            "a.zip",
            {**TEXTS, "picture.png": b"", "inner.zip": b"", "strange.xml": b"<other/>", "__MACOSX/._one.txt": b"", ".DS_Store": b""},
            {"book": ["!*.txt", "!*.TXT"], "jsonl": ["!*.jsonl.gz"], "warc": ["!*.warc.gz"], "wikipedia": ["![[]1]/dump.xml"]},
            ": 3 of the 8 files in it, such as picture.png, inner.zip, strange.xml",
        ),
        ("a.tar.gz", TEXTS, {"book": ["!*.txt", "!*.TXT"], "jsonl": ["!*.jsonl.gz"], "warc": ["!*.warc.gz"],
                             "wikipedia": ["![[]1]/dump.xml"]}, ""),
        ("a.tar.xz", {"LICENSE": b"", "README.md": b"", "load.py": b"", "a.json": b"", "b.json": b""}, {"jsonl": ["!*.json"]},
         ": 3 of the 5 files in it, such as LICENSE, README.md, load.py"),
        ("a.zip", CODE, {"code": [""]}, ""),
        ("a.tar.gz", {"a-1/PKG-INFO": b"", "a-1/a.py": b"", "a-1/b.txt": b"", "a-1/c.txt": b""}, {"code": [""]}, ""),
        ("2101.00001.tar.gz", {"main.tex": b""}, {"arxiv": [""]}, ""),
        ("arXiv_src_2101_001.tar", {"2101/2101.00001.gz": b"", "2101/hep-th9901001.pdf": b""}, {"arxiv": [""]}, ""),
        ("set1234567.tar", {"part-0000001.gz": b"", "a.txt": b""}, {"book": ["!*.txt"]},
         ": 1 of the 2 files in it, such as part-0000001.gz"),
        ("papers.zip", {"main.tex": b"", "a.txt": b""}, {"book": ["!*.txt"]}, ": papers in a zip archive; unpack it, or pack them as tar"),
    ],
)  # fmt: skip
def test_an_archive_is_read_by_the_readers_of_what_is_inside(
    tmp_path: Path, name: str, files: dict[str, bytes], expected: dict[str, list[str]], told: str
) -> None:
    path = packed(tmp_path / name, list(files.items()))
    found, left = discover.sources([str(tmp_path)])
    assert found == {reader: [f"{path}{pattern}" for pattern in patterns] for reader, patterns in expected.items()}
    assert left == ([f"{path}{told}"] if told else [])
    for reader, patterns in expected.items():
        for pattern in patterns if reader not in ("code", "arxiv") else ():
            address = fetch.parse(f"{path}{pattern}")
            (archive,) = fetch.local_files("s", address, tmp_path)
            assert fetch.unpack(archive, address.members, tmp_path / "to")


def test_archives_without_anything_to_read(tmp_path: Path) -> None:
    for name, files in (("a.zip", [("a.png", b"")]), ("b.tar", [])):
        packed(tmp_path / name, files)
    with pytest.raises(UserError, match=r"a\.zip: 1 of the 1 files in it, such as a\.png, .*b\.tar: 0 of the 0 files in it"):
        discover.sources([str(tmp_path)])
    (tmp_path / "c.zip").write_bytes(b"PK and no more")
    found, _ = discover.sources([str(tmp_path)])
    assert found == {"code": [str(tmp_path / "c.zip")]}  # whose reader says that it is damaged


def test_a_licence_beside_texts_makes_no_package(tmp_path: Path) -> None:
    for name in ("LICENSE", "README.md", "data/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found, left = discover.sources([str(tmp_path)])
    assert found == {"jsonl": [str(tmp_path / "data" / "a.jsonl")]} and [Path(path).name for path in left] == ["LICENSE", "README.md"]
    (tmp_path / "data" / "a.py").write_text("pass")
    assert discover.sources([str(tmp_path)]) == ({"code": [str(tmp_path)]}, [])
