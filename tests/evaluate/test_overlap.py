"""Items that stand in documents, by 13 words in a row."""

from hypothesis import given
from hypothesis import strategies as st

from puna.evaluate.overlap import WORDS, found
from puna.evaluate.task import Choice


def item(question: str, options: tuple[str, ...] = (" yes", " no"), name: str = "0") -> Choice:
    return Choice(id=name, question=question, options=options, right=(0,))


def words(first: int, count: int, between: str = " ") -> str:
    return between.join(f"w{number}" for number in range(first, first + count))


def test_thirteen_words_in_a_row_are_found_whatever_stands_between_them() -> None:
    document = f"Before. {words(0, 20, ', ')} — after"
    assert found([item(words(3, 13).upper())], [document]) == {"0"}
    assert found([item(words(3, 12))], [document]) == set()
    assert found([item(words(3, 12) + " other " + words(15, 12))], [document]) == set()
    assert found([item("Which?", (" none", f" {words(5, 13)}"))], [document]) == {"0"}
    assert found([item(words(0, 13))], [words(0, 12), words(12, 12)]) == set()  # not over two documents


def test_each_item_is_found_for_itself() -> None:
    items = [item(words(start, 15), name=str(start)) for start in range(0, 40, 10)]
    assert found(items, [words(0, 14), words(28, 16)]) == {"0", "30"}
    assert found(items, []) == found([], [words(0, 40)]) == set()
    blank = Choice(id="9", question="", questions=(words(0, 13), "b"), options=(" a", " a"), right=(0,))
    assert found([blank], [words(0, 13)]) == {"9"}


@given(st.lists(st.sampled_from("ab"), max_size=40), st.lists(st.sampled_from("ab"), max_size=16))
def test_as_a_search_for_the_text_would(document: list[str], question: list[str]) -> None:
    text, spans = f" {' '.join(document)} ", range(len(question) - WORDS + 1)
    expected = any(f" {' '.join(question[start : start + WORDS])} " in text for start in spans)
    assert bool(found([item(" ".join(question))], [" ".join(document)])) == expected
