"""Our own weights folder: model.safetensors with Meta's names, and params.json with the shape."""

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama

WEIGHTS, PARAMS = "model.safetensors", "params.json"


def save(model: Llama, folder: Path) -> None:
    """Write a model; equal weights give equal bytes. A tied head is written once."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: parameter.detach().contiguous().cpu() for name, parameter in model.named_parameters()},
        folder / WEIGHTS,
    )
    (folder / PARAMS).write_text(json.dumps(model.config.model_dump(), indent=1, sort_keys=True) + "\n")


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """Read a model written by `save`. Raises UserError for a missing, damaged or unfit file."""
    for name in (WEIGHTS, PARAMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no model: {name} is missing")
    try:
        config = LlamaConfig.model_validate(json.loads((folder / PARAMS).read_bytes()))
        tensors = load_file(folder / WEIGHTS, device=device)
    except (ValueError, ValidationError) as error:
        raise UserError(f"{folder / PARAMS} does not describe a model: {error}") from error
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is damaged: {error}") from error
    return fill(config, tensors, str(folder / WEIGHTS), device, dtype)


def fill(
    config: LlamaConfig, tensors: dict[str, torch.Tensor], where: str, device: str, dtype: torch.dtype
) -> Llama:
    """Build a model of this shape with these weights, by Meta's names.

    Raises UserError naming weights that are missing, unknown or of another shape.
    """
    model = Llama.empty(config, device, dtype)
    expected = dict(model.named_parameters())
    if config.tie_embeddings:
        tensors = {name: tensor for name, tensor in tensors.items() if name != "output.weight"}
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is not known" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)} instead of {tuple(parameter.shape)}"
        for name, parameter in expected.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if problems:
        raise UserError(f"{where} does not fit the model's shape: " + "; ".join(problems[:5]))
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])
    return model
