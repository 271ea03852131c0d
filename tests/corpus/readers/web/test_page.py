"""The main text of pages: which tags make blocks, what is kept of real pages, and that no bytes break it."""

import codecs
import html
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.web import blocks, charset, elements, main_text, page
from puna.corpus.readers.web.page import read_page
from tests.timing import within

PROSE = (
    "The llama lives on the high plains, where it eats grass, walks far, "
    "and carries what people give it to carry. It is calm. "
)


def page_text(source: bytes, content_type: str = "") -> tuple[str, str]:
    """Return title and main text of a page."""
    found = read_page(source, content_type)
    return found.title, found.text


def whole(source: str) -> str:
    """Return the text of all blocks of a page."""
    found = blocks.split(source)
    return page.render(found, np.ones(len(found.texts), bool))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>one <b>two</b>three<p>four", "one twothree\n\nfour"),
        ("a<div>b</div>c", "a\n\nb\n\nc"),
        ("<h1>Head</h1>  text\n of   it", "Head\n\ntext of it"),
        ("one<br>two<br/><br>three", "one\ntwo\nthree"),
        ("<ul><li>a<li><p>b</p><p>c</p><ol><li>d</ol></ul>e", "- a\n- b\n\nc\n\n- d\n\ne"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\n\nb\n\nc\n\nd"),
        ("<table><tr><td>a<td>b</tr><tr><th>c</th> <td><b>d</b></table>e", "a | b\nc | d\n\ne"),
        ("<table><tr><td>menu<td>" + "long " * 50 + "</table>", "menu\n" + ("long " * 50).strip()),
        ("<pre>\n  if a &lt; b:\n\n      <b>c</b>\n</pre>d", "  if a < b:\n\n      c\n\nd"),
        ("<pre>  <b>if</b> a:<br>    b</pre>", "  if a:\n    b"),
        ("a &amp; &eacute;&#8217;&nbsp;b &unknown; &#99999999999;", "a & é’ b &unknown; \ufffd"),
        ("a<script>if (b<c) '</p>'; </SCRIPT >d<style>p{}</style><!-- e > f -->g<!doctype html>", "adg"),
        ("a <svg><title>b</title><text>c</text></svg>d <button>e</button>f", "a d f"),
        ("<p title=\"a > b\" data-x='<p>'>c", "c"),
        ("a < b <3 and </ p>c", "a < b <3 and c"),
        ("<P>a</P><Li>b", "a\n\n- b"),
        ("a<script>never ends <p>b", "a"),
        ("a<p class='never ends>b</p><p>c", "a"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字", "漢字"),
    ],
)
def test_text_of_tags(source: str, text: str) -> None:
    assert whole(source) == text


def test_title_is_no_text() -> None:
    found = blocks.split("<head><title> A &amp;\n B</title></head><body>c<title>d</title>")
    assert found.title == "A & B" and found.texts == ["c"]
    assert blocks.split("<title>never ends<p>a</p></title>b").texts == ["never ends", "a", "b"]


def test_places_and_marks() -> None:
    found = blocks.split("<div class='Sidebar x'>a<p>b</p></div><nav>c</nav><p style='display: none'>d</p>")
    assert found.nodes.tolist() == [1, 2, 3, 4] and found.parents.tolist() == [-1, 0, 1, 0, 0]
    assert (found.first.tolist(), found.last.tolist()) == ([0, 0, 1, 2, 3], [4, 2, 2, 3, 4])
    nearest = {
        "side": [1, 1, -1, -1],
        "navigation": [-1, -1, 3, -1],
        "nav": [-1, -1, 3, -1],
        "hidden": [-1, -1, -1, 4],
        "p": [-1, 2, -1, 4],
    }
    for group, nodes in nearest.items():
        assert found.nearest[:, elements.GROUP_INDEX[group]].tolist() == nodes


def test_numbers_of_blocks() -> None:
    found = blocks.split(
        "<title>The Llama</title><h2 class=a>Llama, LLAMA llama</h2>"
        "<p class=A>No. It is?<p class='a'>No. It is?"
        f"<p>{PROSE}<p>{PROSE} the<p>漢字。</p><h1></h1><table><tr><td>a<td>b</table>"
    )
    assert found.levels.tolist() == [2, 0, 0, 0, 0, 0, 0]
    assert found.lengths.tolist() == [18, 10, 10, len(PROSE) - 1, len(PROSE) + 3, 3, 5]
    assert found.sizes.tolist() == [18, 10, 10, len(PROSE) - 1, len(PROSE) + 3, 6, 5]
    assert found.sentence_ends.tolist() == [0, 1, 1, 2, 2, 0, 0]
    assert found.copies.tolist() == [1, 2, 2, 1, 1, 1, 1]
    names = found.signatures[found.nodes].tolist()
    assert names[1] == names[2] != names[3] == names[4] == names[5] and len(set(names)) == 4
    assert found.words.tolist() == [3, 3, 3, 24, 25, 1, 3]
    assert found.title_words.tolist() == [1, 0, 0, 2, 2, 0, 0]


def test_characters_in_links_are_counted() -> None:
    found = blocks.split("<p>ab <a href=x>cd <b>ef</b></a> gh<div><a><i>i</i><div>j</div></a>k")
    assert found.link_lengths.tolist() == [4, 1, 1, 0]


def _elements(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    tags = st.sampled_from(["div", "section", "span", "b", "a", "ul", "blockquote"])
    content = st.lists(children, max_size=4).map(" ".join)
    return st.builds("<{0} class='x y'>{1}</{0}>".format, tags, content)


WORDS = st.text("abc xyz\u00e9\u4e2d &<", max_size=12).map(lambda text: html.escape(text, quote=False))
PIECES = st.recursive(WORDS, _elements, max_leaves=20)


@given(st.lists(PIECES, max_size=6))
def test_all_words_are_those_of_another_parser(pieces: list[str]) -> None:
    from selectolax.lexbor import LexborHTMLParser

    source = "<body>" + " ".join(pieces)
    assert whole(source).split() == LexborHTMLParser(source).body.text(separator="").split()


PILE = """
    <div> </div> <p> </p> <li> <ul> </ul> <td> <tr> <table> </table> <a> </a> <br> <pre> </pre> <b> </b> <svg>
    </svg> <title> </title> <h1> <!-- --> <script> </script> <button> <dd> <dl> < > &#x0; &#99999999999; </ <!
    = " ' class id=nav <x-y> text. 中文。
"""
TAGS = st.sampled_from([*PILE.split(), "\x00", "\u2028", "\ud800", " ", "\n", PROSE])


@given(st.lists(TAGS, max_size=60).map("".join))
def test_no_page_raises(source: str) -> None:
    title, text = page_text(source.encode("utf-8", "surrogatepass"))
    assert "\x00" not in title + text
    (title + text).encode()
    found = blocks.split(source.replace("\x00", ""))
    assert all(found.texts) and all(
        0 <= links <= len(text) for links, text in zip(found.link_lengths, found.texts, strict=True)
    )
    assert all(first <= last <= len(found.texts) for first, last in zip(found.first, found.last, strict=True))
    assert all(found.first[place] <= number < found.last[place] for number, place in enumerate(found.nodes))
    assert all(parent < node for node, parent in enumerate(found.parents))
    assert (found.lengths == [len(text) for text in found.texts]).all()


@given(st.binary(max_size=300), st.text(max_size=30))
def test_no_bytes_raise(source: bytes, content_type: str) -> None:
    page_text(source, content_type)[1].encode()


@pytest.mark.parametrize(
    "piece",
    [
        *("<div>", "<a ", '<b ="', "<!--", "</div>", "<td><p></div>", "&#9", "<svg>", "<script>", "<hr>a"),
        *("<li>x", "<title>", "<td>x", "&amp", "<title></title>", "</</"),
    ],
)
def test_time_is_linear_however_tags_are_piled(piece: str) -> None:
    source = (piece * (1_000_000 // len(piece))).encode()
    # A tenth of this is usual; quadratic work on a megabyte takes minutes.
    within(5, lambda: read_afresh([source]))


def test_tags_that_close_nothing_far_away_take_no_time() -> None:
    sources = [
        "<dl><dd><dl>" + "<div>" * 505 + "<dd>" * 250_000,
        "<div><table><tr><td>" + "<section>" * 500 + "</div>" * 200_000,
        "<title>" + "a " * 250_000 + "</title>" + "<title>b</title>" * 30_000,
    ]
    within(10, lambda: read_afresh([source.encode() for source in sources]))


def read_afresh(sources: list[bytes]) -> None:
    """Read pages without what was cached for the tags of other pages."""
    for cached in (blocks._classify, blocks._groups_of_word):
        cached.cache_clear()
    for source in sources:
        page_text(source)


@pytest.mark.parametrize("is_compiled", [True, False])
def test_oblivious_trees_against_walking_them(is_compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_compiled:
        monkeypatch.setattr(main_text, "library", lambda: None)
    chance = np.random.default_rng(1)
    trees = {
        "feature": chance.integers(0, 5, (7, 3)),
        "threshold": chance.random((7, 3)),
        "value": chance.integers(-900, 900, (7, 8)),
        "bias": np.array(-40),
    }
    columns = chance.random((5, 150))
    assert (main_text.apply(trees, columns[:2], columns[2:]) == main_text.apply(trees, columns)).all()
    for block, score in enumerate(main_text.apply(trees, columns)):
        expected = -40
        for tree in range(7):
            above = columns[trees["feature"][tree], block] > trees["threshold"][tree]
            expected += trees["value"][tree, above @ [1, 2, 4]]
        assert score == expected


def test_the_model_uses_features_that_exist() -> None:
    found = blocks.split(f"<p>{PROSE}<p>{PROSE}")
    layout = main_text.layout(found)
    columns = main_text.features(found, layout)
    more = main_text.score_features(found, layout, np.array([5, -5]), columns[0])
    assert columns.shape[1] == more.shape[1] == 2 and np.isfinite(columns).all() and np.isfinite(more).all()
    first, second = main_text.model()
    assert first["feature"].max() < len(columns) <= second["feature"].max() < len(columns) + len(more)
    for trees in (first, second):
        assert trees["value"].dtype == np.int64 and trees["value"].shape == (len(trees["feature"]), 16)


@pytest.mark.parametrize(
    "attributes",
    ["hidden", "style='color:red; display: none'", "style=visibility:hidden", "aria-hidden=true"],
)
def test_text_that_no_browser_shows_goes(attributes: str) -> None:
    secret = "Nobody can see this paragraph, which is long enough and ends as a sentence does."
    source = f"<article><p>{PROSE * 4}<div {attributes}><p>{secret}</div><p>{PROSE * 3}</article>"
    assert "Nobody" not in page_text(source.encode())[1]
    shown = source.replace(attributes, "aria-hidden=false style='display:block'")
    assert secret in page_text(shown.encode())[1]
    # A page that a script shows as a whole.
    whole_page = f"<body><div {attributes}><article><p>{PROSE * 4}<p>{secret}<p>{PROSE * 3}</article></div>"
    assert secret in page_text(whole_page.encode())[1]


def test_a_tiny_page_is_its_text() -> None:
    assert page_text(b"<p>abc</p><p>def</p><div>ghi</div>")[1] == "abc\n\ndef\n\nghi"


def test_rows_of_a_list_are_siblings_of_one_name() -> None:
    row = "<div class=row><h3>A</h3><p>B</div>"
    found = blocks.split(f"<section>{row * 3}<div class=other><p>C</div></section><p>D")
    _, siblings, rows, heading, following = main_text.layout(found)
    assert (rows > 0).tolist() == [True] * 6 + [False] * 2
    assert siblings[rows].tolist()[:6] == [3] * 6 and len(set(rows[:6].tolist())) == 3
    assert heading.tolist() == [0, 0, 2, 2, 4, 4, 4, 4] and following.tolist() == [2, 2, 4, 4, 8, 8, 8, 8]


def test_same_text_whatever_the_hash_seed() -> None:
    paragraphs = [f"<p class='x{number} side text'>{PROSE * (number % 3)}" for number in range(30)]
    source = "<div class='b a post content nav c'>" + "".join(paragraphs)
    program = f"from puna.corpus.readers.web.page import read_page; print(read_page({source.encode()!r}))"
    outputs = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(outputs) == 1 and PROSE.split()[0].encode() in outputs.pop()


def test_an_article_without_what_is_around_it() -> None:
    links = "".join(f"<li><a href=/{name}>{name}</a></li>" for name in ("Home", "News", "Shop", "Contact"))
    menu = f"<nav><ul>{links}</ul></nav>"
    paragraphs = f"<p>{PROSE * 3}</p>" * 4
    story = f"<h1>Llamas</h1>{paragraphs}<h2>Food</h2><p>{PROSE * 2}</p><ul><li>{PROSE}<li>{PROSE}</ul>"
    footer = "<footer><p>© 2020 The Llama Company. <a href=/p>Privacy</a> <a href=/i>Imprint</a></p></footer>"
    body = f"{menu}<main><article>{story}</article></main>{footer}"
    source = f"<html><title>Llamas - The Llama Company</title><body>{body}</body></html>"
    title, text = page_text(source.encode())
    assert title == "Llamas - The Llama Company"
    assert text.count("high plains") == 16 and "Food" in text and "- The llama" in text
    assert "Contact" not in text and "Privacy" not in text


def test_encodings() -> None:
    body = "<p>" + "Größe, Öl und Straße. " * 20
    for source, content_type in (
        (body.encode("latin-1"), "text/html; charset=ISO-8859-1"),
        (b"<meta charset=iso-8859-1>" + body.encode("latin-1"), ""),
        (body.encode(), ""),
        (b"<meta charset=no-such-thing>" + body.encode(), "text/html; charset=nonsense"),
    ):
        assert page_text(source, content_type)[1] == ("Größe, Öl und Straße. " * 20).strip()


@given(
    st.text(max_size=60),
    st.sampled_from(
        [b"", codecs.BOM_UTF8, b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\0"]
    ),
)
def test_a_page_split_as_bytes_equals_the_page_decoded(text: str, odd: bytes) -> None:
    source = odd + b"<title>a</title><p>" + text.encode("utf-8", "ignore") + odd
    with pytest.MonkeyPatch.context() as patch:
        plain = charset.as_utf8(source, "text/html; charset=UTF8") is not None
        assert plain or odd or "\0" in text
        split_as_bytes = page_text(source, "text/html; charset=UTF8")
        patch.setattr(page, "as_utf8", lambda *_: None)
        assert split_as_bytes == page_text(source, "text/html; charset=UTF8")


# Real pages


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    source = Path(__file__).parents[4] / "bench" / "extraction.py"
    specification = importlib.util.spec_from_file_location("bench_extraction", source)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_pages_with_gold(data: Path, bench: ModuleType) -> None:
    """The trees know these pages: bench/extraction.py measures those that they do not know."""
    pages = bench.load(data)
    assert len(pages) > 800 and {item.fold for item in pages} == set(range(bench.FOLDS))
    texts, _ = bench.run(lambda source: page_text(source)[1], pages)
    for measure, score, is_segments in (
        (bench.segment_counts, bench.segment_score, True),
        (bench.page_words, bench.word_score, False),
    ):
        pairs = zip(pages, texts, strict=True)
        counts = [measure(item, text) for item, text in pairs if (item.main is None) == is_segments]
        assert score(np.array(counts))[0] >= 0.95


def test_pages_of_other_languages_keep_their_text(data: Path, bench: ModuleType) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    ours: dict[str, int] = {}
    everything: dict[str, int] = {}
    for path in sorted((data / "raw" / "html_multilingual").glob("*.warc.gz")):
        with path.open("rb") as stream:
            for number, record in enumerate(ArchiveIterator(stream, record_types=WarcRecordType.response)):
                if number < 12:
                    source = record.reader.read()
                    ours[path.name] = ours.get(path.name, 0) + len(page_text(source)[1])
                    everything[path.name] = everything.get(path.name, 0) + len(whole(page.decode(source, "")))
    assert len(ours) == 15
    shares = {name: ours[name] / everything[name] for name in ours}
    # Manuals are nearly all text. Those in German, English, French and Chinese were used for training.
    assert min(shares.values()) > 0.85, shares


def test_bytes_of_real_pages_torn_and_mixed(data: Path, bench: ModuleType) -> None:
    chance = random.Random(3)
    pages = [item.html for item in bench.load(data)[:40]]
    for source in pages:
        other = chance.choice(pages)
        cut, start = chance.randrange(len(source)), chance.randrange(len(other))
        page_text(source[:cut] + other[start:][:50_000])[1].encode()
