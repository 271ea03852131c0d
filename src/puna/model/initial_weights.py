"""The weights that a training starts from, as a function of (seed, parameter's name, block of rows).

    initial_rows(config, seed, "layers.0.attention.wq.weight", 512, 768)

Each block of BLOCK_ROWS rows has a generator of its own, keyed by a digest of these three, so a process that
holds some rows or columns of a weight makes just those, and they are the whole's bits under every layout.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from puna.model.config import LlamaConfig

BLOCK_ROWS = 256
DEVIATION = 0.02
RESIDUAL = ("wo.weight", "w2.weight")  # these write to the residual stream


def weight_shape(config: LlamaConfig, name: str) -> tuple[int, ...]:
    """Shape of a parameter of `Llama`, by its name; a linear layer's is (outputs, inputs).

    Raises ValueError for a name that the model does not have.
    """
    kv_dim = config.n_kv_heads * config.head_dim
    in_layer = {
        "attention.wq": (config.q_dim, config.dim),
        "attention.wk": (kv_dim, config.dim),
        "attention.wv": (kv_dim, config.dim),
        "attention.wo": (config.dim, config.q_dim),
        "feed_forward.w1": (config.ffn_dim, config.dim),
        "feed_forward.w2": (config.dim, config.ffn_dim),
        "feed_forward.w3": (config.ffn_dim, config.dim),
        "attention_norm": (config.dim,),
        "ffn_norm": (config.dim,),
    }
    outside = {
        "tok_embeddings": (config.vocab_size, config.dim),
        "output": (config.vocab_size, config.dim),
        "norm": (config.dim,),
    }
    module, _, kind = name.rpartition(".")
    shape = outside.get(module)
    layer, _, part = module.removeprefix("layers.").partition(".")
    if module.startswith("layers.") and layer in map(str, range(config.n_layers)):
        shape = in_layer.get(part)
    if shape is None or kind != "weight":
        raise ValueError(f"no weight is named {name}")
    return shape


def initial_rows(config: LlamaConfig, seed: int, name: str, start: int = 0, end: int | None = None) -> Tensor:
    """Rows start .. end (default: all) of a weight before the first step: float32 [end - start, ...] on the
    CPU.

    Normal, of deviation 0.02, over sqrt(2 layers) for wo and w2 (GPT-2's); a norm's weight is one. A tied
    head is the embedding's, by whose name it is made. Raises ValueError for an unknown name and for rows that
    the weight does not have.
    """
    shape = weight_shape(config, name)
    if name == "output.weight" and config.tie_embeddings:
        name = "tok_embeddings.weight"
    end = shape[0] if end is None else end
    if not 0 <= start <= end <= shape[0]:
        raise ValueError(f"{name} has {shape[0]} rows, not {start} to {end}")
    rows = np.ones((end - start, *shape[1:]), np.float32)
    if len(shape) > 1:
        deviation = np.float32(DEVIATION)
        if name.endswith(RESIDUAL):
            deviation = np.float32(DEVIATION / math.sqrt(2 * config.n_layers))
        for first in range(start // BLOCK_ROWS * BLOCK_ROWS, end, BLOCK_ROWS):
            block_end, wanted = min(first + BLOCK_ROWS, end), max(first, start)
            drawn = normal_rows(seed, name, first // BLOCK_ROWS, (block_end - first, shape[1]))
            np.multiply(drawn[wanted - first :], deviation, out=rows[wanted - start : block_end - start])
    return torch.from_numpy(rows)


def normal_rows(seed: int, name: str, block: int, shape: tuple[int, ...]) -> np.ndarray:
    """The first rows of a block's normal numbers.

    Philox (Salmon et al. 2011) and the ziggurat of numpy: table look-ups and products, on which
    processors agree; torch's vectorised logarithms and cosines differ between them. The key has 128 bits:
    torch's generator on CPUs takes 32 of a seed, and of 65b's 27,000 blocks two would be equal one time in
    twelve.
    """
    key = hashlib.blake2b(f"{seed}\0{name}\0{block}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return generator.standard_normal(shape, dtype=np.float32)
