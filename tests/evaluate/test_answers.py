"""What written answers say: cuts, numbers, formulas, votes, pass@k."""

import json
import math
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.evaluate import answers


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize(
    ("text", "short", "strict"),
    [
        (" Lima\nQ: and then?", "Lima", "Lima"),
        (" St. Louis, Missouri.", "St. Louis, Missouri", "St"),
        ("ten,", "ten", "ten"),
        ("ten..", "ten.", "ten"),
        ("\n\nlate", "late", "late"),
        ("", "", ""),
        (" . ", "", ""),
    ],
)
def test_cuts_of_short_answers(text: str, short: str, strict: str) -> None:
    assert (answers.short_answer(text), answers.strict_answer(text)) == (short, strict)


def test_exact_match_looks_past_case_articles_punctuation_and_white_space() -> None:
    assert answers.exact_match("The  Beatles!", ["A Beatles"])
    assert answers.exact_match("“O’Neill”", ["o'neill"])
    assert answers.exact_match("an-the-ropes", ["antheropes"])  # punctuation goes before articles
    assert not answers.exact_match("theatre", ["atre"])
    assert not answers.exact_match("the", ["a", ""])
    assert not answers.exact_match("", [""])


def test_real_answers_can_be_reached(data: Path) -> None:
    questions = rows(data / "eval" / "NQ-open.dev.jsonl")
    for cut, fewest, most in ((answers.short_answer, 3_607, 3_609), (answers.strict_answer, 3_200, 3_350)):
        reached = sum(
            any(answers.exact_match(cut(f" {gold}\nQ: more"), row["answer"]) for gold in row["answer"])
            for row in questions
        )
        assert fewest <= reached <= most
    trivia = rows(data / "eval" / "triviaqa_rc_val_subset_3000.jsonl")
    for cut, reached in ((answers.short_answer, 2_999), (answers.strict_answer, 2_936)):
        assert sum(answers.exact_match(cut(row["answer"]), row["aliases"]) for row in trivia) == reached


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 18.", "18"),
        ("The answer is $1,000.", "1000"),
        ("The answer is 1,234,567 llamas.", "1234567"),
        ("The answer is \\$18 per day", "18"),
        ("The answer is 3.50", "3.5"),
        ("The answer is $.50.", "0.5"),
        ("The answer is **18**.", "18"),
        ("The answer is $\\boxed{18}$.", "18"),
        ("The answer is -5.", "-5"),
        ("The answer is -$5.", "-5"),
        ("The answer is $-5.", "-5"),
        ("The answer is \u22125.", "-5"),
        ("The answer is 40%.", "40"),
        ("The answer is 18 of the 20 eggs.", "18"),
        ("The answer is 3 + 4 = 7 apples. That is 2 more.", "7"),
        ("Whether it pays, the answer is unclear. But 5 + 4 is 9. The answer is 9.", "9"),
        ("The answer is 18.\n\nQ: One more?\nA: 2 + 5 is 7. The answer is 7.", "18"),
        ("The answer is 18. Q: One more? A: The answer is 7.", "18"),
        ("He keeps 18.\nQuestion: One more?\nAnswer: 7", "18"),
        ("Q: Again? The answer is 7.", None),
        ("The answer is 18.\n\nThe answer is 7.", "18"),
        ("16 - 3 = <<16-3=13>>13 eggs\nA: 13", "13"),
        ("#### 1,200", "1200"),
        ("so 20-7 gives 13", "13"),
        ("he has 5-3", "3"),
        ("it fell to -3", "-3"),
        ("no number", None),
        ("room B12", None),
        ("", None),
    ],
)
def test_numbers_of_solutions(text: str, value: str | None) -> None:
    assert answers.number(text) == (None if value is None else Decimal(value))


@given(
    st.integers(-(10**9), 10**9), st.sampled_from(["The answer is {}.", "so it is {:,}", "#### ${:,} a day"])
)
def test_written_numbers_are_read_back(value: int, form: str) -> None:
    assert answers.number(form.format(value)) == value


def test_checks_of_real_solutions_agree_with_their_authors(data: Path) -> None:
    checked = 0
    for row in rows(data / "eval" / "gsm8k_model_solutions.jsonl"):
        gold = answers.number(row["ground_truth"])
        for model in ("6b_finetuning", "6b_verification"):
            assert (answers.number(row[model]["solution"]) == gold) == row[model]["is_correct"]
            checked += 1
    assert checked == 2_638


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so $x=\\boxed{\\frac{1}{\\sqrt{2}}}$.", "\\frac{1}{\\sqrt{2}}"),
        ("first \\boxed{1}, then \\boxed{2}", "2"),
        ("it is \\boxed 7$ here", "7"),
        ("it is \\fbox{12 \\text{ cm}}", "12"),
        ("\\boxed{\\{1, 2\\}}", "\\{1,2\\}"),
        ("\\boxed{\\left\\{ \\frac{1}{2}", None),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5"),
        ("\\boxed{4}\nFinal Answer: The final answer is $x = 5$. I hope it is correct.", "5"),
        ("Final Answer: The final answer is 5", "5"),
        ("Final Answer: The final answer is $1$. I hope it is correct.\n\nProblem:\n\\boxed{2}", "1"),
        ("The final answer is on the way: \\boxed{3}", "3"),
        ("Problem: \\boxed{2}", None),
        ("Final Answer: The final answer is . I hope it is correct.", None),
        ("nothing", None),
    ],
)
def test_final_formulas(text: str, value: str | None) -> None:
    assert answers.formula(text) == value


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("\\frac12", "\\frac{1}{2}"),
        ("\\frac1{2}", "\\frac{1}{2}"),
        ("\\sqrt2", "\\sqrt{2}"),
        ("\\sqrt[3]5", "\\sqrt[3]{5}"),
        ("10,000", "10000"),
        ("12\\text{ square inches}", "12"),
        ("\\$18", "18"),
        ("90^\\circ", "90"),
        ("y = 3x", "3x"),
        ("\\text{Tuesday}", "Tuesday"),
        ("\\text{a \\textbf{b}}", "\\textbf{b}"),
        ("the value $\\frac{3}{4}$ of it", "\\frac{3}{4}"),
        ("5.", "5"),
        ("\\left( 3, 4 \\right)", "\\left(3,4\\right)"),
    ],
)
def test_notations_of_one_formula(answer: str, other: str) -> None:
    assert answers.normal_form(answer) == answers.normal_form(other)


def test_formulas_that_differ_stay_apart() -> None:
    forms = [
        "\\left(0,1\\right)",
        "0,1",
        "01",
        "\\frac{1}{2}",
        "\\frac{12}{}",
        "-5",
        "5",
        "10,00",
        "\\sqrt{2}",
        "2",
    ]
    assert len({answers.normal_form(form) for form in forms}) == len(forms)


@given(st.text(alphabet="\\{}$a1 =,.frctexboqsdFinal:\n", max_size=60))
def test_any_text_has_a_formula_or_none(text: str) -> None:
    found = answers.formula(text)
    assert found is None or found


def test_real_formulas_are_found(data: Path) -> None:
    for row in rows(data / "eval" / "math_test.jsonl"):
        assert answers.formula(row["solution"]), row
    for row in rows(data / "eval" / "math500_oai_test.jsonl"):
        found, form = answers.formula(row["solution"]), answers.normal_form(row["answer"])
        assert found == form
        assert answers.normal_form(form) == form
        said = f"Hence.\nFinal Answer: The final answer is ${row['answer']}$. I hope it is correct."
        assert answers.formula(said) == form


def test_votes() -> None:
    assert answers.majority(["3", None, "4", "4"]) == ("4", 2, 1)
    assert answers.majority(["4", "3", None, "3", "4"]) == ("4", 2, 2)
    assert answers.majority([None, None]) == (None, 0, 0)
    assert answers.majority([Decimal("3.50"), Decimal("3.5"), 4]) == (Decimal("3.5"), 2, 1)


def test_pass_at_k_as_published() -> None:
    assert answers.pass_at_k(5, 2, 2) == pytest.approx(0.7, abs=1e-12)
    assert answers.pass_at_k(10, 3, 5) == pytest.approx(0.916667, abs=1e-6)
    assert answers.pass_at_k(200, 1, 100) == pytest.approx(0.5, abs=1e-12)
    for wrong in ((5, 6, 1), (5, 1, 6), (5, 1, 0), (5, -1, 1)):
        with pytest.raises(ValueError, match="pass@"):
            answers.pass_at_k(*wrong)


@given(st.data())
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(draw: st.DataObject) -> None:
    samples = draw.draw(st.integers(1, 300))
    right, k = draw.draw(st.integers(0, samples)), draw.draw(st.integers(1, samples))
    exact = 1 - Fraction(math.comb(samples - right, k), math.comb(samples, k))
    assert answers.pass_at_k(samples, right, k) == pytest.approx(float(exact), abs=1e-12)


def test_what_is_replaced_is_a_data_file_with_its_source() -> None:
    assert re.search("Lewkowycz", answers.MINERVA["source"]) and answers.MINERVA["licence"]
