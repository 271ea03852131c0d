"""Spans of three sentences against a plain reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.dedup import lines
from puna.corpus.dedup.sentences import Spans
from puna.text.sentences import cut, sentences
from tests.timing import within

pytestmark = pytest.mark.usefixtures("either_code")  # with the C++ source and without


def test_a_span_seen_before_goes_and_the_lines_stay_apart() -> None:
    seen = Spans(1 << 20)
    notice = "We sell wool here. We ship it abroad. We answer every letter."
    own = [
        "The plain is very high. The air is very thin.\nThe nights are cold.",
        "A herd came by today. It had forty heads. All of them were brown.",
    ]
    assert seen.unseen([f"{own[0]}\n{notice}"]) == [(f"{own[0]}\n{notice}", 6)]
    shouted = "WE SELL WOOL HERE.   We ship\tit abroad. We answer every LETTER."
    assert seen.unseen([f"{shouted}\n{own[1]}", f"{own[0]} One more is here."]) == [
        (own[1], 3),
        ("One more is here.", 1),
    ]
    assert (seen.found, seen.removed, seen.scopes) == (16, 6, 1)
    short = ["", "Only one.", "Two are here. And no more."]
    texts = [f"{own[1]}\n{own[1]}", *short, f"\n{own[0]}\n\n"]
    expected = [(own[1], 3), *zip(short, (0, 1, 2), strict=True), (f"\n{own[0]}\n\n", 3)]
    assert Spans(1 << 20).unseen(texts) == expected
    assert Spans(1 << 20).unseen([]) == []


def test_digits_and_marks_are_told_apart() -> None:
    texts = [
        f"Room {number} is free. It costs {number} dollars. Ask for it at once{mark}"
        for number in (1, 2, 3)
        for mark in ".!"
    ]
    assert Spans(1 << 20).unseen(texts) == [(text, 3) for text in texts]


SENTENCES = [f"This is sentence number {number} here." for number in range(8)]
PAGES = st.lists(
    st.lists(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4), min_size=1, max_size=3),
    min_size=1,
    max_size=8,
)


def reference(pages: list[list[list[str]]], most: int) -> tuple[list[tuple[str, int]], int]:
    """Each page as unseen gives it, with a memory of `most` spans; and how many scopes there were."""
    seen: set[tuple[str, ...]] = set()
    scopes, expected = 1, []
    for page in pages:
        flat = [(row, sentence) for row, line in enumerate(page) for sentence in line]
        gone: set[int] = set()
        for start in range(len(flat) - 2):
            span = tuple(sentence for _, sentence in flat[start : start + 3])
            if span in seen:
                gone |= {start, start + 1, start + 2}
            elif len(seen) == most:
                seen, scopes = {span}, scopes + 1
            else:
                seen.add(span)
        rows: dict[int, list[str]] = {}
        for number, (row, sentence) in enumerate(flat):
            if number not in gone:
                rows.setdefault(row, []).append(sentence)
        expected.append(("\n".join(" ".join(row) for row in rows.values()), len(flat) - len(gone)))
    return expected, scopes


def test_as_defined_however_the_calls_are_cut_and_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SMALLEST_TABLE", 2)

    @given(PAGES, st.integers(0, 8), st.sampled_from([2, 5, 1000]))
    def check(pages: list[list[list[str]]], at: int, most: int) -> None:
        seen = Spans(most * lines.BYTES_PER_LINE)
        texts = ["\n".join(" ".join(line) for line in page) for page in pages]
        expected, scopes = reference(pages, most)
        assert seen.unseen(texts[:at]) + seen.unseen(texts[at:]) == expected
        assert seen.scopes == scopes

    check()


@given(
    st.lists(
        st.text(st.one_of(st.sampled_from("aA .!?。」\"')( \nMr.\t\x85\u2028İΣ\ud800"), st.characters())),
        max_size=4,
    )
)
def test_any_texts_and_a_second_copy_of_each(texts: list[str]) -> None:
    """Every sentence of a text of three or more is in a span, so nothing of the copy stays."""
    found = Spans(1 << 20).unseen([text for text in texts for _ in range(2)])
    for text, (first, left), copy in zip(texts, found[::2], found[1::2], strict=True):
        count = sum(len(sentences(line)) for line in text.split("\n"))
        assert left <= count and (left < count or first == text)
        assert copy == ((text, count) if count < 3 else ("", 0))
        assert all("".join(cut(line)) == line for line in text.split("\n"))


@pytest.mark.parametrize("piece", ["[", "a. ", ".", '."', "。", " ", "a\n", "A. A. A. ", '""""', "a. A"])
def test_time_is_linear(piece: str) -> None:
    within(8, lambda: Spans(1 << 24).unseen([piece * 200_000]))
