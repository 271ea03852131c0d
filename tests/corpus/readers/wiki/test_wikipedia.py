"""The reader of Wikipedia's dumps: which pages it skips, and what the templates learn about the wiki."""

import time
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from puna.corpus.readers.wiki import wikipedia
from puna.corpus.record import Found, Skipped


def read(folder: Path, text: str, language: str = "de", title: str = "Puna") -> Found | Skipped:
    path = folder / "dump.xml"
    path.write_text(
        f"<mediawiki><siteinfo><base>https://{language}.wikipedia.org/wiki/Main</base></siteinfo>"
        f"<page><title>{title}</title><ns>0</ns><revision><text>{escape(text)}</text></revision></page></mediawiki>"
    )
    (item,) = wikipedia.read(path)
    return item


@pytest.mark.parametrize(
    "word",
    [
        "REDIRECT",
        "WEITERLEITUNG",
        "redirection",
        "перенаправление",
        "ПЕРЕНАПРАВЛЕННЯ",
        "PŘESMĚRUJ",
        "PATRZ",
        "виж",
    ],
)
def test_redirects_in_any_language(tmp_path: Path, word: str) -> None:
    item = read(tmp_path, f"#{word} [[Andes]]")
    assert isinstance(item, Skipped) and item.reason == "redirect"
    assert isinstance(read(tmp_path, "# [[Andes]] come first"), Found)


def test_a_redirect_to_nowhere_takes_linear_time(tmp_path: Path) -> None:
    started = time.process_time()
    assert isinstance(read(tmp_path, "#REDIRECT" + " " * 500_000 + "x"), Found)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "mark",
    [
        "{{disambiguation}}",
        "{{Hndis|Puna}}",
        "{{Begriffsklärung}}",
        "{{Homonymie}}",
        "{{неоднозначность|x}}",
        "{{\nDP\n}}",
        "__DISAMBIG__",
    ],
)
def test_disambiguation_pages(tmp_path: Path, mark: str) -> None:
    item = read(tmp_path, f"Puna may be:\n* [[Puna (grassland)]]\n{mark}")
    assert isinstance(item, Skipped) and item.reason == "disambiguation page"


def test_hatnotes_and_requests_are_no_disambiguation(tmp_path: Path) -> None:
    for mark in (
        "{{Begriffsklärungshinweis}}",
        "{{Disambiguation needed|date=May}}",
        "{{zie dp}}",
        "{{harflertydig}}",
    ):
        assert isinstance(read(tmp_path, f"{mark} The puna is high."), Found)


def test_the_wikis_language_writes_numbers_and_its_title_stands_for_the_page(tmp_path: Path) -> None:
    texts = {}
    for language in ("en", "de", "fr", "xx"):
        item = read(tmp_path, "{{PAGENAME}} has {{formatnum:12345.5}} herds.", language)
        assert isinstance(item, Found)
        texts[language] = item.text.partition("\n\n")[2]
    assert texts == {
        "en": "Puna has 12,345.5 herds.",
        "de": "Puna has 12.345,5 herds.",
        "fr": "Puna has 12 345,5 herds.",
        "xx": "Puna has 12,345.5 herds.",
    }


def test_half_a_pair_of_utf16_costs_one_page(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml"
    pages = "".join(
        f"<page><title>{name}</title><ns>0</ns><text>{text}</text></page>"
        for name, text in [("a", "x&#xD800;"), ("b", "Text.")]
    )
    path.write_text(f"<mediawiki>{pages}</mediawiki>")
    bad, good = wikipedia.read(path)
    assert bad == Skipped("not text", "", 0) and isinstance(good, Found) and good.text == "b\n\nText."
