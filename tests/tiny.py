"""A recipe of seconds on made-up text, for tests that run the whole way."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from puna import recipe, stages
from puna.run.artifact import Artifact
from puna.run.build import Build

WHO = [
    "The old llama",
    "A young herder",
    "The teacher of the village",
    "My grandmother",
    "The weaver",
    "A careful traveller",
]
DOES = [
    "walks across",
    "remembers",
    "looks at",
    "sings about",
    "writes a letter about",
    "counts the animals of",
    "draws a map of",
]
WHAT = [
    "the high plain",
    "the long road",
    "the market by the river",
    "the snow on the mountains",
    "the last days of summer",
]
WHEN = [
    "in the early morning.",
    "every year in spring.",
    "when the rain has stopped.",
    "before the others wake up.",
    "with great joy.",
]

RECIPE = """
seed = 3
[execution]
group_bytes = 4000
checkpoint_steps = 4
[corpus]
[[corpus.sources]]
name = "stories"
reader = "lines"
licence = "CC0-1.0"
uris = ["stories-*.txt"]
[[corpus.sources]]
name = "code"
reader = "code"
languages = []
uris = ["project"]
[tokenizer]
vocab_size = 320
[tokens]
held_out_fraction = 0.1
maximum_epochs = 100
[model]
size = "tiny"
[train]
steps = 20
batch_sequences = 4
sequence_length = 32
learning_rate = 5e-3
warmup_steps = 4
validation_steps = 10
validation_tokens = 200
[evaluate]
prompts = ["The old llama "]
sample_tokens = 12
"""


def write(folder: Path) -> Path:
    """Raw files and recipe of the tiny run; the recipe's path."""
    chance = random.Random(1)

    def sentence() -> str:
        return " ".join(chance.choice(words) for words in (WHO, DOES, WHAT, WHEN))

    for number in range(3):
        lines = [" ".join(sentence() for _ in range(6)) for _ in range(12)]
        (folder / f"stories-{number}.txt").write_text("\n".join([*lines, lines[0], "too short"]))
    project = folder / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "graze"\nversion = "1"\nlicense = "MIT"\n')
    for number in range(8):
        body = "".join(
            f"    if plain == {chance.randrange(100)}:\n        return 'llama {chance.randrange(100)}'\n"
            for _ in range(8)
        )
        (project / f"graze_{number}.py").write_text(f"def graze_{number}(plain):\n{body}    return None\n")
    path = folder / "small.toml"
    path.write_text(RECIPE)
    return path


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "puna", *map(str, arguments)]


def puna(*arguments: Any, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line and check its exit code."""
    result = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment(),
        **options,
    )
    assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "default"}


def digests(out: Path) -> dict[str, str]:
    """Digest of every finished artifact under `out`, by the name of its folder."""
    found = out.glob("*/*-*/artifact.json")
    return {path.parent.name: json.loads(path.read_bytes())["digest"] for path in found}


class Watcher:
    """A reporter that keeps what it is told, and asks for a stop after some steps."""

    def __init__(self, stop_after: int = 0) -> None:
        self.stop_after = stop_after
        self.notes: list[str] = []
        self.losses: dict[int, float] = {}

    def stage(self, name: str, state: str, detail: str = "") -> None: ...

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


def run_here(
    path: Path, out: Path, *overrides: str, stop_after: int = 0
) -> tuple[dict[str, Artifact], Watcher]:
    """Run a recipe's stages up to the training in this process."""
    loaded = recipe.load(path, overrides)
    watcher = Watcher(stop_after)
    listed = [stage for stage in stages.stages(loaded, path.parent) if stage.name != "scores"]
    return Build(out, listed, loaded.execution, watcher.should_stop).run(watcher), watcher
