"""GGUF files of models, in and out. llama.cpp rotates neighbours, as we do: rows of wq and wk stay."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from puna.errors import UserError
from puna.model.block import rotary_divisors, rotary_frequencies
from puna.model.config import LlamaConfig, RopeScaling
from puna.model.llama import Llama
from puna.model.weights import gguf_file
from puna.model.weights.gguf_blocks import FORMATS, dequantise, quantise
from puna.model.weights.gguf_file import TensorInfo
from puna.model.weights.safetensors_file import read_bytes
from puna.model.weights.source import Entry, Names, Source, config_of, require

# keys: of the metadata, by ours. allowed: keys with the one value that is supported. file_types: llama.cpp's.
_TABLES = json.loads(Path(__file__).with_name("gguf.json").read_text("utf-8"))
NAMES = Names(**_TABLES["names"])
_KEYS, _REQUIRED, _ALLOWED = _TABLES["keys"], _TABLES["required"], _TABLES["allowed"]
_SCALING, _DIVISORS = "puna.rope_scaling", "rope_freqs.weight"


def recognises(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == gguf_file.MAGIC


def read(path: Path) -> Source:
    """Read the metadata and the list of tensors. Raises UserError for what is not supported, by its name."""
    metadata, tensors = gguf_file.read(path)
    where, plain = str(path), {name: value.data for name, value in metadata.items()}
    if (architecture := plain.get("general.architecture")) != "llama":
        raise UserError(f"{where}: general.architecture = {architecture!r:.40}; only 'llama' is supported")
    if plain.get("split.count", 1) != 1:
        raise UserError(f"{where} is one of {plain['split.count']} files: join them with llama-gguf-split")
    config = _config(plain, tensors, path)
    weights, types = {}, {}
    for name, info in tensors.items():
        if name != _DIVISORS:
            if (ours := NAMES.ours(name)) is None:
                raise UserError(f"{where}: the tensor {name} is not known: it is no weight of a LLaMA model")
            weights[ours], types[ours] = Entry(info.shape, _reader(path, info)), info.type
    return Source("gguf", path, config, weights, metadata, types)


def _reader(path: Path, info: TensorInfo) -> Any:
    def read() -> torch.Tensor:
        numbers = dequantise(read_bytes(path, info.start, info.size), info.type)
        return torch.from_numpy(numbers).view(info.shape)

    return read


def _config(plain: Mapping[str, Any], tensors: Mapping[str, TensorInfo], path: Path) -> LlamaConfig:
    where = str(path)
    described = {name: item for name, item in plain.items() if name.startswith("llama.")}
    require(described, _ALLOWED, {*_KEYS.values(), *_TABLES["harmless"]}, where)
    if missing := [_KEYS[name] for name in _REQUIRED if _KEYS[name] not in plain]:
        raise UserError(f"{where}: {', '.join(missing)} missing")
    for name, item in described.items():
        if not isinstance(item, int | float | str):
            raise UserError(f"{where}: {name} has a value for each layer, which is not supported")
    if "token_embd.weight" not in tensors:
        raise UserError(f"{where}: the tensor token_embd.weight is missing")
    values = {ours: plain[theirs] for ours, theirs in _KEYS.items() if theirs in plain}
    values["norm_eps"] = _shortest(values["norm_eps"])
    values["rope_theta"] = _shortest(values.get("rope_theta", 10_000.0))
    values["vocab_size"] = tensors["token_embd.weight"].shape[0]
    values["tie_embeddings"] = "output.weight" not in tensors
    config = config_of(values, where)
    widths = dict.fromkeys(("llama.rope.dimension_count", "llama.attention.value_length"), config.head_dim)
    widths["llama.vocab_size"] = config.vocab_size
    require({name: plain[name] for name in widths if name in plain}, widths, set(), where)
    if _DIVISORS in tensors:
        scaling = _scaling(plain, tensors[_DIVISORS], config, path)
        config = config.model_copy(update={"rope_scaling": scaling})
    return config


def _shortest(number: Any) -> float:
    """The shortest decimal that is this float32: 1e-5 and not 9.999999747378752e-06."""
    return float(str(torch.tensor(number).numpy().astype("<f4")[()])) if isinstance(number, float) else number


def _scaling(plain: Mapping[str, Any], info: TensorInfo, config: LlamaConfig, path: Path) -> RopeScaling:
    """The scaling whose divisors of frequencies a file holds: the one that it names, if Puna wrote it, or
    Llama 3.1's with the largest divisor as its factor. Raises UserError where it is another."""
    if info.shape != (config.head_dim // 2,):
        raise UserError(f"{path}: {_DIVISORS} has shape {info.shape} instead of ({config.head_dim // 2},)")
    divisors = torch.from_numpy(dequantise(read_bytes(path, info.start, info.size), info.type)).double()
    frequencies = rotary_frequencies(config.head_dim, config.rope_theta)
    named = plain.get(_SCALING)
    try:
        told = json.loads(named) if isinstance(named, str) else {"factor": round(float(divisors.max()), 4)}
        scaling = RopeScaling.model_validate(told)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {_SCALING} and {_DIVISORS} name no scaling: {str(error)[:200]}") from error
    if not torch.allclose(divisors, rotary_divisors(frequencies, scaling), rtol=1e-5, atol=0):
        raise UserError(f"{path}: the divisors of {_DIVISORS} are not those of Llama 3's rope scaling")
    return scaling


def save(
    model: Llama | Source,
    path: Path,
    kind: str = "F32",
    metadata: Mapping[str, Any] | None = None,
    types: Mapping[str, str] | None = None,
) -> None:
    """Write a file. kind: of all matrices; norms are F32, and a matrix whose rows no block divides is F16.

    metadata: of the tokenizer and of where the model comes from; what the model's shape says comes before it.
    types: instead of kind, that of each weight by our names, in the order of the file; then metadata is
    written as it is. Raises UserError for a format that Puna does not write.
    """
    source = Source.of(model)
    source.check()
    parameters = source.weights
    kinds = {name: _kind(entry, kind) for name, entry in parameters.items()} if types is None else types
    listed = list(kinds.items())
    described = dict(metadata or {})
    tensors = [(NAMES.theirs(name), parameters[name].shape, form) for name, form in listed]
    for form in {kind, *(form for _, form in listed)}:
        quantise(torch.zeros(0).numpy(), form)  # refuses what is not written before the file is begun
    ours = {NAMES.theirs(name): (name, form) for name, form in listed}
    scaling, divisors = model.config.rope_scaling, None
    if scaling is not None:
        frequencies = rotary_frequencies(model.config.head_dim, model.config.rope_theta)
        divisors = rotary_divisors(frequencies, scaling).float().numpy()
        tensors.append((_DIVISORS, divisors.shape, "F32"))
    if types is None:
        described = _described(model.config, kind) | described

    def data(name: str) -> Any:
        if name == _DIVISORS:
            return divisors.tobytes() if divisors is not None else b""
        known, form = ours[name]
        return quantise(parameters[known].read().float().numpy(), form).data

    path.parent.mkdir(parents=True, exist_ok=True)
    gguf_file.write(path, described, tensors, data)


def _kind(parameter: Entry, kind: str) -> str:
    if len(parameter.shape) == 1:
        return "F32"
    form = FORMATS.get(kind)
    return "F16" if form is not None and parameter.shape[-1] % form.numbers else kind


def _described(config: LlamaConfig, kind: str) -> dict[str, Any]:
    described: dict[str, Any] = {"general.architecture": "llama", "general.type": "model"}
    keys = {ours: theirs for ours, theirs in _KEYS.items() if ours != "explicit_head_dim"}
    described |= {theirs: getattr(config, ours) for ours, theirs in keys.items()}
    described |= {"llama.vocab_size": config.vocab_size, "llama.rope.dimension_count": config.head_dim}
    if config.explicit_head_dim is not None:
        described["llama.attention.key_length"] = config.head_dim
        described["llama.attention.value_length"] = config.head_dim
    if config.rope_scaling is not None:
        described[_SCALING] = json.dumps(config.rope_scaling.model_dump())
    described["general.file_type"] = _TABLES["file_types"][kind]
    if kind.startswith("Q"):
        described["general.quantization_version"] = 2
    return described
