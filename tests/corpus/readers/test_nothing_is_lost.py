"""What goes into a reader comes out, or a row says why not: marked words and letters are counted."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.corpus.readers import reader
from puna.corpus.record import RawDocument, SkippedRecord
from puna.errors import UserError

MARKED = re.compile(r"q[a-j]+z[a-j]+q")
Texts = list[list[str]]  # of each record its paragraphs


def marked(record: int, number: int) -> str:
    """A word that occurs once: letters for the digits of its record and its number."""
    letters = str.maketrans("0123456789", "abcdefghij")
    return f"q{record}z{number}q".translate(letters)


def prose(record: int, sizes: list[int]) -> list[str]:
    """Paragraphs of running text, of as many words each, that hold marked words."""
    numbers = iter(range(10_000))
    return [
        " ".join(f"The {marked(record, next(numbers))} of it was there," for _ in range(size)) + " as told."
        for size in sizes
    ]


def warc(texts: Texts) -> bytes:
    out = b""
    for number, paragraphs in enumerate(texts):
        page = f"<title>Page</title><main>{''.join(f'<p>{text}</p>' for text in paragraphs)}</main>"
        status = b"404 Not Found" if number % 3 == 2 else b"200 OK"
        body = b"HTTP/1.1 " + status + b"\r\nContent-Type: text/html\r\n\r\n" + page.encode()
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/{number}\r\n"
        head += f"Content-Type: application/http;msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
        out += gzip.compress(head.encode() + body + b"\r\n\r\n")
    return out


def wet(texts: Texts) -> bytes:
    out = b""
    for number, paragraphs in enumerate(texts):
        body = "\n".join(paragraphs).encode()
        head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.example/{number}\r\n"
        out += f"{head}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        out += body + b"\r\n\r\n"
    return out


def html(texts: Texts) -> bytes:
    return f"<title>Page</title><article>{''.join(f'<p>{text}</p>' for text in texts[0])}</article>".encode()


def wikipedia(texts: Texts) -> bytes:
    pages = ""
    for number, paragraphs in enumerate(texts):
        text = ("#REDIRECT [[B]]\n" if number % 3 == 2 else "") + "\n\n".join(paragraphs)
        pages += (
            f"<page><title>Page {number}</title><ns>0</ns><revision><text>{text}</text></revision></page>"
        )
    return f"<mediawiki>{pages}</mediawiki>".encode()


def stackexchange(texts: Texts) -> bytes:
    rows = ""
    for number, paragraphs in enumerate(texts):
        body = escape("".join(f"<p>{text}</p>" for text in paragraphs[1:]) or "<p>It is.</p>")
        asked = escape(f"<p>{paragraphs[0]}</p>")
        rows += f'<row Id="{2 * number + 1}" PostTypeId="1" Title="Why" Body="{asked}"/>'
        if number % 3 != 2:
            parent = f'ParentId="{2 * number + 1}"'
            rows += f'<row Id="{2 * number + 2}" PostTypeId="2" {parent} Body="{body}"/>'
    return f"<posts>{rows}</posts>".encode()


def arxiv(texts: Texts) -> bytes:
    def paper(paragraphs: list[str]) -> bytes:
        body = "\n\n".join(paragraphs)
        start = "\\documentclass{article}\n\\begin{document}\n\\section{A}\n"
        return f"{start}{body}\n\\end{{document}}\n".encode()

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number, paragraphs in enumerate(texts):
            content = b"%PDF-1.4 " if number % 3 == 2 else paper(paragraphs)
            member = tarfile.TarInfo(f"2401.0000{number}.gz" if number % 3 != 2 else f"2401.0000{number}.pdf")
            content = gzip.compress(content) if number % 3 != 2 else content
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def book(texts: Texts) -> bytes:
    body = "\n\n".join(texts[0])
    start = "*** START OF THE PROJECT GUTENBERG EBOOK X ***"
    end = "*** END OF THE PROJECT GUTENBERG EBOOK X ***"
    return f"Title: X\n\n{start}\n\n{body}\n\n{end}\n\nThe licence of Project Gutenberg.\n".encode()


def markdown(texts: Texts) -> bytes:
    return ("# Page\n\n" + "\n\n".join(texts[0])).encode()


def lines(texts: Texts) -> bytes:
    rows = (" ".join(paragraphs).encode() for paragraphs in texts)
    return b"\n".join(b"\xff\xfe" + row if number % 3 == 2 else row for number, row in enumerate(rows))


def jsonl(texts: Texts) -> bytes:
    rows = [json.dumps({"text": "\n".join(paragraphs)}) for paragraphs in texts]
    return "\n".join(row[:-1] if number % 3 == 2 else row for number, row in enumerate(rows)).encode()


def json_value(texts: Texts) -> bytes:
    return json.dumps([{"text": "\n".join(paragraphs)} for paragraphs in texts], indent=1).encode()


def parquet(texts: Texts) -> bytes:
    out = io.BytesIO()
    column = [None if number % 3 == 2 else "\n".join(paragraphs) for number, paragraphs in enumerate(texts)]
    pq.write_table(pa.table({"text": pa.array(column, pa.string())}), out)
    return out.getvalue()


def source(paragraphs: list[str]) -> str:
    """Code without a header, whose comments hold the paragraphs, a clause a line."""
    clauses = [clause for text in paragraphs for clause in text.split(",")]
    return "x = 1\n" + "".join(f"# {clause.strip()}\nx += 1\n" for clause in clauses)


def github(texts: Texts) -> bytes:
    rows = []
    for number, paragraphs in enumerate(texts):
        named = {
            "path": f"a/{number}.py",
            "repo_name": "a/b",
            "license": "gpl-3.0" if number % 3 == 2 else "mit",
        }
        rows.append(json.dumps({"content": source(paragraphs), **named}))
    return "\n".join(rows).encode()


def code(texts: Texts) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/package.json", '{"name": "a", "version": "1", "license": "MIT"}')
        for number, paragraphs in enumerate(texts):
            folder = "vendor" if number % 3 == 2 else "lib"
            archive.writestr(f"a/{folder}/{number}.py", source(paragraphs))
    return out.getvalue()


# Reader, name of the file, what makes it, whether every third record is a bad one.
MADE: list[tuple[str, str, Callable[[Texts], bytes], bool]] = [
    ("warc", "x.warc.gz", warc, True),
    ("warc", "x.warc.wet", wet, False),
    ("html", "x.html", html, False),
    ("wikipedia", "x.xml", wikipedia, True),
    ("stackexchange", "Posts.xml", stackexchange, True),
    ("arxiv", "x.tar", arxiv, True),
    ("book", "x.txt", book, False),
    ("text", "x.md", markdown, False),
    ("lines", "x.txt", lines, True),
    ("jsonl", "x.jsonl", jsonl, True),
    ("jsonl", "x.json", json_value, False),
    ("jsonl", "x.parquet", parquet, True),
    ("github", "rows.jsonl", github, True),
    ("code", "x.zip", code, True),
]
ONE_RECORD = ("html", "book", "text")


@pytest.mark.parametrize(("name", "file", "make", "has_bad"), MADE, ids=[made[1] for made in MADE])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.lists(st.integers(8, 40), min_size=2, max_size=5), min_size=1, max_size=6))
def test_every_marked_word_comes_out_once_or_its_record_has_a_reason(
    tmp_path: Path,
    sizes: list[list[int]],
    name: str,
    file: str,
    make: Callable[[Texts], bytes],
    has_bad: bool,
) -> None:
    texts = [prose(record, own) for record, own in enumerate(sizes[:1] if name in ONE_RECORD else sizes)]
    path = tmp_path / file
    path.write_bytes(make(texts))
    items = list(reader(name)(path))
    documents = [item for item in items if isinstance(item, RawDocument)]
    skipped = [item for item in items if isinstance(item, SkippedRecord)]
    bad = [number for number in range(len(texts)) if has_bad and number % 3 == 2]
    assert len(items) == len(texts) and len(skipped) == len(bad) and all(item.reason for item in skipped)
    good = [
        word
        for number, own in enumerate(texts)
        if number not in bad
        for word in MARKED.findall(" ".join(own))
    ]
    if name == "stackexchange":  # an answer without paragraphs of its own has other words
        assert all(item.text for item in documents)
    assert Counter(MARKED.findall(" ".join(item.text for item in documents))) == Counter(good)


CUT = [  # reader, name of the file, what is in it (first what goes, then what stays), what is said of it
    (
        "html",
        "x.html",
        "<nav><li><a href='/'>{}</a></li></nav><h1>Llamas</h1><article><p>{}</p></article>",
        "boilerplate",
    ),
    (
        "book",
        "x.txt",
        "*** START OF THE PROJECT GUTENBERG EBOOK ***\n\n{1}\n\nEnd of Project Gutenberg{0}",
        "notes",
    ),
    ("text", "x.md", "---\ntitle: {}\n---\n{}", "front matter"),
    (
        "wikipedia",
        "x.xml",
        "<mediawiki><page><title>A</title><revision><text>{1}\n{{{{x|{0}}}}}</text>"
        "</revision></page></mediawiki>",
        "markup",
    ),
    (
        "arxiv",
        "x.tex",
        "\\documentclass{{a}}\\def\\x{{{}}}\\begin{{document}}\\section{{A}}{}\\end{{document}}",
        "preamble",
    ),
    (
        "github",
        "x.jsonl",
        '{{"path": "a.py", "license": "mit", "repo_name": "a/b", '
        '"content": "# Copyright 2020 {}\\n\\nx = 1\\n# {}\\n"}}',
        "licence header",
    ),
]


@pytest.mark.parametrize(("name", "file", "content", "cut"), CUT, ids=[made[0] for made in CUT])
def test_what_is_cut_from_a_document_is_told(
    tmp_path: Path, name: str, file: str, content: str, cut: str
) -> None:
    between = {"html": "</a></li><li><a href='/'>", "github": "\\n# Copyright 2021 "}.get(name, " ")
    kept = " ".join(["The llamas of the plain graze, and the wind sings."] * (1 if name == "github" else 5))
    gone = between.join(["gone"] * 200)
    (tmp_path / file).write_text(content.format(gone, kept))
    (item,) = reader(name)(tmp_path / file)
    assert isinstance(item, RawDocument) and kept in item.text and "gone" not in item.text
    assert cut in item.cut
    # Less what joins the blocks that stay.
    assert 4 * 190 <= item.whole - len(item.text) < len(gone) + 150 and 2 * len(item.text) < item.whole


def letters(text: str) -> int:
    return sum(character.isalnum() for character in text)


def test_no_file_of_the_raw_folder_loses_its_text(data: Path) -> None:
    """What is plain text already keeps all its letters; of others no record is without text and reason."""
    raw_folder = data / "raw"
    for path in sorted(raw_folder.rglob("*.wet*")):
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        bodies = re.split(rb"\r\n\r\nWARC/1\.0\r\n", raw)
        conversions = [body for body in bodies if b"WARC-Type: conversion" in body[:600]]
        expected = sum(
            letters(body.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")) for body in conversions
        )
        found = sum(letters(item.text) for item in reader("warc")(path) if isinstance(item, RawDocument))
        assert expected and found == expected, path
    for path in sorted(raw_folder.rglob("gutenberg/**/*.txt"))[:20]:
        whole = path.read_bytes().decode("utf-8", "replace")
        found = sum(letters(item.text) for item in reader("book")(path) if isinstance(item, RawDocument))
        assert found > 0.5 * letters(whole) or found > 0.5 * (letters(whole) - 40_000), path
    for name, pattern in (("warc", "warc/*.warc*"), ("wikipedia", "wikipedia/*"), ("arxiv", "arxiv/*")):
        for path in sorted(raw_folder.glob(pattern)):
            try:
                items = list(reader(name)(path))
            except UserError:
                continue  # damage, told with the file
            assert all(item.reason if isinstance(item, SkippedRecord) else item.text for item in items), path
