"""What is shown while a recipe runs; captured output is no terminal, so there are no bars."""

from pathlib import Path

import pytest

from puna.cli.view import ConsoleView
from puna.train.trainer import Notice, SkippedStepEvent, StepEvent, ValidationEvent


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
    view.event(SkippedStepEvent(7, 70, float("nan"), 1e-3, float("inf"), 0.5, skipped=2))
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
        "  step     7  skipped: loss nan, gradient norm inf; 2 skipped so far",
    ]


def test_figures_of_the_training_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    view = ConsoleView(200)
    for step in range(1, 101):
        view.event(
            StepEvent(
                step=step, tokens=50 * step, loss=4.0, learning_rate=1e-3, gradient_norm=1.0, seconds=0.5
            )
        )
    assert capsys.readouterr().err == "  step     1 of 200  loss 4.000  100 tokens/s  rate 1.00e-03\n"
