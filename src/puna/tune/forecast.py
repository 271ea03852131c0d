"""What a tuning will take, before it begins: rows, tokens and steps exactly, processor time from a probe."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from puna.run.artifact import Artifact
from puna.run.stage import Context
from puna.tokens.batches import Batch
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.pretraining import precision
from puna.train.trainer import keep_freed_memory
from puna.tune.settings import executed
from puna.tune.stage import SupervisedStageSettings
from puna.tune.supervised import begin, opened, plan, trained_parameters

PROBE_FLOPS = 4e11  # of a probe's forward and backward: seconds on one core
FORWARD = 1 / 3  # of a step's operations, which a validation costs
SAVE_SECONDS = 1.6e-9  # a byte of a checkpoint, to copy, digest and write it


def probe(
    settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], context: Context
) -> dict[str, float]:
    """Seconds of a stage, of processors and of the clock, from one short step done twice, and how many
    numbers are trained."""
    batches, sets = plan(settings, inputs["rows"]), inputs["rows"].metrics["sets"]
    train = settings.stage.training(batches, settings.max_tokens)
    execution, threads = executed(context.execution, settings.max_tokens), torch.get_num_threads()
    torch.set_num_threads(execution.threads or threads)
    keep_freed_memory()
    started = time.process_time()
    model, _ = begin(settings, *opened(settings, inputs), train, context)
    loading = time.process_time() - started
    batch = batches.batch(batches.steps // 2)
    size = int(PROBE_FLOPS / model.config.flops_per_token(settings.max_tokens))
    size = min(max(128, size), settings.max_tokens * train.micro_batch(execution))
    rows = max(1, min(size // batch.tokens.shape[1], len(batch.tokens)))
    some = slice(rows), slice(max(8, size // rows))
    part = Batch(batch.tokens[some], batch.targets[some], batch.document_ids[some])
    objective, optimizer = NextToken(execution.remat, dtype=precision(train)), build(model, train)
    computed = timed(lambda: loss_and_gradients(model, part, rows, objective))
    updated = timed(lambda: update(model, optimizer, 0, train))
    torch.set_num_threads(threads)
    validations = 1 + -(-batches.steps // train.validation_steps)
    held_out = sum(sets[one.name]["held_out"]["tokens"] for one in batches.sets)
    read = batches.tokens_before(batches.steps) + FORWARD * validations * held_out
    trained = trained_parameters(model)
    saved = 12 * trained * (1 + batches.steps // execution.checkpoint_steps)
    seconds = read / part.tokens.size * computed + batches.steps * updated
    seconds += 2 * loading + saved * SAVE_SECONDS
    told = dict(zip(("cpu_seconds", "seconds"), seconds.tolist(), strict=True))
    return told | {"trained_parameters": trained}


def timed(work: Callable[[], object]) -> Any:
    """Seconds of what is done twice, of processors and of the clock, float64 [2]: the lesser ones."""
    found = []
    for _ in range(2):
        begun = np.array((time.process_time(), time.perf_counter()))
        work()
        found.append(np.array((time.process_time(), time.perf_counter())) - begun)
    return np.minimum(*found)
