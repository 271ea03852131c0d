"""Checkpoints and tokenizers of llama2.c (its first file format, without a magic number)."""

import math
import struct
from pathlib import Path

import numpy as np
import torch

from puna.errors import UserError
from puna.model.initial_weights import weight_shape
from puna.model.weights.safetensors_file import read_bytes
from puna.model.weights.source import IN_LAYER, Entry, Source, config_of

HEADER_BYTES = 28
LARGEST_TOKENIZER = 16_000_000


def recognises(path: Path) -> bool:
    return path.suffix == ".bin" and path.is_file()


def read(path: Path) -> Source:
    """Read a checkpoint's header: seven int32, behind which stand float32 weights.

    The int32 are dim, ffn_dim, layers, heads, kv heads, vocabulary and context. A negative vocabulary says
    that the head is a matrix of its own. Raises UserError when the file's size does not fit its header.
    """
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise UserError(f"{path} is no llama2.c checkpoint: {size} bytes")
    header = struct.unpack("<7i", read_bytes(path, 0, HEADER_BYTES))
    names = ("dim", "ffn_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
    values = dict(zip(names, header, strict=True)) | {"norm_eps": 1e-5}
    values |= {"tie_embeddings": header[5] > 0, "vocab_size": abs(header[5])}
    try:
        config = config_of(values, str(path))
    except UserError as error:
        problem = f"its header {header} is no model's shape"
        raise UserError(f"{path} is no llama2.c checkpoint: {problem}") from error
    rotary = config.max_seq_len * config.head_dim  # tables of cos and sin, which we compute
    expected = HEADER_BYTES + 4 * (config.parameters() + rotary)
    if size != expected:
        raise UserError(f"{path} has {size} bytes, its header asks for {expected}")
    in_layers = (f"layers.{layer}.{name}" for name in IN_LAYER for layer in range(config.n_layers))
    weights: dict[str, Entry] = {}
    offset = HEADER_BYTES
    for name in ("tok_embeddings", *in_layers, "norm", *([] if config.tie_embeddings else ["output"])):
        if name == "output":
            offset += 4 * rotary
        shape = weight_shape(config, f"{name}.weight")
        weights[f"{name}.weight"] = _entry(path, offset, shape)
        offset += 4 * math.prod(shape)
    return Source("llama2c", path, config, weights)


def _entry(path: Path, offset: int, shape: tuple[int, ...]) -> Entry:
    def read() -> torch.Tensor:
        values = np.frombuffer(read_bytes(path, offset, 4 * math.prod(shape)), "<f4")
        return torch.from_numpy(values).view(shape)

    return Entry(shape, read)


def pieces(path: Path, vocab_size: int) -> list[tuple[str, float]]:
    """(text, score) of each token of a tokenizer.bin, which has as many as the model's vocabulary.

    Raises UserError for a file of another length, and for pieces that are not UTF-8.
    """
    raw, offset, found = path.read_bytes() if path.stat().st_size < LARGEST_TOKENIZER else b"", 4, []
    try:
        for _ in range(vocab_size):
            score, size = struct.unpack_from("<fi", raw, offset)
            if not 0 <= size <= len(raw) - offset - 8:
                raise ValueError(f"a piece of {size} bytes at byte {offset}")
            found.append((raw[offset + 8 : offset + 8 + size].decode(), score))
            offset += 8 + size
    except (struct.error, ValueError) as error:
        raise UserError(f"{path} is no llama2.c tokenizer of {vocab_size} pieces: {error}") from error
    if offset != len(raw):
        raise UserError(f"{path} is no llama2.c tokenizer of {vocab_size} pieces: it holds more")
    return found
