"""Save and resume a training run, bitwise: weights, the optimizer's state, and what was logged so far.

A checkpoint is an artifact (`step-000100/`), so a kill half-way leaves none, and a damaged one is noticed and
passed over for the one before it. The data order needs no saving: it is a function of the step.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from puna.errors import UserError
from puna.model.llama import Llama
from puna.run import artifact


@dataclass
class Progress:
    """What a run has done. step: optimizer steps taken; losses: one entry a step."""

    step: int
    losses: list[dict[str, Any]]


def save(
    folder: Path, model: Llama, optimizer: torch.optim.AdamW, progress: Progress, kept: int | None = None
) -> None:
    """Write the checkpoint of `progress.step`; remove all but the newest `kept`, where that is given."""
    work = folder / ".saving"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    save_file(
        {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()},
        work / "weights.safetensors",
    )
    save_file(_state(model, optimizer), work / "optimizer.safetensors")
    (work / "progress.json").write_text(json.dumps(vars(progress)))
    target = folder / f"step-{progress.step:08d}"
    artifact.remove(target)
    artifact.commit(
        work, target, stage="checkpoint", fingerprint="", inputs={}, metrics={"step": progress.step}
    )
    for old in _saved(folder)[kept:] if kept else ():
        artifact.remove(old)


def resume(
    folder: Path, model: Llama, optimizer: torch.optim.AdamW, most_steps: int
) -> tuple[Progress, list[str]]:
    """Load the newest checkpoint of at most `most_steps` steps that verifies into model and optimizer; step 0
    where there is none. Also what was passed over."""
    passed = []
    for path in _saved(folder):
        if _step(path) > most_steps:
            continue
        try:
            artifact.load(path).verify()
        except UserError as error:
            passed.append(str(error))
            continue
        with torch.no_grad():
            weights = load_file(path / "weights.safetensors")
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
            for name, value in load_file(path / "optimizer.safetensors").items():
                owner, _, key = name.rpartition(".")
                parameter = model.get_parameter(owner)
                optimizer.state[parameter][key] = torch.empty_like(value, device=parameter.device).copy_(
                    value
                )
        return Progress(**json.loads((path / "progress.json").read_text())), passed
    return Progress(0, []), passed


def _state(model: Llama, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _saved(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted(
        (path for path in folder.glob("step-*") if (path / artifact.MANIFEST).exists()), reverse=True
    )
