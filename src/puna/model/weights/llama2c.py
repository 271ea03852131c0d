"""Checkpoints and tokenizers of llama2.c (its first file format, without a magic number)."""

import itertools
import math
import struct
from pathlib import Path

import numpy as np
import torch

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights.native import fill

HEADER_BYTES = 28


def load(path: Path, dtype: torch.dtype = torch.float32) -> Llama:
    """Read a checkpoint: seven int32, then float32 weights.

    The int32 are dim, ffn_dim, layers, heads, kv heads, vocabulary and context. A negative vocabulary says
    that the head is a matrix of its own. Raises UserError when the file's size does not fit its header.
    """
    raw = path.read_bytes()
    if len(raw) < HEADER_BYTES:
        raise UserError(f"{path} is no llama2.c checkpoint: {len(raw)} bytes")
    header = struct.unpack("<7i", raw[:HEADER_BYTES])
    dim, ffn_dim, layers, heads, kv_heads, vocabulary, context = header
    try:
        config = LlamaConfig(
            dim=dim,
            n_layers=layers,
            n_heads=heads,
            n_kv_heads=kv_heads,
            ffn_dim=ffn_dim,
            vocab_size=abs(vocabulary),
            max_seq_len=context,
            norm_eps=1e-5,
            tie_embeddings=vocabulary > 0,
        )
    except ValueError as error:
        raise UserError(
            f"{path} is no llama2.c checkpoint: its header {header} is no model's shape"
        ) from error
    kv_dim = kv_heads * config.head_dim
    shapes = {
        "attention_norm": (dim,),
        "attention.wq": (dim, dim),
        "attention.wk": (kv_dim, dim),
        "attention.wv": (kv_dim, dim),
        "attention.wo": (dim, dim),
        "ffn_norm": (dim,),
        "feed_forward.w1": (ffn_dim, dim),
        "feed_forward.w2": (dim, ffn_dim),
        "feed_forward.w3": (ffn_dim, dim),
    }
    rotary = context * config.head_dim  # tables of cos and sin, which we compute
    expected = HEADER_BYTES + 4 * (config.parameters() + rotary)
    if len(raw) != expected:
        raise UserError(f"{path} has {len(raw)} bytes, its header asks for {expected}")
    values = torch.from_numpy(np.frombuffer(raw, "<f4", offset=HEADER_BYTES).copy())
    embedding = config.vocab_size * dim
    head = 0 if config.tie_embeddings else embedding
    stacked = [layers * math.prod(shape) for shape in shapes.values()]
    table, *stacks, norm, _, output = values.split([embedding, *stacked, dim, rotary, head])
    tensors = {"tok_embeddings.weight": table.view(-1, dim), "norm.weight": norm}
    if head:
        tensors["output.weight"] = output.view(-1, dim)
    for (name, shape), stack in zip(shapes.items(), stacks, strict=True):
        for number, weight in enumerate(stack.view(layers, *shape)):
            tensors[f"layers.{number}.{name}.weight"] = weight
    return fill(config, tensors, str(path), "cpu", dtype)


class Tokenizer:
    """A llama2.c tokenizer.bin: pieces with scores; characters are merged by the best score."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        raw = path.read_bytes()
        offset = 4
        self.pieces: list[bytes] = []
        self.scores: list[float] = []
        for _ in range(vocab_size):
            score, size = struct.unpack_from("<fi", raw, offset)
            self.pieces.append(raw[offset + 8 : offset + 8 + size])
            self.scores.append(score)
            offset += 8 + size
        self._ids = {piece: number for number, piece in reversed(list(enumerate(self.pieces)))}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, the begin token (1) first.

        Characters without a piece become their bytes (ids 3 to 258).
        """
        ids = [1]
        for character in (" " + text) if text else "":
            token = self._ids.get(character.encode())
            ids += [token] if token is not None else [byte + 3 for byte in character.encode()]
        while merges := self._merges(ids):
            _, place, merged = max(merges)
            ids[-place : -place + 2] = [merged]
        return ids

    def _merges(self, ids: list[int]) -> list[tuple[float, int, int]]:
        """(score, minus the index of the left token, merged token) of each pair that has a piece."""
        merges = []
        for index, (left, right) in enumerate(itertools.pairwise(ids)):
            merged = self._ids.get(self.pieces[left] + self.pieces[right])
            if merged is not None:
                merges.append((self.scores[merged], -index, merged))
        return merges

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, without the space before the first piece."""
        out = b""
        for previous, token in zip([0, *ids], ids, strict=False):
            piece = self.pieces[token]
            if token in (1, 2):
                continue
            if previous == 1 and piece.startswith(b" "):
                piece = piece[1:]
            out += bytes([int(piece[3:5], 16)]) if len(piece) == 6 and piece.startswith(b"<0x") else piece
        return out.decode("utf-8", "replace")
