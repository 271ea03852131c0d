"""The weights of a checkpoint, not read yet: what is exported, generated from and scored.

Its config and tokenizer lie beside the checkpoints (`describe`). Whatever layout wrote it, one process reads
one weight at a time; of many files each block that a weight has a part in is read for it, and digested.
"""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import native
from puna.model.weights.source import Entry, Source
from puna.run import files
from puna.train.checkpoint import finished, read_index, read_tensors, remove, step_of
from puna.train.losses import LOSSES
from puna.train.parallel import Box, Parallel

TOKENIZER = "tokenizer.model"
LARGEST_COPY = 8 << 30  # bytes of weights of which one process takes a copy while several train


def describe(folders: Iterable[Path], config: LlamaConfig, tokenizer: Path) -> None:
    """Put what a checkpoint does not hold beside the checkpoints of some folders."""
    for folder in folders:
        native.describe(config, folder)
        shutil.copyfile(tokenizer, folder / TOKENIZER)


@torch.no_grad()
def whole(model: Llama, parallel: Parallel) -> Llama | None:
    """The model, or of one that is distributed a copy in the first process's memory, and None in the others.
    All processes call this."""
    if parallel.team.size == 1:
        return model
    copy = Llama.empty(model.config) if parallel.team.rank == 0 else None
    for name, parameter in model.named_parameters():
        gathered = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        if copy is not None:
            copy.get_parameter(name).copy_(gathered)
    return copy


def recognises(path: Path) -> bool:
    return re.fullmatch(r"step-\d{8}", path.name) is not None and path.is_dir()


def read(path: Path, config: LlamaConfig | None = None) -> Source:
    """A checkpoint's weights. config: default: what lies beside it. Raises UserError where it is not finished
    or damaged, or nothing lies beside it."""
    index = read_index(path)
    if config is None:
        if not (path.parent / native.PARAMS).is_file():
            raise UserError(f"{path.parent / native.PARAMS} is missing, which says of what shape {path} is")
        config = native.described(path.parent)
    shapes = {name: tuple(entry["shape"]) for name, entry in index["tensors"].items()}
    weights = {
        name: Entry(shape, _reader(path, index, name, shape))
        for name, shape in shapes.items()
        if name.endswith(".weight")
    }
    return Source("checkpoint", path.parent, config, weights)


def _reader(path: Path, index: dict[str, Any], name: str, shape: tuple[int, ...]) -> Any:
    def read() -> Tensor:
        return read_tensors(path, index, {name: Box((0,) * len(shape), shape, True)})[name]

    return read


def keep(folder: Path, target: Path, every: int) -> None:
    """Give the finished checkpoints of each `every` steps a second name under `target`, and copies of
    what lies beside them: `folder` goes with the end of its training."""
    for path in finished(folder):
        if step_of(path) % every:
            continue
        target.mkdir(parents=True, exist_ok=True)
        remove(target / path.name)
        with files.replacing(target / path.name) as part:
            shutil.rmtree(part, ignore_errors=True)
            try:
                shutil.copytree(path, part, copy_function=os.link)
            except OSError:  # a file system without hard links
                shutil.copytree(path, part, dirs_exist_ok=True)
        for name in (LOSSES, native.PARAMS, TOKENIZER):
            shutil.copyfile(folder / name, target / name)
