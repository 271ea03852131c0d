"""What a tuning will take, before it begins: rows, tokens and steps exactly, processor time from a probe."""

import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from puna.run.artifact import Artifact
from puna.run.stage import Context
from puna.tune.settings import executed
from puna.tune.stage import ROWS, SupervisedStageSettings, begin, opened, plan, trained_parameters

PROBE_FLOPS = 4e11  # of a probe's forward and backward: seconds on one core
FORWARD = 1 / 3  # of a step's operations, which a validation costs
SAVE_SECONDS = 1.6e-9  # a byte of a checkpoint, to copy, digest and write it


def exactly(settings: SupervisedStageSettings, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Conversations, tokens, learned tokens, rows and steps of a stage, and which share of rows is filled."""
    batches, sets = plan(settings, inputs[ROWS]), inputs[ROWS].metrics["sets"]
    return {
        "conversations": batches.conversations,
        "steps": batches.steps,
        "rows": sum(batches.rows),
        "tokens": batches.tokens_before(batches.steps),
        "learned_tokens": batches.targets,
        "filled": batches.filled,
        "held_out_tokens": sum(sets[one.name]["held_out"]["tokens"] for one in batches.sets),
    }


def probe(
    settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], context: Context
) -> dict[str, float]:
    """Seconds of a stage, of processors and of the clock, from one short step done twice, and how many
    numbers are trained."""
    import torch

    from puna.tokens.batches import Batch
    from puna.train.objective import NextToken, loss_and_gradients
    from puna.train.optimizer import build, update
    from puna.train.pretraining import precision
    from puna.train.trainer import keep_freed_memory

    known, batches = exactly(settings, inputs), plan(settings, inputs[ROWS])
    train = settings.stage.training(batches, settings.max_tokens)
    execution, threads = executed(context.execution, settings.max_tokens), torch.get_num_threads()
    torch.set_num_threads(execution.threads or threads)
    keep_freed_memory()
    started = time.process_time()
    model, _ = begin(settings, opened(settings, inputs), inputs[ROWS], context)
    loading = time.process_time() - started
    batch = batches.batch(batches.steps // 2)
    size = int(PROBE_FLOPS / model.config.flops_per_token(settings.max_tokens))
    size = min(max(128, size), settings.max_tokens * train.micro_batch(execution))
    rows = max(1, min(size // batch.tokens.shape[1], len(batch.tokens)))
    arrays = (batch.tokens, batch.targets, batch.document_ids)
    part = Batch(*(array[:rows, : max(8, size // rows)] for array in arrays))
    objective, optimizer = NextToken(execution.remat, dtype=precision(train)), build(model, train)
    took = []
    for _ in range(2):
        moments = [(time.process_time(), time.perf_counter())]
        if part.target_count:
            loss_and_gradients(model, part, rows, objective)
        moments.append((time.process_time(), time.perf_counter()))
        update(model, optimizer, 0, train)
        moments.append((time.process_time(), time.perf_counter()))
        took.append([after - before for one, other in pairwise(moments)
                     for before, after in zip(one, other, strict=True)])  # fmt: skip
    torch.set_num_threads(threads)
    rows_cpu, rows_clock, update_cpu, update_clock = map(min, zip(*took, strict=True))
    validations = 1 + -(-batches.steps // train.validation_steps)
    read = known["tokens"] / known["filled"] + FORWARD * validations * known["held_out_tokens"]
    trained = trained_parameters(model)
    saved = 12 * trained * (1 + batches.steps // execution.checkpoint_steps)
    other, share = 2 * loading + saved * SAVE_SECONDS, read / part.tokens.size
    return {
        "cpu_seconds": share * rows_cpu + batches.steps * update_cpu + other,
        "seconds": share * rows_clock + batches.steps * update_clock + other,
        "trained_parameters": trained,
    }
