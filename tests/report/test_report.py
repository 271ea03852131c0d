"""The report: safe against any text, complete, and drawn to scale."""

import itertools
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.report import chart, page
from puna.report.markup import count, duration, energy, escape, figures, percent, size

NUMBERS = st.one_of(
    st.none(), st.floats(), st.integers(-(10**30), 10**30), st.booleans(), st.text(max_size=3)
)


class Check(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> set[str]:
    parser = Check()
    parser.feed(text)
    parser.close()
    assert not parser.open
    return parser.tags


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (count(9876), "9,876"), (count(12_345_678), "12.3\xa0M"), (count(None), "–"), (count(0), "0"),
        (size(532), "532\xa0B"), (size(1_234_567), "1.23\xa0MB"), (size(float("nan")), "–"),
        (duration(0.42), "0.42\xa0s"), (duration(200), "3\xa0min 20\xa0s"),
        (duration(7500), "2\xa0h 05\xa0min"), (duration(10**6), "11\xa0d 14\xa0h"),
        (figures(0.012345), "0.0123"), (figures(1234.5), "1,234"), (percent(0.1234), "12.3\xa0%"),
        (energy(0.00377), "3.77\xa0Wh"), (energy(12.3), "12.3\xa0kWh"),
        (energy(449_000), "449\xa0MWh"), (energy(None), "–"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(told: str, expected: str) -> None:
    assert told == expected


@given(st.text(alphabet=st.characters(codec=None)))
def test_no_text_becomes_markup(text: str) -> None:
    safe = escape(text)
    assert "<" not in safe and '"' not in safe
    safe.encode("utf-8")


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_ticks_enclose_the_data_evenly(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    marks = chart.ticks(low, high)
    room = 1e-9 * max(abs(low), abs(high))
    assert marks[0] <= low + room and marks[-1] >= high - room and 2 <= len(marks) <= 12
    steps = [b - a for a, b in itertools.pairwise(marks)]
    assert all(step > 0 for step in steps) and max(steps) - min(steps) <= 1e-6 * max(steps) + room


def test_a_line_is_drawn_to_scale() -> None:
    drawing = chart.line_chart({"a": [(0, 0), (50, 5), (100, 10)]}, "x", "y")
    path = re.search(r'class="line c0" d="M([^"]+)"', drawing)
    assert path is not None
    points = [tuple(map(float, pair.split())) for pair in path[1].split("L")]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (
        x1 == pytest.approx((x0 + x2) / 2, abs=0.2)
        and y1 == pytest.approx((y0 + y2) / 2, abs=0.2)
        and y2 < y0
    )


def test_long_lines_keep_their_peaks() -> None:
    points = [(float(at), 1.0) for at in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    kept = chart._thin(points)
    assert len(kept) <= chart.MOST_POINTS + 2 and (54_321.0, 9.0) in kept


def test_bars_are_drawn_to_scale() -> None:
    widths = [
        float(width)
        for width in re.findall(
            r'<rect class="c\d"[^>]* width="([\d.]+)"', chart.bars({"g": {"a": 1, "b": 2}}, "t")
        )
    ]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)


@given(
    st.dictionaries(st.text(max_size=5), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5), max_size=3),
    st.dictionaries(
        st.text(max_size=5), st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3), max_size=3
    ),
)
def test_charts_of_anything_are_well_formed(lines: Any, groups: Any) -> None:
    flat = {name: value for members in groups.values() for name, value in members.items()}
    inputs = {name: list(members) for name, members in groups.items()}
    for drawing in (
        chart.line_chart(lines, "<x>", "&y"),
        chart.bars(groups, "<t>", figures),
        chart.funnel(flat, "<t>", figures),
        chart.graph(inputs, "<t>"),
    ):
        if drawing:
            ElementTree.fromstring(str(drawing))
            assert not re.search(r' (?:x|y|cx|cy|d|width|height|points|transform)="[^"]*(?:nan|inf)', drawing)


DATA: dict[str, Any] = {
    "recipe": "<b>r</b>",
    "bits_per_byte": {
        "a": {"model": 1.0, "xz": 2.0, "unigram": 3.0, "five_gram": 0.5},
        "b": {"model": 1.0, "xz": 1.5, "unigram": 3.0, "five_gram": 1.2},
    },
    "losses": [
        {"step": step, "tokens": step * 10, "loss": 5 / step, "learning_rate": 1.0, "gradient_norm": 1.0}
        for step in range(1, 200)
    ],
    "samples": [{"prompt": "<script>", "text": "alert(1)</script>", "temperature": 0.8}],
    "sources": {
        "<s>": {"steps": {"found": {"documents": 5, "bytes": 10}, "kept": {"documents": 2, "bytes": 4}}}
    },
    "recipe_toml": "a = '</pre><script>'",
}


def test_a_page_of_hostile_text_is_well_formed_and_runs_nothing() -> None:
    text = page.render(DATA)
    assert "script" not in checked(text)
    assert "&lt;script&gt;" in text and "http" not in re.sub(r'http-equiv="', "", text)
    assert "beats xz and unigram on every source and it beats the 5-gram on 1 of 2" in text


@pytest.mark.parametrize("left_out", [*DATA, None])
def test_any_part_may_be_absent(left_out: str | None) -> None:
    checked(
        page.render(
            {} if left_out is None else {key: value for key, value in DATA.items() if key != left_out}
        )
    )


def test_the_verdict_is_what_the_numbers_say() -> None:
    assert "does not beat xz and unigram on every source (not xz on a)" in page.verdict(
        {"a": {"model": 2.0, "xz": 2.0, "unigram": 3.0}}
    )
    scores = {"a": {"model": 1.0, "xz": 2.0, "unigram": 3.0}}
    assert "1 score is missing" in page.verdict({"a": {**scores["a"], "five_gram": None}})
    assert page.verdict(scores).endswith("the model beats xz and unigram on every source.")
    assert "beats the 5-gram on 0 of 1" in page.verdict(
        DATA["bits_per_byte"] and {"a": DATA["bits_per_byte"]["a"]}
    )
    assert page.verdict({}) == ""


def test_a_baseline_that_learned_from_a_part_says_so_and_one_that_was_left_out_has_no_column() -> None:
    scores = {"a": {"model": 1.0, "xz": 2.0, "unigram": 3.0, "five_gram": 0.5}}
    text = page.render(
        {"bits_per_byte": scores, "five_gram_tokens": {"learned": 20_000_000, "all": 3_000_000_000}}
    )
    assert "The 5-gram learned from 20,000,000 of 3,000,000,000 training tokens." in text
    whole = page.render({"bits_per_byte": scores, "five_gram_tokens": {"learned": 9, "all": 9}})
    assert "The 5-gram learned" not in whole and "5-gram" in whole
    del scores["a"]["five_gram"]
    assert "5-gram" not in page.render({"bits_per_byte": scores})
