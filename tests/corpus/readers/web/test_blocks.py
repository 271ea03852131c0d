"""The compiled splitter of pages against the one in Python: the same blocks and numbers for any page."""

import html
import random
import sys
from collections.abc import Iterator
from dataclasses import fields
from html.entities import html5
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.corpus.readers.web import blocks
from puna.corpus.readers.web.charset import decode
from puna.run import compiled

pytestmark = pytest.mark.skipif(not compiled.compiler(), reason="no C++ compiler")

PILE = """
    <div> </div> <p> </p> <li> <ul> </ul> <td> </td> <th> <tr> </tr> <table> </table> <a> </a> <br> <pre>
    </pre> <b> </b> <svg> </svg> <svg/> <title> </title> <h1> <h3> </h1> <hr> <body> <BODY/ <nav <dt> <dd>
    <dl> </dl> <section> <button> <rt> <plaintext> <blocKquote> </blocKquote> <bloc\u212aquote> <!-- --> --!>
    <!--> <!---> - -> <! <? </ < > = / " ' <script> </script> <ScRipt </SCRIPT <no\u017fcript> <noscript>
    </noscript/ <textarea> <select/> <xmp> </xmp>x &#x0; &#99999999999; &#1234567; &#128; &#x80; &#13;
    &#xd800; &#xfdd0; &#1114112; &#x110000; &#x; &# &#X41 &amp &amp; &notit; &notin; &nGt;
    &CounterClockwiseContourIntegral; &CounterClockwiseContourIntegralx; &AMP &a; &lt &ampamp; &\u0665;
    &#\u0665\u0665\u0665\u0665\u0665\u0665\u0665\u0665; id=nav class= class="content_Main_Article class='x
    hidden hidden="" HIDDEN hiddené style="display: style='display:none' none role=main itemprop=articleBody
    class:a id="É\u212a <sup> </sup> <sub> </sub> <sup~class=note> 2 <code> <code~style="white-space:~pre">
    </code> <math> <td~colspan=2> <td~rowspan=3> <TD~ROWSPAN="2"~colspan='2'> <td~class=gutter>
    <td~class="blob-num"~data-line-number="1"> <span~class=lineno> <i~class="ln"> </i> </span> <tbody>
    </tbody> <a~href=#n1> <a~rel=prev> <a~rel="next~up"> <a~accesskey='U'> <a~rel=x~rel=next> 12
    &nbsp;
    text. 。 ！ ？ … ؟ । Ñ 中文 \u212aelvin \u0130x \u0391\u03a3 Title TITLE
"""
SPACES = [chr(code) for code in range(1, sys.maxunicode + 1) if chr(code).isspace()]
INVISIBLE = ("\r\n", "\u200b", "\u180e", "\ufeff", "\x1b", "\x00")
RARE = [*SPACES, *INVISIBLE, "\ud800", "\udfff", "\U0001f600", "\ufffd", "x" * 40, "word " * 30]


def differences(source: str) -> list[str]:
    """Return the fields in which the two differ for a page."""
    compiled_blocks, python_blocks = blocks.split(source), blocks._split(source)
    different = []
    for name in [field.name for field in fields(blocks.Blocks) if field.name != "seen"]:
        one, other = getattr(compiled_blocks, name), getattr(python_blocks, name)
        if isinstance(one, np.ndarray):
            if one.dtype != other.dtype or one.shape != other.shape or (one != other).any():
                different.append(name)
        elif one != other:
            different.append(name)
    return different


def test_it_is_compiled() -> None:
    assert blocks.library()[0] is not None


@settings(max_examples=400)
@given(
    st.lists(
        st.sampled_from([*(piece.replace("~", " ") for piece in PILE.split()), *RARE]) | st.text(max_size=3),
        max_size=60,
    ),
    st.sampled_from(["", " "]),
)
def test_pages_made_of_pieces(pieces: list[str], between: str) -> None:
    assert differences(between.join(pieces)) == []


TABLES = """
    <table> </table> <tr> </tr> <td> </td> <td~rowspan=2> <td~colspan=3> <th~colspan=2~rowspan=2> <p> </p>
    <br> <div> </div> a b one~two 1 2 <tbody> </tbody> <li> <h2> <pre> </pre> <td~class=gutter>
    <i~class=lineno> </i> <sup> </sup> <a~href=#n> </a> \n ~ <table~class=x>
"""


@settings(max_examples=400)
@given(
    st.lists(
        st.sampled_from([piece.replace("~", " ") for piece in [*TABLES.split(), "x" * 120]]), max_size=80
    )
)
def test_tables_made_of_pieces(pieces: list[str]) -> None:
    assert differences("<table>" + "".join(pieces)) == []


@given(st.text())
def test_any_text(source: str) -> None:
    assert differences(source) == []


@given(st.binary(max_size=200))
def test_any_bytes(source: bytes) -> None:
    assert differences(decode(source, "")) == []


def test_all_entities() -> None:
    names = [f"&{name}{after}" for name in html5 for after in ("", ";", "x", "=")]
    codes = [f"&#{code}" for code in (*range(0x3000), *range(0xD7F0, 0x10010), *range(0x10FFF0, 0x110010))]
    texts = [*names, *codes, *(f"&#X{int(code[2:]):x};" for code in codes)]
    source = "".join(f"<p>a{text} z" for text in texts)
    for start in range(0, len(texts), 40_000):
        part = texts[start : start + 40_000]
        expected = [" ".join(html.unescape(f"a{text} z").split()) for text in part]
        assert blocks.split("".join(f"<p>a{text} z" for text in part)).texts == expected
    assert differences(source) == []


def test_all_white_space() -> None:
    for code in (*range(1, 0x3100), 0xFEFF, 0x1F600):
        space = chr(code)
        source = "_<p_class=a>_a_b_<a>_c_</a><pre>_a_b_".replace("_", space)
        assert differences(source) == [], hex(code)


@pytest.mark.parametrize(
    "source",
    [
        "<div>" * 600 + "a" + "</div>b" * 600,
        "<p>" * 210_000 + "a<p>b",
        "<p>a" * 51_000,
        "<svg>" * 600 + "a" + "</svg>" * 600 + "b",
        "<table><tr>" + "<td>a" * 10_000,
        "<p " + "x " * 400 + "class=nav " * 100 + ">a",
        "<p " + "é " * 480 + "class=nav id='" + "é" * 400 + " id=b'>a",
        "<p class='" + "é" * 299 + " id=b class=c'>a",
        "<div><table><tr><td>" + "<section>" * 70 + "</div>a</table>b",
    ],
)
def test_limits(source: str) -> None:
    assert differences(source) == []


def real_pages(data: Path) -> Iterator[str]:
    from fastwarc.warc import ArchiveIterator

    for folder in ("html_eval", "html_multilingual", "warc"):
        for path in sorted((data / "raw" / folder).glob("*arc*")):
            with path.open("rb") as stream:
                try:
                    for record in ArchiveIterator(stream):
                        yield decode(record.reader.read(2_000_000), "")
                except OSError:  # some are broken on purpose
                    continue


def test_real_pages(data: Path) -> None:
    count, chance = 0, random.Random(5)
    before = ""
    for count, source in enumerate(real_pages(data), 1):
        assert differences(source) == [], source[:200]
        if count % 8 == 0:  # torn, and mixed with another
            cut, start = chance.randrange(len(source) + 1), chance.randrange(len(before) + 1)
            assert differences(source[cut : cut + 20_000] + before[start : start + 20_000]) == []
            before = source
    assert count > 4000
