"""Formulas of pages: TeX, once, between dollars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.readers.web.formulas import as_tex
from puna.corpus.readers.web.page import read_page
from tests.timing import within

MATHML = "<mrow><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup></mrow>"
TEX = "E = mc^2"
ANNOTATED = f'<semantics>{MATHML}<annotation encoding="application/x-tex">{TEX}</annotation></semantics>'
LETTERS = '<span class="mord">E</span><span class="mrel">=</span><span class="mord">mc<span>2</span></span>'
KATEX = (
    f'<span class="katex"><span class="katex-mathml"><math>{ANNOTATED}</math></span>'
    f'<span class="katex-html" aria-hidden="true">{LETTERS}</span></span>'
)


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (KATEX, "$E = mc^2$"),
        (f'<span class="katex-display">{KATEX}</span>', "$$E = mc^2$$"),
        ('<script type="math/tex">E = mc^2</script>', "$E = mc^2$"),
        ('<script type="math/tex; mode=display">a &lt; b</script>', "$$a &lt; b$$"),
        ('<script type="math/tex">% <![CDATA[\na < b %]]></script>', "$a < b$"),
        ('<span class="MathJax_Preview">E=mc2</span><span class="MathJax" id=M1><nobr>E=mc2</nobr></span>'
         '<script type="math/tex" id=M1>E = mc^2</script>', "$E = mc^2$"),
        (f'<mjx-container class="MathJax" jax="CHTML" display="true"><mjx-math>E</mjx-math>'
         f'<mjx-assistive-mml><math display="block">{ANNOTATED}</math></mjx-assistive-mml></mjx-container>',
         "$$E = mc^2$$"),
        (f"<math>{MATHML}</math>", "$E = mc^{2}$"),
        ('<m:math xmlns:m="x"><m:mi>a</m:mi></m:math>', "$a$"),
        (f'<math alttext="E=mc^{{2}}" display="block">{MATHML}</math>', "$$E=mc^{2}$$"),
        (f'<span class="mwe-math-element"><span class="mwe-math-mathml-inline" style="display: none"><math '
         f'alttext="{{\\displaystyle x}}"><semantics>{MATHML}<annotation encoding="application/x-tex">'
         r'{\displaystyle E=mc^{2}}</annotation></semantics></math></span>'
         r'<img class="mwe-math-fallback-image-inline" alt="{\displaystyle E=mc^{2}}"></span>', "$E=mc^{2}$"),
        ('<img src="https://s0.wp.com/latex.php?latex=E" alt="E=mc^2" class="latex">', "$E=mc^2$"),
        ("<math><mfrac><mn>1</mn><msqrt><mi>x</mi></msqrt></mfrac></math>", r"$\frac{1}{\sqrt{x}}$"),
        ("<math><msub><mi>x</mi><mi>i</mi></msub><mo>+</mo><mi>sin</mi><mi>y</mi></math>",
         r"$x_{i} + \sin y$"),
    ],
)  # fmt: skip
def test_a_formula_is_there_once_as_tex(formula: str, text: str) -> None:
    sentence = (
        "We see that it is positive, which is what the lamp on the mole says to those who can read it. " * 4
    )
    page = f"<title>Ferry</title><p>The energy is {formula} in general. {sentence}</p><p>{sentence}</p>"
    found = read_page(page.encode()).text
    assert found.startswith(f"The energy is {text} in general."), found[:200]
    assert found.count("energy") == 1


def test_what_is_no_formula_stays() -> None:
    for source in (
        "<p>Costs $5 <img alt='a boat' src=boat.png> and <span class=math>x</span></p>",
        '<span class="katex-html">abc</span><span class="MathJax_Preview">y</span>',
        "<script>var math = 1</script><math>",
    ):
        assert as_tex(source).replace("$", "") == source.replace("$", "") or "<math>" in source


PIECES = st.sampled_from(
    ["<math>", "</math>", "<mi>", "</mi>", '<span class="katex">', "</span>", "<mjx-container>", "x",
     "<mfrac>", '<script type="math/tex">', "</script>", "<annotation encoding='tex'>", "</annotation>", "{",
     "}", "&lt;"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
def test_no_page_breaks_it(source: str) -> None:
    read_page(source.encode())
    as_tex(source)


@pytest.mark.parametrize(
    "piece", ["<math>", '<span class="katex">', '<script type="math/tex">', "<mjx-container>"]
)
def test_time_is_linear(piece: str) -> None:
    source = piece * (300_000 // len(piece))
    within(10, lambda: as_tex(source))
