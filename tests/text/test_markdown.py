import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.text.markdown import from_html, is_html
from puna.tokens.conversations import Conversation, Turn
from puna.tune import readers

# As ShareGPT kept the pages of ChatGPT.
BUTTON = '<div class="flex items-center"><span>python</span><button class="flex">Copy code</button></div>'
TEXT = 'def f(a_b):\n    return a_b &lt; <span class="hljs-number">2</span>\n'
CODE = f'<code class="!whitespace-pre hljs language-python">{TEXT}</code>'
BLOCK = f'<pre><div class="bg-black">{BUTTON}<div class="p-4">{CODE}</div></div></pre>'
FENCED = "```python\ndef f(a_b):\n    return a_b < 2\n```"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>two<br>three</p>", "One\n\ntwo\nthree"),
        ("<p>It <strong>is </strong>so: <em>x</em>, <code>a_b</code></p>", "It **is** so: *x*, `a_b`"),
        ('<p>See <a href="https://e.org/a_b">the  page</a>.</p>', "See [the page](https://e.org/a_b)."),
        ("<ol><li><p>a</p></li><li>b<ul><li>c</li><li>d</li></ul></li></ol>", "1. a\n2. b\n   - c\n   - d"),
        ('<ol start="3"><li>c</li></ol><h3>End</h3>', "3. c\n\n### End"),
        (f"<p>So:</p>{BLOCK}", f"So:\n\n{FENCED}"),
        (f"<ul><li>So:{BLOCK}</li></ul>", "- So:\n\n  " + FENCED.replace("\n", "\n  ")),
        ("<pre><code>cssCopy codea { b: c }</code></pre>", "```css\na { b: c }\n```"),
        ("<pre><code>a ``` b</code></pre>", "````\na ``` b\n````"),
        (f"<p>So.</p><pre>{BUTTON}<code></code></pre>", "So."),
        (
            "<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2|3</td></tr></table>",
            "| A | B |\n| --- | --- |\n| 1 | 2\\|3 |",
        ),
        ("<blockquote><p>a</p><p>b</p></blockquote>", "> a\n>\n> b"),
        ("<ul>a<li>b</li></ul><pre><code>x</code>y</pre>", "- a\n- b\n\n```\nxy\n```"),
        ("<div>2 / 3<p>The answer</p></div>", "The answer"),
        ("<p>5 &lt; 6 &amp; 1 / 2</p>", "5 < 6 & 1 / 2"),
    ],
)
def test_html_becomes_markdown(html: str, text: str) -> None:
    assert from_html(f'<div class="markdown prose w-full">{html}</div>') == text


def test_only_answers_that_are_html_as_a_whole_are_changed() -> None:
    html, page = "<p>Use <code>b</code></p>", "<div>my page</div>"
    about = "Write <p>this</p> and not <b>that</b>."
    messages = [
        {"from": "human", "value": page},
        {"from": "gpt", "value": html},
        {"from": "human", "value": "?"},
        {"from": "gpt", "value": about},
    ]
    (row,) = readers.read_row({"conversations": messages}, "x", 1)
    assert isinstance(row, Conversation)
    assert row.turns == (
        Turn("user", page),
        Turn("assistant", "Use `b`"),
        Turn("user", "?"),
        Turn("assistant", about),
    )
    assert is_html(html)
    assert not is_html(about)
    assert not is_html("<think>a</think>")


TAGS = (
    "<p> </p> <ul> <li> </li> </ul> <pre> <code>x </code> </pre> <table> <tr> <td> </table> <b> </b> <br> `"
)
PARTS = st.sampled_from([*TAGS.split(), "<a href=x>", "</a>", "word ", "```", "<ol start=x>", "|", "\n"])


@given(st.lists(PARTS, max_size=20).map("".join))
def test_any_html_becomes_text_and_loses_no_word(html: str) -> None:
    text = from_html(f"<div>{html}</div>")
    assert text.count("word") >= html.count("word")  # more where tables stand in tables
