"""What against how: settings that change in the middle of a run, and trainings that become longer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from puna import recipe, stages
from puna.errors import Stopped
from puna.run.artifact import Artifact
from puna.run.build import Build
from puna.train import metrics
from tests import tiny

# Daft leaves its workers' pipes to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
STEPS = ("train.steps=100", "tokens.maximum_epochs=1000")


class Watcher:
    """A reporter that keeps what it is told, and asks for a stop after some steps."""

    def __init__(self, stop_after: int = 0) -> None:
        self.stop_after, self.states = stop_after, []
        self.notes: list[str] = []
        self.losses: dict[int, float] = {}

    def stage(self, name: str, state: str, detail: str = "") -> None:
        self.states.append((name, state))

    def progress(self, what: str, done: int, total: int) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, event: Any) -> None:
        if hasattr(event, "text"):
            self.notes.append(event.text)
        elif hasattr(event, "loss"):
            self.losses[event.step] = event.loss

    def should_stop(self) -> bool:
        return bool(self.stop_after) and len(self.losses) >= self.stop_after


def run(path: Path, out: Path, *overrides: str, stop_after: int = 0) -> tuple[dict[str, Artifact], Watcher]:
    loaded = recipe.load(path, overrides)
    watcher = Watcher(stop_after)
    listed = [stage for stage in stages.stages(loaded, path.parent) if stage.name != "scores"]
    build = Build(out, listed, loaded.execution, watcher.should_stop)
    return build.run(watcher), watcher


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and a run of it that was stopped at step 50 of 100."""
    folder = tmp_path_factory.mktemp("half")
    path = tiny.write(folder)
    with pytest.raises(Stopped, match="step 50"):
        run(path, folder / "out", *STEPS, stop_after=50)
    return path, folder / "out"


@pytest.fixture(scope="module")
def whole(half: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Watcher]:
    """The same run without a stop."""
    finished, watcher = run(half[0], tmp_path_factory.mktemp("whole"), *STEPS)
    return finished["train"], watcher


@pytest.mark.parametrize(
    "override",
    [
        "execution.workers=2",
        "execution.group_bytes=100",
        "execution.checkpoint_steps=7",
        "execution.checkpoints_kept=1",
        "execution.remat=full",
        "execution.memory_bytes=5000000000",
        "train.validation_steps=3",
        "train.validation_tokens=60",
    ],
)
def test_a_change_at_step_50_gives_the_same_digest(
    half: tuple[Path, Path], whole: tuple[Artifact, Watcher], tmp_path: Path, override: str
) -> None:
    out = Path(shutil.copytree(half[1], tmp_path / "out"))
    finished, watcher = run(half[0], out, *STEPS, override)
    assert list(watcher.losses) == list(range(51, 101))
    assert finished["train"].digest == whole[0].digest


@pytest.mark.parametrize(
    "override",
    [
        "execution.micro_batch_sequences=1",
        "execution.threads=1",
        pytest.param("execution.compile=true", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_change_at_step_50_that_rounds_otherwise(
    half: tuple[Path, Path], whole: tuple[Artifact, Watcher], tmp_path: Path, override: str
) -> None:
    out = Path(shutil.copytree(half[1], tmp_path / "out"))
    finished, watcher = run(half[0], out, *STEPS, override)
    assert list(watcher.losses) == list(range(51, 101))
    assert watcher.losses[51] == pytest.approx(whole[1].losses[51], rel=1e-6)
    assert watcher.losses[100] == pytest.approx(whole[1].losses[100], rel=1e-4)
    attempts = sorted((out / "logs" / finished["train"].folder.name / "attempts").glob("*.json"))
    key = override.partition(".")[2].partition("=")[0]
    values = [json.loads(path.read_bytes())["execution"][key] for path in attempts]
    assert len(values) == 2 and values[0] != values[1]


WSD = ("train.schedule=wsd", "train.decay_fraction=0.25", "tokens.maximum_epochs=1000")


def test_more_steps_of_a_wsd_schedule_go_on(half: tuple[Path, Path], tmp_path: Path) -> None:
    run(half[0], tmp_path / "out", *WSD, "train.steps=40")
    longer, watcher = run(half[0], tmp_path / "out", *WSD, "train.steps=80")
    assert list(watcher.losses) == list(range(31, 81))
    assert "going on from step 30, where the decay of an earlier training began" in watcher.notes
    fresh, _ = run(half[0], tmp_path / "fresh", *WSD, "train.steps=80")
    assert longer["train"].digest == fresh["train"].digest
    log = tmp_path / "out" / "logs" / longer["train"].folder.name / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 81))
    assert [line["step"] for line in metrics.validation(log)] == list(range(10, 81, 10))
    figures = metrics.read(log)
    inherited = sum(line["seconds"] for line in lines if line.get("step", 99) <= 30 and "loss" in line)
    assert figures["inherited_seconds"] == pytest.approx(inherited)
    assert figures["training_seconds"] > inherited > 0
    other, watcher = run(half[0], tmp_path / "out", *WSD, "train.steps=80", "train.learning_rate=4e-3")
    assert len(watcher.losses) == 80 and other["train"].digest != fresh["train"].digest


def test_under_cosine_it_is_said_why_more_steps_start_anew(half: tuple[Path, Path], tmp_path: Path) -> None:
    _, watcher = run(half[0], tmp_path / "out", "tokens.maximum_epochs=1000", "train.steps=10")
    assert not watcher.notes[1:]
    _, watcher = run(half[0], tmp_path / "out", "tokens.maximum_epochs=1000", "train.steps=20")
    (told,) = [note for note in watcher.notes if "earlier training" in note]
    assert "an earlier training of 10 steps cannot be gone on with: under schedule cosine" in told
    assert len(watcher.losses) == 20
