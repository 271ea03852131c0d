"""What is shown while a recipe runs; captured output is no terminal, so there are no bars."""

import time
from pathlib import Path

import pytest

from puna.cli.view import LINE_SECONDS, ConsoleView, Pace
from puna.train.trainer import Notice, SamplesEvent, SkippedStepEvent, StepEvent, ValidationEvent


def test_a_line_for_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    view = ConsoleView(10)
    view.begin(Path("ours.toml"), Path("out/ours"))
    view.stage("fetch", "reuse", "0123456789ab")
    view.stage("documents", "start", "ba9876543210")
    view.progress("news", 1, 2)
    view.note("no reader takes raw/[old]/a.png")
    view.stage("documents", "done", "ba9876543210")
    view.event(Notice("goes on at step 3"))
    view.event(ValidationEvent(step=5, tokens=50, losses={"news": 2.5, "code": 1.25}))
    view.event(SkippedStepEvent(7, 70, float("nan"), 1e-3, float("inf"), 0.5, skipped=2, why="a spike"))
    view.close()
    result = capsys.readouterr()
    first, *lines = result.err.splitlines()
    assert first == "ours.toml → out/ours" and result.out == ""
    assert lines[:3] == [
        "✓ fetch      0123456789ab  raw files, exists already",
        "▸ documents  ba9876543210  clean documents ...",
        "  no reader takes raw/[old]/a.png",
    ]
    assert lines[3].startswith("✓ documents  ba9876543210  clean documents, 0.")
    assert lines[4:] == [
        "  goes on at step 3",
        "  step     5  held-out nats per token: news 2.500, code 1.250",
        "  step     7  skipped, a spike: loss nan, gradient norm inf; 2 skipped so far",
    ]


def test_a_training_that_goes_on_tells_from_where_its_seconds_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for first, told in ((1, " s\n"), (8, " s since step 8\n")):
        view = ConsoleView(10)
        view.stage("train", "start", "0123456789ab")
        view.event(step(first))
        view.event(step(9))
        view.stage("train", "done", "0123456789ab")
        assert capsys.readouterr().err.endswith(told)


def step(number: int, seconds: float = 0.5, loss: float = 4.0) -> StepEvent:
    return StepEvent(
        step=number, tokens=50 * number, loss=loss, learning_rate=1e-3, gradient_norm=1.0, seconds=seconds
    )


def test_figures_of_the_training_come_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [time.mktime((2026, 11, 30, 14, 0, 0, 0, 0, -1))]
    for name in ("time", "monotonic"):
        monkeypatch.setattr(time, name, lambda: clock[0])
    view = ConsoleView(200)
    view._pace.now = time.time
    view.stage("train", "start", "0123456789ab")
    assert capsys.readouterr().err == "▸ train      0123456789ab  trained weights ...\n"
    view.event(step(1))
    assert capsys.readouterr().err == "  step     1 of 200  loss 4.000  100 tokens/s  rate 1.00e-03\n"
    view.event(ValidationEvent(step=1, tokens=50, losses={"news": 2.5, "code": 1.5}))
    view.event(SamplesEvent(step=1, samples=[{"prompt": "The [old] ", "text": "llama\nwalks"}]))
    for number in range(2, 101):
        clock[0] += 0.6  # a step of 0.5 s, and what lies between two
        view.event(step(number, 5.0 if number % 10 == 0 else 0.5))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "  step     1  held-out nats per token: news 2.500, code 1.500",
        "  step     1  it writes: The [old] llama walks",
    ]
    assert len(lines) == 2 + int(99 * 0.6 / LINE_SECONDS)
    assert all("held out 2.000  100 tokens/s" in line and "ends about 14:0" in line for line in lines[2:])


def test_long_stages_say_how_far_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    view = ConsoleView(1)
    view.stage("documents", "start", "ba9876543210")
    for done in range(1, 5):
        clock[0] += 0.7 * LINE_SECONDS
        view.progress("reading", done, 4)
    assert capsys.readouterr().err.splitlines()[1:] == ["  reading: 2 of 4", "  reading: 4 of 4"]


def test_the_end_of_a_training_is_a_time_of_day() -> None:
    clock = [time.mktime((2026, 11, 30, 22, 0, 0, 0, 0, -1))]
    pace = Pace(1000, lambda: clock[0])
    ends = []
    for number in range(1, 1001):
        pace.add(number, 50 * number, 10.0)
        ends.append(pace.end())
        clock[0] += 60.0 if number < 500 else 6.0
    assert pace.speed() == 5.0
    assert ends[0] == "" and ends[1] == "Tue 01 Dec 14:39"  # 998 minutes later: the day stands with it
    assert ends[899] == "07:09" and ends[-1] == ""  # the last hundred steps count, at their own pace


def test_a_terminal_shows_a_bar_at_once_and_figures_below_it() -> None:
    """As a terminal of 80 columns gets it."""
    import io

    from rich.console import Console

    view = ConsoleView(200)
    view.console = Console(file=io.StringIO(), force_terminal=True, width=80, height=20)
    view.stage("train", "start", "0123456789ab")
    shown = view._progress
    assert shown is not None and shown.live.is_started
    view.event(step(1))
    view.event(SamplesEvent(step=1, samples=[{"prompt": "The old ", "text": "llama " * 40}]))
    view.event(step(2))
    paper = Console(file=io.StringIO(), width=80)
    with paper.capture() as captured:
        paper.print(shown.get_renderable())
    lines = captured.get().splitlines()
    assert len(lines) == 3 and "2/200" in lines[0] and "so far" in lines[0]
    assert "loss 4.000  100 tokens/s" in lines[1] and "it writes: The old llama" in lines[2]
    view.close()
