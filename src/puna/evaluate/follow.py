"""Scores of a training's checkpoints by another process, while it goes on: the paper's figure 2."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from puna.evaluate import runner
from puna.evaluate.log import identify
from puna.evaluate.task import Options, Task
from puna.generate.engine import Engine
from puna.generate.load import Loaded, Origin
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.run.artifact import MANIFEST
from puna.tokens.text_tokenizer import TextTokenizer

WEIGHTS = ("weights.safetensors", "model.safetensors")  # of a checkpoint, of a finished training
LOSSES = "losses.jsonl"  # a line a step, with the tokens seen


def checkpoints(scratch: Path, finished: Path) -> Iterator[tuple[int, Path]]:
    """(tokens seen, weights) of the checkpoints of a training, the oldest first, and of the finished one."""
    for place in (*sorted(scratch.glob("step-*")), finished):
        losses = next((each / LOSSES for each in (place, scratch) if (each / LOSSES).is_file()), None)
        weights = next((place / name for name in WEIGHTS if (place / name).is_file()), None)
        if losses and weights and (place / MANIFEST).is_file():
            whole = losses.read_text().rpartition("\n")[0].splitlines()  # the last one may be half written
            seen = {line["step"]: line["tokens"] for line in map(json.loads, whole)}
            step = max(seen) if place == finished else int(place.name.removeprefix("step-"))
            yield seen[step], weights


def measure(
    weights: Path, config: LlamaConfig, tokenizer: TextTokenizer, tasks: Sequence[Task], out: Path, **how: Any
) -> None:
    """Measure weights on tasks; `out` gets the results, and `how` goes to `runner.run`."""
    model, found = Llama.empty(config), load_file(weights)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(found[name])
    loaded = Loaded(model, tokenizer, None, tokenizer.stops, Origin("native", weights, {}, {}))
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
