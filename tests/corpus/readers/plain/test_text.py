"""Texts that stay as they are: what is cut before them, and what their titles are."""

from pathlib import Path

import pytest

from puna.corpus.readers.plain import text as reader
from puna.corpus.record import RawDocument, SkippedRecord
from puna.corpus.sources import streams
from tests.timing import within

BODY = "Some words.\n\n    code stays\n\n- and lists\n  of lines\n"


def read(tmp_path: Path, content: str | bytes) -> RawDocument | SkippedRecord:
    path = tmp_path / "note.md"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (found,) = reader.read(path)
    return found


@pytest.mark.parametrize(
    ("head", "title"),
    [
        ("", ""),
        ("# A note\n", "A note"),
        ("\n\n ## A note on C# ##\n", "A note on C#"),
        ("A note\n======\n", "A note"),
        ("======\nA note\n======\n", "A note"),
        ("= A note\n", "A note"),
        ("#+TITLE: A note\n", "A note"),
        ("### Too low to be one\n", ""),
        (
            "[![build](https://a.example/b.svg)](https://a.example) ![x](y)\n<!-- c -->\n\n"
            "# A **note** on [llamas](https://b.example)\n",
            "A note on llamas",
        ),
        ('<h1 align="center">A <b>note</b></h1>\n', "A note"),
        (".. _label:\n\n.. image:: a.png\n\n======\nA note\n======\n", "A note"),
        (":title: A note\n", "A note"),
        ("// by hand\n= A note\n", "A note"),
        ("# A note [1]\n", "A note 1"),
        ("---\n", ""),
        ("a line\nand the next\n-----\n", ""),
    ],
)
def test_a_title_is_a_heading_at_the_beginning_and_the_text_stays_whole(
    tmp_path: Path, head: str, title: str
) -> None:
    found = read(tmp_path, head + BODY)
    assert isinstance(found, RawDocument) and (found.title, found.text) == (title, head + BODY)


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ('---\ntitle: "A note"\ntags: [a]\n---\n', "A note"),
        ("\ufeff---\r\ndate: 2020-01-01\r\n---\r\n", ""),
        ("+++\ntitle = 'A note'\n+++\n", "A note"),
        ("+++\n[extra]\na = 1\n+++\n", ""),
        ("---\n# by hand\ntitle: A note # a remark\n...\n", "A note"),
        ("---\ntitle: 'It''s a note'\n---\n", "It's a note"),
        ("\n---\n标题: x\ntitle: >\n  folded\n---\n", ""),
    ],
)
def test_fields_before_a_text_are_cut(tmp_path: Path, fields: str, title: str) -> None:
    found = read(tmp_path, fields + BODY)
    assert isinstance(found, RawDocument) and (found.title, found.text) == (title, BODY)


def test_a_rule_is_no_field(tmp_path: Path) -> None:
    text = "---\nA verse between rules\n---\n" + BODY
    found = read(tmp_path, text)
    assert isinstance(found, RawDocument) and found.text == text


def test_what_is_no_text_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(tmp_path, b"\0\1") == SkippedRecord("not text", "note.md", 0)
    assert read(tmp_path, " \n") == SkippedRecord("no text", "note.md", 0)
    assert read(tmp_path, "---\na: b\n---\n") == SkippedRecord("no text", "note.md", 0)
    monkeypatch.setattr(streams, "LARGEST_RECORD", 5)
    assert read(tmp_path, "six by") == SkippedRecord(streams.TOO_LARGE, "note.md", 0)


@pytest.mark.parametrize(
    "part",
    [*" =-#\n[<", "# ", "---\n", "a: b\n", "...", "title: '", "![](", "[a](b)", "[![a](b)](c)", "![a](b)!"],
)
def test_time_is_linear(tmp_path: Path, part: str) -> None:
    def read_all() -> None:
        for head in ("---\n", "", "[", "<h1>"):
            read(tmp_path, head + part * (500_000 // len(part)) + "x")

    within(2, read_all)
