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

import torch

from puna.errors import Stopped, UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.run import compiled
from puna.run.settings import DEFAULT_EXECUTION, ExecutionSettings
from puna.tokens.batches import Batch, Batches
from puna.train import checkpoint
from puna.train.checkpoint import Progress
from puna.train.optimizer import build, update
from puna.train.settings import TrainSettings
from puna.train.step import loss_and_gradients, mean_loss


@dataclass(frozen=True)
class StepEvent:
    """One finished step. step counts from 1; tokens: seen so far; seconds: of this step alone."""

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float


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


Event = StepEvent | ValidationEvent | Notice


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

    held_out: rows per source for validation. checkpoints: folder of this training's own. before_decay: folder
    in which trainings that differ in their decay alone (`stage.trunk`) keep the checkpoint of the step where
    it begins; one of an earlier training is where a longer one starts. Raises Stopped when `should_stop`
    turned true (after saving), UserError when a batch does not fit or the loss is not a number.
    """
    keep_freed_memory()
    model = Llama(config).to(execution.device)
    model.init_weights(seed)
    if execution.compile:
        compiled.keep_blocks()
        for layer in model.layers:
            layer.compile(dynamic=False)
    optimizer = build(model, settings)
    dtype, micro_batch = precision(settings), settings.micro_batch(execution)
    seconds = _dry_run(model, batches, settings, execution)
    if execution.compile:
        folder = compiled.keep_blocks()
        on_event(Notice(f"compiled the blocks in {seconds:.1f} s; the next run finds most of it in {folder}"))
    progress = _resume(model, optimizer, settings, checkpoints, before_decay, on_event)
    while progress.step < settings.steps:
        started = time.perf_counter()
        step = progress.step
        loss = loss_and_gradients(
            model,
            batches.batch(step),
            micro_batch,
            remat=execution.remat,
            z_loss=settings.z_loss,
            dtype=dtype,
        )
        norm = update(model, optimizer, step, settings)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"training diverged: loss {loss}, gradient norm {norm} at step {step + 1}; "
                "lower train.learning_rate"
            )
        progress.step += 1
        rate = optimizer.param_groups[0]["lr"]
        tokens = progress.step * settings.tokens_per_step
        line = {"step": progress.step, "tokens": tokens, "loss": loss}
        progress.losses.append({**line, "learning_rate": rate, "gradient_norm": norm})
        on_event(StepEvent(progress.step, tokens, loss, rate, norm, time.perf_counter() - started))
        last = progress.step == settings.steps
        if last or progress.step % settings.validation_steps == 0:
            on_event(_validate(model, held_out, progress.step, tokens, micro_batch, dtype, execution.compile))
        if before_decay is not None and progress.step == settings.decay_start:
            checkpoint.save(before_decay, model, optimizer, progress)
        stopping = should_stop()
        if stopping or (progress.step % execution.checkpoint_steps == 0 and not last):
            checkpoint.save(checkpoints, model, optimizer, progress, kept=execution.checkpoints_kept)
        if stopping:
            raise Stopped(progress.step)
    return model, progress


def _resume(
    model: Llama,
    optimizer: torch.optim.AdamW,
    settings: TrainSettings,
    checkpoints: Path,
    before_decay: Path | None,
    on_event: Callable[[Event], None],
) -> Progress:
    """Load the newest checkpoint of this training, else one from before another's decay; tell which."""
    progress, passed = checkpoint.resume(checkpoints, model, optimizer, settings.steps)
    told = f"going on from the checkpoint of step {progress.step}"
    if not progress.step and before_decay is not None:
        progress, damaged = checkpoint.resume(before_decay, model, optimizer, settings.decay_start)
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


def _dry_run(model: Llama, batches: Batches, settings: TrainSettings, execution: ExecutionSettings) -> float:
    """One forward and backward on the first batch, thrown away: a batch that does not fit is found now, not
    after an hour. Its seconds."""
    batch, started = batches.batch(0), time.perf_counter()
    micro_batch = settings.micro_batch(execution)
    try:
        loss_and_gradients(
            model,
            batch,
            micro_batch,
            remat=execution.remat,
            z_loss=settings.z_loss,
            dtype=precision(settings),
        )
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "alloc" not in str(error):
            if not execution.compile:
                raise
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"torch.compile fails here: {reason}; leave out execution.compile") from error
        raise UserError(
            f"a batch of {micro_batch} sequences of {settings.sequence_length} tokens does not fit in "
            "memory; lower execution.micro_batch_sequences"
        ) from error
    model.zero_grad(set_to_none=False)
    return time.perf_counter() - started
