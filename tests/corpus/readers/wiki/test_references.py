"""The pages that an article cites: all forms of references, nothing hidden, linear time; and equal URLs."""

import bz2
import html
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.wiki.references import ARCHIVE, ARCHIVE_KEY, Citations, cited, references
from puna.corpus.sources.streams import xml_elements
from puna.errors import UserError
from puna.text.urls import normalise_url
from tests.timing import cpu_seconds, within

A, B, C = "http://a.example/x", "https://b.example/y?q=1", "http://c.example/"
OLD, WAYBACK = "http://old.example/p", "https://web.archive.org/web"
CASES = {
    # the tag
    f"<ref>{A}</ref>": [A],
    f'<ref name="x">{A}</ref>': [A],
    f"<ref name=x group='y'>{A}</ref>": [A],
    f"<REF\nname=x>\n{A}\n</Ref >": [A],
    f"<ref>{A}</ref><ref name=a /> text {B}": [A],
    f'<ref name="http://no.example/z" />{A}<ref>{B}</ref>': [B],
    f"<ref>{A} <ref name=q/> {B}</ref>": [A, B],
    f"<ref>{A}</ref> <ref>{A}</ref> <ref>https://www.a.example/x/#top</ref>": [A],
    f"<references>\n<ref name=a>{A}</ref>\n<ref name=b>{B}</ref>\n</references>": [A, B],
    f"{{{{reflist|refs=\n<ref name=a>{A}</ref>\n<ref name=b>{{{{cite web|url={B}|title=t}}}}</ref>}}}}": [
        A,
        B,
    ],
    f"{{{{#tag:ref|See {A}.|group=n}}}} {{{{refn|{B}}}}}": [A, B],
    # what is hidden
    f"<!-- <ref>{A}</ref> --><ref>{B}</ref>": [B],
    f"<ref>{B}<!-- {A} --></ref>": [B],
    f"<nowiki><ref>{A}</ref></nowiki><ref>{B}</ref>": [B],
    f"<ref><nowiki>{A}</nowiki> {B}</ref>": [B],
    f"<syntaxhighlight lang=xml>\n<ref>{A}</ref>\n</syntaxhighlight><pre>{{{{cite web|url={A}}}}}</pre>": [],
    f"<nowiki/><ref>{A}</ref>": [A],
    f"<nowiki><ref>{A}</ref>": [A],  # never closed: MediaWiki shows the tag and reads on
    f"<ref>{A}</ref><!-- never closed <ref>{B}</ref>": [A],
    # what is never closed
    f"<ref>{A} and no end\n\nA paragraph with {B}.": [A],
    f"<ref>{A} <ref>{B}</ref>": [A, B],
    f"<ref>{'x ' * 2_000}{A}": [],
    f"{B}</ref> <ref>{A}</ref>": [A],
    # templates
    f"<ref>{{{{cite web|url={A}|title=T}}}}</ref>": [A],
    f"<ref>{{{{cite web\n | url = {A}\n | title = T\n}}}}</ref>": [A],
    f"<ref>{{{{cite web|title=T|url={A}}}}}</ref>": [A],
    f"<ref>{{{{cite web|url={A}|archive-url=https://archive.example/1|title=T}}}}</ref>": [A],
    f"<ref>{{{{cite web|archiveurl={WAYBACK}/2010/http://old.example/|url={A}}}}}</ref>": [A],
    f"<ref>{{{{cite web|archive-url={WAYBACK}/20100102030405/{OLD}?a=1&b=2|title=T}}}}</ref>": [
        f"{OLD}?a=1&b=2"
    ],
    f"<ref>{{{{cite web|url={A}|title={{{{lang|fr|a|b={B}}}}}|chapter-url={C}}}}}</ref>": [B, A, C],
    "<ref>{{cite web|url=http://a.example/x{{!}}y&z{{=}}1|t=T}}</ref>": ["http://a.example/x%7Cy&z=1"],
    "<ref>{{cite web|url=http://a.example/Inc.|t=T}}</ref>": ["http://a.example/Inc."],
    f"<ref>{{{{Internetquelle|url={A}|archiv-url=http://web.archive.org/web/2012/{A}}}}}</ref>": [A],
    f"<ref>{{{{Lien web|url={A}|titre=T}}}} {{{{Ouvrage|lire en ligne={B}}}}}</ref>": [A, B],
    f"<ref>{{{{Cita web|url={A}|urlarchivo=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{citar web|url={A}|arquivourl=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{Ref-web|url={A}|arxiuurl=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{Citeer web|url={A}|archiefurl=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{Cytuj|url={A}|archiwum=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{Webbref|url={A}|arkivurl=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{Книга|ссылка={A}|архив=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{cite web|url={A}|архів=http://x.example}}}}</ref>": [A],
    f"<ref>{{{{Cite web|url={A}|arhiva-url=http://x.example}}}}</ref>": [A],
    f"* {{{{cite book|url={A}}}}} and {B} and {{{{official website|url={B}}}}} and [{B} link]": [A],
    f"{{{{Infobox|source={{{{cite web|url={A}}}}}|url={B}}}}}": [A],
    # addresses in text
    f"<ref>[{A} A label], see [{B}]</ref>": [A, B],
    f"<ref>Look ({A}), or {B}.</ref>": [A, B],
    f"<ref>{A}_(y) and ({A}z)</ref>": [f"{A}_(y)", f"{A}z"],
    "<ref>''http://a.example/x''</ref>": ["http://a.example/x"],
    "<ref>[http://a.example/x|y label]</ref>": ["http://a.example/x|y"],
    "<ref>[//a.example/x label] // no comment</ref>": ["https://a.example/x"],
    "<ref>http://a.example/?a=1&amp;b=2&copy=3&lt;br&gt;</ref>": ["http://a.example/?a=1&b=2&copy=3"],
    "<ref>HTTP://A.Example/X<br />next</ref>": ["HTTP://A.Example/X"],
    "<ref>[[Link|http://a.example/x]] ftp://f.example mailto:a@b.example</ref>": ["http://a.example/x"],
    "<ref>见http://a.example/x\u3000然后</ref>": ["http://a.example/x"],
    # archives that name the original
    f"<ref>{WAYBACK}/20100102030405id_/{OLD}</ref>": [OLD],
    f"<ref>{WAYBACK}/2010/www.old.example/p</ref>": ["http://www.old.example/p"],
    "<ref>https://archive.today/20100102/https://old.example/p</ref>": ["https://old.example/p"],
    "<ref>http://www.webcitation.org/query?url=http%3A%2F%2Fold.example%2Fp&date=2010</ref>": [OLD],
    "<ref>https://archive.is/AbC12 http://www.webcitation.org/5xYz</ref>": [],
    "<ref>https://archive.org/details/book</ref>": ["https://archive.org/details/book"],
}


@pytest.mark.parametrize("wikitext", CASES)
def test_cases(wikitext: str) -> None:
    assert references(wikitext) == CASES[wikitext]


PARTS = st.sampled_from(
    [
        *(
            "<ref>",
            "<ref name=a>",
            "<ref name=a/>",
            "</ref>",
            "{{",
            "}}",
            "{{cite web",
            "|",
            "url=",
            "archive-url=",
        ),
        *(
            A,
            B,
            "http://",
            "[",
            "]",
            "<!--",
            "-->",
            "<nowiki>",
            "</nowiki>",
            " ",
            "\n\n",
            "''",
            "&amp;",
            "{{!}}",
        ),
        *(f"{WAYBACK}/2010/", "//", "%", "."),
    ]
)


@given(st.one_of(st.text(), st.lists(PARTS, max_size=60).map("".join)))
def test_any_text_gives_addresses_without_markup_each_once(text: str) -> None:
    found = references(text)
    assert len({normalise_url(url) for url in found}) == len(found)
    for url in found:
        assert normalise_url(url)
        assert re.match(r"https?://", url, re.IGNORECASE) and not re.search(r"[\s<>\[\]\"]|\{\{|\}\}|''", url)


@pytest.mark.parametrize(
    "piece",
    [
        *("<ref>", "<ref ", "<nowiki>", "<!--", "{{", "{{cite web|", "|a  ", "http://a|", "[http://a"),
        *("<ref>{{cite|url=http://a.b/", "</ref", "&lt;", "}}"),
    ],
)
@pytest.mark.parametrize("start", ["", "<ref>", "<ref>{{cite web|url="])
def test_linear_time(piece: str, start: str) -> None:
    short, long = (start + piece * repeats for repeats in (4_000, 40_000))
    within(30 * cpu_seconds(lambda: references(short)) + 0.3, lambda: references(long))


PAGE = (
    "<page><title>{title}</title><ns>{ns}</ns>"
    "<revision><model>wikitext</model><text>{text}</text></revision></page>"
)


def test_a_dump_is_streamed(tmp_path: Path) -> None:
    pages = [
        ("Puna grassland", 0, f"&lt;ref&gt;{A}&lt;/ref&gt;&lt;ref&gt;{B}&lt;/ref&gt;"),
        ("Talk:Puna", 1, f"&lt;ref&gt;{A}&lt;/ref&gt;"),
    ]
    head = "<mediawiki><siteinfo><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>"
    body = head + "".join(PAGE.format(title=title, ns=ns, text=text) for title, ns, text in pages)
    dump = tmp_path / "dump.xml.bz2"
    dump.write_bytes(bz2.compress(f"{body}</mediawiki>".encode()))
    article = "https://en.wikipedia.org/wiki/Puna_grassland"
    assert list(cited(dump)) == [(article, A), (article, B)]
    dump.write_bytes(bz2.compress(body.encode()))
    found = []
    with pytest.raises(UserError, match="breaks off"):
        found.extend(cited(dump))
    plain = tmp_path / "plain.xml"
    page = PAGE.format(title="P", ns=0, text=f"&lt;ref&gt;{A}&lt;/ref&gt;")
    plain.write_text(f"<mediawiki>{page}</mediawiki>")
    assert list(cited(plain)) == [("P", A)]


SAME = [
    ["http://a.example/x", "https://a.example/x/", "http://www.a.example:80/x#part"],
    ["http://a.example/x", "HTTPS://A.Example:443/x?", "//a.example./x", "a.example/x"],
    ["http://a.example", "http://a.example/", "http://user:pass@a.example"],
    ["http://a.example", "http://a.example/?utm_source=x&utm_medium=y"],
    ["http://a.example/%c3%bc%7Ea", "http://a.example/ü~a", "http://a.example/%C3%BC~a"],
    ["http://a.example/?b=1&a=%2f", "https://www.a.example?b=1&utm_campaign=q&a=%2F"],
    ["http://bücher.example/", "http://xn--bcher-kva.example"],
    ["http://a.example/a b", "http://a.example/a%20b"],
    ["http://[2001:db8::1]:80/", "http://[2001:DB8::1]"],
]


@pytest.mark.parametrize("same", SAME)
def test_ways_to_write_one_address(same: list[str]) -> None:
    assert len({normalise_url(url) for url in same}) == 1 and normalise_url(same[0])


def test_other_addresses_stay_apart() -> None:
    paths = ["/x", "/X", "/x?a=1", "/x?a=2", ":8080/x", "/x?b=1&a=1", "/x?a=1&b=1", "/%2Fx", "/x/y"]
    others = ["www.example", "b.a.example/x", *(f"a.example{path}" for path in paths)]
    assert len({normalise_url(f"http://{url}") for url in others}) == len(others)
    for url in ("", "mailto:a@b.example", "javascript:void(0)", "ftp://a.example/x", "data:text/html,x"):
        assert normalise_url(url) == ""
    for url in ("http://", "http:///x", "http://a b/"):
        assert normalise_url(url) == ""


URLS = st.sampled_from([url for same in SAME for url in same])


@given(st.lists(URLS), URLS)
def test_citations_are_a_set_of_pages(urls: list[str], wanted: str) -> None:
    found = Citations(iter([*urls, "mailto:a@b.example"]))
    pages = {normalise_url(url) for url in urls}
    assert len(found) == len(pages) and (wanted in found) == (normalise_url(wanted) in pages)
    assert "http://other.example/" not in found and "" not in found and "mailto:a@b.example" not in found


HOSTS = st.sampled_from(
    [
        *("a.example", "www.A.example", "www.www.b", "a.example.", "bücher.example", "[::1]"),
        *("a.example:80", "a.example:81", "x@a.b"),
    ]
)
SCHEMES = st.sampled_from(["http://", "https://", "//", ""])


@given(st.one_of(st.text(), st.builds("{}{}/{}".format, SCHEMES, HOSTS, st.text())))
def test_normalising_twice_changes_nothing(url: str) -> None:
    once = normalise_url(url)
    assert normalise_url(once) == once and once.isascii()


def test_real_articles(data: Path) -> None:
    dumps = sorted((data / "raw" / "wikipedia").glob("minidump-*wiki.xml.bz2"))
    found = [url for dump in dumps for _, url in cited(dump)]
    assert len(found) > 3_000
    assert not [url for url in found if re.search(r"[\s<>\[\]]|\}\}|web\.archive\.org/web/\d", url)]


def test_real_references_against_a_full_parser(data: Path) -> None:
    """All external links and parameters that mwparserfromhell finds in <ref> tags are found here, too."""
    parser = pytest.importorskip("mwparserfromhell")
    ours: set[str] = set()
    theirs: set[str] = set()
    dumps = (data / "raw" / "wikipedia").glob(
        "minidump-[b-dg-ip-s]*wiki.xml.bz2"
    )  # not all: the parser is slow
    for dump in sorted(dumps):
        for element in xml_elements(dump, ("text",)):
            if "<ref" not in (text := element.text or ""):
                continue
            ours.update(normalise_url(url) for url in references(text))
            for tag in parser.parse(text).filter_tags():
                if str(tag.tag).strip().lower() != "ref":
                    continue
                inner = parser.parse(str(tag.contents or ""))
                found = [str(link.url) for link in inner.filter_external_links()]
                parameters = [item for template in inner.filter_templates() for item in template.params]
                found += [
                    str(item.value).strip() for item in parameters if not ARCHIVE_KEY.search(str(item.name))
                ]
                for url in found:
                    if re.fullmatch(r"https?://[^\s{}]+", url) and not ARCHIVE.match(url):
                        theirs.add(html.unescape(url))
    missed = {url for url in theirs if normalise_url(url) not in ours}
    assert len(theirs) > 300 and len(missed) <= 0.002 * len(theirs), missed
