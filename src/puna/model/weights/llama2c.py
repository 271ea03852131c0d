"""Checkpoints and tokenizers of llama2.c (its first file format, without a magic number)."""

import itertools
import struct
from pathlib import Path

import numpy as np
import torch

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights.native import fill


def load(path: Path, dtype: torch.dtype = torch.float32) -> Llama:
    """Read a checkpoint: seven int32 (dim, ffn_dim, layers, heads, kv heads, vocabulary, context), then
    float32 weights.

    A negative vocabulary says that the head is a matrix of its own. Raises UserError when the file's size
    does not fit its header.
    """
    raw = path.read_bytes()
    if len(raw) < 28:
        raise UserError(f"{path} is no llama2.c checkpoint: {len(raw)} bytes")
    dim, ffn, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", raw[:28])
    try:
        config = LlamaConfig(
            dim=dim, n_layers=layers, n_heads=heads, n_kv_heads=kv_heads, ffn_dim=ffn, vocab_size=abs(vocabulary), max_seq_len=context,
            norm_eps=1e-5, tie_embeddings=vocabulary > 0,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(
            f"{path} is no llama2.c checkpoint: its header {struct.unpack('<7i', raw[:28])} is no model's shape"
        ) from error
    narrow = kv_heads * config.head_dim
    per_layer = {
        "attention_norm": (dim,), "attention.wq": (dim, dim), "attention.wk": (narrow, dim), "attention.wv": (narrow, dim),
        "attention.wo": (dim, dim), "ffn_norm": (dim,), "feed_forward.w1": (ffn, dim), "feed_forward.w2": (dim, ffn),
        "feed_forward.w3": (ffn, dim),
    }  # fmt: skip
    rotations = context * config.head_dim  # cos and sin tables, which we compute
    head = 0 if config.tie_embeddings else config.vocab_size * dim
    if len(raw) != 28 + 4 * (config.parameters() + rotations):
        raise UserError(
            f"{path} has {len(raw)} bytes, its header asks for {28 + 4 * (config.parameters() + rotations)}"
        )
    values = torch.from_numpy(np.frombuffer(raw, "<f4", offset=28).copy())
    sizes = [
        config.vocab_size * dim,
        *(layers * int(np.prod(shape)) for shape in per_layer.values()),
        dim,
        rotations,
        head,
    ]
    table, *stacks, norm, _, output = values.split(sizes)
    tensors = {"tok_embeddings.weight": table.view(-1, dim), "norm.weight": norm}
    if head:
        tensors["output.weight"] = output.view(-1, dim)
    for (name, shape), stack in zip(per_layer.items(), stacks, strict=True):
        for number, weight in enumerate(stack.view(layers, *shape)):
            tensors[f"layers.{number}.{name}.weight"] = weight
    return fill(config, tensors, str(path), "cpu", dtype)


class Tokenizer:
    """A llama2.c tokenizer.bin: pieces with scores; text is merged from characters by the best score."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        raw = path.read_bytes()
        at = 4
        self.pieces: list[bytes] = []
        self.scores: list[float] = []
        for _ in range(vocab_size):
            score, size = struct.unpack_from("<fi", raw, at)
            self.pieces.append(raw[at + 8 : at + 8 + size])
            self.scores.append(score)
            at += 8 + size
        self._ids = {piece: number for number, piece in reversed(list(enumerate(self.pieces)))}

    def encode(self, text: str) -> list[int]:
        """Ids of a text, the begin token (1) first. Characters without a piece become their bytes (ids 3 to
        258)."""
        ids = [1]
        for character in (" " + text) if text else "":
            known = self._ids.get(character.encode())
            ids += [known] if known is not None else [byte + 3 for byte in character.encode()]
        while True:
            pairs = [
                (self._ids.get(self.pieces[a] + self.pieces[b]), place)
                for place, (a, b) in enumerate(itertools.pairwise(ids))
            ]
            known_pairs = [
                (self.scores[merged], -place, merged) for merged, place in pairs if merged is not None
            ]
            if not known_pairs:
                return ids
            _, place, merged = max(known_pairs)
            ids[-place : -place + 2] = [merged]

    def decode(self, ids: list[int]) -> str:
        """Text of ids; the space that stands before the first piece is dropped."""
        out = b""
        for previous, token in zip([0, *ids], ids, strict=False):
            piece = self.pieces[token]
            if token in (1, 2):
                continue
            if previous == 1 and piece.startswith(b" "):
                piece = piece[1:]
            out += bytes([int(piece[3:5], 16)]) if len(piece) == 6 and piece.startswith(b"<0x") else piece
        return out.decode("utf-8", "replace")
