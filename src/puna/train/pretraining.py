"""Pre-training as work of the trainer: the next token of every position of a mixture's batches."""

import contextlib
from collections.abc import Mapping

import numpy as np
import torch

from puna.model.llama import Llama
from puna.run import compiled
from puna.run.settings import DEFAULT_EXECUTION, ExecutionSettings
from puna.tokens.batches import Batch, Batches, Phases
from puna.train.objective import NextToken, loss_and_gradients, mean_loss
from puna.train.parallel import ALONE, Parallel
from puna.train.settings import TrainSettings
from puna.train.trainer import Outcome


def precision(settings: TrainSettings) -> torch.dtype | None:
    """Of activations and products; None: that of the weights, float32."""
    return torch.bfloat16 if settings.precision == "bfloat16" else None


class Pretraining:
    """See `trainer.Work`. held_out: rows per source for validation."""

    def __init__(
        self,
        model: Llama,
        batches: Batches | Phases,
        held_out: Mapping[str, Batch],
        settings: TrainSettings,
        execution: ExecutionSettings = DEFAULT_EXECUTION,
        parallel: Parallel = ALONE,
    ) -> None:
        self.model, self.batches, self.held_out, self.parallel = model, batches, held_out, parallel
        if parallel.world > 1:
            held = {source: rows.share(parallel.rank, parallel.world) for source, rows in held_out.items()}
            self.held_out = held
        rows = -(-settings.batch_sequences // parallel.world)  # of this process, with padding
        self.micro_batch = min(settings.micro_batch(execution), rows)
        self.objective = NextToken(execution.remat, settings.z_loss, precision(settings))
        self.compile = execution.compile
        if self.compile:
            compiled.keep_blocks()
            for layer in model.layers:
                layer.compile(dynamic=False)

    def step(self, step: int) -> Outcome:
        with self.parallel.phase("data"):
            batch = self.batches.batch(step, self.parallel.rank, self.parallel.world)
        rows = self.micro_batch * self.batches.length // batch.tokens.shape[1]  # as many tokens, if short
        part = loss_and_gradients(self.model, batch, rows, self.objective, self.parallel)
        with self.parallel.phase("reduce"):
            loss = self.parallel.total(part.clone())
        return Outcome(loss, self.batches.tokens_before(step + 1), part=part)

    def dry_run(self) -> None:
        """Two documents a row, so that attention stays inside them, and a target at every position."""
        tokens = self.batches.batch(0).tokens.reshape(-1, self.batches.length)[: self.micro_batch]
        document_ids = np.zeros_like(tokens)
        document_ids[:, tokens.shape[1] // 2 :] = 1
        fullest = Batch(tokens, tokens, document_ids)
        loss_and_gradients(self.model, fullest, self.micro_batch, self.objective)

    @property
    def largest(self) -> str:
        rows = min(self.micro_batch, self.batches.batch_sequences)
        return f"a batch of {rows} sequences of {self.batches.length} tokens"

    def validate(self) -> dict[str, float]:
        # Compiled blocks would be compiled again for each odd number of rows.
        eager = torch.compiler.set_stance("force_eager") if self.compile else contextlib.nullcontext()
        objective = NextToken("llama", dtype=self.objective.dtype)
        with eager:
            return {
                source: mean_loss(self.model, rows, self.micro_batch, objective, self.parallel)
                for source, rows in self.held_out.items()
            }
