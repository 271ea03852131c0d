"""Noise on the embeddings while a model is tuned."""

from typing import Any

import numpy as np
import torch

from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.tokens.permutation import key_of, uniform
from puna.train.objective import NextToken


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

    def __call__(self, model: Llama, batch: Batch) -> tuple[torch.Tensor, float]:
        self._noise = torch.from_numpy(self.of(batch.document_ids))
        try:
            return self.objective(model, batch)
        finally:
            self._noise = None

    def of(self, document_ids: Any) -> Any:
        """The noise on rows of conversations [b, t]: float32 [b t, d]."""
        ids = document_ids.ravel()
        begins = np.append(True, ids[1:] != ids[:-1])
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
