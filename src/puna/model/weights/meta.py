"""Meta's release: consolidated.NN.pth, split over model-parallel ranks, and params.json.

LLaMA 1 and 2 split the embedding over its width, Llama 3 over the vocabulary; the shapes tell. params.json
says neither the context nor the numbers of a rope scaling, which Meta's code holds as constants; `save`
writes our whole config beside it, as puna.json, and `read` goes by that where it is there.
"""

import ctypes
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.errors import UserError
from puna.model.config import LlamaConfig, RopeScaling
from puna.model.llama import Llama
from puna.model.weights.source import HEADER_BYTES, Entry, Source, config_of, read_json, require

PARAMS, EXACT, FILES = "params.json", "puna.json", "consolidated.*.pth"
# Which dimension of a weight is split over the ranks; norms are the same on all of them.
_SPLIT = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1, "tok_embeddings": 1}
_NEEDED = ("dim", "n_layers", "n_heads")
_KNOWN = {*_NEEDED, "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier",
          "norm_eps", "rope_theta", "use_scaled_rope"}  # fmt: skip
_DONT_NEED = 4  # MADV_DONTNEED


def context(params: dict[str, Any]) -> int:
    """Tokens that a release was trained to read: 131,072 with a scaled rope (Llama 3.1), 8,192 with a theta
    of Llama 3, 4,096 with the norms' 1e-5 of LLaMA 2, else 2,048."""
    if params.get("use_scaled_rope"):
        return 131_072
    if params.get("rope_theta", 10_000.0) == 500_000.0:
        return 8192
    return 4096 if params.get("norm_eps") == 1e-5 else 2048


def recognises(path: Path) -> bool:
    return (path / PARAMS).is_file() and any(path.glob(FILES))


def read(folder: Path) -> Source:
    """Read what a folder of Meta's holds, for any number of ranks. Nothing but tensors is unpickled, and they
    stay on disk. The model's context: what puna.json says, or `context`. Raises UserError."""
    files = sorted(folder.glob(FILES))
    if not files or not (folder / PARAMS).is_file():
        raise UserError(f"{folder} holds no model of Meta's release: {FILES} or {PARAMS} is missing")
    params = read_json(folder / PARAMS)
    require(params, {}, _KNOWN, str(folder / PARAMS))
    if missing := [name for name in _NEEDED if name not in params]:
        raise UserError(f"{folder / PARAMS}: {', '.join(missing)} missing")
    names = [f"consolidated.{rank:02d}.pth" for rank in range(len(files))]
    if absent := [name for name in names if folder / name not in files]:
        raise UserError(f"{folder}: {absent[0]} is missing, and there is {files[-1].name}")
    ranks = [_tensors(file) for file in files]
    weights = _joined(ranks, params["dim"], str(folder))
    if "tok_embeddings.weight" not in weights or "layers.0.feed_forward.w1.weight" not in weights:
        raise UserError(f"{folder}: tok_embeddings.weight or layers.0.feed_forward.w1.weight is missing")
    config = _config(folder, params, weights)
    head, table = weights.get("output.weight"), weights["tok_embeddings.weight"]
    if head is None or (head.shape == table.shape and torch.equal(head.read(), table.read())):
        weights.pop("output.weight", None)
        config = config.model_copy(update={"tie_embeddings": True})
    return Source("meta", folder, config, weights)


def _config(folder: Path, params: dict[str, Any], weights: dict[str, Entry]) -> LlamaConfig:
    vocabulary = weights["tok_embeddings.weight"].shape[0]
    values = {
        **{name: params[name] for name in _NEEDED},
        "n_kv_heads": params.get("n_kv_heads"),
        "vocab_size": vocabulary,
        "ffn_dim": weights["layers.0.feed_forward.w1.weight"].shape[0],
        "norm_eps": params.get("norm_eps", 1e-6),
        "max_seq_len": context(params),
        "rope_theta": params.get("rope_theta", 10_000.0),
        "rope_scaling": RopeScaling() if params.get("use_scaled_rope") else None,
    }
    config = config_of(values, str(folder / PARAMS))
    if not (folder / EXACT).is_file():
        told = params.get("vocab_size", -1)
        if isinstance(told, int) and told > vocabulary:
            raise UserError(f"{folder}: {vocabulary} of {told} tokens have weights; a rank's file is missing")
        return config
    exact = config_of(read_json(folder / EXACT), str(folder / EXACT))
    said = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "norm_eps", "rope_theta")
    for name in said:
        if getattr(exact, name) != getattr(config, name):
            raise UserError(
                f"{folder}: {name} is {getattr(config, name)} by {PARAMS} and its weights, but "
                f"{getattr(exact, name)} by {EXACT}; remove {EXACT} if it belongs to another model"
            )
    return exact


def _tensors(file: Path) -> dict[str, Tensor]:
    """A rank's tensors, mapped from disk. Raises UserError for what is no plain file of plain tensors."""
    _check_archive(file)
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds: a bad zip, a refused pickle, a short read
        raise UserError(f"{file} cannot be read as tensors: {str(error).splitlines()[0][:300]}") from error
    if not isinstance(tensors, dict):
        raise UserError(f"{file} holds a {type(tensors).__name__}, not tensors by their names")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{file}: {str(name)[:200]} is a {type(tensor).__name__}, not a tensor")
        plain = tensor.layout == torch.strided and tensor.is_floating_point() and tensor.device.type == "cpu"
        if not plain or not tensor.is_contiguous():
            raise UserError(f"{file}: {name[:200]} is no plain tensor of floats")
    return {name: tensor for name, tensor in tensors.items() if name != "rope.freqs"}


def _check_archive(file: Path) -> None:
    """Raises UserError where a .pth is no zip archive of stored members, whose pickle is small.

    A packed member, which torch never writes, may unpack to any size."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{file} cannot be read as tensors: {error}") from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise UserError(
                f"{file}: {member.filename[:200]} is packed; torch.save stores tensors as they are"
            )
        if member.filename.endswith("data.pkl") and member.file_size > HEADER_BYTES:
            raise UserError(f"{file}: a list of tensors of {member.file_size:,} bytes is none of a model's")


def _joined(ranks: list[dict[str, Tensor]], dim: int, where: str) -> dict[str, Entry]:
    """Weights of which each rank holds a part. Raises UserError where ranks hold different ones."""
    weights = {}
    for name in dict.fromkeys(name for rank in ranks for name in rank):
        parts = [rank[name] for rank in ranks if name in rank]
        module = name.split(".")[-2] if name.count(".") else name
        dimension = _SPLIT.get(module)
        if module == "tok_embeddings" and parts[0].shape[-1:] == (dim,):
            dimension = 0
        same = len({(part.dim(), *part.shape) for part in parts}) == 1 and len(parts) == len(ranks)
        if not same or (dimension is not None and parts[0].dim() != 2):
            raise UserError(f"{where}: {name[:200]} is not in every rank's file in one shape")
        weights[name] = _entry(parts[:1] if dimension is None else parts, dimension or 0)
    return weights


def _entry(parts: list[Tensor], dimension: int) -> Entry:
    shape = list(parts[0].shape)
    if len(parts) > 1:
        shape[dimension] *= len(parts)

    def read() -> Tensor:
        whole = torch.cat(parts, dimension) if len(parts) > 1 else parts[0].clone()
        for part in parts:
            _forget(part)
        return whole

    return Entry(tuple(shape), read)


def _forget(tensor: Tensor) -> None:
    """Give back the memory of pages of a file that were read; they can be read again."""
    page = 4096
    start = -(-tensor.data_ptr() // page) * page
    if (size := (tensor.data_ptr() + tensor.nbytes - start) // page * page) > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _DONT_NEED)


def save(model: Llama | Source, folder: Path, ranks: int = 1, dtype: torch.dtype | None = None) -> None:
    """Write a model as Meta did, split over this many ranks: a tied head twice, as Meta's code reads it. All
    of it is in memory: torch.save needs its tensors together.

    Meta's own code knows no head width but dim / n_heads, and of scaled ropes the one of `RopeScaling`'s
    defaults; Puna reads others from puna.json. Raises UserError where a weight cannot be split so.
    """
    model = model.build() if isinstance(model, Source) else model
    config = model.config
    for count in (config.n_kv_heads, config.ffn_dim, config.vocab_size, config.dim):
        if count % ranks:
            raise UserError(f"{count} rows do not divide by {ranks} ranks; give another number of ranks")
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        shards = {}
        for name, parameter in model.state_dict().items():
            dimension = _SPLIT.get(name.split(".")[-2])
            shard = parameter if dimension is None else parameter.chunk(ranks, dimension)[rank]
            shards[name] = shard.to(dtype or shard.dtype).contiguous().clone()
        torch.save(shards, folder / f"consolidated.{rank:02d}.pth")
    params: dict[str, Any] = {name: getattr(config, name) for name in (*_NEEDED, "vocab_size")}
    params |= _ffn(config) | {"norm_eps": config.norm_eps}
    if config.n_kv_heads != config.n_heads:
        params["n_kv_heads"] = config.n_kv_heads
    if config.rope_theta != 10_000.0:  # LLaMA 1's and 2's code does not know the key
        params["rope_theta"] = config.rope_theta
    if config.rope_scaling is not None:
        params["use_scaled_rope"] = True
    (folder / PARAMS).write_text(json.dumps(params, indent=1) + "\n")
    exact = config.model_dump(exclude_none=True)
    (folder / EXACT).write_text(json.dumps(exact, indent=1, sort_keys=True) + "\n")


def _ffn(config: LlamaConfig) -> dict[str, Any]:
    """What Meta's code computes ffn_dim from: 2/3 of 4 dim times a factor, rounded up to a multiple."""
    usual = 2 * 4 * config.dim // 3
    if -(-usual // 256) * 256 == config.ffn_dim:
        return {"multiple_of": 256}
    return {"multiple_of": 1, "ffn_dim_multiplier": (config.ffn_dim + 0.5) / usual}
