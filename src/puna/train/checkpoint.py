"""Save and resume a training run, bitwise: trainable weights, the optimizer's state, and how far it has come.

A checkpoint is an artifact (`step-000100/`), so a kill half-way leaves none, and a damaged one is noticed and
passed over for the one before it. The data order needs no saving: it is a function of the step. Nor do the
losses: their lines lie in one file (`losses`), and a checkpoint holds the digest of those before it.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from puna.errors import UserError
from puna.run import artifact
from puna.train.losses import LOSSES, Losses

SAVING = ".saving"
PROGRESS = "progress.json"


@dataclass
class Progress:
    """What a run has done. step: batches seen; skipped: those of them whose step was not taken;
    skipped_in_a_row: those since the last step that was; threads: of its computations, 0 where it has not
    begun."""

    step: int
    skipped: int = 0
    skipped_in_a_row: int = 0
    threads: int = 0


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    progress: Progress,
    losses: Losses,
    *,
    kept: int | None = None,
    with_losses: bool = False,
) -> None:
    """Write the checkpoint of `progress.step`; remove all but the newest `kept`, where that is given.

    losses: the lines of all steps so far. with_losses: put a copy of them into the checkpoint, for trainings
    that go on from it in another folder. Nothing stays of a checkpoint that cannot be written.
    """
    work = folder / SAVING
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        save_file(
            {name: parameter.detach().contiguous() for name, parameter in _trainable(model)},
            work / "weights.safetensors",
        )
        save_file(_state(model, optimizer), work / "optimizer.safetensors")
        (work / PROGRESS).write_text(json.dumps({**vars(progress), "losses_sha256": losses.digest}))
        artifact.sync(losses.path)
        if with_losses:
            shutil.copyfile(losses.path, work / LOSSES)
        target = folder / f"step-{progress.step:08d}"
        artifact.remove(target)
        artifact.commit(
            work, target, stage="checkpoint", fingerprint="", inputs={}, metrics={"step": progress.step}
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in _saved(folder)[kept:] if kept else ():
        artifact.remove(old)


def resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.AdamW, losses: Losses, most_steps: int
) -> tuple[Progress, list[str]]:
    """Load the newest checkpoint of at most `most_steps` steps that verifies into model and optimizer; step 0
    where there is none. Also what was passed over.

    losses: is left with the lines of the steps before the checkpoint.
    """
    shutil.rmtree(folder / SAVING, ignore_errors=True)  # of a save that was killed
    passed = []
    for path in _saved(folder):
        if _step(path) > most_steps:
            continue
        try:
            artifact.load(path).verify()
            progress = _progress(path, losses)
        except UserError as error:
            passed.append(str(error))
            continue
        with torch.no_grad():
            weights = load_file(path / "weights.safetensors")
            for name, parameter in _trainable(model):
                parameter.copy_(weights[name])
            for name, value in load_file(path / "optimizer.safetensors").items():
                owner, _, key = name.rpartition(".")
                parameter = model.get_parameter(owner)
                optimizer.state[parameter][key] = torch.empty_like(value, device=parameter.device).copy_(
                    value
                )
        return progress, passed
    losses.begin()
    return Progress(0), passed


def _progress(path: Path, losses: Losses) -> Progress:
    """How far a checkpoint has come; `losses` goes on from there. Raises UserError where their lines are
    lost."""
    saved = json.loads((path / PROGRESS).read_text())
    digest, progress = saved.pop("losses_sha256"), Progress(**saved)
    source = path / LOSSES if (path / LOSSES).exists() else losses.path
    if not losses.go_on(source, progress.step, digest):
        raise UserError(f"{source} does not hold the losses of the steps before {path}")
    return progress


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that a training changes, by name."""
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def _state(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.detach().contiguous()
        for name, parameter in _trainable(model)
        for key, value in optimizer.state[parameter].items()
    }


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _saved(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted(
        (path for path in folder.glob("step-*") if (path / artifact.MANIFEST).exists()), reverse=True
    )
