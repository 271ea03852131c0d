"""Scores of a training's checkpoints by another process, while it goes on: the paper's figure 2."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.evaluate import runner
from puna.evaluate.log import identify
from puna.evaluate.task import Options, Task
from puna.generate.engine import Engine
from puna.generate.load import Loaded, Origin, load
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.run.artifact import MANIFEST
from puna.tokens.text_tokenizer import TextTokenizer
from puna.train import checkpoint, weights
from puna.train.losses import LOSSES


def checkpoints(scratch: Path, finished: Path) -> Iterator[tuple[int, Path]]:
    """(tokens seen, folder) of the checkpoints of a training, the oldest first, and of the finished one."""
    steps = [(path, checkpoint.INDEX, scratch / LOSSES) for path in sorted(scratch.glob("step-*"))]
    for place, last_written, losses in [*steps, (finished, MANIFEST, finished / LOSSES)]:
        if (place / last_written).is_file() and losses.is_file():
            whole = losses.read_text().rpartition("\n")[0].splitlines()  # the last one may be half written
            seen = {line["step"]: line["tokens"] for line in map(json.loads, whole)}
            step = max(seen) if place == finished else checkpoint.step_of(place)
            yield seen[step], place


def read(place: Path, config: LlamaConfig) -> Llama | None:
    """The model of one of `checkpoints`; None where it was removed for a newer one. Raises UserError where
    it is damaged."""
    if (place / MANIFEST).is_file():
        return load(place).model
    try:
        return weights.read(place, config).build()
    except (UserError, OSError):
        if (place / checkpoint.INDEX).is_file():  # which goes first
            raise
        return None


def measure(
    model: Llama, place: Path, tokenizer: TextTokenizer, tasks: Sequence[Task], out: Path, **how: Any
) -> None:
    """Measure a model on tasks; `out` gets the results, and `how` goes to `runner.run`."""
    loaded = Loaded(model, tokenizer, None, tokenizer.stops, Origin("native", place, {}, {}))
    engine, identity = Engine(model, tokenizer), identify(loaded)
    for task in tasks:
        runner.run(task, loaded, engine, Options(), out, identity, **how)


def curves(out: Path) -> dict[str, list[tuple[int, float]]]:
    """(tokens seen, percent) of each task's own score, from the folders of `out`, which tokens name."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for path in sorted(out.glob("*/*.paper.json"), key=lambda path: int(path.parent.name)):
        result = json.loads(path.read_text(encoding="utf-8"))
        if score := result["scores"].get(result["main"]):
            told = f"{result['task']}, {score['n']:,} of {result['of']:,}"
            found[told].append((int(path.parent.name), 100 * score["value"]))
    return found
