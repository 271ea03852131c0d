"""Adapters in the format of PEFT, in and out: adapter_config.json and adapter_model.safetensors.

Names are Hugging Face's, and so is the order of the rows of wq and wk (`puna.model.weights.hf`), which here
are those of B. Beside them lies puna_base.json, of which PEFT knows nothing: digests of the weights that the
adapter was trained beside. Each weight of a base is compared with its own when it is read, so another base is
refused without reading anything twice. An adapter that PEFT wrote has none, and goes with any base of its
shape.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from puna.errors import UserError
from puna.model import lora
from puna.model.config import LlamaConfig
from puna.model.initial_weights import weight_shape
from puna.model.llama import Llama
from puna.model.lora import Adapted, Adapter, Factors, TrainedRows
from puna.model.weights import safetensors_file
from puna.model.weights.hf import NAMES, heads_of, reorder_rows
from puna.model.weights.source import Entry, Source, read_json, require, validated

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "puna_base.json"
_PREFIX, _ROWS = "base_model.model.", "token_adapter.trainable_tokens_delta"
_TABLES = {"tok_embeddings": "model.embed_tokens", "output": "lm_head"}
# Where PEFT puts a whole embedding or head: it does so when the vocabulary has grown or the head is adapted.
_WHOLE = ("weight", "base_layer.weight", "token_adapter.base_layer.weight")
_ALLOWED = {"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False}
# What changes nothing of what an adapter computes once it is trained.
_HARMLESS = {
    "lora_dropout", "inference_mode", "auto_mapping", "revision", "task_type", "peft_version",
    "megatron_core", "qalora_group_size",
}  # fmt: skip


class _Described(BaseModel):
    """Keys of adapter_config.json that are read."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    r: int = Field(ge=1)
    lora_alpha: float
    target_modules: str | list[str]
    use_rslora: bool = False
    rank_pattern: dict[str, PositiveInt] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    trainable_token_indices: list[NonNegativeInt] | dict[str, list[NonNegativeInt]] | None = None
    init_lora_weights: Literal[True, False, "gaussian"] = True  # others may change the base
    base_model_name_or_path: str = ""


@dataclass(frozen=True)
class Base:
    """What an adapter is trained beside. digests: SHA-256 of each weight's numbers in float32, by Meta's
    names."""

    path: Path
    vocab_size: int
    digests: Mapping[str, str]

    @classmethod
    def of(cls, source: Source) -> "Base":
        """All weights of a file are read, one at a time."""
        digests = {name: _digest(entry.read()) for name, entry in sorted(source.weights.items())}
        return cls(source.path.resolve(), source.config.vocab_size, digests)

    def checked(self, source: Source, folder: Path) -> Source:
        """The same weights, each compared when it is read. Raises UserError for another vocabulary."""
        if self.vocab_size != source.config.vocab_size:
            sizes = f"{self.vocab_size:,} tokens; {source.path} has {source.config.vocab_size:,}"
            raise UserError(f"{folder} belongs to a model of {sizes}")

        def reader(name: str, entry: Entry) -> Entry:
            def read() -> Tensor:
                weight = entry.read()
                if _digest(weight) != self.digests.get(name):
                    told = f"{source.path} is not the model that {folder} belongs to"
                    raise UserError(f"{told}: {name} is another")
                return weight

            return Entry(entry.shape, read)

        return replace(source, weights={name: reader(name, entry) for name, entry in source.weights.items()})


def _digest(weight: Tensor) -> str:
    return hashlib.sha256(weight.float().contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()


def save(model: Llama, folder: Path, base: Base, name: str = "default", *, write: bool = True) -> None:
    """Write an adapter of a model; equal ones give equal bytes. Under FSDP2 all processes call this, and one
    of them writes."""
    adapter = lora.adapters_of(model)[name]
    tensors: dict[str, Tensor] = {}
    for ours, module in lora.changed_modules(model).items():
        theirs = _PREFIX + NAMES.theirs(f"{ours}.weight").removesuffix(".weight")
        if isinstance(module, Adapted) and name in module.scales:
            b = _reordered(_whole(module.b[name]), model.config, ours, to_theirs=True)
            tensors |= {f"{theirs}.lora_A.weight": _whole(module.a[name]), f"{theirs}.lora_B.weight": b}
        elif isinstance(module, TrainedRows) and module.name == name:
            tensors[f"{theirs}.{_ROWS}"] = _whole(module.rows)
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(_described(adapter, base, model.config))
    digests = {"vocab_size": base.vocab_size, "sha256": dict(base.digests)}
    (folder / BASE).write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
    entries = {key: Entry(tuple(tensor.shape), tensor.clone) for key, tensor in tensors.items()}
    safetensors_file.write(folder / WEIGHTS, entries, torch.float32, {"format": "pt"})


def _whole(parameter: Tensor) -> Tensor:
    whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return whole.detach().cpu()


def _reordered(b: Tensor, config: LlamaConfig, layer: str, *, to_theirs: bool) -> Tensor:
    heads = heads_of(config, f"{layer}.weight")
    return b if heads is None else reorder_rows(b, heads, to_theirs)


def _described(adapter: Adapter, base: Base, config: LlamaConfig) -> str:
    modules = sorted({theirs.rpartition(".")[2] for theirs in adapter.layers(config).values()})
    whole = adapter.targets == "all-linear" or not isinstance(adapter.targets, str)
    rows = list(adapter.rows)
    tables = rows if config.tie_embeddings else {"embed_tokens": rows, "lm_head": rows}
    described = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base.path),
        "r": adapter.rank, "lora_alpha": float(adapter.alpha), "lora_dropout": 0.0, "bias": "none",
        "use_rslora": adapter.rs, "target_modules": modules if whole else adapter.targets,
        "rank_pattern": dict(adapter.rank_pattern),
        "alpha_pattern": {key: float(alpha) for key, alpha in adapter.alpha_pattern.items()},
        "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True,
        "trainable_token_indices": tables if rows else None,
    }  # fmt: skip
    return json.dumps(described, indent=1, sort_keys=True) + "\n"


class Trained(NamedTuple):
    """An adapter of a folder. factors: by layers, rows: by `tok_embeddings` and `output`, Meta's names."""

    adapter: Adapter
    factors: dict[str, Factors]
    rows: dict[str, tuple[list[int], Tensor]]


def trained(folder: Path, config: LlamaConfig) -> Trained:
    """Read an adapter of a model of this shape. Raises UserError for what is missing, damaged, of another
    shape or not supported, by its name."""
    values, where = read_json(folder / CONFIG), str(folder / CONFIG)
    require(values, _ALLOWED, {*_Described.model_fields, *_HARMLESS}, where)
    values = {name: value for name, value in values.items() if value is not None}
    described = validated(_Described, values, f"{where} describes no adapter")
    sizes = described.r, described.lora_alpha, described.target_modules, described.use_rslora
    adapter = Adapter(*sizes, described.rank_pattern, described.alpha_pattern)
    try:
        taken = {ours: (theirs, *adapter.size_of(theirs)) for ours, theirs in adapter.layers(config).items()}
    except re.error as error:
        raise UserError(f"{where}: {error.pattern!r:.100} is no regular expression: {error}") from error
    tensors = _Tensors(folder / WEIGHTS)
    factors = {}
    for ours, (theirs, rank, scale) in taken.items():
        outputs, inputs = weight_shape(config, f"{ours}.weight")
        a = tensors.take(f"{theirs}.lora_A.weight", (rank, inputs))
        b = tensors.take(f"{theirs}.lora_B.weight", (outputs, rank))
        factors[ours] = a, _reordered(b, config, ours, to_theirs=False), scale
    rows = _tables(tensors, described.trainable_token_indices or {}, config, where)
    if tensors.found:
        told = next(iter(tensors.found))[:200]
        raise UserError(f"{folder / WEIGHTS}: {told} is not known: it is of no layer that is adapted")
    return Trained(adapter, factors, rows)


class _Tensors:
    """The tensors of a file that nobody has taken."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, safetensors_file.entries(path)

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        entry = self.found.pop(_PREFIX + name, None)
        if entry is None or entry.shape != shape:
            told = "is missing" if entry is None else f"has shape {entry.shape} instead of {shape}"
            raise UserError(f"{self.path}: {_PREFIX}{name} {told}")
        return entry.read().float()

    def pop(self, names: Iterable[str]) -> list[Entry]:
        return [self.found.pop(_PREFIX + name) for name in names if _PREFIX + name in self.found]


def _tables(
    tensors: _Tensors, told: list[int] | dict[str, list[int]], config: LlamaConfig, where: str
) -> dict[str, tuple[list[int], Tensor]]:
    """The rows of embedding and head that an adapter brings; those of a tied head are the embedding's."""
    told = {"embed_tokens": told} if isinstance(told, list) else told
    if unknown := sorted(told.keys() - {theirs.split(".")[-1] for theirs in _TABLES.values()}):
        raise UserError(f"{where}: trainable_token_indices names {unknown[0]!r:.80}: no tokens' rows")
    rows: dict[str, tuple[list[int], Tensor]] = {}
    for ours, theirs in _TABLES.items():
        whole = tensors.pop(f"{theirs}.{name}" for name in _WHOLE)
        if ours == "output" and config.tie_embeddings:
            tensors.pop([f"{theirs}.{_ROWS}"])
            continue
        ids = told.get(theirs.split(".")[-1], [])
        size, *width = whole[0].shape if whole else (config.vocab_size, config.dim)
        if width != [config.dim]:
            raise UserError(f"{tensors.path}: a whole {theirs} of shape {whole[0].shape}")
        new = sorted(token for token in ids if token >= size)
        if len({*ids}) < len(ids) or new != list(range(size, size + len(new))):
            raise UserError(f"{where}: trainable_token_indices {ids!r:.60} leave some out, or name one twice")
        shape = (len(ids), config.dim)
        values = tensors.take(f"{theirs}.{_ROWS}", shape) if ids else torch.empty(shape)
        if whole:
            table = torch.cat((whole[0].read().float(), torch.zeros(len(new), config.dim)))
            values = table.index_copy(0, torch.tensor(ids).long(), values)
            ids = list(range(len(table)))
        rows |= {ours: (ids, values)} if ids else {}
    return rows


def recognises(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def base_path(folder: Path) -> Path:
    """Where the base of an adapter is. Raises UserError where it is not there."""
    told = read_json(folder / CONFIG).get("base_model_name_or_path")
    for place in [folder / told, Path(told)] if isinstance(told, str) and told else []:
        if place.exists():
            return place
    told = f"{folder / CONFIG}: base_model_name_or_path = {told!r:.200} is no folder or file here"
    raise UserError(f"{told}: write there where the model is that this is an adapter of")


def _checked(folder: Path, base: Source) -> Source:
    """The base, compared with what lies beside an adapter, if anything."""
    if not (folder / BASE).is_file():
        return base
    told = read_json(folder / BASE)
    digests, size = told.get("sha256"), told.get("vocab_size")
    if not isinstance(digests, dict) or not isinstance(size, int):
        raise UserError(f"{folder / BASE} holds no digests (sha256) and no vocab_size")
    return Base(base.path, size, digests).checked(base, folder)


def read(folder: Path, base: Source) -> Source:
    """The weights of a base with an adapter added, each made when it is read. Raises UserError for another
    base, and as `trained` does."""
    _, factors, rows = trained(folder, base.config)
    weights, config = dict(_checked(folder, base).weights), base.config
    size = max([config.vocab_size, *(max(ids) + 1 for ids, _ in rows.values())])
    for ours, (ids, values) in rows.items():
        weights[f"{ours}.weight"] = _with_rows(weights[f"{ours}.weight"], size, ids, values)
    tied = config.tie_embeddings and "output" not in factors
    if config.tie_embeddings and not tied:
        weights["output.weight"] = weights["tok_embeddings.weight"]
    for ours, change in factors.items():
        weights[f"{ours}.weight"] = _merged(weights[f"{ours}.weight"], change)
    config = config.model_copy(update={"vocab_size": size, "tie_embeddings": tied})
    return Source("peft", folder, config, weights, base=base)


def _merged(entry: Entry, change: Factors) -> Entry:
    return Entry(entry.shape, lambda: lora.added(entry.read().float(), [change]))


def _with_rows(entry: Entry, size: int, ids: list[int], values: Tensor) -> Entry:
    def read() -> Tensor:
        table = values.new_zeros(size, values.shape[1])
        table[: entry.shape[0]] = entry.read()
        return table.index_copy_(0, torch.tensor(ids), values)

    return Entry((size, entry.shape[1]), read)


def load(model: Llama, folder: Path, name: str = "default") -> None:
    """Put an adapter of a folder onto a model in memory, to be trained on or added to others; it grows the
    model where it has rows of new tokens. Raises UserError for another base, and as `apply` and `trained`
    do."""
    if not lora.changed_modules(model):
        for entry in _checked(folder, Source.of(model)).weights.values():
            entry.read()
    adapter, factors, rows = trained(folder, model.config)
    tables = {"tok_embeddings"} if model.config.tie_embeddings else {"tok_embeddings", "output"}
    ids = sorted({tuple(ids) for ids, _ in rows.values()})
    if rows and (rows.keys() != tables or len(ids) > 1 or len(ids[0]) >= model.config.vocab_size):
        raise UserError(f"{folder} brings more of embedding and head than rows of new tokens: merge it")
    if rows:
        lora.grow(model, ids[0])
        adapter = replace(adapter, rows=ids[0])
    lora.apply(model, adapter, name=name)
    with torch.no_grad():
        for ours, (a, b, _) in factors.items():
            module = model.get_submodule(ours)
            assert isinstance(module, Adapted)
            module.a[name].copy_(a)
            module.b[name].copy_(b)
        for ours, (_, values) in rows.items():
            model.get_parameter(f"{ours}.rows").copy_(values)
