"""LaTeX comments and macros."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.latex.latex import resolve_conditionals, strip_comments
from puna.corpus.readers.latex.macros import Braces, expand_macros


def test_comments_go_escaped_and_verbatim_percents_stay() -> None:
    text = "a 5\\% b % gone\n  % a whole line\nc \\\\% gone too\n\\begin{verbatim}\n% kept\n\\end{verbatim}\n"
    assert strip_comments(text) == "a 5\\% b \nc \\\\\n\\begin{verbatim}\n% kept\n\\end{verbatim}\n"
    assert strip_comments("a\\begin{comment}x\ny\\end{comment}b") == "ab"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (r"\url{http://a.example/%20x} % gone", r"\url{http://a.example/%20x} "),
        (r"\href{http://a.example/%20}{the page}% gone", r"\href{http://a.example/%20}{the page}"),
        (r"\verb|%| and \verb+50%+ % gone", r"\verb|%| and \verb+50%+ "),
        (
            "\\begin{lstlisting}\n% kept\n\\end{lstlisting}% gone\n",
            "\\begin{lstlisting}\n% kept\n\\end{lstlisting}\n",
        ),
        ("% first line\ntext", "text"),
        ("\\begin{verbatim}\n100% never ends", "\\begin{verbatim}\n100"),
        ("% \\begin{verbatim}\ntext % gone", "text "),
        ("\\begin{comment} never ends", "\\begin{comment} never ends"),
    ],
)
def test_a_percent_is_a_comment_only_where_tex_says_so(text: str, kept: str) -> None:
    assert strip_comments(text) == kept


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (r"a\iffalse b\fi c", "a c"),
        (r"a\iffalse b\else c\fi d", "a c d"),
        (r"a\iftrue b\else c\fi d", "a b d"),
        (r"a\iffalse b\ifnum1=1 x\else y\fi c\fi d", "a d"),
        (r"a\if0 b\fi c", "a c"),
        (r"\newif\ifdraft\drafttrue a\ifdraft b\else c\fi", r"\newif\ifdraft\drafttrue a b"),
        (r"\newif\ifdraft a\ifdraft b\else c\fi", r"\newif\ifdraft a c"),
        (r"\ifx\a\b one\else two\fi", r"\ifx\a\b one\else two\fi"),
        (r"\iftrue a\iffalse b\fi c\fi d", " a c d"),
        (r"x \iff y \iffalse z\fi", r"x \iff y "),
        (r"a\iffalse b", r"a\iffalse b"),
        (r"a\fi b\else c", r"a\fi b\else c"),
    ],
)
def test_branches_that_tex_takes(text: str, taken: str) -> None:
    assert resolve_conditionals(text) == taken


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
        (r"\newcommand{\opt}[2][\alpha]{#1:#2}", r"\opt[b]{c} \opt c", r"b:c \alpha:c"),
        (r"\newcommand{\opt}[1][a]{(#1)}", r"\opt[x{]}y] \opt", "(x{]}y) (a)"),
        (r"\newcommand{\opt}[1][a]{(#1)}", r"\opt[x\]y]", r"(x\]y)"),
        (r"\def\pt(#1,#2){<#1|#2>}", r"\pt(1,{2,3}) \pt(1", r"<1|2,3> \pt(1"),
        (r"\def\until#1.{[#1]}", "\\until it ends. And on", "[it ends] And on"),
        (r"\long\gdef\x#1{<#1>}", r"\x{y}", "<y>"),
        (r"\let\eps=\varepsilon \let\e\eps", r"$\e$", r"$\varepsilon$"),
        (r"\newcommand\a{one}\let\b\a\renewcommand\a{two}", r"\a \b", "two one"),
        (
            r"\let\oldvec\vec\renewcommand{\vec}[1]{\oldvec{\mathbf{#1}}}",
            r"\vec{x} \oldvec{y}",
            r"\vec{x} \vec{y}",
        ),
        (
            r"\newenvironment{claim}[1]{\begin{quote}\textbf{#1}}{\end{quote}}",
            r"\begin{claim}{A}b\end{claim}",
            r"\begin{quote}\textbf{A}b\end{quote}",
        ),
        (r"\newenvironment{box*}[1][x]{<#1}{>}", r"\begin{box*}b\end{box*}", "<xb>"),
        (
            r"\newcommand{\R}{\ensuremath{\mathbb{R}}\xspace}",
            r"the set \R is $\R$, \[\R\]",
            r"the set $\mathbb{R}$ is $\mathbb{R}$, \[\mathbb{R}\]",
        ),
        (r"\newcommand{\name}{Puna}", r"\name{} is \name.", "Puna is Puna."),
        (
            r"\DeclarePairedDelimiter{\abs}{\lvert}{\rvert}",
            r"\abs{x} \abs*{y}",
            r"\lvert x \rvert \lvert y \rvert",
        ),
        (r"\NewDocumentCommand{\f}{s m O{z}}{#2/#3}", r"\f*{a} \f{a}[b]", "a/z a/b"),
        (r"\newcommand{\sect}[1]{\section{#1}}", r"\sect{One}", r"\section{One}"),
        (r"\newcommand{\section}[1]{no}", r"\section{One}", r"\section{One}"),
        (r"\newcommand{\one}[1]{<#1>}", "\\one\n\nnext", "\\one\n\nnext"),
        (r"\newcommand{\a}{\b}\newcommand{\b}{\a}\newcommand{\c}{\a!}", r"\c \a", r"\a! \a"),
    ],
)
def test_macros_are_expanded_inline(preamble: str, body: str, expanded: str) -> None:
    assert expand_macros(preamble, body) == expanded


def test_groups_are_balanced() -> None:
    assert Braces(r"{a{b}\}c}d").group(0) == (r"a{b}\}c", 9)
    assert Braces("{a").group(0) is None
    assert Braces("a").group(0) is None
    assert Braces("[a{]}b]c").bracket(0) == ("a{]}b", 7)


PARTS = st.sampled_from(
    [r"\newcommand", r"\def", r"\a", r"\b", "{", "}", "[1]", "[", "]", "#1", "#2", "x", " ", "%", "\n", "\\"]
)


@given(st.lists(PARTS, max_size=40).map("".join), st.lists(PARTS, max_size=40).map("".join))
def test_no_text_breaks_it(preamble: str, body: str) -> None:
    expand_macros(strip_comments(preamble), strip_comments(body))


def test_a_bomb_of_macros_stays_small() -> None:
    names = [f"\\{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    preamble = "".join(
        f"\\newcommand{{{name}}}{{{10 * following}}}"
        for name, following in zip(names, [*names[1:], "x"], strict=True)
    )
    assert len(expand_macros(preamble, r"\a")) < 1_000_000
    body = expand_macros(r"\newcommand{\two}[1]{#1#1}", "\\two{" * 300 + "x" + "}" * 300)
    assert len(body) < 1_000_000


def test_braces_that_are_escaped_or_never_closed_are_no_group() -> None:
    """TeX takes an argument without braces as one token, and \\{ is one."""
    assert expand_macros(r"\newcommand{\a}[1]{<#1>}", r"\a\{x\} {\a{y\}}} {\a{z}") == r"<\{>x\} {<y\}>} {<z>"


def test_mutual_recursion_ends() -> None:
    body = expand_macros(r"\newcommand{\a}{x\b\b}\newcommand{\b}{y\a\a}", r"\a")
    assert len(body) < 1_000_000
