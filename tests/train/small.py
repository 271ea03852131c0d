"""A training run of seconds, shared by the tests of this room."""

from typing import Any

import numpy as np

from puna.model.config import LlamaConfig
from puna.run.settings import ExecutionSettings
from puna.tokens.batches import Batch, Batches, Phases, rows_of, sequences_in
from puna.tokens.mixture import BLOCK_SEQUENCES, plan
from puna.tokens.settings import TokensSettings
from puna.tokens.shards import Shard
from puna.train.settings import TrainSettings

CONFIG = LlamaConfig(dim=16, n_layers=2, n_heads=2, ffn_dim=32, vocab_size=40, max_seq_len=16)


def shard(seed: int = 0, documents: int = 30) -> Shard:
    """Documents in which each token is mostly the one before plus three."""
    chance = np.random.default_rng(seed)
    sizes = chance.integers(4, 40, documents)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    steps = np.where(chance.random(offsets[-1]) < 0.9, 3, chance.integers(0, 38, offsets[-1]))
    tokens = (np.cumsum(steps) % 38 + 2).astype(np.uint16)
    tokens[offsets[:-1]] = 1
    return Shard("s", tokens, offsets, np.arange(documents))


def batches(seed: int = 1, length: int = 16, rows: int | None = None) -> Batches:
    """So many sequences of `length` a step; by default as many as are 64 tokens."""
    item = shard()
    count = sequences_in(len(item.tokens), length)
    settings = TokensSettings(maximum_epochs=1e9)
    mixture = plan({"s": len(item.tokens)}, {"s": count}, settings, BLOCK_SEQUENCES)
    return Batches([item], mixture, seed=seed, batch_sequences=rows or 64 // length, length=length)


def short_first(steps: int) -> Phases:
    """Sequences of 8 tokens for so many steps, then of 16."""
    return Phases(batches(length=8), batches(), steps)


def held_out(length: int = 16) -> dict[str, Batch]:
    return {"s": rows_of(shard(9, 5), length)}


def settings(**changes: Any) -> TrainSettings:
    """Settings of 12 steps with some changed."""
    base = {
        "steps": 12,
        "batch_sequences": 4,
        "sequence_length": 16,
        "learning_rate": 1e-2,
        "warmup_steps": 3,
    }
    return TrainSettings.model_validate({**base, "validation_steps": 6, **changes})


def execution(**changes: Any) -> ExecutionSettings:
    """A checkpoint every five steps, and changes."""
    return ExecutionSettings.model_validate({"checkpoint_steps": 5, **changes})
