"""Hugging Face's LlamaForCausalLM folders, in and out.

Two things differ: names, and the order of the rows of wq and wk. Transformers rotates element i of a head
together with element i + e / 2, we rotate neighbours; so within each head its rows are ours at 0, 2, 4, ...
and then 1, 3, 5, ...
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights.native import fill

_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "ffn_dim": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}


def their_name(name: str) -> str:
    """Translate `layers.3.attention.wq.weight` to `model.layers.3.self_attn.q_proj.weight`, for example."""
    stem = name.removesuffix(".weight")
    if stem in _TOP:
        return _TOP[stem] + ".weight"
    _, layer, module = stem.split(".", 2)
    return f"model.layers.{layer}.{_LAYER[module]}.weight"


def _reorder(weight: Tensor, heads: int, to_theirs: bool) -> Tensor:
    """Return wq or wk [heads * e, d] with its rows in the other order."""
    halves = (-1, 2) if to_theirs else (2, -1)
    return weight.unflatten(0, (heads, *halves)).transpose(1, 2).flatten(0, 2)


def _heads(config: LlamaConfig, name: str) -> int | None:
    if name.endswith("wq.weight"):
        return config.n_heads
    return config.n_kv_heads if name.endswith("wk.weight") else None


def export(model: Llama) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return (config.json, state dict) as transformers reads them."""
    config = model.config
    described: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in _KEYS.items()}
    described |= {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_theta": config.rope_theta,
        "head_dim": config.head_dim,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    tensors = {}
    for name, parameter in model.named_parameters():
        heads = _heads(config, name)
        weight = parameter.detach()
        tensors[their_name(name)] = (_reorder(weight, heads, True) if heads else weight).contiguous()
    return described, tensors


def convert(
    described: dict[str, Any], tensors: dict[str, Tensor], where: str, dtype: torch.dtype, device: str = "cpu"
) -> Llama:
    """Build a model from transformers' config and state dict.

    Raises UserError for an architecture that is not supported, and for weights that do not fit the config.
    """
    scaling = described.get("rope_scaling") or described.get("rope_parameters") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        raise UserError(f"{where}: rope scaling {scaling} is not supported")
    if described.get("model_type") != "llama" or described.get("attention_bias") or described.get("mlp_bias"):
        raise UserError(f"{where}: only LLaMA models without biases can be read")
    values = {ours: described[theirs] for ours, theirs in _KEYS.items() if theirs in described}
    values["rope_theta"] = described.get("rope_theta") or scaling.get("rope_theta") or 10_000.0
    config = LlamaConfig.model_validate(values)
    with torch.device("meta"):
        names = [name for name, _ in Llama(config).named_parameters()]
    ours = {}
    for name in names:
        if (weight := tensors.get(their_name(name))) is not None:
            heads = _heads(config, name)
            ours[name] = _reorder(weight, heads, False) if heads else weight
    return fill(config, ours, where, device, dtype)


def save(model: Llama, folder: Path) -> None:
    """Write config.json and model.safetensors for transformers, vLLM and others."""
    folder.mkdir(parents=True, exist_ok=True)
    described, tensors = export(model)
    described["torch_dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Llama:
    """Read a folder of safetensors files, one or several."""
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no Hugging Face model: config.json or *.safetensors is missing")
    described = json.loads((folder / "config.json").read_bytes())
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return convert(described, tensors, str(folder), dtype, device)
