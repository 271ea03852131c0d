"""Tables as rows, code without line numbers, superscripts with their value: what stands in a page's text."""

import pytest

from puna.corpus.readers.web.page import is_note
from tests.corpus.readers.web.test_page import whole


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<tr><th>Year<th>Boats<th>Note<tr><td>1990<td>12<td><tr><td>1991<td><td>old",
         "Year | Boats | Note\n1990 | 12 |\n1991 | | old"),
        ("<tr><td>a</td><td>b</td><td>c</td></tr><tr><td></td><td></td><td>d</td></tr>", "a | b | c\n| | d"),
        ("<tr><td>a<td>&nbsp;<td>c", "a | | c"),
        ("<tr><td colspan=2>a</td><td>b</td></tr><tr><td>c<td>d<td>e", "a | | b\nc | d | e"),
        ("<tr><td rowspan=2>a<td>b<td>c<tr><td>d<td>e<tr><td>f<td>g<td>h", "a | b | c\n| d | e\nf | g | h"),
        ("<tr><td>a<td rowspan='2'>b</td><tr><td>c", "a | b\nc |"),
        ("<tr><td><p>a</p></td><td><p>b</p></td></tr>", "a | b"),
        ("<tr><td><div><font>a</font></div><td><center>b</center><td>c", "a | b | c"),
        ("<tr><td><p>a</p><p>b</p><td>c<br>d", "a b | c d"),
        ("<tr><td>a</td><td><b>b</b><div>c</div></td></tr>", "a | b c"),
        ("<tr><td><p>" + "long " * 50 + "<td><p>b", ("long " * 50).strip() + "\n\nb"),
        ("<tr><td><h2>a</h2><td><p>b", "a\n\nb"),
        ("<tr><td>Only one<tr><td>a<td>b", "Only one\na | b"),
        ("<tr><td>a<td><table><tr><td>b<td>c</table><td>d<td>e", "a\n\nb | c\n\nd | e"),
        ("<tr><td>a<td><td><td><td><td><td><td>b", "a | b"),  # layout
        ("<thead><tr><th>A<th>B</thead><tbody><tr><td><td>1</tbody>", "A | B\n| 1"),
    ],
)  # fmt: skip
def test_rows(source: str, text: str) -> None:
    found = whole(f"<table>{source}</table>")
    assert [line for line in found.split("\n") if line] == [line for line in text.split("\n") if line]


CODE = "def go(a):\n\n    if a:\n        return 1"
LINES = CODE.split("\n")


def numbered(number: str, line: str, before: str = "<pre>", after: str = "</pre>") -> str:
    lines = (number.format(at) + line.format(text) for at, text in enumerate(LINES, 1))
    return before + "\n".join(lines) + after


@pytest.mark.parametrize(
    "source",
    [
        f"<table><tr><td class=gutter><pre>1\n2\n3\n4</pre><td class=code><pre>{CODE}</pre></table>",
        "<table class=highlighttable><tr><td class='linenos'><div class=linenodiv><pre><span>1</span>\n"
        "<span>2</span></pre></div></td><td class=code><div class=highlight><pre><span></span>"
        f"{CODE}\n</pre></div></td></table>",
        numbered(
            "<tr><td class='blob-num' data-line-number='{}'></td>", "<td class=blob-code>{}</td></tr>",
            "<table><tbody>", "</tbody></table>",
        ),
        numbered(
            "<tr>\n <td class='lines-num'><span id=L1>{}</span></td>\n",
            " <td class=lines-code><code>{}\n</code></td></tr>", "<table>", "</table>",
        ),
        numbered("<span class='lineno'>{}</span>", "<span class=line>{}</span>"),
        numbered("<span class=\"ln\" id=l1><a href=#l1>{}</a></span>", "{}"),
        numbered("<i class='hljs-ln-n'> {} </i>", "{}"),
        f"<code style='display: block; white-space: pre-wrap'>{CODE}</code>",
    ],
)  # fmt: skip
def test_code_keeps_its_lines_and_indentation_without_numbers(source: str) -> None:
    found = whole(f"<p>Before.</p>{source}<p>Behind.</p>")
    assert found == f"Before.\n\n{CODE}\n\nBehind."


@pytest.mark.parametrize(
    ("line", "blank", "between"),
    [
        *[(f"<{tag}>{{}}</{tag}>", f"<{tag}>{empty}</{tag}>", between)
          for tag in ("div", "p", "li") for empty in ("", "\n", "<br>") for between in ("", "\n")],
        ("<div>{}\n</div>", "<div>\n</div>", ""),
        ("<div><span>{}</span></div>", "<div><span></span></div>", ""),
        ("<span class=line>{}</span>", "<span class=line></span>", "\n"),
        ("<span class=line>{}\n</span>", "<span class=line>\n</span>", ""),
        ("<code>{}</code><br>", "<code></code><br>", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("frame", ["<pre>{}</pre>", "<pre><code>{}</code></pre>", "<ol><pre>{}</pre></ol>"])
def test_blank_lines_of_code_stay_whatever_a_line_is(frame: str, line: str, blank: str, between: str) -> None:
    code = "def go(a):\n\n    if a:\n\n\n        return 1"
    lines = [line.format(text) if text else blank for text in ["", *code.split("\n"), ""]]
    found = whole(f"<p>Before.</p>{frame.format(between.join(lines))}<p></p><p>Behind.</p>")
    assert found == f"Before.\n\n{code}\n\nBehind."


def test_numbers_that_number_no_lines_stay() -> None:
    assert whole("<table><tr><td class=gutter></td><td>a</td><td>b</td></tr></table>c") == "| a | b\n\nc"
    assert (
        whole("<table><tr><td>1</td><td>a</td></tr><tr><td>2</td><td>b</td></tr></table>") == "1 | a\n2 | b"
    )
    assert whole("<pre>1 2 3\n<span class=number>4</span> 5</pre>") == "1 2 3\n4 5"
    assert whole("<p>Run <code>go</code> <code style='color:red'>a  b</code>.") == "Run go a b."


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("10<sup>21</sup>", "10²¹"),
        ("10<SUP><span>-7</span></SUP> m", "10⁻⁷ m"),
        ("x<sup>n<sub>i</sub></sup>", "x^{nᵢ}"),
        ("SO<sub>4</sub><sup>2−</sup>", "SO₄²⁻"),
        ("the 21<sup>st</sup> of May", "the 21st of May"),
        ("May<sup><a href=#n1>3</a></sup> it", "May it"),
        ("May<sup>[<a href=#n1>3</a>]</sup> it", "May it"),
        ("May<a href=#n1><sup>3</sup></a> it", "May it"),
        ("May<sup class=footnote-ref>3</sup> it", "May it"),
        ("May<sup>[citation needed]</sup> it", "May it"),
        ("gone.<sup>12, 13</sup> It", "gone. It"),
        ("<a href=/area>25 km<sup>2</sup></a>", "25 km²"),
        ("weight / height<sup>2</sup>.", "weight / height²."),
        ("of <sup>14</sup>C in (a+b)<sup>2</sup>", "of ¹⁴C in (a+b)²"),
        ("Puna<sup>TM</sup>", "Puna™"),
        ("<p>10<sup>2<p>b", "102\n\nb"),
        ("a<sup></sup>b", "ab"),
        ("<sup>This note is small print.</sup>", "This note is small print."),
        ("<table><tr><td>km<sup>2</sup><td>10<sup>6</sup></table>", "km² | 10⁶"),
        ("<h2>E = mc<sup>2</sup></h2>", "E = mc²"),
    ],
)
def test_superscripts_and_marks_of_footnotes(source: str, text: str) -> None:
    assert whole(source) == text


def test_notes() -> None:
    assert is_note("[4]", "") and is_note("\x051", "") and is_note("7", 'so."')
    assert not is_note("2", "km") and not is_note("\x05st", "21") and not is_note("3", "1.5")
