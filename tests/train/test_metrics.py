"""metrics.jsonl: one line a step, no step twice."""

import json
import math
from pathlib import Path

import pytest

from puna.train import metrics
from puna.train.trainer import Notice, SkippedStepEvent, StepEvent, ValidationEvent


def step(number: int, seconds: float = 0.5) -> StepEvent:
    return StepEvent(number, number * 100, 5.0 - number, 1e-3, 0.7, seconds)


def test_lines_and_figures(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    flops = {1: 50.0, 2: 50.0, 3: 80.0, 4: 50.0}
    writer = metrics.Metrics(path, flops_per_token=flops.__getitem__, peak_flops=20_000.0)
    for event in (Notice("hello"), step(1), step(2, 0.25), step(3, 1.0), ValidationEvent(3, 300, {"s": 2.0})):
        writer.write(event)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1]["tokens_per_second"] == 200 and lines[1]["matmul_peak_share"] == 0.5
    assert lines[3]["tokens_per_second"] == 100 and lines[3]["matmul_peak_share"] == 0.4
    assert lines[1]["peak_memory_bytes"] > 50_000_000
    again = metrics.Metrics(path, flops.__getitem__, 20_000.0)
    for event in (Notice("going on"), step(3), step(4)):
        again.write(event)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    figures = metrics.read(path)
    assert figures["training_seconds"] == pytest.approx(1.75)
    assert figures["tokens_per_second"] == 200 and figures["matmul_peak_share"] == 0.5
    assert metrics.read(tmp_path / "none") == {}


def test_a_skipped_step_has_a_line_of_json_and_counts_as_time_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = metrics.Metrics(path, flops_per_token=lambda step: 50.0, peak_flops=20_000.0)
    skipped = SkippedStepEvent(2, 200, math.nan, 1e-3, 0.7, 0.25, 1, "not finite")
    for event in (step(1), skipped, step(3)):
        writer.write(event)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[1] == {
        **{"step": 2, "tokens": 200, "loss": None, "learning_rate": 1e-3, "gradient_norm": 0.7},
        **{"seconds": 0.25, "skipped": 1, "why": "not finite", "kind": "skipped"},
    }
    figures = metrics.read(path)
    assert figures["training_seconds"] == pytest.approx(1.25) and figures["tokens_per_second"] == 200
    again = metrics.Metrics(path, lambda step: 50.0, 20_000.0)
    again.write(skipped)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
