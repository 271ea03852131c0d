"""Our own weights folder: model.safetensors with Meta's names, and params.json with the shape."""

import json
from pathlib import Path

import torch

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights.safetensors_file import entries, write
from puna.model.weights.source import Source, config_of, read_json

WEIGHTS, PARAMS = "model.safetensors", "params.json"


def save(model: Llama | Source, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model, one weight in memory at a time where it is a file's; equal weights give equal bytes. A
    tied head is written once. dtype: default: that of the last norm."""
    source = Source.of(model)
    source.check()
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / WEIGHTS, source.weights, dtype or source.weights["norm.weight"].read().dtype)
    describe(model.config, folder)


def describe(config: LlamaConfig, folder: Path) -> None:
    """Write the shape of a model."""
    told = config.model_dump(exclude_none=True)
    (folder / PARAMS).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


def described(folder: Path) -> LlamaConfig:
    """The shape that a folder tells. Raises UserError where it tells none."""
    return config_of(read_json(folder / PARAMS), str(folder / PARAMS))


def recognises(path: Path) -> bool:
    return (path / PARAMS).is_file() and (path / WEIGHTS).is_file()


def read(folder: Path) -> Source:
    """Read the header of a folder written by `save`. Raises UserError for missing and damaged files."""
    for name in (WEIGHTS, PARAMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no model: {name} is missing")
    return Source("native", folder, described(folder), entries(folder / WEIGHTS))


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """Read a model written by `save`. Raises UserError for a missing, damaged or unfit file."""
    return read(folder).build(device, dtype)
