"""The same batches twice, under two settings or two revisions: losses step by step, and where they first
differ.

    python bench/equal_loss.py --a execution.remat=none --b execution.remat=llama  # two settings
    python bench/equal_loss.py --revision HEAD~1  # that revision and the working tree

Takes the token shards of a finished run (out/laptop), so that both sides see the same tokens. Ends with 1
when a loss differs by more than --tolerance, relative.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import table

ROOT = Path(__file__).parents[1]


def losses(recipe_name: str, out: Path, steps: int, overrides: list[str]) -> list[float]:
    """Losses of the first steps of a recipe's training, in this process."""
    from puna import recipe, stages
    from puna.errors import Stopped
    from puna.run import artifact
    from puna.train import trainer
    from puna.train.stage import TrainStageSettings, batches_of

    loaded = recipe.load(recipe.find(recipe_name), tuple(overrides))
    settings = next(stage.settings for stage in stages.training_stages(loaded) if stage.kind == "train")
    assert isinstance(settings, TrainStageSettings)
    batches = batches_of(settings, artifact.load(artifact.current(out / loaded.name, "tokens")))
    found: list[float] = []

    def on_event(event: trainer.Event) -> None:
        if isinstance(event, trainer.StepEvent):
            found.append(event.loss)

    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Stopped):
        trainer.train(
            settings.model,
            batches,
            {},
            settings.train,
            loaded.execution,
            seed=settings.seed,
            checkpoints=Path(scratch),
            on_event=on_event,
            should_stop=lambda: len(found) >= steps,
        )
    return found


def elsewhere(source: Path, options: argparse.Namespace, overrides: list[str]) -> list[float]:
    """The same in a process of its own, with the package at `source`."""
    arguments = [
        sys.executable,
        __file__,
        "--print",
        "--recipe",
        options.recipe,
        "--out",
        str(options.out),
        "--steps",
        str(options.steps),
    ]
    for override in overrides:
        arguments += ["--a", override]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description="equal losses under two settings or two revisions")
    parser.add_argument("--recipe", default="laptop")
    parser.add_argument("--out", type=Path, default=ROOT / "out")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument(
        "--a", action="append", default=[], help="section.key=value of the first side; repeatable"
    )
    parser.add_argument("--b", action="append", default=[], help="of the second side")
    parser.add_argument("--revision", help="the first side is this revision of the repository")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--print", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.print:
        print(json.dumps(losses(options.recipe, options.out, options.steps, options.a)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        first = ROOT / "src"
        if options.revision:
            packed = subprocess.run(
                ["git", "-C", str(ROOT), "archive", options.revision, "src", "recipes"],
                capture_output=True,
                check=True,
            )
            subprocess.run(["tar", "-x", "-C", scratch], input=packed.stdout, check=True)
            first = Path(scratch) / "src"
        one = elsewhere(first, options, options.a)
    other = elsewhere(ROOT / "src", options, options.b)
    apart = [abs(a - b) / abs(a) for a, b in zip(one, other, strict=True)]
    differing = next((step for step, difference in enumerate(apart, 1) if difference), 0)
    names = (options.revision or " ".join(options.a) or "as it is", " ".join(options.b) or "as it is")
    found = [
        table.Row("steps compared", "both", len(one), "steps"),
        table.Row("first step that differs", "both", differing, "step, 0: none"),
        table.Row("largest relative difference", "both", max(apart), "of 1"),
        *(
            table.Row(f"loss of step {step}", names[0], one[step - 1], "nats per token")
            for step in (1, len(one))
        ),
        *(
            table.Row(f"loss of step {step}", names[1], other[step - 1], "nats per token")
            for step in (1, len(one))
        ),
    ]
    table.finish(__file__, found)
    return int(max(apart) > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
