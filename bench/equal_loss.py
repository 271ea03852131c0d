"""The same weights and batches twice, under two settings or two revisions: losses step by step, and where
they first differ.

    python bench/equal_loss.py --a execution.remat=none --b execution.remat=llama  # two settings
    python bench/equal_loss.py --revision HEAD~1  # that revision and the working tree

The weights before the first step are those that the first side makes, and are given to the second; so are the
batches: rows of documents of many lengths, in which a token mostly follows from the one before. A revision of
another day may make other weights and batches from the same seed; with these given, its losses must agree.
Ends with 1 when a loss differs by more than --tolerance, relative.
"""

import argparse
import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
SHAPE = {"dim": 256, "n_layers": 4, "n_heads": 8, "n_kv_heads": 4, "ffn_dim": 688, "vocab_size": 4096}
ROWS, LENGTH = 8, 256


def rows(step: int) -> dict[str, np.ndarray]:
    """tokens, targets and documents [ROWS, LENGTH] of a step; -1 where there is no target."""
    chance = np.random.default_rng(step)
    shape = (ROWS, LENGTH + 1)
    jumps = np.where(chance.random(shape) < 0.8, 7, chance.integers(0, SHAPE["vocab_size"], shape))
    tokens = np.cumsum(jumps, 1) % SHAPE["vocab_size"]
    documents = np.cumsum(chance.random(shape) < 0.01, 1)
    targets = np.where(documents[:, 1:] == documents[:, :-1], tokens[:, 1:], -1)
    documents = documents[:, :-1] - documents[:, :1]
    return {"tokens": tokens[:, :-1].copy(), "targets": targets, "documents": documents}


class GivenBatches:
    """Stands for `tokens.batches.Batches` of any revision."""

    batch_sequences, length = ROWS, LENGTH

    def __init__(self) -> None:
        self.make = importlib.import_module("puna.tokens.batches").Batch

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Any:
        made = rows(step)
        more = [np.zeros(ROWS, np.int64)] if "sources" in self.make.__annotations__ else []
        return self.make(made["tokens"], made["targets"], made["documents"], *more)

    def tokens_before(self, step: int) -> int:
        return step * ROWS * LENGTH


def losses(weights: Path, steps: int, overrides: list[str]) -> list[float]:
    """Losses of the first steps in this process; `weights` are saved where they do not exist yet."""
    from puna.errors import Stopped
    from puna.model.config import LlamaConfig
    from puna.model.llama import Llama
    from puna.train.settings import TrainSettings

    name = "trainer" if importlib.util.find_spec("puna.train.trainer") else "loop"
    trainer = importlib.import_module(f"puna.train.{name}")
    given = dict(entry.split("=", 1) for entry in overrides)
    parts: dict[str, dict[str, Any]] = {"train": {}, "execution": {}}
    for key, value in given.items():
        section, _, setting = key.partition(".")
        parts[section][setting] = json.loads(value) if value[:1].isdigit() else value
    # Of a long training: how a schedule ends is no matter of the first steps.
    base = {"steps": 10_000, "batch_sequences": ROWS, "sequence_length": LENGTH, "learning_rate": 3e-4}
    settings = TrainSettings(**{**base, "warmup_steps": 4, "validation_steps": 10_000, **parts["train"]})
    own = Llama.init_weights

    def init_weights(model: Llama, seed: int) -> None:
        own(model, seed)
        if not weights.exists():
            torch.save(model.state_dict(), weights)
        model.load_state_dict(torch.load(weights, weights_only=True))

    Llama.init_weights = init_weights  # type: ignore[method-assign]
    config, batches = LlamaConfig(max_seq_len=LENGTH, **SHAPE), GivenBatches()
    found: list[float] = []

    def on_event(event: Any) -> None:
        if isinstance(event, trainer.StepEvent):
            found.append(event.loss)

    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Stopped):
        how: dict[str, Any] = {"checkpoints": Path(scratch), "on_event": on_event}
        how["should_stop"] = lambda: len(found) >= steps
        if "work" in inspect.signature(trainer.train).parameters:
            from puna.run.settings import ExecutionSettings
            from puna.train.pretraining import Pretraining

            execution, model = ExecutionSettings(**parts["execution"]), Llama(config)
            model.init_weights(1)
            work = Pretraining(model, batches, {}, settings, execution)  # type: ignore[arg-type]
            trainer.train(model, work, settings, execution, **how)
        else:
            trainer.train(config, batches, {}, settings, seed=1, **how)
    return found


def elsewhere(source: Path, weights: Path, options: SimpleNamespace, overrides: list[str]) -> list[float]:
    """The same in a process of its own, with the package at `source`."""
    arguments = [sys.executable, __file__, "--weights", str(weights), "--steps", str(options.steps)]
    for override in overrides:
        arguments += ["--a", override]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description="equal losses under two settings or two revisions")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--a", action="append", default=[], help="train.key=value or execution.key=value of the first side"
    )
    parser.add_argument("--b", action="append", default=[], help="of the second side; repeatable, like --a")
    parser.add_argument("--revision", help="the first side is this revision of the repository")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = SimpleNamespace(**vars(parser.parse_args()))
    if options.weights:
        print(json.dumps(losses(options.weights, options.steps, options.a)))
        return 0
    import table  # knows the package of this revision alone

    with tempfile.TemporaryDirectory() as scratch:
        first, weights = ROOT / "src", Path(scratch) / "weights.pt"
        if options.revision:
            packed = subprocess.run(
                ["git", "-C", str(ROOT), "archive", options.revision, "src", "recipes"],
                capture_output=True,
                check=True,
            )
            subprocess.run(["tar", "-x", "-C", scratch], input=packed.stdout, check=True)
            first = Path(scratch) / "src"
        one = elsewhere(first, weights, options, options.a)
        other = elsewhere(ROOT / "src", weights, options, options.b)
    apart = [abs(a - b) / abs(a) for a, b in zip(one, other, strict=True)]
    differing = next((step for step, difference in enumerate(apart, 1) if difference), 0)
    names = (options.revision or " ".join(options.a) or "as it is", " ".join(options.b) or "as it is")
    found = [
        table.Row("steps compared", "both", len(one), "steps"),
        table.Row("first step that differs", "both", differing, "step, 0: none"),
        table.Row("largest relative difference", "both", max(apart), "of 1"),
        *(
            table.Row(f"loss of step {step}", name, side[step - 1], "nats per token")
            for name, side in zip(names, (one, other), strict=True)
            for step in (1, len(one))
        ),
    ]
    table.finish(__file__, found)
    return int(max(apart) > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
