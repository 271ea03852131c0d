"""Weights of a file that are not read yet: what every adapter makes, and what every model is built from.

Files come from strangers. An adapter looks at headers alone, whose size is bounded; shapes are compared with
the config before memory is taken for them, and each weight is read when it is copied into the model, so that
loading takes the model's memory and that of its largest weight.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.initial_weights import weight_shape
from puna.model.llama import Llama

# Of headers and JSON files. The index of a model of 405 thousand million weights has 0.1 MB; Python's objects
# take up to 25 times the bytes of their JSON.
HEADER_BYTES = 4_000_000
Described = TypeVar("Described", bound=BaseModel)
LARGEST = 1 << 32  # of any number of a config: products stay exact and comparisons fast


@dataclass(frozen=True)
class Entry:
    """One weight of a file. read: its values, in any precision and on the CPU."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Source:
    """A model's config, and its weights by Meta's names.

    format: the adapter's name. metadata: what a GGUF file says beside it. types: in which type such a file
    stores each weight, by Meta's names. base: the model that a low-rank adapter is of.
    """

    format: str
    path: Path
    config: LlamaConfig
    weights: Mapping[str, Entry]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    base: "Source | None" = None

    @classmethod
    def of(cls, model: "Llama | Source") -> "Source":
        """The weights of a model in memory, of a file as they are."""
        if isinstance(model, Source):
            return model
        weights = {name: Entry(tuple(one.shape), one.detach().cpu) for name, one in model.named_parameters()}
        return cls("memory", Path(), model.config, weights)

    def check(self) -> None:
        """Raises UserError naming weights that are missing, unknown or of another shape."""
        check(self.config, {name: entry.shape for name, entry in self.weights.items()}, str(self.path))

    def build(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
        """Build the model. Raises UserError as `check` does."""
        self.check()
        model = Llama.empty(self.config, device, dtype)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.weights[name].read())
        return model


def check(config: LlamaConfig, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare shapes with those of the config's weights. Raises UserError for those that differ."""
    if len(IN_LAYER) * config.n_layers > len(shapes):
        raise UserError(
            f"{where} does not fit the model's shape: {len(shapes)} tensors cannot hold "
            f"{config.n_layers} layers; weights or a file of them are missing"
        )
    outside = ("tok_embeddings", "norm") if config.tie_embeddings else ("tok_embeddings", "norm", "output")
    expected = {f"{name}.weight": weight_shape(config, f"{name}.weight") for name in outside}
    in_layer = {name: weight_shape(config, f"layers.0.{name}.weight") for name in IN_LAYER}
    for layer in range(config.n_layers):
        expected |= {f"layers.{layer}.{name}.weight": shape for name, shape in in_layer.items()}
    problems = [f"{name} is missing" for name in expected if name not in shapes]
    problems += [f"{name} is not known" for name in shapes if name not in expected]
    problems += [
        f"{name} has shape {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    if problems:
        raise UserError(f"{where} does not fit the model's shape: " + "; ".join(problems[:5]))


IN_LAYER = (
    "attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo",
    "ffn_norm", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3",
)  # fmt: skip


@dataclass(frozen=True)
class Names:
    """Another format's words for Meta's names of weights.

    layers: what stands before the number of a layer. in_layer, outside: their names by ours, without
    ".weight".
    """

    layers: str
    in_layer: Mapping[str, str]
    outside: Mapping[str, str]

    def theirs(self, name: str) -> str:
        """Translate `layers.3.attention.wq.weight`, for example to `blk.3.attn_q.weight`."""
        stem = name.removesuffix(".weight")
        if stem in self.outside:
            return f"{self.outside[stem]}.weight"
        _, layer, module = stem.split(".", 2)
        return f"{self.layers}{layer}.{self.in_layer[module]}.weight"

    def ours(self, name: str) -> str | None:
        """The other way; None for a name that has none of ours."""
        stem, _, kind = name.rpartition(".")
        inside = stem.startswith(self.layers)
        layer, _, module = stem.removeprefix(self.layers).partition(".")
        known, wanted = (self.in_layer, module) if inside else (self.outside, stem)
        found = next((ours for ours, theirs in known.items() if theirs == wanted), None)
        if found is None or kind != "weight":
            return None
        return f"layers.{layer}.{found}.weight" if inside else f"{found}.weight"


def config_of(values: Mapping[str, Any], where: str) -> LlamaConfig:
    """Make a config. Raises UserError naming the file and the values that make none."""
    for name, value in values.items():
        if isinstance(value, int | float) and not abs(value) < LARGEST:
            raise UserError(f"{where} describes no model: {name} is {value!r:.40}")
    return validated(LlamaConfig, values, f"{where} describes no model")


def validated(kind: type[Described], values: Mapping[str, Any], what: str) -> Described:
    """What a file describes. Raises UserError naming the values that are wrong; what: is said before them."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": ")
            for problem in error.errors()
        ]
        raise UserError(f"{what}: " + "; ".join(problems[:5])) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError for a missing, large or broken file, and for names given twice."""
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > HEADER_BYTES:
        raise UserError(f"{path} is larger than {HEADER_BYTES:,} bytes, and no config is")
    return parse_json(raw, str(path))


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """A JSON object from bytes, with the errors of `read_json`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for number, name in enumerate(names) if name in names[:number])
            raise ValueError(f"{twice[:80]!r} is there twice")
        return values

    try:
        value = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise UserError(f"{where} is no JSON: {problem}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} is no JSON object but a {type(value).__name__}")
    return value


def require(described: Mapping[str, Any], allowed: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse by name what may change a model and is not known.

    allowed: keys with the one value, beside None, that is what Puna computes. known: keys that are read, or
    change nothing. Any other key must be off: None, False, 0, empty. Raises UserError.
    """
    for key, value in described.items():
        if key in allowed:
            if value is not None and value != allowed[key]:
                raise UserError(f"{where}: {key} = {value!r:.100}; only {allowed[key]!r} is supported")
        elif key not in known and value:
            raise UserError(f"{where}: {key} = {value!r:.100} is not known; remove it if it changes nothing")
