"""The report: safe against any text, complete, and drawn to scale."""

import html
import itertools
import re
import shlex
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.report import chart, frame, page, results
from puna.report.markup import carbon, count, duration, energy, escape, figures, percent, size

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
        (energy(12.3, measured=False), "about\xa010\xa0kWh"),
        (energy(0.00546, measured=False), "about\xa05\xa0Wh"),
        (carbon(0.0021), "2.1\xa0g"), (carbon(0.0021, measured=False), "about\xa02\xa0g"),
        (carbon(173_000), "173\xa0t"), (carbon(None), "–"),
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
def test_an_axis_is_as_long_as_its_data(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    start, end = chart.limits(low, high)
    marks = chart.ticks(start, end)
    room = 1e-6 * (end - start) + 1e-9 * max(abs(low), abs(high))
    assert start <= low + room and end >= high - room
    if high - low > 1e-6 * max(abs(low), abs(high)):
        assert (high - low) >= 0.85 * (end - start)  # no sixth is empty
    assert 2 <= len(marks) <= 12 and start - room <= marks[0] and marks[-1] <= end + room
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
    assert (
        "beats xz and unigram on every source; it loses to the 5-gram on one of two (a: 100% more bits)"
        in text
    )


@pytest.mark.parametrize("left_out", [*DATA, None])
def test_any_part_may_be_absent(left_out: str | None) -> None:
    checked(
        page.render(
            {} if left_out is None else {key: value for key, value in DATA.items() if key != left_out}
        )
    )


def against(**pairs: float) -> str:
    """The verdict on sources whose 5-gram needs one bit a byte."""
    scores = {
        source: {"model": model, "xz": 9.0, "unigram": 9.0, "five_gram": 1.0}
        for source, model in pairs.items()
    }
    return results.verdict(scores).partition("; ")[2]


def test_the_verdict_says_who_wins_and_by_how_much() -> None:
    assert against(a=1.03, b=1.05) == "it loses to the 5-gram on both, 3 to 5% more bits."
    assert against(a=0.97, b=0.97, c=0.97) == "it beats the 5-gram on all three, 3% fewer bits."
    assert against(a=1.0) == "it loses to the 5-gram on a, 0% more bits."
    assert against(a=1.03, b=1.05, c=0.9, d=0.996) == (
        "it loses to the 5-gram on two of four (a, b: 3 to 5% more bits) "
        "and beats it on two (c, d: 0.4 to 10% fewer bits)."
    )


def test_the_verdict_is_what_the_numbers_say() -> None:
    assert "does not beat xz and unigram on every source (not xz on a)" in results.verdict(
        {"a": {"model": 2.0, "xz": 2.0, "unigram": 3.0}}
    )
    scores = {"a": {"model": 1.0, "xz": 2.0, "unigram": 3.0}}
    assert "1 score is missing" in results.verdict({"a": {**scores["a"], "five_gram": None}})
    assert results.verdict(scores).endswith("the model beats xz and unigram on every source.")
    assert results.verdict({}) == ""
    lost = {source: {"model": 3, "xz": 2, "unigram": 1 if source == "c" else 4} for source in "abc"}
    assert "(not xz on a, b and c; not unigram on c)" in results.verdict(lost)


def test_steps_that_were_not_taken_are_told_with_why_and_what_was_gone_back_to() -> None:
    taken = {"step": 1, "tokens": 8, "loss": 3.0, "learning_rate": 1e-3, "gradient_norm": 1.0}
    skipped = {**taken, "step": 7, "loss": None, "skipped": 1, "why": "not finite in process 1"}
    back = {**taken, "step": 9, "skipped": 2, "why": "a spike", "rolled_back_to": 4}
    told = page.training({"losses": [taken, skipped, back]})
    expected = "2 of 3 steps were not taken: 7 (not finite in process 1), 9 (a spike, back to step 4)."
    assert expected in told
    many = page.training({"losses": [{**skipped, "step": step} for step in range(1, 31)]})
    assert (
        "30 of 30 steps were not taken: 1 (" in many and "12 (not finite in process 1) and 18 more." in many
    )
    assert "not taken" not in page.training({"losses": [taken]})


def test_what_was_learnt_by_heart_is_told() -> None:
    losses = [{"loss": 6.0}] * 95 + [{"loss": 0.5}] * 5
    for held_out, told in ((2.0, True), (0.6, False)):
        found = results.by_heart(losses, [{"losses": {"a": 9.0}}, {"losses": {"a": held_out}}])
        assert ("by heart" in found) == told
    assert results.by_heart([], []) == ""


def test_an_interval_that_is_missing_is_explained() -> None:
    data = {"bits_per_byte": {"a": {"model": 2, "five_gram": 1}}}
    assert "a single document is held out" in results.scores(data)
    known = {"intervals": {"a": {"model_over_five_gram": [1.5, 2.5]}}}
    assert "a single document is held out" not in results.scores({**data, **known})


def test_what_was_set_on_the_command_line_is_in_the_head_and_in_the_commands() -> None:
    data = {"recipe": "a", "folder": "runs/a", "source": "a.toml", "program": ".venv/bin/puna"}
    changes = {"changes": ("train.steps=120", 'tokens.small_sources="leave out"')}
    text = html.unescape(page.render({**data, **changes}))
    assert '<p>a, with train.steps=120, tokens.small_sources="leave out"</p>' in text
    command = ".venv/bin/puna run a.toml -s train.steps=120 -s 'tokens.small_sources=\"leave out\"'"
    assert f"{command} --out runs -s train.learning_rate=2e-3" in text
    assert ", with " not in page.render(data).partition("<main>")[0] and "--out" not in page.next_steps(
        {**data, "folder": "out/a"}
    )


def test_a_score_over_little_text_is_told_to_be_unsure() -> None:
    def part(documents: int, tokens: int) -> dict[str, int]:
        return {"held_out_documents": documents, "held_out_tokens": tokens}

    assert results.unsure({"a": part(8, 20_000)}) == ""
    told = results.unsure({"a": part(7, 30_000), "b": part(1, 19_999), "c": part(9, 50_000), "d": {}})
    assert "a (7 documents, 30,000 tokens), b (1 document, 19,999 tokens)" in told and "c (" not in told


def test_a_comparison_that_other_documents_might_turn_is_told_to_be_open() -> None:
    intervals = {
        "a": {"model_over_five_gram": [0.97, 1.02]},
        "b": {"model_over_five_gram": [0.9, 0.99]},
        "c": {"model": [1.0, 2.0]},
        "d": {"model_over_five_gram": [None, 1.1]},
    }
    told = results.unsure({}, intervals)
    assert "on a (\N{MINUS SIGN}3.0 to +2.0%)." in told
    text = page.render({**DATA, "intervals": intervals})
    checked(text)
    assert "\N{MINUS SIGN}10.0 to \N{MINUS SIGN}1.0%" in text and told in text
    assert "lies between the bounds with 95%" in text


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


def test_scores_and_samples_come_before_what_went_in() -> None:
    order = [key for key, _, _ in page.SECTIONS]
    assert order[:2] == ["scores", "samples"] and order.index("training") < order.index("corpus")


def test_speed_is_told_as_median_and_as_mean() -> None:
    text = page.costs({"tokens_per_second": 10_117.0, "tokens": 1_560_000, "training_seconds": 1000.0})
    told = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", text))
    assert told["tokens per second, median step"] == "10.1\xa0k"
    assert told["tokens per second, mean"] == "1,560"


def test_what_to_try_next_can_be_typed() -> None:
    data = {"folder": "out/a b", "source": "our recipe.toml", "samples": [{"prompt": "It's "}]}
    lines = [html.unescape(line) for line in re.findall(r"<code>([^<]+)</code>", page.next_steps(data))]
    assert [shlex.split(line) for line in lines] == [
        ["puna", "generate", "out/a b", "It's "],
        ["puna", "run", "our recipe.toml", "-s", "train.learning_rate=2e-3"],
        ["puna", "corpus", "FOLDER"],
        ["puna", "trace", "out/a b", "1", "0", "0"],
    ]


def test_digests_are_whole_and_bytes_are_no_pieces() -> None:
    digest = "0123456789abcdef" * 4
    text = page.render(
        {
            "stages": [{"stage": "fetch", "digest": digest, "seconds": 1.0}],
            "tokenizer": {"vocab_size": 300, "longest_pieces": ["<0x00>", "<0xFF>", " the"]},
        }
    )
    assert digest in text and "·the" in text and "0x" not in text


def colours(style: str) -> list[dict[str, str]]:
    """Variables of the style sheet: in light, in dark."""
    light, dark = style.split("prefers-color-scheme:dark", 1)
    found = [dict(re.findall(r"--(\w+):(#[0-9a-f]{6})\b", part.partition("}}")[0])) for part in (light, dark)]
    return [found[0], {**found[0], **found[1]}]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_its_definition() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_everything_can_be_seen(scheme: int) -> None:
    """Text has a contrast of 4.5, lines and bars of 3 (WCAG 2.2, 1.4.3 and 1.4.11), on both backgrounds."""
    known = colours(frame.STYLE.read_text())[scheme]
    for ground in ("paper", "wash"):
        for text in ("ink", "soft", "accent"):
            assert contrast(known[text], known[ground]) >= 4.5, (text, ground)
    for place in range(chart.COLOURS):
        assert contrast(known[f"c{place}"], known["paper"]) >= 3, place
    assert known["c0"] == known["accent"], "the model, first of all series, has the accent colour"
    assert len({known[f"c{place}"] for place in range(chart.COLOURS)}) == chart.COLOURS


def test_nothing_is_made_paler_by_opacity() -> None:
    assert "opacity" not in frame.STYLE.read_text()
