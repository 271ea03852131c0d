"""Our own weights folder: model.safetensors with Meta's names, and params.json with the shape."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from puna.errors import UserError
from puna.model.llama import Llama
from puna.model.weights.safetensors_file import entries
from puna.model.weights.source import Source, config_of, read_json

WEIGHTS, PARAMS = "model.safetensors", "params.json"


def save(model: Llama, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model; equal weights give equal bytes. A tied head is written once. dtype: default: as is."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in model.named_parameters()},
        folder / WEIGHTS,
    )
    config = model.config.model_dump(exclude_none=True)
    (folder / PARAMS).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    shutil.copymode(folder / PARAMS, folder / WEIGHTS)  # which safetensors writes for its owner alone


def recognises(path: Path) -> bool:
    return (path / PARAMS).is_file() and (path / WEIGHTS).is_file()


def read(folder: Path) -> Source:
    """Read the header of a folder written by `save`. Raises UserError for missing and damaged files."""
    for name in (WEIGHTS, PARAMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no model: {name} is missing")
    config = config_of(read_json(folder / PARAMS), str(folder / PARAMS))
    return Source("native", folder, config, entries(folder / WEIGHTS))


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """Read a model written by `save`. Raises UserError for a missing, damaged or unfit file."""
    return read(folder).build(device, dtype)
