"""The Markdown of cards as HTML."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.report.markdown import html, inline
from tests.report.test_report import checked


def test_a_card() -> None:
    text = html(
        "## What\n\nTwo lines\nof **one** paragraph.\n\n- `a|b` first\n- second\n\n"
        "| source | what | kept |\n| --- | ---: | ---: |\n"
        "| news | texts, one a line | 1,292 |\n| a\\|b | |\n",
        2,
    )
    assert text.startswith("<h3>What</h3><p>Two lines of <strong>one</strong> paragraph.</p>")
    assert "<ul><li><code>a|b</code> first</li><li>second</li></ul>" in text
    assert 'aria-label="table of source"' in text and "<caption>" not in text
    assert '<th scope="row">news</th><td class="word">texts, one a line</td><td>1,292</td>' in text
    assert '<th scope="row">a|b</th><td class="word"></td><td></td>' in text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("*to be filled in*", "<em>to be filled in</em>"),
        ("2 * 3 * 4 and a*b*c", "2 * 3 * 4 and a*b*c"),
        ("`**x**` <b>", "<code>**x**</code> &lt;b&gt;"),
        ("[page](https://a.example/x?y=1&z=2)", '<a href="https://a.example/x?y=1&amp;z=2">page</a>'),
        ("[file](data_card.md)", '<a href="data_card.md">file</a>'),
        ("[bad](javascript:alert)", "[bad](javascript:alert)"),
        ('[bad](https://a"onclick=)', '<a href="https://a&quot;onclick=">bad</a>'),
    ],
)
def test_words(written: str, expected: str) -> None:
    assert inline(written) == expected


@given(st.text(alphabet="ab*`|[]()#-<>\"'&\\ \n:/.h"))
def test_anything_is_well_formed(text: str) -> None:
    assert not checked(html(text)) - {
        *("h3", "h4", "h5", "h6", "p", "ul", "li", "code", "strong", "em", "a", "div", "table", "thead"),
        *("tbody", "tr", "th", "td"),
    }
