"""What no score decides about a page: lines that lead to its neighbours, and pages that only list others."""

import numpy as np
import pytest

from puna.corpus.readers.web import blocks, main_text
from puna.corpus.readers.web.page import CONTENTS, read_page

SENTENCE = "A kettle that is heated from below boils sooner than one that stands beside the fire. "
BODY = f"<div class=section><h2>Kettles</h2><p>{SENTENCE}</p><p>{SENTENCE * 4}</p></div>"
ITEMS = ["Kettles of copper", "Kettles of iron", "How to clean a kettle", "Lids and handles"]


def contents(items: list[str], tag: str = "li") -> str:
    """Return a list of links."""
    return "".join(f'<{tag}><a href="{number}.html">{item}</a></{tag}>' for number, item in enumerate(items))


def without_turning(source: str) -> list[str]:
    """Return the blocks of a page that stay where all are taken for main text at first."""
    found = blocks.split(source)
    kept = main_text.without_turning(found, np.ones(len(found.texts), bool))
    return [text for text, stays in zip(found.texts, kept.tolist(), strict=True) if stays]


@pytest.mark.parametrize(
    "line",
    [
        # A table with arrows as pictures and the titles of the neighbours in a row without links.
        "<div class=below><table><tr><td><a accesskey=p href=a><img src=p></a><td><a accesskey=n href=b></a>"
        "</tr><tr><td>1.2. Pots<td><td>2. Why do pans stick?</tr></table></div>",
        '<p>Next: <a href=b rel="next">Pans</a>, Previous: <a href=a rel="prev">Pots</a>, Up: Kitchen</p>',
        "<div><ul><li><a accesskey='N' href=b>next</a> |<li><a accesskey='P' href=a>previous</a> |"
        "<li>The kitchen 1.2 documentation</ul></div>",
        '<nav><a rel="next prefetch" href=b>Pans</a></nav>',
    ],
)
def test_lines_that_lead_to_the_neighbours_of_a_page_go(line: str) -> None:
    expected = ["Kettles", SENTENCE.strip(), (SENTENCE * 4).strip()]
    assert without_turning(line + BODY + line) == expected
    assert without_turning(f"<div id=page>{line}{BODY}<hr>{line}</div>") == expected
    assert read_page(f"<title>Kettles</title><body>{line}{BODY}{line}".encode()).text == "\n\n".join(expected)


@pytest.mark.parametrize(
    "around",
    [
        "<div><p>{}</p><a rel=next href=b>Pans</a></div>",  # a sentence
        "<div><h2>{}</h2><a rel=next href=b>Pans</a></div>",
        "<div><pre>{}</pre><a rel=next href=b>Pans</a></div>",
    ],
)
def test_what_stands_beside_these_lines_stays(around: str) -> None:
    assert without_turning(around.format(SENTENCE) + BODY)[0] == SENTENCE.strip()


def test_other_links_lead_nowhere_near() -> None:
    assert without_turning(f"<p><a rel=nofollow href=a>Pots</a></p>{BODY}")[0] == "Pots"
    assert without_turning(f"<p><a accesskey=s href=a>Pots</a></p>{BODY}")[0] == "Pots"


@pytest.mark.parametrize(
    "source",
    [
        # Few letters in all, in a book whose pages lead to each other.
        f"<h1>2. Kettles</h1><div class=toc><p>Contents</p><dl>{contents(ITEMS, 'dt')}</dl></div>"
        "<div><a accesskey=p href=p>Pots</a> <a accesskey=n href=n>Pans</a></div>",
        # Many, in any page.
        f"<h1>Kettles</h1><ul>{contents(ITEMS * 6)}</ul>",
    ],
)
def test_a_page_that_only_lists_others_is_no_document(source: str) -> None:
    found = read_page(source.encode())
    assert (found.text, found.reason) == ("", CONTENTS)
    longer = read_page(f"<body>{source}<p>{SENTENCE}</p>".encode())
    assert SENTENCE.strip() in longer.text and not longer.reason


def test_few_links_are_a_text() -> None:
    assert read_page(f"<ul>{contents(ITEMS[:3])}</ul>".encode()).text.count("\n") == 2


def test_the_caption_of_a_list_that_is_left_out_goes_with_it() -> None:
    source = f"<h1>Kettles</h1><div><p>Contents</p><ul>{contents(ITEMS)}</ul></div><p>{SENTENCE}</p>"
    found = blocks.split(source)
    is_text = np.array([text not in ITEMS for text in found.texts])
    kept = main_text.without_captions(found, is_text)
    assert [found.texts[number] for number in np.flatnonzero(kept)] == ["Kettles", SENTENCE.strip()]
    everything = np.ones(len(found.texts), bool)
    assert main_text.without_captions(found, everything).all()  # where the list stays
    beside = blocks.split(f"<div><p>Contents</p><p>{SENTENCE}</p><ul>{contents(ITEMS)}</ul></div>")
    is_text = np.array([text not in ITEMS for text in beside.texts])
    assert (main_text.without_captions(beside, is_text) == is_text).all()
