"""Trainings that become longer."""

import json
from pathlib import Path

import pytest

from puna.train import metrics
from tests import tiny
from tests.tiny import run_here

# Daft leaves its workers' pipes to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("recipe"))


WSD = ("train.schedule=wsd", "train.decay_fraction=0.25", "tokens.maximum_epochs=1000")


def test_more_steps_of_a_wsd_schedule_go_on(recipe: Path, tmp_path: Path) -> None:
    run_here(recipe, tmp_path / "out", *WSD, "train.steps=40")
    longer, watcher = run_here(recipe, tmp_path / "out", *WSD, "train.steps=80")
    assert list(watcher.losses) == list(range(31, 81))
    assert "going on from step 30, where the decay of an earlier training began" in watcher.notes
    fresh, _ = run_here(recipe, tmp_path / "fresh", *WSD, "train.steps=80")
    assert longer["train"].digest == fresh["train"].digest
    log = tmp_path / "out" / "logs" / longer["train"].folder.name / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 81))
    assert [line["step"] for line in metrics.validation(log)] == list(range(10, 81, 10))
    figures = metrics.read(log)
    inherited = sum(line["seconds"] for line in lines if line.get("step", 99) <= 30 and "loss" in line)
    assert figures["inherited_seconds"] == pytest.approx(inherited)
    assert figures["training_seconds"] > inherited > 0
    other, watcher = run_here(recipe, tmp_path / "out", *WSD, "train.steps=80", "train.learning_rate=4e-3")
    assert len(watcher.losses) == 80 and other["train"].digest != fresh["train"].digest


def test_under_cosine_it_is_said_why_more_steps_start_anew(recipe: Path, tmp_path: Path) -> None:
    _, watcher = run_here(recipe, tmp_path / "out", "tokens.maximum_epochs=1000", "train.steps=10")
    assert not watcher.notes[1:]
    _, watcher = run_here(recipe, tmp_path / "out", "tokens.maximum_epochs=1000", "train.steps=20")
    (told,) = [note for note in watcher.notes if "earlier training" in note]
    assert "an earlier training of 10 steps cannot be gone on with: under schedule cosine" in told
    assert len(watcher.losses) == 20
