"""Real raw files: all records become documents or are skipped with a reason, and the text is clean."""

import random
import re
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from puna.corpus.filters import language
from puna.corpus.readers.latex import arxiv
from puna.corpus.readers.plain import book, stackexchange
from puna.corpus.readers.web import warc
from puna.corpus.readers.wiki import wikipedia
from puna.corpus.record import RawDocument, SkippedRecord, TruncatedFile
from puna.errors import UserError
from tests.timing import within


def read_all(reader: object, paths: list[Path]) -> tuple[list[RawDocument], Counter[str], list[str]]:
    found: list[RawDocument] = []
    skipped: Counter[str] = Counter()
    damaged = []
    for path in paths:
        try:
            for item in reader.read(path):  # type: ignore[attr-defined]
                if isinstance(item, SkippedRecord):
                    skipped[item.reason] += 1
                else:
                    found.append(item)
        except UserError as error:
            damaged.append(f"{path.name}: {error}")
    return found, skipped, damaged


def test_web_archives(data: Path) -> None:
    found, skipped, damaged = read_all(warc, sorted((data / "raw" / "warc").iterdir()))
    assert len(found) > 250 and sum(skipped.values()) > 100
    assert all(item.text and item.url for item in found)
    assert skipped["malformed record"] and len(damaged) < 5
    assert any("inside the record at byte" in message for message in damaged)


def test_no_record_is_missed_that_another_reader_finds(data: Path) -> None:
    fastwarc = pytest.importorskip("fastwarc.warc")
    kinds = fastwarc.WarcRecordType
    compared = 0
    for path in sorted((data / "raw" / "warc").iterdir()):
        theirs = []
        try:
            for record in fastwarc.ArchiveIterator(str(path), parse_http=False):
                if record.record_type in (kinds.response, kinds.resource, kinds.conversion, kinds.revisit):
                    theirs.append((record.headers.get("WARC-Target-URI") or record.record_id).strip("<>"))
        except Exception:  # files that it cannot read are not compared
            continue
        ours: list[str] = []
        try:
            for item in warc.read(path):
                ours.append(item.url)
        except TruncatedFile as error:
            ours.append(error.url)
        assert not Counter(theirs) - Counter(ours), path.name
        compared += len(theirs)
    assert compared > 900


def test_wikipedia(data: Path) -> None:
    paths = sorted((data / "raw" / "wikipedia").rglob("*.xml*"))
    found, skipped, _ = read_all(wikipedia, [path for path in paths if path.is_file()])
    assert len(found) > 200 and skipped["redirect"] > 100
    text = "\n".join(item.text for item in found)
    per_million = {mark: 1e6 * text.count(mark) / len(text) for mark in ("[[", "{{", "{|", "<ref", "'''")}
    assert all(count < 30 for count in per_million.values()), per_million


def test_stackexchange(data: Path) -> None:
    found, _, _ = read_all(stackexchange, sorted((data / "raw" / "stackexchange").rglob("Posts.xml")))
    assert len(found) > 1000
    assert all("\n\nA: " in item.text for item in found)
    assert sum(bool(re.search(r"</?(p|code|a|li)[ >]", item.text)) for item in found) < 0.02 * len(found)


def test_arxiv(data: Path) -> None:
    found, _, damaged = read_all(arxiv, sorted((data / "raw" / "arxiv").iterdir()))
    assert len(found) >= 15 and not damaged
    assert sum(item.text.startswith(("\\section", "\\chapter")) for item in found) >= 0.7 * len(found)
    assert not any("\\begin{thebibliography}" in item.text or "\\newcommand" in item.text for item in found)


def test_books(data: Path) -> None:
    paths = sorted((data / "raw" / "gutenberg").iterdir())
    found, _, damaged = read_all(book, [path for path in paths if path.is_file()])
    assert len(found) >= 10 and not damaged
    assert not any(re.search(r"\*\*\* ?(START|END) OF TH", item.text) for item in found)


def test_pages_of_many_languages_are_of_their_language(data: Path) -> None:
    total = right = 0
    for path in sorted((data / "raw" / "html_multilingual").glob("*.warc.gz")):
        expected = path.name.split("-")[1].partition("_")[0]
        for item in read_all(warc, [path])[0]:
            if len(item.text) >= 500:
                total += 1
                right += language.identify(item.text)[0] == expected
    assert total > 100 and right > 0.9 * total


@pytest.mark.parametrize(
    ("reader", "pattern"),
    [(warc, "warc/*"), (arxiv, "arxiv/*/*.tex"), (book, "gutenberg/*"), (stackexchange, "stackexchange/*/*")],
)
def test_damaged_files_end_as_documents_or_as_an_error_for_people(
    data: Path, tmp_path: Path, reader: object, pattern: str
) -> None:
    paths = [path for path in sorted((data / "raw").glob(pattern)) if path.is_file()]
    chance = random.Random(11)
    for _ in range(60):
        path = chance.choice(paths)
        content = bytearray(path.read_bytes()[:100_000])
        at, kind = chance.randrange(len(content)), chance.randrange(4)
        if kind == 0:
            del content[at:]
        elif kind == 1:
            del content[at : at + chance.randrange(500)]
        elif kind == 2:
            content[at:at] = content[:at][-chance.randrange(1, 500) :]
        else:
            for _ in range(chance.choice([1, 10, 100])):
                content[chance.randrange(len(content))] = chance.randrange(256)
        damaged = tmp_path / path.name
        damaged.write_bytes(content)
        within(10, partial(read_or_refuse, reader, damaged))


def read_or_refuse(reader: object, damaged: Path) -> None:
    try:
        for item in reader.read(damaged):  # type: ignore[attr-defined]
            assert isinstance(item, RawDocument | SkippedRecord)
    except UserError as error:
        assert str(error)
