"""StackExchange: which posts make a document, in which order, and the HTML of a post as text."""

import random
import re
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from puna.corpus.readers.plain import stackexchange
from puna.corpus.readers.plain.post import html_to_text
from puna.corpus.record import RawDocument, SkippedRecord
from puna.errors import UserError


def question(number: int, body: str = "<p>Why?</p>", title: str = "Title", **others: object) -> str:
    return row(Id=number, PostTypeId=1, Title=title, Body=body, **others)


def answer(number: int, parent: int, score: object, body: str, **others: object) -> str:
    return row(Id=number, PostTypeId=2, ParentId=parent, Score=score, Body=body, **others)


def row(**attributes: object) -> str:
    return "<row " + " ".join(f"{name}={quoteattr(str(value))}" for name, value in attributes.items()) + "/>"


def read(tmp_path: Path, *rows: str) -> list[RawDocument | SkippedRecord]:
    folder = tmp_path / "llamas.example"
    folder.mkdir(exist_ok=True)
    path = folder / "Posts.xml"
    path.write_text("\ufeff<?xml version='1.0'?>\n<posts>\n" + "\n".join(rows) + "\n</posts>")
    return list(stackexchange.read(path))


def test_answers_by_numeric_score_then_age(tmp_path: Path) -> None:
    rows = [
        question(1, AcceptedAnswerId=4, ClosedDate="2020"),
        answer(2, 1, 9, "nine"),
        answer(3, 1, 10, "ten"),
        answer(4, 1, -1, "minus, accepted"),
        answer(6, 1, 9, "nine, younger"),
        answer(5, 1, "", "nought"),
        answer(7, 1, "9" * 30, "no number: nought, younger"),
    ]
    (found,) = read(tmp_path, *rows)
    assert isinstance(found, RawDocument)
    assert found.url == "https://llamas.example/questions/1" and found.licence == "CC-BY-SA"
    answers = ["ten", "nine", "nine, younger", "nought", "no number: nought, younger", "minus, accepted"]
    assert found.text.split("\n\nA: ") == ["Title\n\nWhy?", *answers]


def test_what_is_no_thread_is_skipped(tmp_path: Path) -> None:
    rows = [
        question(1),
        answer(2, 99, 1, "x"),
        question(3),
        answer(4, 3, 1, "<img src='x'>"),
        row(Id=5, PostTypeId=5, Body="a tag's wiki"),
    ]
    items = read(
        tmp_path,
        *rows,
        row(Id="x", PostTypeId=1),
        row(Id=6, PostTypeId=2),
        row(),
        question(10**17),
        answer(8, 10**17, 1, "y"),
    )
    assert [(item.reason, item.url) for item in items if isinstance(item, SkippedRecord)] == [
        ("no answer", "https://llamas.example/questions/1"),
        ("answer of images only", "https://llamas.example/a/4"),
        ("no answer with text", "https://llamas.example/questions/3"),
        ("answer without its question", "https://llamas.example/a/2"),
    ]
    assert len(items) == 5


def test_what_is_left_out_of_a_thread_has_a_row(tmp_path: Path) -> None:
    rows = [
        question(1),
        question(1, "Asked again."),
        answer(2, 1, 9, "<img src='x'>"),
        answer(3, 1, 8, "<p> </p>"),
        answer(4, 1, 7, "long " * 70_000),
        answer(5, 1, 6, "short"),
        question(6, "long " * 70_000),
        answer(7, 6, 1, "to a long one"),
    ]
    found = read(tmp_path, *rows)
    assert [
        (item.reason, item.url.partition("example")[2])
        for item in found[:-1]
        if isinstance(item, SkippedRecord)
    ] == [
        ("question came before", "/questions/1"),
        ("answer of images only", "/a/2"),
        ("answer without text", "/a/3"),
        ("post over 300,000 characters", "/a/4"),
        ("post over 300,000 characters", "/questions/6"),
    ]
    assert found[-1] == SkippedRecord("answer without its question", found[-1].url, 7)
    (thread,) = (item for item in found if isinstance(item, RawDocument))
    assert thread.text == "Title\n\nWhy?\n\nA: short"


def test_half_a_pair_of_utf16_costs_one_post(tmp_path: Path) -> None:
    def half(text: str) -> str:
        return text.replace("HALF", "&#xDC00;")

    rows = [
        question(1),
        answer(2, 1, 5, "HALF"),
        answer(3, 1, 4, "whole"),
        question(4, "HALF"),
        answer(5, 4, 1, "of it"),
        row(Id="HALF"),
    ]
    found = read(tmp_path, *map(half, rows))
    skipped = [item for item in found if isinstance(item, SkippedRecord)]
    assert [(item.reason, item.url.partition("example")[2]) for item in skipped] == [
        ("not text", "/a/2"),
        ("not text", "/questions/4"),
        ("answer without its question", "/a/5"),
    ]
    (thread,) = (item for item in found if isinstance(item, RawDocument))
    assert thread.text == "Title\n\nWhy?\n\nA: whole"


def test_the_order_of_rows_and_the_memory_given_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    words = ["high", "plain", "wind", "llama", "grass", "snow"]
    rows = [question(number, " ".join(chance.choices(words, k=200))) for number in range(1, 400)]
    rows += [
        answer(
            number, chance.randrange(1, 400), chance.randrange(-9, 9), " ".join(chance.choices(words, k=300))
        )
        for number in range(400, 2500)
    ]
    expected = [item.text for item in read(tmp_path, *rows) if isinstance(item, RawDocument)]
    assert len(expected) > 300
    monkeypatch.setattr(stackexchange, "CACHE_KIB", 20)
    chance.shuffle(rows)
    assert [item.text for item in read(tmp_path, *rows) if isinstance(item, RawDocument)] == expected


def test_a_file_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "Posts.xml"
    path.write_text("<posts>" + question(1) + answer(2, 1, 1, "x") + "<row Id=")
    items = []
    with pytest.raises(UserError, match="the XML breaks off before the end of <posts>"):
        for item in stackexchange.read(path):
            items.append(item)
    assert len(items) == 1 and isinstance(items[0], RawDocument)


def test_a_packed_dump_is_told_how_to_unpack(tmp_path: Path) -> None:
    path = tmp_path / "llamas.example.7z"
    path.write_bytes(b"7z\xbc\xaf\x27\x1c\0\4 and so on")
    with pytest.raises(UserError, match=re.escape("`7z x llamas.example.7z Posts.xml`")):
        list(stackexchange.read(path))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One\n two</p>\n<p>three</p>", "One two\n\nthree"),
        ("<p>See <a href='http://x'>the page</a> <em>now</em>.</p>", "See the page now."),
        ("<p>a<br>b<br/>\nc</p>", "a\nb\nc"),
        (
            "<pre><code>if x:\n    y = 1\n\n\n    z = 2\n</code></pre>\n<p>end</p>",
            "if x:\n    y = 1\n\n\n    z = 2\n\nend",
        ),
        ("<pre>a\n<b>\n\nb</b></pre>", "a\n\n\nb"),
        ("<p>Use <code>a  &lt;b&gt;</code>.</p>", "Use a <b>."),
        ("<p>5 &amp;lt; 6 &amp;&amp; $a &lt; b$</p>", "5 &lt; 6 && $a < b$"),
        (
            "<ul>\n<li>a</li>\n<li>b<ul><li>c</li></ul></li>\n<li>d</li></ul><p>e</p>",
            "- a\n- b\n  - c\n- d\n\ne",
        ),
        ("<ol><li><p>a</p></li><li><p>b</p><p>c</p></li></ol>", "1. a\n\n2. b\n\nc"),
        ("<ol start='3'><li>a</li><li>b</li></ol>", "3. a\n4. b"),
        ("<blockquote>\n<p>said</p>\n</blockquote>\n<p>answer</p>", "said\n\nanswer"),
        ("<p>a</p><p><img src='x' alt='enter image'></p><p>b</p>", "a\n\nb"),
        ("<p>a<!-- language: lang-py -->b</p><script>x</script>", "ab"),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a | b\n1 | 2"),
        ("<h2>Head</h2>text<hr>more", "Head\n\ntext\n\nmore"),
        ("", ""),
        ("<li>a<li>b", "- a\n- b"),
        ("a < b", "a < b"),
    ],
)
def test_html_of_a_post(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_quotes_nested_deeply(tmp_path: Path) -> None:
    body = "&lt;blockquote&gt;" * 3000 + "deep" + "&lt;/blockquote&gt;" * 3000
    path = tmp_path / "Posts.xml"
    path.write_text(
        f'<posts><row Id="1" PostTypeId="1" Title="T" Body="{body}"/>'
        '<row Id="2" PostTypeId="2" ParentId="1" Body="x"/></posts>'
    )
    assert "A: x" in next(item.text for item in stackexchange.read(path) if isinstance(item, RawDocument))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>10<sup>21</sup> H<sub>2</sub>O, 1<sup>st</sup> time.<sup>1</sup></p>", "10²¹ H₂O, 1st time."),
        ("<p>See.<sup>[2]</sup> It</p><p><sup>A small note.</sup></p>", "See. It\n\nA small note."),
        ("<p>I like camping<sup>1</sup> at 5 km<sup>2</sup>.</p><p><sup>1</sup> A hobby.</p>",
         "I like camping at 5 km².\n\n¹ A hobby."),
        ("<p>its height<sup>2</sup></p><p><sup>1</sup> A hobby.</p>", "its height²\n\n¹ A hobby."),
        ("<table>\n<tr>\n<th>Step</th>\n<th>Status</th>\n</tr></table>", "Step | Status"),
        ("<table><tr><td>1</td><td></td><td>x</td></tr><tr><td></td><td>y</td><td></td></tr></table>",
         "1 | | x\n| y |"),
        ("<table><tr><td><p>a</p><p>b</p></td><td>c<br>d</td></tr></table><p>e</p>", "a b | c d\n\ne"),
    ],
)  # fmt: skip
def test_numbers_and_cells_of_posts_keep_their_value(source: str, text: str) -> None:
    assert html_to_text(source) == text


@pytest.mark.parametrize(
    ("place", "site"),
    [
        ("stackoverflow.com", "stackoverflow.com"),
        ("stackoverflow.com-Posts", "stackoverflow.com"),
        ("cooking.stackexchange.com_2024-03", "cooking.stackexchange.com"),
        ("math.meta.stackexchange.com", "math.meta.stackexchange.com"),
        ("ru.stackoverflow.com.extracted", "ru.stackoverflow.com"),
        ("MathOverflow.net", "mathoverflow.net"),
        ("askubuntu", "askubuntu.com"),
        ("cooking", "cooking.stackexchange.com"),
        ("superuser.com/unpacked", "superuser.com"),
        ("www.serverfault.com dump", "serverfault.com"),
        ("llamas.example", "llamas.example"),
        ("notstackoverflow.community", "notstackoverflow.community"),
    ],
)
def test_the_site_is_one_that_exists_whatever_the_folder_has_around_it(
    tmp_path: Path, place: str, site: str
) -> None:
    assert stackexchange.site_of(tmp_path / place / "Posts.xml") == site


def test_the_site_is_in_the_file_s_name_or_in_the_links_of_its_posts(tmp_path: Path) -> None:
    assert stackexchange.site_of(tmp_path / "data" / "tex.stackexchange.com-Posts.xml.bz2") == (
        "tex.stackexchange.com"
    )
    links = "".join(f"<a href='https://tex.stackexchange.com/questions/{n}'>x</a>" for n in range(5))
    (found,) = read(tmp_path, question(1, links), answer(2, 1, 1, "y"))
    assert isinstance(found, RawDocument) and found.url == "https://tex.stackexchange.com/questions/1"


@pytest.mark.parametrize(
    ("days", "stated", "licence"),
    [
        (("2009-01-01", "2010-01-01"), "", "CC-BY-SA-2.5"),
        (("2011-04-08T01", "2018-05-01"), "", "CC-BY-SA-3.0"),
        (("2011-04-07", "2018-05-02"), "", "CC-BY-SA-2.5 AND CC-BY-SA-4.0"),
        (("2020-01-01", "2020-01-01"), "CC BY-SA 4.0", "CC-BY-SA-4.0"),
        (("", ""), "CC BY-SA 3.0", "CC-BY-SA-3.0"),
        (("", ""), "", "CC-BY-SA"),
    ],
)
def test_licences_are_those_of_all_posts(
    tmp_path: Path, days: tuple[str, str], stated: str, licence: str
) -> None:
    asked, told = ({"CreationDate": day, "ContentLicense": stated} for day in days)
    (found,) = read(tmp_path, question(1, **asked), answer(2, 1, 1, "Because.", **told))
    assert isinstance(found, RawDocument) and found.licence == licence


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>10<sup>21</sup> m<sup>-2</sup>, H<sub>2</sub>O</p>", "10²¹ m⁻², H₂O"),
        ("<p>x<sup>y<sup>2</sup></sup>, a<sub>max</sub>, the 1<sup>st</sup></p>", "x^{y²}, a_{max}, the 1st"),
        ("<p><sup><strong>2</strong></sup>H and 2<sup>n+1</sup></p>", "²H and 2ⁿ⁺¹"),
        ("<p>as said<sup>[1]</sup></p>", "as said"),
        ("<p><sub>A whole note in small letters, set so because it is an aside.</sub></p>",
         "A whole note in small letters, set so because it is an aside."),
        ("<table><tr><th>Step </th><th> Status</th></tr><tr><td>a</td><td></td><td>c</td></tr></table>",
         "Step | Status\na | | c"),
        ("<table><tr><td></td><td>b</td></tr><tr><td><p>c</p><p>d</p></td><td><p>e</p></td></tr></table><p>f</p>",
         "| b\nc d | e\n\nf"),
        ("<table><tr><td rowspan=2>a</td><td colspan=2>b</td></tr><tr><td>c</td><td>d</td></tr><tr><td>e</td>"
         "<td>f</td><td>g</td></tr></table>", "a | b |\n| c | d\ne | f | g"),
        ("<table><tr><td>a</td><td rowspan=3>b</td></tr><tr><td>c</td></tr></table>"
         "<table><tr><td>d</td><td>e</td></tr></table>", "a | b\nc |\n\nd | e"),
    ],
)  # fmt: skip
def test_what_is_raised_keeps_its_value_and_cells_their_places(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_an_answer_that_begins_with_code_keeps_its_indentation(tmp_path: Path) -> None:
    code = "<pre><code>    if x:\n        y\n</code></pre>"
    (found,) = read(tmp_path, question(1), answer(2, 1, 1, code))
    assert isinstance(found, RawDocument) and found.text.endswith("\n\nA:\n    if x:\n        y")
