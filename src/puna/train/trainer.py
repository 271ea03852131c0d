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
    *,
    seed: int,
    checkpoints: Path,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Llama, Progress]:
    """Train a model from its seed, or from the newest checkpoint in `checkpoints`, to `settings.steps` steps.

    held_out: rows per source for validation. Raises Stopped when `should_stop` turned true (after saving),
    UserError when a batch does not fit or the loss is not a number.
    """
    keep_freed_memory()
    model = Llama(config).to(settings.device)
    model.init_weights(seed)
    if settings.compile:
        compiled.keep_blocks()
        for layer in model.layers:
            layer.compile(dynamic=False)
    optimizer = build(model, settings)
    dtype = precision(settings)
    seconds = _dry_run(model, batches, settings, dtype)
    if settings.compile:
        on_event(
            Notice(
                f"compiled the blocks in {seconds:.1f} s; the next run finds most of it in {compiled.keep_blocks()}"
            )
        )
    progress, passed = checkpoint.resume(checkpoints, model, optimizer)
    for text in passed:
        on_event(Notice(f"passed over a checkpoint: {text}"))
    if progress.step:
        on_event(Notice(f"going on from the checkpoint of step {progress.step}"))
    while progress.step < settings.steps:
        started = time.perf_counter()
        step = progress.step
        loss = loss_and_gradients(
            model,
            batches.batch(step),
            settings.micro_batch,
            remat=settings.remat,
            z_loss=settings.z_loss,
            dtype=dtype,
        )
        norm = update(model, optimizer, step, settings)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise UserError(
                f"training diverged: loss {loss}, gradient norm {norm} at step {step + 1}; lower train.learning_rate"
            )
        progress.step += 1
        rate = optimizer.param_groups[0]["lr"]
        tokens = progress.step * settings.tokens_per_step
        progress.losses.append(
            {
                "step": progress.step,
                "tokens": tokens,
                "loss": loss,
                "learning_rate": rate,
                "gradient_norm": norm,
            }
        )
        on_event(StepEvent(progress.step, tokens, loss, rate, norm, time.perf_counter() - started))
        last = progress.step == settings.steps
        if last or progress.step % settings.validation_steps == 0:
            with (
                torch.compiler.set_stance("force_eager") if settings.compile else contextlib.nullcontext()
            ):  # odd numbers of rows
                losses = {
                    source: mean_loss(model, rows, settings.micro_batch, dtype)
                    for source, rows in held_out.items()
                }
            progress.validation.append({"step": progress.step, "tokens": tokens, "losses": losses})
            on_event(ValidationEvent(progress.step, tokens, losses))
        stopping = should_stop()
        if stopping or (progress.step % settings.checkpoint_steps == 0 and not last):
            checkpoint.save(checkpoints, model, optimizer, progress)
        if stopping:
            raise Stopped(progress.step)
    return model, progress


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
    """Of activations and products; None: that of the weights."""
    if settings.precision == "auto":
        has = (
            settings.device == "cuda"
            and torch.cuda.is_available()
            and torch.cuda.is_bf16_supported(including_emulation=False)
        )
        return torch.bfloat16 if has else None
    return torch.bfloat16 if settings.precision == "bfloat16" else None


def _dry_run(model: Llama, batches: Batches, settings: TrainSettings, dtype: torch.dtype | None) -> float:
    """One forward and backward on the first batch, thrown away: a batch that does not fit is found now, not
    after an hour. Its seconds."""
    batch, started = batches.batch(0), time.perf_counter()
    try:
        loss_and_gradients(
            model, batch, settings.micro_batch, remat=settings.remat, z_loss=settings.z_loss, dtype=dtype
        )
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "alloc" not in str(error):
            if not settings.compile:
                raise
            raise UserError(
                f"torch.compile fails here: {str(error).strip().splitlines()[0]}; leave out train.compile"
            ) from error
        raise UserError(
            f"a batch of {settings.micro_batch} sequences of {settings.sequence_length} tokens does not fit in memory; "
            "lower train.micro_batch_sequences"
        ) from error
    model.zero_grad(set_to_none=False)
    return time.perf_counter() - started
