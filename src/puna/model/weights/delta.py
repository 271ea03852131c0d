"""Weights as their difference from a base, for those who may pass on the one but not the other.

A folder holds params.json, the shape of the whole; delta.safetensors, of each weight the numbers' bits as an
integer minus those of the base's, modulo 2^bits, stored as the number of these bits; and delta.json, digests
of the base. So a weight comes back bit by bit, where a difference of floats is rounded. From rows that the
base has not, of new tokens, nothing is taken away; nor from a head where the base's is tied.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from puna.errors import UserError
from puna.model.llama import Llama
from puna.model.weights import native, safetensors_file
from puna.model.weights.peft import Base
from puna.model.weights.source import Entry, Source, read_json

WEIGHTS, ABOUT = "delta.safetensors", "delta.json"
_INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def save(model: Llama | Source, base: Source, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model as the difference from a base, one weight in memory at a time.

    dtype: of the numbers; default: that of the last norm. Raises UserError where the base is of another
    shape, and where numbers of the model are not of this dtype.
    """
    source = Source.of(model)
    source.check()
    known = Base.of(base)
    dtype = dtype or source.weights["norm.weight"].read().dtype
    weights = {
        name: _combined(name, entry, base, dtype, -1, str(source.path))
        for name, entry in source.weights.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    native.describe(source.config, folder)
    about = {"base": str(known.path), "vocab_size": known.vocab_size, "sha256": dict(known.digests)}
    safetensors_file.write(folder / WEIGHTS, weights, dtype)
    (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def recognises(path: Path) -> bool:
    return (path / ABOUT).is_file() and (path / WEIGHTS).is_file()


def base_path(folder: Path) -> Path:
    """Where the base was when the difference was written. Raises UserError where it is not there."""
    told = read_json(folder / ABOUT).get("base")
    if isinstance(told, str) and Path(told).exists():
        return Path(told)
    raise UserError(
        f"{folder} is a difference from {told!r:.200}, which is not here: name the model with --base"
    )


def read(folder: Path, base: Source) -> Source:
    """The whole weights, each made when it is read, as they were. Raises UserError for another base."""
    config, about = native.described(folder), read_json(folder / ABOUT)
    digests, size = about.get("sha256"), about.get("vocab_size")
    if not isinstance(digests, dict) or not isinstance(size, int):
        raise UserError(f"{folder / ABOUT} holds no digests (sha256) and no vocab_size")
    checked, stored = (
        Base(base.path, size, digests).checked(base, folder),
        safetensors_file.entries(folder / WEIGHTS),
    )
    weights = {name: _combined(name, entry, checked, None, 1, str(folder)) for name, entry in stored.items()}
    return Source("delta", folder, config, weights, base=base)


def _combined(
    name: str, entry: Entry, base: Source, dtype: torch.dtype | None, sign: int, where: str
) -> Entry:
    """A weight plus or minus the base's, in bits."""
    other = base.weights.get(name)
    if other is None and not (name == "output.weight" and base.config.tie_embeddings):
        raise UserError(f"{where}: {base.path} has no {name}: it is a model of another shape")
    if other is not None and (other.shape[1:] != entry.shape[1:] or other.shape[0] > entry.shape[0]):
        raise UserError(f"{where}: {name} has shape {entry.shape}, in {base.path} {other.shape}")

    def read() -> Tensor:
        given = entry.read()
        value = given.to(dtype or given.dtype)
        if sign < 0 and not torch.equal(value.to(given.dtype).view(torch.uint8), given.view(torch.uint8)):
            raise UserError(f"{where}: {name} is no {value.dtype}: write the difference as F32")
        whole = torch.zeros_like(value)
        if other is not None:
            whole[: other.shape[0]] = other.read().to(value.dtype)
        kind = _INTEGERS[value.dtype]
        return value.view(kind).add(whole.view(kind), alpha=sign).view(value.dtype)

    return Entry(entry.shape, read)
