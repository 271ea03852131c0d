"""Supervised tuning as work of the trainer: the learned tokens of packed conversations, each the next one."""

from typing import Any

import numpy as np
import torch

from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.tokens.permutation import key_of, uniform
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.pretraining import Pretraining
from puna.train.trainer import Outcome


class Noise:
    """An objective with noise on the embeddings (NEFTune, Jain et al. 2023).

    Each number of a conversation's L embeddings of width d gets uniform(-1, 1) * alpha / sqrt(L d), a
    function of the seed, the step, the conversation's place in it and the number's in the conversation:
    the same whatever the rows, micro-batches and processes.
    """

    def __init__(self, objective: NextToken, model: Llama, alpha: float, seed: int) -> None:
        self.objective, self.alpha, self.seed, self.step = objective, alpha, seed, 0
        self.dtype, self.width = objective.dtype, model.config.dim
        self._noise: torch.Tensor | None = None
        model.layers[0].register_forward_pre_hook(self._add)

    def __call__(self, model: Llama, rows: Batch) -> tuple[torch.Tensor, float]:
        self._noise = torch.from_numpy(self.of(rows.document_ids))
        try:
            return self.objective(model, rows)
        finally:
            self._noise = None

    def of(self, document_ids: Any) -> Any:
        """The noise on rows of conversations [b, t]: float32 [b t, d]."""
        ids = document_ids.ravel()
        begins = np.ones(len(ids), bool)
        begins[1:] = ids[1:] != ids[:-1]
        begins[:: document_ids.shape[1]] = True
        starts = np.flatnonzero(begins)
        lengths = np.diff(np.append(starts, len(ids)))
        places = np.arange(len(ids)) - np.repeat(starts, lengths)
        numbers = (ids.astype(np.uint64) << np.uint64(40)) + (places * self.width).astype(np.uint64)
        key = key_of(self.seed, "noise", self.step)
        drawn = uniform(key, numbers[:, None] + np.arange(self.width, dtype=np.uint64))
        scale = self.alpha / np.sqrt(np.repeat(lengths, lengths) * self.width)
        return ((2 * drawn - 1) * scale[:, None]).astype(np.float32)

    def _add(self, layer: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._noise is None:
            return None
        x, *others = arguments
        return (x + self._noise.to(x.device, x.dtype), *others)


class Supervised(Pretraining):
    """See `trainer.Work`. held_out: packed conversations per set, for validation."""

    batches: Any  # a `tune.rows.Batches`
    noise: Noise | None = None

    def add_noise(self, alpha: float, seed: int) -> None:
        """See `Noise`; alpha 0: none."""
        if alpha:
            noisy: Any = Noise(self.objective, self.model, alpha, seed)
            self.noise = self.objective = noisy

    def step(self, step: int) -> Outcome:
        if self.noise is not None:
            self.noise.step = step
        return super().step(step)

    def dry_run(self) -> None:
        """The first rows of the step that has most."""
        batch = self.batches.batch(self.batches.fullest, self.parallel.rank, self.parallel.world)
        loss_and_gradients(
            self.model, next(batch.micro_batches(self.micro_batch)), self.micro_batch, self.objective
        )
