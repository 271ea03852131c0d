"""What a tuning will take, before it begins: rows, tokens and steps exactly, processor time from a probe."""

import time
from collections.abc import Mapping
from typing import Any

from puna.run.artifact import Artifact
from puna.run.settings import ExecutionSettings
from puna.tune.settings import executed
from puna.tune.stage import ROWS, SupervisedStageSettings, begin, plan

PROBE_FLOPS = 4e11  # of a probe's forward and backward: seconds on one core
FORWARD = 1 / 3  # of a step's operations, which a validation costs
SAVE_SECONDS = 1.6e-9  # a byte of a checkpoint, to copy, digest and write it


def exactly(settings: SupervisedStageSettings, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Conversations, tokens, learned tokens, rows and steps of a stage, and which share of rows is filled."""
    batches, sets = plan(settings, inputs[ROWS]), inputs[ROWS].metrics["sets"]
    held = [one.name for one in batches.sets if sets[one.name]["held_out"]["conversations"]]
    return {
        "conversations": batches.conversations,
        "steps": batches.steps,
        "rows": sum(batches.rows),
        "largest_step_rows": batches.batch_sequences,
        "tokens": batches.tokens_before(batches.steps),
        "learned_tokens": batches.targets,
        "filled": batches.filled,
        "held_out_conversations": sum(sets[name]["held_out"]["conversations"] for name in held),
        "held_out_tokens": sum(sets[name]["held_out"]["tokens"] for name in held),
    }


def probe(
    settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], execution: ExecutionSettings
) -> dict[str, float]:
    """Processor seconds of a stage, and those of wall time, from one short step done twice.

    A stage whose base is another stage's result that is not there yet is probed on none: {}.
    """
    import torch

    from puna.tokens.batches import Batch
    from puna.train.objective import NextToken, loss_and_gradients
    from puna.train.optimizer import build, update
    from puna.train.pretraining import precision
    from puna.train.trainer import keep_freed_memory

    known = exactly(settings, inputs)
    batches = plan(settings, inputs[ROWS])
    train = settings.stage.training(batches.steps, batches.batch_sequences, settings.max_tokens)
    execution = executed(execution, settings.max_tokens)
    threads = torch.get_num_threads()
    torch.set_num_threads(execution.threads or threads)
    keep_freed_memory()
    started = time.process_time()
    model = begin(settings, inputs, execution.device)
    loading = time.process_time() - started
    batch = batches.batch(batches.steps // 2)
    config = model.config
    size = int(PROBE_FLOPS / config.flops_per_token(settings.max_tokens))
    size = min(max(128, size), settings.max_tokens * (execution.micro_batch_sequences or 1))
    rows = max(1, min(size // batch.tokens.shape[1], len(batch.tokens)))
    part = Batch(
        *(array[:rows, : max(8, size // rows)] for array in vars(batch).values() if array is not None)
    )
    objective = NextToken(execution.remat, dtype=precision(train))
    optimizer = build(model, train)
    took: list[tuple[float, float, float, float]] = []
    for _ in range(2):
        begun = time.process_time(), time.perf_counter()
        if part.target_count:
            loss_and_gradients(model, part, rows, objective)
        middle = time.process_time(), time.perf_counter()
        update(model, optimizer, 0, train)
        ended = time.process_time(), time.perf_counter()
        took.append((middle[0] - begun[0], ended[0] - middle[0], middle[1] - begun[1], ended[1] - middle[1]))
    torch.set_num_threads(threads)
    token_cpu, update_cpu, token_wall, update_wall = map(min, zip(*took, strict=True))
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    validations = 1 + -(-batches.steps // train.validation_steps)
    read = known["tokens"] / known["filled"] + FORWARD * validations * known["held_out_tokens"]
    saves = 1 + batches.steps // execution.checkpoint_steps
    other = 2 * loading + saves * 12 * trained * SAVE_SECONDS
    tokens = part.tokens.size
    return {
        "cpu_seconds": read * token_cpu / tokens + batches.steps * update_cpu + other,
        "seconds": read * token_wall / tokens + batches.steps * update_wall + other,
        "trained_parameters": trained,
    }
