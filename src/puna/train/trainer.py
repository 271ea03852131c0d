"""The training loop: one optimizer step, many times, safely.

    resume -> [ batch(step) -> loss and gradients -> update ] -> validate, checkpoint -> trained weights

The state is the model, the optimizer and one integer, all in a checkpoint: a run that was stopped or killed
goes on to the same weights, bit for bit.
"""

import contextlib
import ctypes
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from puna.errors import Stopped, UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.run import compiled
from puna.run.settings import DEFAULT_EXECUTION, ExecutionSettings
from puna.tokens.batches import Batch, Batches
from puna.train import checkpoint
from puna.train.checkpoint import Progress
from puna.train.losses import LOSSES, Losses
from puna.train.optimizer import build, finite, learning_rate, update, zero_moments
from puna.train.settings import TrainSettings
from puna.train.step import loss_and_gradients, mean_loss

MOST_SKIPPED_IN_A_ROW = 10
# What torch says, in a plain RuntimeError, when the system gives it no more memory.
NO_MEMORY = ("can't allocate memory", "DefaultCPUAllocator")


@dataclass(frozen=True)
class StepEvent:
    """One finished step. step counts from 1; tokens: read so far, without padding; seconds: of this step
    alone."""

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float

    def line(self) -> dict[str, Any]:
        """What losses.jsonl keeps of it."""
        return {name: value for name, value in vars(self).items() if name != "seconds"}


@dataclass(frozen=True)
class SkippedStepEvent:
    """A step that was not taken, because its loss or gradient norm is not finite; nothing but the count of
    steps has changed. skipped: how many so far, with this one."""

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    skipped: int

    def line(self) -> dict[str, Any]:
        """What losses.jsonl keeps of it: null for what is not finite, since JSON has no word for that."""
        figures = {name: value for name, value in vars(self).items() if name != "seconds"}
        return {name: value if math.isfinite(value) else None for name, value in figures.items()}


@dataclass(frozen=True)
class ValidationEvent:
    """Held-out loss after `step` steps, in nats per token, per source."""

    step: int
    tokens: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Notice:
    """Something a person should know: a resume, a damaged checkpoint passed over."""

    text: str


Event = StepEvent | SkippedStepEvent | ValidationEvent | Notice


def train(
    config: LlamaConfig,
    batches: Batches,
    held_out: dict[str, Batch],
    settings: TrainSettings,
    execution: ExecutionSettings = DEFAULT_EXECUTION,
    *,
    seed: int,
    checkpoints: Path,
    before_decay: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Llama, Progress]:
    """Train a model from its seed, or from the newest checkpoint, to `settings.steps` steps.

    held_out: rows per source for validation. checkpoints: folder of this training's own, with the losses of
    its steps (`losses`). before_decay: folder
    in which trainings that differ in their decay alone (`stage.trunk`) keep the checkpoint of the step where
    it begins; one of an earlier training is where a longer one starts. A step whose loss or gradient norm is
    not finite is skipped. Raises Stopped when `should_stop` turned true (after saving), UserError when a
    micro-batch does not fit, and when ten steps in a row, or all there are, were skipped.
    """
    keep_freed_memory()
    model = Llama.empty(config, execution.device)
    model.init_weights(seed)
    if execution.compile:
        compiled.keep_blocks()
        for layer in model.layers:
            layer.compile(dynamic=False)
    optimizer = build(model, settings)
    dtype, micro_batch = precision(settings), settings.micro_batch(execution)
    seconds = _dry_run(model, optimizer, batches, settings, execution)
    if execution.compile:
        folder = compiled.keep_blocks()
        on_event(Notice(f"compiled the blocks in {seconds:.1f} s; the next run finds most of it in {folder}"))
    losses = Losses(checkpoints / LOSSES)
    progress = _resume(model, optimizer, losses, settings, before_decay, on_event)
    while progress.step < settings.steps:
        started = time.perf_counter()
        loss = loss_and_gradients(
            model,
            batches.batch(progress.step),
            micro_batch,
            remat=execution.remat,
            z_loss=settings.z_loss,
            dtype=dtype,
        )
        norm = update(model, optimizer, progress.step, settings, loss)
        tokens = batches.tokens_before(progress.step + 1)
        event = _count(progress, settings, tokens, loss, norm, time.perf_counter() - started)
        losses.append(event.line())
        on_event(event)
        _refuse_divergence(progress, settings, event)
        last = progress.step == settings.steps
        if last or progress.step % settings.validation_steps == 0:
            on_event(_validate(model, held_out, progress.step, tokens, micro_batch, dtype, execution.compile))
        if before_decay is not None and progress.step == settings.decay_start:
            checkpoint.save(before_decay, model, optimizer, progress, losses, with_losses=True)
        stopping = should_stop()
        if stopping or (progress.step % execution.checkpoint_steps == 0 and not last):
            checkpoint.save(checkpoints, model, optimizer, progress, losses, kept=execution.checkpoints_kept)
        if stopping:
            raise Stopped(progress.step)
    return model, progress


def _count(
    progress: Progress, settings: TrainSettings, tokens: int, loss: float, norm: float, seconds: float
) -> StepEvent | SkippedStepEvent:
    """Count a step, taken or skipped; its event."""
    rate = learning_rate(progress.step, settings)
    progress.step += 1
    if finite(loss, norm):
        progress.skipped_in_a_row = 0
        return StepEvent(progress.step, tokens, loss, rate, norm, seconds)
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    return SkippedStepEvent(progress.step, tokens, loss, rate, norm, seconds, progress.skipped)


def _refuse_divergence(
    progress: Progress, settings: TrainSettings, event: StepEvent | SkippedStepEvent
) -> None:
    """Raises UserError where too many steps in a row were skipped, or all of a short training."""
    if progress.skipped_in_a_row >= min(MOST_SKIPPED_IN_A_ROW, settings.steps):
        raise UserError(
            f"training diverged: {progress.skipped_in_a_row} steps in a row were skipped, the last with loss "
            f"{event.loss}, gradient norm {event.gradient_norm} at step {event.step}; lower "
            "train.learning_rate"
        )


def _resume(
    model: Llama,
    optimizer: torch.optim.AdamW,
    losses: Losses,
    settings: TrainSettings,
    before_decay: Path | None,
    on_event: Callable[[Event], None],
) -> Progress:
    """Load the newest checkpoint beside `losses`, else one from before another's decay; tell which."""
    progress, passed = checkpoint.resume(losses.path.parent, model, optimizer, losses, settings.steps)
    told = f"going on from the checkpoint of step {progress.step}"
    if not progress.step and before_decay is not None:
        progress, damaged = checkpoint.resume(before_decay, model, optimizer, losses, settings.decay_start)
        passed += damaged
        told = f"going on from step {progress.step}, where the decay of an earlier training began"
    for text in passed:
        on_event(Notice(f"passed over a checkpoint: {text}"))
    if progress.step:
        on_event(Notice(told))
    return progress


def _validate(
    model: Llama,
    held_out: dict[str, Batch],
    step: int,
    tokens: int,
    micro_batch: int,
    dtype: torch.dtype | None,
    compiled_blocks: bool,
) -> ValidationEvent:
    """Held-out losses after a step."""
    # Compiled blocks would be compiled again for each odd number of rows.
    eager = torch.compiler.set_stance("force_eager") if compiled_blocks else contextlib.nullcontext()
    with eager:
        losses = {source: mean_loss(model, rows, micro_batch, dtype) for source, rows in held_out.items()}
    return ValidationEvent(step, tokens, losses)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step: giving it back costs a cleared page for every 4 kB at
    the next allocation."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = (
            -1,
            -3,
        )  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h; 32 MiB is the largest it takes
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 32 << 20)


def precision(settings: TrainSettings) -> torch.dtype | None:
    """Of activations and products; None: that of the weights, float32."""
    return torch.bfloat16 if settings.precision == "bfloat16" else None


def _dry_run(
    model: Llama,
    optimizer: torch.optim.AdamW,
    batches: Batches,
    settings: TrainSettings,
    execution: ExecutionSettings,
) -> float:
    """One forward and backward on the largest micro-batch, with the moments' memory taken, thrown away: what
    does not fit is found now, not after an hour. Its seconds."""
    started, micro_batch = time.perf_counter(), settings.micro_batch(execution)
    rows = _fullest(batches.batch(0), micro_batch)
    try:
        moments = zero_moments(optimizer)
        loss_and_gradients(
            model,
            rows,
            micro_batch,
            remat=execution.remat,
            z_loss=settings.z_loss,
            dtype=precision(settings),
        )
        del moments
    except RuntimeError as error:
        if _out_of_memory(error):
            raise UserError(
                f"a batch of {len(rows.tokens)} sequences of {settings.sequence_length} tokens does not fit "
                "in memory; lower execution.micro_batch_sequences"
            ) from error
        if not execution.compile:
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torch.compile fails here: {reason}; leave out execution.compile") from error
    model.zero_grad(set_to_none=False)
    return time.perf_counter() - started


def _fullest(batch: Batch, micro_batch: int) -> Batch:
    """A micro-batch of a batch's first rows that takes as much memory as any: two documents a row, so that
    attention stays inside them, and a target at every position."""
    tokens = batch.tokens[:micro_batch]
    document_ids = np.zeros_like(tokens)
    document_ids[:, tokens.shape[1] // 2 :] = 1
    return Batch(tokens, tokens, document_ids)


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory has run out: torch's own kind, or that of its CPU allocator."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)
