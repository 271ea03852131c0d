"""Meta's release: consolidated.NN.pth, split over model-parallel ranks, and params.json."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights.native import fill

# Which dimension of a weight is split over the ranks; norms are the same on all of them.
_SPLIT = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1, "tok_embeddings": 1}


def load(
    folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, max_seq_len: int = 2048
) -> Llama:
    """Read a folder of Meta's, for any number of ranks. Nothing but tensors is unpickled."""
    files = sorted(folder.glob("consolidated.*.pth"))
    if not files or not (folder / "params.json").is_file():
        raise UserError(
            f"{folder} holds no model of Meta's release: consolidated.*.pth or params.json is missing"
        )
    params: dict[str, Any] = json.loads((folder / "params.json").read_bytes())
    ranks: list[dict[str, Tensor]] = []
    for file in files:
        try:
            ranks.append(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
        except Exception as error:  # torch raises many kinds: a bad zip, a refused pickle, a short read
            raise UserError(f"{file} cannot be read as tensors: {str(error).splitlines()[0]}") from error
    tensors = {}
    for name, first in ranks[0].items():
        if name == "rope.freqs":
            continue
        dimension = _SPLIT.get(name.split(".")[-2])
        if dimension is None or len(ranks) == 1:
            tensors[name] = first
        else:
            tensors[name] = torch.cat([rank[name] for rank in ranks], dimension)
    for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"):
        if name not in tensors:
            raise UserError(f"{folder}: {name} is missing")
    vocabulary, dim = tensors["tok_embeddings.weight"].shape
    values = {
        "dim": dim,
        "n_layers": params["n_layers"],
        "n_heads": params["n_heads"],
        "n_kv_heads": params.get("n_kv_heads"),
        "vocab_size": vocabulary,
        "ffn_dim": tensors["layers.0.feed_forward.w1.weight"].shape[0],
        "norm_eps": params.get("norm_eps", 1e-6),
        "max_seq_len": max_seq_len,
        "rope_theta": params.get("rope_theta", 10_000.0),
    }
    config = LlamaConfig.model_validate(values)
    return fill(config, tensors, str(folder), device, dtype)


def save(model: Llama, folder: Path, ranks: int = 1) -> None:
    """Write a model as Meta did, split over this many ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        shards = {}
        for name, parameter in model.state_dict().items():
            dimension = _SPLIT.get(name.split(".")[-2])
            shard = parameter if dimension is None else parameter.chunk(ranks, dimension)[rank]
            shards[name] = shard.contiguous().clone()
        torch.save(shards, folder / f"consolidated.{rank:02d}.pth")
    config = model.config
    params: dict[str, Any] = {
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "vocab_size": config.vocab_size,
        "multiple_of": 256,
        "norm_eps": config.norm_eps,
    }
    if config.n_kv_heads != config.n_heads:
        params["n_kv_heads"] = config.n_kv_heads
    (folder / "params.json").write_text(json.dumps(params, indent=1) + "\n")
