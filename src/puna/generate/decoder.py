"""Logits of a batch of rows, tokens of any number of sequences, over keys and values kept in blocks.

Two forms: `CompiledDecoder`, for CPUs with a C++ compiler, is one call of `decoder.cpp` a step, in which
a row's logits depend on its own sequence alone, bit by bit. `TorchDecoder`, everywhere else, is the model
itself with a cache; there the last bits depend on what else is in the batch.

Memory: the store of keys and values, and in the compiled form a packed copy of the matrices: 4 bytes a weight
in float32, 2 in bfloat16, 1.25 in int8.
"""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from puna.errors import UserError
from puna.model.block import rotary_cos_sin
from puna.model.llama import Llama
from puna.run import compiled, machine

BLOCK = 16  # positions of a block of keys and values, as KEYS of decoder.cpp
MODES = ("float32", "bfloat16", "int8")
SOURCE = Path(__file__).with_name("decoder.cpp")
SIGNATURES = {
    "panel_columns": "->n",
    **{f"bytes_{mode}": "nn->n" for mode in MODES},
    **{f"pack_{mode}": "pnnp" for mode in MODES},
    **{f"step_{mode}": "pppppppppppf" for mode in MODES},
    "log_sums": "pnnnp",
}


class Batch(NamedTuple):
    """Rows of one step. tokens: int64 [n]. runs: int32 [r, 3], the first row, the number of rows and the
    first position of each sequence, whose rows follow each other. tables: int32 [r, m], the blocks of
    each, in order. wanted: int32 [w], rows whose logits are asked for."""

    tokens: np.ndarray
    runs: np.ndarray
    tables: np.ndarray
    wanted: np.ndarray


class Decoder(Protocol):
    """What the engine asks of either form."""

    def read(self, batch: Batch) -> Tensor:
        """Keep the keys and values of the rows; logits [w, vocabulary] of those wanted."""

    def copy(self, source: int, target: int) -> None:
        """Copy a block of keys and values onto another."""

    def load(self, model: Llama) -> None:
        """Take new weights, and forget all keys and values."""


def block_bytes(model: Llama, element_bytes: int = 4) -> int:
    """Bytes that a block of keys and values takes, whatever the form."""
    config = model.config
    widths = config.head_dim + -(-config.head_dim // BLOCK) * BLOCK  # values are kept in whole vectors
    return config.n_layers * config.n_kv_heads * widths * BLOCK * element_bytes


def decoder(model: Llama, blocks: int, mode: str) -> Decoder:
    """The decoder for a model's weights where they are. Raises UserError for a mode that the machine, or the
    model, does not go with."""
    if mode not in MODES:
        raise UserError(f"no mode of generation is called {mode}; there are {', '.join(MODES)}")
    weight = model.tok_embeddings.weight
    plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and model.config.head_dim % 2 == 0
    if mode == "bfloat16" and weight.device.type == "cpu" and not machine.multiplies_bfloat16():
        raise UserError(f"{machine.processor()} has no units for bfloat16: leave the mode away")
    library = compiled.load(SOURCE, SIGNATURES) if plain else None
    if library is not None:
        return CompiledDecoder(model, blocks, mode, library)
    if mode == "int8":
        raise UserError("int8 needs a CPU with a C++ compiler and a model in float32: leave the mode away")
    return TorchDecoder(model, blocks, torch.bfloat16 if mode == "bfloat16" else None)


class CompiledDecoder:
    """`decoder.cpp` with a model's weights packed for it."""

    def __init__(self, model: Llama, blocks: int, mode: str, library: Any) -> None:
        config, self.library, self.mode = model.config, library, mode
        self.panel = library.panel_columns()
        self.config, self.blocks = config, blocks
        self._empty_store()
        positions = torch.arange(config.max_seq_len)
        angles = (config.head_dim, config.rope_theta, torch.float32, config.rope_scaling)
        self.cosine, self.sine = (part[:, 0].contiguous() for part in rotary_cos_sin(positions, *angles))
        self._pack_all(model)

    def load(self, model: Llama) -> None:
        self._empty_store()
        self._pack_all(model)

    def _empty_store(self) -> None:
        """Keys [layers, blocks, k, e, BLOCK] and values [layers, blocks, k, BLOCK, e in whole vectors]."""
        config, vector = self.config, self.panel // 2
        shape = (config.n_layers, self.blocks, config.n_kv_heads)
        wide = -(-config.head_dim // vector) * vector
        # numpy's zeros are the system's memory until they are written to; torch writes its own at once.
        self.keys = torch.from_numpy(np.zeros((*shape, config.head_dim, BLOCK), dtype=np.float32))
        self.values = torch.from_numpy(np.zeros((*shape, BLOCK, wide), dtype=np.float32))

    @torch.no_grad()
    def _pack_all(self, model: Llama) -> None:
        weights = model.state_dict()

        def matrix(*names: str) -> Tensor:
            return self._pack([weights[f"{name}.weight"] for name in names])

        packed = [weights["tok_embeddings.weight"], weights["norm.weight"], matrix("output")]
        for number in range(self.config.n_layers):
            layer = f"layers.{number}"
            attention, ffn = f"{layer}.attention", f"{layer}.feed_forward"
            packed += [weights[f"{layer}.attention_norm.weight"]]
            packed += [matrix(f"{attention}.wq", f"{attention}.wk", f"{attention}.wv")]
            packed += [matrix(f"{attention}.wo"), weights[f"{layer}.ffn_norm.weight"]]
            packed += [matrix(f"{ffn}.w1", f"{ffn}.w3"), matrix(f"{ffn}.w2")]
        self._kept = packed
        self._weights = np.array([tensor.data_ptr() for tensor in packed], dtype=np.uint64)

    def _pack(self, weights: list[Tensor]) -> Tensor:
        """Weights [columns, depth] one below the other, as panels."""
        weight = torch.cat(weights) if len(weights) > 1 else weights[0].contiguous()
        columns, depth = weight.shape
        out = torch.empty(getattr(self.library, f"bytes_{self.mode}")(columns, depth), dtype=torch.uint8)
        getattr(self.library, f"pack_{self.mode}")(weight.data_ptr(), columns, depth, out.data_ptr())
        return out

    def read(self, batch: Batch) -> Tensor:
        config = self.config
        head = (config.n_layers, config.dim, config.n_heads, config.n_kv_heads, config.head_dim)
        sizes = (len(batch.tokens), len(batch.runs), batch.tables.shape[1], len(batch.wanted), self.blocks)
        shape = np.array([*head, config.ffn_dim, config.vocab_size, *sizes], dtype=np.int64)
        stride = -(-config.vocab_size // self.panel) * self.panel
        logits = torch.empty(len(batch.wanted), stride)
        arrays = (batch.tokens, self.cosine, self.sine, batch.runs, batch.tables, batch.wanted)
        out = (self.keys, self.values, logits)
        pointers = [_address(array) for array in (shape, self._weights, *arrays, *out)]
        getattr(self.library, f"step_{self.mode}")(*pointers, config.norm_eps)
        return logits[:, : config.vocab_size]

    def copy(self, source: int, target: int) -> None:
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]


def _address(array: Tensor | np.ndarray) -> int:
    return array.data_ptr() if isinstance(array, Tensor) else array.ctypes.data


def log_sums(logits: Tensor) -> np.ndarray:
    """log sum exp of each row of logits [n, vocabulary], float64 [n]; each row's from itself alone, bit by
    bit, where there is a compiler."""
    library = compiled.load(SOURCE, SIGNATURES) if logits.device.type == "cpu" else None
    if library is None or logits.dtype != torch.float32 or logits.stride(-1) != 1:
        return logits.double().logsumexp(-1).cpu().numpy()
    out = np.empty(len(logits))
    library.log_sums(logits.data_ptr(), len(logits), logits.stride(0), logits.shape[1], out.ctypes.data)
    return out


class TorchDecoder:
    """The model by torch's operations, on any device and in any precision."""

    def __init__(self, model: Llama, blocks: int, dtype: torch.dtype | None) -> None:
        self.dtype = dtype
        self.model = self._in_precision(model)
        config, weight = self.model.config, self.model.tok_embeddings.weight
        shape = (config.n_layers, blocks, BLOCK, config.n_kv_heads, config.head_dim)
        options: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
        self.keys, self.values = (torch.zeros(shape, **options) for _ in range(2))
        self._runs: list[tuple[slice, Tensor, Tensor | None]] = []

    def load(self, model: Llama) -> None:
        self.keys.zero_()
        self.values.zero_()
        self.model = self._in_precision(model)

    def _in_precision(self, model: Llama) -> Llama:
        weight = model.tok_embeddings.weight
        if self.dtype in (None, weight.dtype):
            return model
        copy = Llama.empty(model.config, weight.device, self.dtype)
        copy.load_state_dict(model.state_dict())
        return copy

    @torch.no_grad()
    def read(self, batch: Batch) -> Tensor:
        device = self.keys.device
        self._plan(batch, device)
        tokens = torch.from_numpy(batch.tokens).to(device)[None]
        hidden = self.model.hidden(tokens, cache=self)[0]
        return self.model.output(hidden[torch.from_numpy(batch.wanted).long().to(device)]).float()

    def _plan(self, batch: Batch, device: torch.device) -> None:
        """Where the rows' keys go, and what each run sees."""
        positions, places, self._runs = [], [], []
        for (first, count, start), blocks in zip(batch.runs.tolist(), batch.tables, strict=True):
            own = torch.arange(start, start + count)
            row = torch.from_numpy(blocks).long()
            positions.append(own)
            places.append(row[own // BLOCK] * BLOCK + own % BLOCK)
            seen = torch.arange(start + count)
            mask = None if count == 1 else (seen <= own[:, None]).to(device)
            where = (row[seen // BLOCK] * BLOCK + seen % BLOCK).to(device)
            self._runs.append((slice(first, first + count), where, mask))
        self._positions = torch.cat(positions).to(device)[None]
        self._places = torch.cat(places).to(device)

    def extend(self, length: int) -> Tensor:
        """Positions [1, n] of the rows of the batch."""
        return self._positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k, v [1, n, k, e]; attention [1, n, h, e] of q [1, n, h, e], each row over its sequence."""
        keys, values = self.keys[layer].flatten(0, 1), self.values[layer].flatten(0, 1)
        keys[self._places], values[self._places] = k[0], v[0]
        group, out = q.shape[2] // k.shape[2], torch.empty_like(q)
        for rows, seen, mask in self._runs:
            k, v = (x[seen].repeat_interleave(group, 1).transpose(0, 1) for x in (keys, values))
            attended = F.scaled_dot_product_attention(q[0, rows].transpose(0, 1), k, v, attn_mask=mask)
            out[0, rows] = attended.transpose(0, 1)
        return out

    def copy(self, source: int, target: int) -> None:
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]
