"""LaTeX comments and macros."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.latex import strip_comments
from puna.corpus.readers.macros import expand_macros, group


def test_comments_go_escaped_and_verbatim_percents_stay() -> None:
    text = "a 5\\% b % gone\n  % a whole line\nc \\\\% gone too\n\\begin{verbatim}\n% kept\n\\end{verbatim}\n"
    assert strip_comments(text) == "a 5\\% b \nc \\\\\n\\begin{verbatim}\n% kept\n\\end{verbatim}\n"
    assert strip_comments("a\\begin{comment}x\ny\\end{comment}b") == "ab"


@pytest.mark.parametrize(
    ("preamble", "body", "expanded"),
    [
        (r"\newcommand{\R}{\mathbb{R}}", r"in $\R^n$ and $\Rho$", r"in $\mathbb{R}^n$ and $\Rho$"),
        (r"\newcommand{\pair}[2]{(#1, #2)}", r"\pair{a}{b} \pair xy", "(a, b) (x, y)"),
        (r"\newcommand{\norm}[2][2]{|#2|_{#1}}", r"\norm{x} \norm[1]{y}", "|x|_{2} |y|_{1}"),
        (r"\def\half#1{#1/2}", r"\half{3}", "3/2"),
        (r"\def\a{A}\newcommand\b{\a\a}", r"\b!", "AA!"),
        (r"\DeclareMathOperator*{\argmax}{arg\,max}", r"$\argmax x$", r"$\operatorname*{arg\,max} x$"),
        (r"\newcommand{\x}{1}\renewcommand{\x}{2}\providecommand{\x}{3}", r"\x", "2"),
        (r"\newcommand{\loop}{\loop\loop}", r"\loop", r"\loop"),
        (r"\newcommand{\al}{\alpha}", r"\al{}x \al", r"\alpha{}x \alpha"),
        (r"\newcommand{\nested}[1]{<#1>}", r"\nested{a \nested{b} {c}}", "<a <b> {c}>"),
        ("", r"\newcommand{\here}{yes}\here", "yes"),
        (r"\newcommand{\open", r"\open", r"\open"),
    ],
)
def test_macros_are_expanded_inline(preamble: str, body: str, expanded: str) -> None:
    assert expand_macros(preamble, body) == expanded


def test_groups_are_balanced() -> None:
    assert group(r"{a{b}\}c}d", 0) == (r"a{b}\}c", 9)
    assert group("{a", 0) is None
    assert group("a", 0) is None
    assert group("[a{]}b]c", 0, "[", "]") == ("a{]}b", 7)


PARTS = st.sampled_from([r"\newcommand", r"\def", r"\a", r"\b", "{", "}", "[1]", "[", "]", "#1", "#2", "x", " ", "%", "\n", "\\"])


@given(st.lists(PARTS, max_size=40).map("".join), st.lists(PARTS, max_size=40).map("".join))
def test_no_text_breaks_it(preamble: str, body: str) -> None:
    expand_macros(strip_comments(preamble), strip_comments(body))


def test_mutual_recursion_ends() -> None:
    body = expand_macros(r"\newcommand{\a}{x\b\b}\newcommand{\b}{y\a\a}", r"\a")
    assert len(body) < 1_000_000
