"""The small readers on hand-made files: Wikipedia, StackExchange, arXiv, books, lines, JSON lines, HTML."""

import bz2
import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from puna.corpus.readers.code import github
from puna.corpus.readers.code import package as code_package
from puna.corpus.readers.latex import arxiv
from puna.corpus.readers.plain import book, jsonl, lines, stackexchange
from puna.corpus.readers.web import html
from puna.corpus.readers.wiki import wikipedia
from puna.corpus.record import RawDocument, SkippedRecord
from puna.errors import UserError


def found_in(items: list[RawDocument | SkippedRecord]) -> list[RawDocument]:
    return [item for item in items if isinstance(item, RawDocument)]


def reasons(items: list[RawDocument | SkippedRecord]) -> list[str]:
    return [item.reason for item in items if isinstance(item, SkippedRecord)]


# Wikipedia


def dump(*pages: tuple[str, int, str]) -> bytes:
    body = "".join(
        f"<page><title>{title}</title><ns>{space}</ns><revision><text>{text}</text></revision></page>\n"
        for title, space, text in pages
    )
    namespaces = '<namespaces><namespace key="6">Bild</namespace></namespaces>'
    site = f"<siteinfo><base>https://xx.example/wiki/Main</base>{namespaces}</siteinfo>"
    return f"<mediawiki>{site}{body}</mediawiki>".encode()


def test_wikipedia_articles(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml.bz2"
    content = dump(
        ("High plain", 0, "It is [[high]]. [[Bild:a.jpg]]"),
        ("Talk:X", 1, "hm"),
        ("Old", 0, "#REDIRECT [[High plain]]"),
        ("E", 0, ""),
    )
    path.write_bytes(bz2.compress(content))
    items = list(wikipedia.read(path))
    (article,) = found_in(items)
    assert article.url == "https://xx.example/wiki/High_plain" and article.title == "High plain"
    assert article.text == "High plain\n\nIt is high."
    assert article.licence == "CC-BY-SA-3.0"
    assert reasons(items) == ["not an article", "redirect", "no text"]


def test_wikipedia_that_breaks_off(tmp_path: Path) -> None:
    content = dump(("A", 0, "One sentence."), ("B", 0, "Another sentence."))
    path = tmp_path / "dump.xml"
    path.write_bytes(content[: content.index(b"Another")])
    items = []
    with pytest.raises(UserError, match="the XML breaks off before the end of <mediawiki>"):
        for item in wikipedia.read(path):
            items.append(item)
    assert [item.title for item in found_in(items)] == ["A"]
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(bz2.compress(content)[:-20])
    with pytest.raises(UserError, match="bzip2 stream ends early"):
        list(wikipedia.read(path))


def test_one_bad_character_costs_nothing_else(tmp_path: Path) -> None:
    pages = [("A", 0, "One &#x8; sentence. \x08"), ("B", 0, "Another sentence.")]
    path = tmp_path / "dump.xml"
    path.write_bytes(dump(*pages).replace(b"<ns>0", b"<!-- a comment --><ns>0"))
    assert [item.title for item in found_in(list(wikipedia.read(path)))] == ["A", "B"]


def test_xml_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    path.write_bytes(dump(("A", 0, "One sentence.")).decode().encode("utf-16"))
    assert [item.title for item in found_in(list(wikipedia.read(path)))] == ["A"]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="breaks off before the end of <mediawiki>"):
        list(wikipedia.read(path))


# arXiv

MAIN = r"""\documentclass{article} % comment
\title{On \emph{high} plains}
\newcommand{\R}{\mathbb{R}}
\begin{document}
\maketitle
\begin{abstract}Cut.\end{abstract}
\input{parts/one}
\include{two.tex}
\bibliography{refs}
\begin{thebibliography}{9}\bibitem{a} Cut.\end{thebibliography}
\end{document}
after the end"""


def paper(folder: Path) -> Path:
    (folder / "parts").mkdir(parents=True)
    (folder / "main.tex").write_text(MAIN)
    (folder / "parts" / "one.tex").write_text(
        "Before the first section.\n\\section{First}\nIn $\\R$, 5\\% % not this\nof it.\n\\input{parts/one}"
    )
    (folder / "two.tex").write_bytes("\\section{Second}\nGröße.".encode("latin-1"))
    return folder


def test_arxiv_paper_in_input_order(tmp_path: Path) -> None:
    (found,) = found_in(list(arxiv.read(paper(tmp_path / "2101.00001v2"))))
    assert found.url == "https://arxiv.org/abs/2101.00001v2"
    words = " ".join(found.text.split())
    assert words == r"\section{First} In $\mathbb{R}$, 5\% of it. \section{Second} Größe."
    assert "high" in found.title


def test_arxiv_archive_equals_folder(tmp_path: Path) -> None:
    folder = paper(tmp_path / "2101.00001")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(folder.rglob("*.tex")):
            archive.add(path, path.relative_to(folder).as_posix())
    target = tmp_path / "2101.00001.gz"
    target.write_bytes(gzip.compress(packed.getvalue()))
    assert found_in(list(arxiv.read(target)))[0].text == found_in(list(arxiv.read(folder)))[0].text
    target.write_bytes(gzip.compress(packed.getvalue()[:1500]))
    with pytest.raises(UserError, match="tar archive is damaged"):
        list(arxiv.read(target))


def test_arxiv_without_a_root(tmp_path: Path) -> None:
    path = tmp_path / "x.tex"
    path.write_text("just text")
    assert reasons(list(arxiv.read(path))) == ["no \\documentclass"]


# Books


def test_book_without_header_licence_and_hard_lines(tmp_path: Path) -> None:
    text = (
        "The Project Gutenberg eBook of Puna\n\nTitle: Puna:\n      a tale\n\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK PUNA ***\n\n"
        "Produced by Nobody\n\nCHAPTER I\n\nIt was a high and windy plain on which no tree could\n"
        "grow, and the llamas liked it very much and\nstayed.\n\n"
        "  Verse one\n  Verse two\n\n*** END OF THE PROJECT GUTENBERG EBOOK PUNA ***\nlicence"
    )
    path = tmp_path / "1.txt"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    (found,) = found_in(list(book.read(path)))
    assert found.title == "Puna: a tale" and found.licence.startswith("public domain")
    assert found.text == (
        "CHAPTER I\n\nIt was a high and windy plain on which no tree could grow, "
        "and the llamas liked it very much and stayed.\n\n"
        "  Verse one\n  Verse two"
    )


def test_book_without_marks_is_taken_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(gzip.compress(b"A text.\n\nAnd more."))
    assert found_in(list(book.read(path)))[0].text == "A text.\n\nAnd more."
    path.write_bytes(b"\0\1\2")
    assert reasons(list(book.read(path))) == ["not text"]


# Lines, JSON lines, HTML


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfone\n\n\xff\nlast"))
    items = list(lines.read(path))
    assert [(item.text, item.offset, item.url) for item in found_in(items)] == [
        ("one", 0, "x.txt.gz#1"),
        ("last", 10, "x.txt.gz#4"),
    ]
    assert reasons(items) == ["not UTF-8"]


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "url": "u", "meta": {"title": "t", "license": "l"}},
        {"raw_content": "two"},
        {"text": ""},
        ["x"],
        3,
    ]
    path = tmp_path / "x.jsonl"
    encoded = [json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join([*encoded, b"{", b'{"text": "\xff"}', b"[" * 100_000]))
    items = list(jsonl.read(path))
    assert [(item.text, item.url, item.title, item.licence) for item in found_in(items)] == [
        ("one", "u", "t", "l"),
        ("two", "x.jsonl#2", "", ""),
    ]
    assert reasons(items) == ["no text"] * 3 + ["not valid JSON", "not UTF-8", "not valid JSON"]


def test_a_line_that_is_a_list_stands_for_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('[{"text": "one"}, {"text": "two"}, 3]\n{"text": "three"}\n')
    items = list(jsonl.read(path))
    assert [(item.text, item.url, item.offset) for item in found_in(items)] == [
        ("one", "x.json#1", 0),
        ("two", "x.json#2", 0),
        ("three", "x.json#4", 38),
    ]
    assert reasons(items) == ["no text"]


def test_parquet_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns = {
        "n": [1, 2, 3],
        "text": ["one", None, "three"],
        "url": ["u", "v", None],
        "meta": [{"license": "l"}] * 3,
    }
    pq.write_table(pa.table(columns), path)
    items = list(jsonl.read(path))
    assert [(item.text, item.url, item.offset, item.licence) for item in found_in(items)] == [
        ("one", "u", 0, "l"),
        ("three", "x.parquet#3", 2, "l"),
    ]
    assert reasons(items) == ["no text"] and len({item.raw_digest for item in found_in(items)}) == 2
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged or ends early"):
        list(jsonl.read(path))
    pq.write_table(pa.table({"n": [1]}), path)
    message = "no column text, raw_content, content in this Parquet file; it has n"
    with pytest.raises(UserError, match=message):
        list(jsonl.read(path))


def test_released_c4_as_it_is(tmp_path: Path) -> None:
    row = {
        "text": "Llamas graze.\nThey rest.",
        "timestamp": "2019-04-25T12:57:54Z",
        "url": "https://plain.example/llamas",
    }
    path = tmp_path / "c4-train.00000-of-01024.json.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for _ in range(2)).encode()))
    items = found_in(list(jsonl.read(path)))
    assert [(item.text, item.url) for item in items] == [(row["text"], row["url"])] * 2
    assert [item.offset for item in items] == [0, len(json.dumps(row)) + 1]


def test_html(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    body = f"<nav><a href=x>menu</a></nav><p>{'A sentence. ' * 20}</p>"
    path.write_text(f"<html><title>T</title><body>{body}</body></html>")
    (found,) = found_in(list(html.read(path)))
    assert found.title == "T" and found.text == ("A sentence. " * 20).strip()
    path.write_text("")
    assert reasons(list(html.read(path))) == ["no text"]


# All of them


READERS = [wikipedia, stackexchange, arxiv, book, code_package, github, lines, jsonl, html]


@pytest.mark.parametrize("reader", READERS)
def test_random_bytes_end_as_records_or_as_an_error_for_people(tmp_path: Path, reader: object) -> None:
    chance = random.Random(5)
    compressed = [b"\x1f\x8b\x08", b"BZh9", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"]
    texts = [b"", b"<mediawiki><page>", b"<posts><row ", b"\\documentclass{", b"PAR1"]
    for start in compressed + texts:
        for suffix in ("x", "x.whl", "x.tar.gz", "x.gz"):
            path = tmp_path / suffix
            path.write_bytes(start + chance.randbytes(chance.randrange(3000)))
            try:
                for item in reader.read(path):  # type: ignore[attr-defined]
                    assert isinstance(item, RawDocument | SkippedRecord)
            except UserError as error:
                assert str(error)
