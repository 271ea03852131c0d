"""The reader of Wikipedia's dumps: which pages it skips, and how templates depend on the wiki."""

from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from puna.corpus.readers.wiki import wikipedia
from puna.corpus.record import RawDocument, SkippedRecord
from tests.timing import within


def read(folder: Path, text: str, language: str = "de", title: str = "Puna") -> RawDocument | SkippedRecord:
    path = folder / "dump.xml"
    site = f"<siteinfo><base>https://{language}.wikipedia.org/wiki/Main</base></siteinfo>"
    revision = f"<revision><text>{escape(text)}</text></revision>"
    page = f"<page><title>{title}</title><ns>0</ns>{revision}</page>"
    path.write_text(f"<mediawiki>{site}{page}</mediawiki>")
    (item,) = wikipedia.read(path)
    return item


@pytest.mark.parametrize(
    "word",
    [
        *("REDIRECT", "WEITERLEITUNG", "redirection", "перенаправление"),
        *("ПЕРЕНАПРАВЛЕННЯ", "PŘESMĚRUJ", "PATRZ", "виж"),
    ],
)
def test_redirects_in_any_language(tmp_path: Path, word: str) -> None:
    item = read(tmp_path, f"#{word} [[Andes]]")
    assert isinstance(item, SkippedRecord) and item.reason == "redirect"
    assert isinstance(read(tmp_path, "# [[Andes]] come first"), RawDocument)


def test_a_redirect_to_nowhere_takes_linear_time(tmp_path: Path) -> None:
    item = within(5, lambda: read(tmp_path, "#REDIRECT" + " " * 500_000 + "x"))
    assert isinstance(item, RawDocument)


@pytest.mark.parametrize(
    "mark",
    [
        *("{{disambiguation}}", "{{Hndis|Puna}}", "{{Begriffsklärung}}", "{{Homonymie}}"),
        *("{{неоднозначность|x}}", "{{\nDP\n}}", "__DISAMBIG__"),
    ],
)
def test_disambiguation_pages(tmp_path: Path, mark: str) -> None:
    item = read(tmp_path, f"Puna may be:\n* [[Puna (grassland)]]\n{mark}")
    assert isinstance(item, SkippedRecord) and item.reason == "disambiguation page"


def test_hatnotes_and_requests_are_no_disambiguation(tmp_path: Path) -> None:
    names = ("Begriffsklärungshinweis", "Disambiguation needed|date=May", "zie dp", "harflertydig")
    for name in names:
        assert isinstance(read(tmp_path, f"{{{{{name}}}}} The puna is high."), RawDocument)


def test_the_wikis_language_writes_numbers_and_its_title_stands_for_the_page(tmp_path: Path) -> None:
    texts = {}
    for language in ("en", "de", "fr", "xx"):
        item = read(tmp_path, "{{PAGENAME}} has {{formatnum:12345.5}} herds.", language)
        assert isinstance(item, RawDocument)
        texts[language] = item.text.partition("\n\n")[2]
    assert texts == {
        "en": "Puna has 12,345.5 herds.",
        "de": "Puna has 12.345,5 herds.",
        "fr": "Puna has 12 345,5 herds.",
        "xx": "Puna has 12,345.5 herds.",
    }


def test_a_surrogate_costs_one_page(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    pages = [
        f"<page><title>{name}</title><ns>0</ns><text>{text}</text></page>"
        for name, text in (("a", "x&#xD800;"), ("b", "Text."))
    ]
    path.write_text(f"<mediawiki>{''.join(pages)}</mediawiki>")
    bad, good = wikipedia.read(path)
    assert bad == SkippedRecord("not text", "", 0)
    assert isinstance(good, RawDocument) and good.text == "b\n\nText."


@pytest.mark.parametrize(
    ("name", "head", "stamp", "licence"),
    [
        ("dump.xml", "", "", "CC-BY-SA-3.0"),
        ("enwiki-20220801-pages-articles.xml", "", "2022-07-01T00:00:00Z", "CC-BY-SA-3.0"),
        ("enwiki-20240101-pages-articles.xml", "", "2010-01-01T00:00:00Z", "CC-BY-SA-4.0"),
        ("dump.xml", "<generator>MediaWiki 1.44.0-wmf.4</generator>", "", "CC-BY-SA-4.0"),
        ("dump.xml", "<generator>MediaWiki 1.41.0-wmf.2</generator>", "", "CC-BY-SA-3.0"),
        ("dump.xml", "", "2023-06-07T10:00:00Z", "CC-BY-SA-4.0"),
        ("dump.xml", "", "2023-06-06T10:00:00Z", "CC-BY-SA-3.0"),
    ],
)
def test_the_licence_has_the_version_of_the_dump_s_day(
    tmp_path: Path, name: str, head: str, stamp: str, licence: str
) -> None:
    written = f"<timestamp>{stamp}</timestamp>" if stamp else ""
    page = f"<page><title>A</title><ns>0</ns><revision>{written}<text>A llama.</text></revision></page>"
    (tmp_path / name).write_text(f"<mediawiki><siteinfo>{head}</siteinfo>{page}</mediawiki>")
    (item,) = wikipedia.read(tmp_path / name)
    assert isinstance(item, RawDocument) and item.licence == licence and item.date == stamp[:10]


def test_of_many_revisions_the_last_one_is_the_article(tmp_path: Path) -> None:
    dump = tmp_path / "dump.xml"
    revisions = "".join(
        f"<revision><timestamp>20{year}-01-01</timestamp><text>It is as of 20{year}.</text></revision>"
        for year in range(10, 25)
    )
    page = f"<page><title>Puna</title><ns>0</ns>{revisions}</page>"
    dump.write_text(f"<mediawiki>{page}{page.replace('Puna', 'Altiplano')}</mediawiki>")
    first, second = wikipedia.read(dump)
    assert isinstance(first, RawDocument) and first.text == "Puna\n\nIt is as of 2024."
    assert isinstance(second, RawDocument) and second.title == "Altiplano"
    assert second.licence == "CC-BY-SA-4.0"
