"""Hugging Face's LlamaForCausalLM folders, in and out.

Two things differ: names, and the order of the rows of wq and wk. Transformers rotates element i of a head
together with element i + e / 2, we rotate neighbours; so within each head its rows are ours at 0, 2, 4, ...
and then 1, 3, 5, ...
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import safetensors_file
from puna.model.weights.source import Entry, Names, Source, config_of, read_json, require

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# keys: of config.json, by ours. allowed: keys with the one value that is supported. harmless: keys of what
# changes nothing of what the decoder computes, or is said elsewhere, too.
_TABLES = json.loads(Path(__file__).with_name("hf.json").read_text("utf-8"))
NAMES = Names(**_TABLES["names"])
_KEYS, _ALLOWED = _TABLES["keys"], _TABLES["allowed"]
_ROPE = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_COMPUTED = ".self_attn.rotary_emb.inv_freq"  # old folders hold what is computed from the config


def reorder_rows(weight: Tensor, heads: int, to_theirs: bool) -> Tensor:
    """Return wq or wk [heads * e, d] with its rows in the other order: neighbours to halves, or back."""
    halves = (-1, 2) if to_theirs else (2, -1)
    return weight.unflatten(0, (heads, *halves)).transpose(1, 2).flatten(0, 2)


def heads_of(config: LlamaConfig, name: str) -> int | None:
    """Heads in whose rows a weight's order is another; None where it is the same."""
    if name.endswith("wq.weight"):
        return config.n_heads
    return config.n_kv_heads if name.endswith("wk.weight") else None


def export(model: Llama | Source) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Return (config.json, weights) as transformers reads them."""
    source = Source.of(model)
    config = source.config
    described: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in _KEYS.items()}
    described |= _ALLOWED | {"rope_theta": config.rope_theta, "head_dim": config.head_dim}
    described |= {"bos_token_id": 1, "eos_token_id": 2}
    del described["partial_rotary_factor"], described["is_encoder_decoder"]
    if config.rope_scaling is not None:
        described["rope_scaling"] = {"rope_type": "llama3", **config.rope_scaling.model_dump()}
    theirs = {}
    for name, entry in source.weights.items():
        heads = heads_of(config, name)
        theirs[NAMES.theirs(name)] = entry if heads is None else _reordered(entry, heads, to_theirs=True)
    return described, theirs


def read_config(described: Mapping[str, Any], where: str) -> LlamaConfig:
    """The model's shape by transformers' config. Raises UserError for what is not supported, by its name."""
    if described.get("model_type") != "llama":
        raise UserError(
            f"{where}: model_type = {described.get('model_type')!r:.100}; only 'llama' is supported"
        )
    require(described, _ALLOWED, {*_KEYS.values(), *_TABLES["harmless"]}, where)
    values = {ours: described[theirs] for ours, theirs in _KEYS.items() if theirs in described}
    values = {name: value for name, value in values.items() if value is not None}
    if missing := [_KEYS[name] for name in ("dim", "n_layers", "n_heads", "ffn_dim", "vocab_size")
                   if name not in values]:  # fmt: skip
        raise UserError(f"{where}: {', '.join(missing)} missing")
    rope = described.get("rope_parameters") or described.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"{where}: rope_scaling = {rope!r:.100} is no table of settings")
    kind = rope.get("rope_type", rope.get("type", "default"))
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    require(rope, {"partial_rotary_factor": 1.0}, known | set(_ROPE if kind == "llama3" else ()), where)
    if kind == "llama3":
        if missing := [name for name in _ROPE if name not in rope]:
            raise UserError(f"{where}: rope_scaling of type llama3 lacks {', '.join(missing)}")
        values["rope_scaling"] = {name: rope[name] for name in _ROPE}
    elif kind != "default":
        raise UserError(f"{where}: rope scaling of type {kind!r:.40} is not supported; llama3 is")
    values["rope_theta"] = rope.get("rope_theta") or described.get("rope_theta") or 10_000.0
    return config_of(values, where)


def weights_of(config: LlamaConfig, theirs: Mapping[str, Entry], where: str) -> dict[str, Entry]:
    """Their tensors under our names, rows of wq and wk in our order. Raises UserError for unknown ones."""
    ours: dict[str, Entry] = {}
    for name, entry in theirs.items():
        if name.endswith(_COMPUTED):
            continue
        if (known := NAMES.ours(name)) is None:
            raise UserError(f"{where}: {name[:200]} is not known: it is no weight of a LLaMA model")
        heads = heads_of(config, known)
        ours[known] = entry if heads is None else _reordered(entry, heads)
    if config.tie_embeddings and (head := ours.pop("output.weight", None)) is not None:
        table = ours.get("tok_embeddings.weight")
        if table is None or head.shape != table.shape or not torch.equal(head.read(), table.read()):
            raise UserError(
                f"{where}: lm_head.weight is another than model.embed_tokens.weight, "
                "but the config says that they are tied (tie_word_embeddings)"
            )
    return ours


def _reordered(entry: Entry, heads: int, *, to_theirs: bool = False) -> Entry:
    return Entry(entry.shape, lambda: reorder_rows(entry.read(), heads, to_theirs))


def recognises(path: Path) -> bool:
    return (path / CONFIG).is_file()


def read(folder: Path) -> Source:
    """Read the headers of a folder of safetensors files, one or several. Raises UserError."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no Hugging Face model: {CONFIG} is missing")
    config = read_config(read_json(folder / CONFIG), str(folder / CONFIG))
    tensors: dict[str, Entry] = {}
    for file, promised in _files(folder).items():
        found = safetensors_file.entries(file)
        if problem := next((name for name in promised if name not in found), None):
            raise UserError(f"{file}: {problem[:200]} is missing, which {INDEX} says is there")
        if problem := next((name for name in found if name in tensors), None):
            raise UserError(f"{file}: {problem[:200]} is in another file, too")
        tensors |= found
    return Source("hf", folder, config, weights_of(config, tensors, str(folder)))


def _files(folder: Path) -> dict[Path, list[str]]:
    """The files of a folder's weights, each with the tensors that an index promises of it."""
    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
            raise UserError(f"{folder / INDEX}: weight_map is no table of files")
        files: dict[Path, list[str]] = {}
        for name, place in places.items():
            if Path(place).name != place or "\0" in place:
                raise UserError(f"{folder / INDEX}: {place!r:.100} is no file of this folder")
            if (folder / place) not in files and not (folder / place).is_file():
                raise UserError(f"{folder}: {place} is missing, which {INDEX} names")
            files.setdefault(folder / place, []).append(name)
        return files
    single = folder / WEIGHTS
    found = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not found:
        pickled = " (only pickled ones; save them as safetensors)" if any(folder.glob("*.bin")) else ""
        raise UserError(f"{folder} holds no Hugging Face model: *.safetensors is missing{pickled}")
    return {file: [] for file in found}


def save(
    model: Llama | Source,
    folder: Path,
    dtype: torch.dtype | None = None,
    special: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json and model.safetensors for transformers, vLLM and others; of a model that is a file's,
    one weight is in memory at a time.

    dtype: default: that of the last norm. special: ids of the tokenizer's tokens, as `bos_token_id`; default:
    LLaMA's.
    """
    source = Source.of(model)
    source.check()
    folder.mkdir(parents=True, exist_ok=True)
    described, weights = export(source)
    dtype = dtype or source.weights["norm.weight"].read().dtype
    described |= {**(special or {}), "torch_dtype": str(dtype).removeprefix("torch.")}
    (folder / CONFIG).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    safetensors_file.write(folder / WEIGHTS, weights, dtype, {"format": "pt"})
