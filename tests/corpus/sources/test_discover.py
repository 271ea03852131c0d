"""Files and folders find their readers, by name and by how they begin."""

import bz2
import errno
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from puna import recipe
from puna.corpus.sources import discover, fetch
from puna.errors import UserError

from .test_fetch import packed, server

__all__ = ["server"]  # a fixture


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
        "notes/one.md": b"# A note",
        "notes/two.rst": b"A note",
        "picture.png": b"\x89PNG",
    }
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_every_file_goes_to_a_reader_or_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    found, left = discover.sources([str(tmp_path)])
    relative = {reader: [os.path.relpath(uri, tmp_path) for uri in uris] for reader, uris in found.items()}
    assert relative == {
        "warc": ["crawl/a.warc.gz", "crawl/b.arc"],
        "book": ["library/one.txt"],
        "html": ["pages/index.html"],
        "arxiv": ["papers/2101.00001", "papers/2101.00002"],
        "code": ["project", "wheels/a-1.0-py3-none-any.whl"],
        "text": ["notes/one.md", "notes/two.rst"],
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
    made = recipe.load_corpus(path)
    assert made.name == "mine" and made.corpus.languages == ("is",)
    assert [source.name for source in made.corpus.sources if source.ccnet == "on"] == ["crawl"]


def test_a_file_of_addresses_stands_for_what_they_name(tmp_path: Path) -> None:
    crawl, dump = (f"https://example.org/{name}#sha256={'0' * 64}" for name in ("a.warc.gz", "dump.xml.bz2"))
    path = tmp_path / "addresses.txt"
    path.write_text(f"# a comment\n{crawl}\n\n{dump}\n")
    found, left = discover.sources([str(path)])
    assert found == {"warc": [crawl], "wikipedia": [dump]} and not left


def test_what_is_not_there_or_not_readable_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        discover.sources([str(tmp_path / "nothing")])
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"nothing here that a reader takes: .*a\.png"):
        discover.sources([str(tmp_path)])


def test_a_folder_that_cannot_be_listed_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "library":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found, left = discover.sources([str(tmp_path)])
    assert f"{tmp_path / 'library'}: Permission denied" in left and "book" not in found and "html" in found


NAMES = ["a[1].txt", "b*.txt", "c$HOME.txt", "d${HOME}.txt", "e.zip!f.txt", "g.tar.gz!h.TXT", "i.tar!j/k.txt"]
NAMES += ["l!m.txt", "no-break\xa0space.txt", "narrow\u202fAM.txt", "wide\u3000space.txt", "line\u2028.txt"]
NAMES += ["\U0001f468\u200d\U0001f469.txt", "~n.txt"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")


@pytest.mark.usefixtures("home")
def test_names_that_a_recipe_cannot_hold_as_they_are(tmp_path: Path) -> None:
    """Signs of a pattern stand for themselves; what is no text is left out and named."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("A book.")
    (tmp_path / os.fsdecode(b"c\xff.txt")).write_text("A third.")
    (tmp_path / os.fsdecode(b"d\xff")).mkdir()
    (tmp_path / os.fsdecode(b"d\xff") / "good.txt").write_text("A fourth.")
    (tmp_path / "e\n.txt").write_text("A fifth.")
    text, left = discover.recipe("mine", [str(tmp_path)], [], tmp_path / "scratch")
    assert left == [
        *(
            f"'{tmp_path}/{name}': the name is not text in UTF-8; rename it"
            for name in ("c\\udcff.txt", "d\\udcff")
        ),
        f"'{tmp_path}/e\\n.txt': the name has control characters, such as a line end; rename it",
    ]
    path = tmp_path / "made.toml"
    path.write_text(text)
    (source,) = recipe.load_corpus(path).corpus.sources
    files = [file for uri in source.uris for file in fetch.local_files("s", fetch.parse(uri), tmp_path)]
    assert sorted(file.name for file in files) == sorted(str(tmp_path / name) for name in NAMES)


def test_an_archive_whose_path_looks_like_one_of_files_in_another(tmp_path: Path) -> None:
    (tmp_path / "a$HOME.zip!").mkdir()
    path = packed(tmp_path / "a$HOME.zip!" / "b.tar.gz!c.zip", [("x/dump.xml", b"<mediawiki>")])
    ((uri,),) = discover.sources([str(tmp_path)])[0].values()
    (archive,) = fetch.local_files("s", address := fetch.parse(uri), tmp_path)
    (file,) = fetch.unpack(archive, address.members, tmp_path / "to")
    assert (archive.path, file.name) == (path, f"{path}!x/dump.xml")


def test_a_path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"p\xffq")
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "good.txt").write_text("A book.")
    (tmp_path / "link").symlink_to(folder / "in")
    for path in (folder, folder / "in", folder / "in" / "good.txt", tmp_path / "link"):
        with pytest.raises(UserError, match=r"p\\udcffq.*: the path is not text in UTF-8"):
            discover.check(tmp_path / "out", [str(path)])
        with pytest.raises(UserError, match=r"p\\udcffq.*not text in UTF-8"):
            discover.recipe("mine", [str(path)], [], tmp_path / "scratch")


def test_a_link_to_a_folder_above_gives_nothing_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "book.txt").write_text("A book.")
        links = {"self": ".", "again": ".", "above": "..", "beside": "../a", "other": "../b"}
        for link, to in links.items():
            (tmp_path / name / link).symlink_to(to)
    assert discover.sources([str(tmp_path)]) == (
        {"book": [f"{tmp_path}/a/book.txt", f"{tmp_path}/a/other/book.txt"]},
        [],
    )


@pytest.mark.parametrize(
    ("end", "reader"),
    [
        ("!*.txt", "book"),
        ("!x/*.jsonl.gz", "jsonl"),
        ("!*.html", "html"),
        ("!*Posts.xml", "stackexchange"),
        ("!*.warc.gz", "warc"),
        ("!src/*.py", "code"),
        ("", "code"),
    ],
)
def test_of_files_in_an_archive_far_away_their_ends_tell_the_reader(end: str, reader: str) -> None:
    uri = f"https://example.org/a.zip#sha256={'0' * 64}{end}"
    assert discover.sources([uri]) == ({reader: [uri]}, [])


def test_what_no_reader_takes_of_an_archive_far_away_is_told() -> None:
    told = r"nothing here that a reader takes: https://example\.org/a\.zip!\*\.png"
    with pytest.raises(UserError, match=told):
        discover.sources(["https://example.org/a.zip!*.png"])


def test_a_digest_that_is_given_is_checked_and_kept(server: tuple[str, Path], tmp_path: Path) -> None:
    base, folder = server
    digest = hashlib.sha256(packed(folder / "a.zip", [("one.txt", b"A book.")]).read_bytes()).hexdigest()
    for given in (f"#sha256={digest}", f"#sha256={digest.upper()}", ""):
        text, left = discover.recipe("mine", [f"{base}/a.zip{given}"], [], tmp_path / "downloads")
        assert f'  "{base}/a.zip#sha256={digest}!*.txt",' in text.split("\n") and not left
    (kept,) = (tmp_path / "downloads").iterdir()
    kept.unlink()
    with pytest.raises(UserError, match=rf"a\.zip has digest {digest}, the address says 0{{64}}"):
        discover.recipe("mine", [f"{base}/a.zip#sha256={'0' * 64}"], [], tmp_path / "downloads")
    assert not any((tmp_path / "downloads").iterdir())


def test_a_recipe_that_was_edited_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "narrow\u2028\u202fAM.txt").write_text("A book.")
    paths, out = [str(tmp_path / "raw")], tmp_path / "out"
    out.mkdir()
    text = discover.recipe("mine", paths, [], tmp_path / "downloads")[0] + "\n[train]\nsteps = 600\n"
    state = discover.state(paths, text)
    made = out / "recipe.toml"
    made.write_text(text)
    (out / "recipe.json").write_text(state)
    discover.check(out, paths)
    body, _, last = text.rpartition("[train]")
    told = r"recipe\.toml was edited, .*: run `puna corpus .*recipe\.toml`, .* --name, or remove .*out$"
    for edited in (
        text.replace("books = true", "books = false"),
        text + "seed = 3\n",
        text.replace("\n", "\r\n"),
        body,
        f"{body}[train]\nsteps = 3{last}",
    ):
        made.write_bytes(edited.encode())
        with pytest.raises(UserError, match=told):
            discover.check(out, paths)
    made.write_bytes(text.encode() + b"# \xff\n")
    with pytest.raises(UserError, match=r"recipe\.toml was edited"):
        discover.check(out, paths)


def test_the_state_of_a_recipe_is_beside_it(tmp_path: Path) -> None:
    """The recipe holds nothing of it; a recipe whose state is not known is not overwritten."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "book.txt").write_text("A book.")
    paths, out = [str(tmp_path / "raw"), "https://example.org/b.txt#sha256=" + "0" * 64], tmp_path / "out"
    text, _ = discover.recipe("mine", paths, [], tmp_path / "downloads")
    state = discover.state(paths, text)
    assert json.loads(state) == {"paths": sorted(paths), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert "# paths" not in text and "sha256" not in text.partition("uris")[0]
    discover.check(out, paths)  # a folder that does not exist yet
    out.mkdir()
    (out / "recipe.json").write_text(state)
    discover.check(out, paths)  # the state alone, where a first run was killed before it wrote the recipe
    (out / "recipe.toml").write_text(text)
    discover.check(out, [paths[1], os.path.relpath(paths[0])])
    with pytest.raises(UserError, match=rf'was made from "{paths[0]}", "{paths[1]}"; give .* --name'):
        discover.check(out, paths[:1])
    for unknown in ("", "{", "[]", "{}", '{"paths": 3, "sha256": ""}', state.replace("paths", "path"), None):
        (out / "recipe.json").unlink()
        if unknown is not None:
            (out / "recipe.json").write_text(unknown)
        with pytest.raises(UserError, match="was made from another recipe; give this corpus another folder"):
            discover.check(out, paths)


TEXTS = {
    "one.txt": b"A book.",
    "deep/two.TXT": b"Another.",
    "rows.jsonl.gz": gzip.compress(b"{}"),
    "a.warc.gz": b"",
    "[1]/dump.xml": b"<mediawiki>",
}
OTHERS = ("picture.png", "inner.zip", "strange.xml", "__MACOSX/._one.txt", ".DS_Store")
READERS = {
    "book": ["!*.txt", "!*.TXT"],
    "jsonl": ["!*.jsonl.gz"],
    "warc": ["!*.warc.gz"],
    "wikipedia": ["![[]1]/dump.xml"],
}
CODE = {"a-1/a.py": b"pass", "a-1/b.py": b"pass", "a-1/notes.txt": b"Text."}


def empty(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, b"")


@pytest.mark.parametrize(
    ("name", "files", "expected", "told"),
    [
        (
            "a.zip",
            {**TEXTS, **empty(*OTHERS), "strange.xml": b"<other/>"},
            READERS,
            ": 3 of the 8 files in it, such as picture.png, inner.zip, strange.xml",
        ),
        ("a.tar.gz", TEXTS, READERS, ""),
        (
            "a.tar.xz",
            empty("LICENSE", "README.md", "load.py", "a.json"),
            {"text": ["!*.md"], "jsonl": ["!*.json"]},
            ": 2 of the 4 files in it, such as LICENSE, load.py",
        ),
        ("a.zip", CODE, {"code": [""]}, ""),
        ("a.tar.gz", empty("a-1/PKG-INFO", "a-1/a.py", "a-1/b.txt", "a-1/c.txt"), {"code": [""]}, ""),
        ("2101.00001.tar.gz", empty("main.tex"), {"arxiv": [""]}, ""),
        (
            "arXiv_src_2101_001.tar",
            empty("2101/2101.00001.gz", "2101/hep-th9901001.pdf"),
            {"arxiv": [""]},
            "",
        ),
        (
            "set1234567.tar",
            empty("part-0000001.gz", "a.txt"),
            {"book": ["!*.txt"]},
            ": 1 of the 2 files in it, such as part-0000001.gz",
        ),
        (
            "papers.zip",
            empty("main.tex", "a.txt"),
            {"book": ["!*.txt"]},
            ": papers in a zip archive; unpack it, or pack them as tar",
        ),
    ],
)
def test_an_archive_is_read_by_the_readers_of_what_is_inside(
    tmp_path: Path, name: str, files: dict[str, bytes], expected: dict[str, list[str]], told: str
) -> None:
    path = packed(tmp_path / name, list(files.items()))
    found, left = discover.sources([str(tmp_path)])
    assert found == {
        reader: [f"{path}{pattern}" for pattern in patterns] for reader, patterns in expected.items()
    }
    assert left == ([f"{path}{told}"] if told else [])
    for reader, patterns in expected.items():
        for pattern in patterns if reader not in ("code", "arxiv") else ():
            address = fetch.parse(f"{path}{pattern}")
            (archive,) = fetch.local_files("s", address, tmp_path)
            assert fetch.unpack(archive, address.members, tmp_path / "to")


@pytest.mark.parametrize("name", ["./dump.xml", "x//dump.xml", "./x/./Posts.xml", "./one.txt"])
def test_the_pattern_of_a_file_fits_its_name_in_the_archive(tmp_path: Path, name: str) -> None:
    path = packed(tmp_path / "a.tar.gz", [(name, b"<mediawiki>")])
    ((uri,),) = discover.sources([str(path)])[0].values()
    address = fetch.parse(uri)
    (archive,) = fetch.local_files("s", address, tmp_path)
    assert len(fetch.unpack(archive, address.members, tmp_path / "to")) == 1


def test_archives_without_anything_to_read(tmp_path: Path) -> None:
    for name, files in (("a.zip", [("a.png", b"")]), ("b.tar", [])):
        packed(tmp_path / name, files)
    told = r"a\.zip: 1 of the 1 files in it, such as a\.png, .*b\.tar: 0 of the 0 files in it"
    with pytest.raises(UserError, match=told):
        discover.sources([str(tmp_path)])
    (tmp_path / "c.zip").write_bytes(b"PK and no more")
    found, _ = discover.sources([str(tmp_path)])
    assert found == {"code": [str(tmp_path / "c.zip")]}  # whose reader says that it is damaged


def test_a_licence_beside_texts_makes_no_package(tmp_path: Path) -> None:
    for name in ("LICENSE", "README.md", "data/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found, left = discover.sources([str(tmp_path)])
    assert found == {"text": [str(tmp_path / "README.md")], "jsonl": [str(tmp_path / "data" / "a.jsonl")]}
    assert [Path(path).name for path in left] == ["LICENSE"]
    (tmp_path / "data" / "a.py").write_text("pass")
    assert "code" not in discover.sources([str(tmp_path)])[0]  # one script beside two texts
    (tmp_path / "data" / "b.py").write_text("pass")
    assert discover.sources([str(tmp_path)]) == ({"code": [str(tmp_path)]}, [])


def test_an_address_that_names_no_format_is_one_of_a_page() -> None:
    for path in ("", "/", "/about", "/a/b?x=1.png", "/i.php?q", ":80/a.b/c"):
        assert discover.PAGE.fullmatch(f"https://h{path}"), path
    for path in ("/x.png", "/x.txt", "/a.zip!x"):
        assert not discover.PAGE.fullmatch(f"https://h{path}"), path


def test_text_files_are_told_by_their_heads(tmp_path: Path) -> None:
    heads = {
        "a.wet.txt": b"WARC/1.0\r\nWARC-Type: warcinfo\r\n",
        "b.txt": b"<!DOCTYPE html>\n<html>",
        "c.txt": b"The WARC/1.0 format.",
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head)
    found, _ = discover.sources([str(tmp_path)])
    names = {reader: [uri.rpartition("/")[2] for uri in uris] for reader, uris in found.items()}
    assert names == {"warc": ["a.wet.txt"], "html": ["b.txt"], "book": ["c.txt"]}
