"""The training loop: one optimizer step, many times, safely.

    resume -> [ work.step(n): loss and gradients -> judge, update ] -> validate, checkpoint -> trained weights

The state is the model, the optimizer and one integer, all in a checkpoint: a run that was stopped or killed
goes on to the same weights, bit for bit.
"""

import ctypes
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from puna.errors import Stopped, UserError
from puna.run import compiled
from puna.run.settings import DEFAULT_CLUSTER, DEFAULT_EXECUTION, ClusterSettings, ExecutionSettings
from puna.train import checkpoint
from puna.train.checkpoint import Progress
from puna.train.losses import LOSSES, Losses
from puna.train.optimizer import build, finite, learning_rate, update, zero_moments
from puna.train.parallel import ALONE, Parallel
from puna.train.settings import OptimizerSettings

MOST_SKIPPED_IN_A_ROW = 10
# What torch says, in a plain RuntimeError, when the system gives it no more memory.
NO_MEMORY = ("can't allocate memory", "DefaultCPUAllocator")


@dataclass(frozen=True)
class Outcome:
    """What a work's step found. loss: mean over the step's batch; tokens: read so far, without padding;
    figures: others of this work, by name."""

    loss: float
    tokens: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepFigures:
    """Of one step. step counts from 1; tokens: read so far, without padding; seconds: of this step alone;
    figures: see `Outcome`."""

    step: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    def line(self) -> dict[str, Any]:
        """What losses.jsonl keeps of it: null for what is not finite, since JSON has no word for that."""
        line = {name: value for name, value in vars(self).items() if name not in ("seconds", "figures")}
        line.update(self.figures)
        return {name: value if math.isfinite(value) else None for name, value in line.items()}


class StepEvent(StepFigures):
    """One finished step."""


@dataclass(frozen=True)
class SkippedStepEvent(StepFigures):
    """A step that was not taken, because its loss or gradient norm is not finite; nothing but the count of
    steps has changed. skipped: how many so far, with this one."""

    skipped: int


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


@dataclass(frozen=True)
class SamplesEvent:
    """What the model of `step` steps writes. samples: prompt, text and temperature of each."""

    step: int
    samples: Sequence[Mapping[str, Any]]


Event = StepEvent | SkippedStepEvent | ValidationEvent | SamplesEvent | Notice


class Work(Protocol):
    """What a training does at each step. Its state is the number of the step alone."""

    def step(self, step: int) -> Outcome:
        """Add the gradients of step `step` (from 0) to `.grad` of the model's trainable parameters."""

    def dry_run(self) -> None:
        """Compute the gradients of the largest micro-batch of any step, for the memory that takes."""

    @property
    def largest(self) -> str:
        """What `dry_run` computes, in words."""

    def validate(self) -> dict[str, float]:
        """Mean losses on what is held out, in nats per token, by its name; {} where nothing is."""


def train(
    model: nn.Module,
    work: Work,
    settings: OptimizerSettings,
    execution: ExecutionSettings = DEFAULT_EXECUTION,
    *,
    cluster: ClusterSettings = DEFAULT_CLUSTER,
    parallel: Parallel = ALONE,
    checkpoints: Path,
    before_decay: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train a model in place from the weights it has, or from the newest checkpoint, to `settings.steps`
    steps.

    Its parameters that need no gradient stay as they are, and are no part of the checkpoints. checkpoints:
    folder of this training's own, with the losses of its steps (`losses`). before_decay: folder in which
    trainings that differ in their decay alone (`stage.trunk`) keep the checkpoint of the step where it
    begins; one of an earlier training is where a longer one starts. parallel: where the model is distributed:
    all processes call this, the first one writes the losses and is told the events. A step whose loss or
    gradient norm is not finite is skipped. Raises Stopped when `should_stop` turned true in any process
    (after saving), UserError when a micro-batch does not fit, and when ten steps in a row, or all there are,
    were skipped.
    """
    keep_freed_memory()
    optimizer = build(model, settings)
    seconds = _dry_run(model, optimizer, work, compiling=execution.compile)
    if execution.compile:
        folder = compiled.keep_blocks()
        on_event(Notice(f"compiled the blocks in {seconds:.1f} s; the next run finds most of it in {folder}"))
    losses = Losses(checkpoints / LOSSES)
    if parallel.team.rank:
        on_event = _ignore
    progress = _resume(model, optimizer, losses, settings, before_decay, on_event, parallel)
    _fix_threads(progress, execution, on_event)
    with checkpoint.Saver(model, optimizer, losses, parallel) as saver:
        while progress.step < settings.steps:
            started = time.perf_counter()
            outcome = work.step(progress.step)
            norm = update(model, optimizer, progress.step, settings, outcome.loss)
            event = _count(progress, settings, outcome, norm, time.perf_counter() - started)
            saver.prepare()
            if parallel.team.rank == 0:
                losses.append(event.line())
            on_event(event)
            _refuse_divergence(progress, settings, event)
            last = progress.step == settings.steps
            if last or progress.step % settings.validation_steps == 0:
                on_event(ValidationEvent(progress.step, outcome.tokens, work.validate()))
            if before_decay is not None and progress.step == settings.decay_start:
                saver.save(before_decay, progress, with_losses=True)
            stopping, due = parallel.team.any(should_stop(), saver.is_due(cluster.checkpoint_seconds))
            every = execution.checkpoints_every
            due = due or progress.step % execution.checkpoint_steps == 0
            if stopping or due or last or (every and progress.step % every == 0):
                saver.save(checkpoints, progress, kept=(execution.checkpoints_kept, every))
            if stopping:
                saver.wait()
                raise Stopped(progress.step)
    return progress


def _ignore(event: Event) -> None:
    """What processes other than the first do with events."""


def _count(
    progress: Progress, settings: OptimizerSettings, outcome: Outcome, norm: float, seconds: float
) -> StepEvent | SkippedStepEvent:
    """Count a step, taken or skipped; its event."""
    rate = learning_rate(progress.step, settings)
    progress.step += 1
    taken = finite(outcome.loss, norm)
    progress.skipped_in_a_row = 0 if taken else progress.skipped_in_a_row + 1
    progress.skipped += not taken
    step = (progress.step, outcome.tokens, outcome.loss, rate, norm, seconds)
    if taken:
        return StepEvent(*step, figures=outcome.figures)
    return SkippedStepEvent(*step, progress.skipped, figures=outcome.figures)


def _refuse_divergence(
    progress: Progress, settings: OptimizerSettings, event: StepEvent | SkippedStepEvent
) -> None:
    """Raises UserError where too many steps in a row were skipped, or all of a short training."""
    if progress.skipped_in_a_row >= min(MOST_SKIPPED_IN_A_ROW, settings.steps):
        raise UserError(
            f"training diverged: {progress.skipped_in_a_row} steps in a row were skipped, the last with loss "
            f"{event.loss}, gradient norm {event.gradient_norm} at step {event.step}; lower "
            "train.learning_rate"
        )


def _resume(
    model: nn.Module,
    optimizer: torch.optim.AdamW,
    losses: Losses,
    settings: OptimizerSettings,
    before_decay: Path | None,
    on_event: Callable[[Event], None],
    parallel: Parallel,
) -> Progress:
    """Load the newest checkpoint beside `losses`, else one from before another's decay; tell which."""
    progress, passed = checkpoint.resume(
        losses.path.parent, model, optimizer, losses, settings.steps, parallel
    )
    told = f"going on from the checkpoint of step {progress.step}"
    if not progress.step and before_decay is not None:
        progress, damaged = checkpoint.resume(
            before_decay, model, optimizer, losses, settings.decay_start, parallel
        )
        passed += damaged
        told = f"going on from step {progress.step}, where the decay of an earlier training began"
    for text in passed:
        on_event(Notice(f"passed over a checkpoint: {text}"))
    if progress.step or passed:
        on_event(Notice(told if progress.step else "no checkpoint is whole: beginning with the first step"))
    return progress


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


def _dry_run(model: nn.Module, optimizer: torch.optim.AdamW, work: Work, *, compiling: bool) -> float:
    """The work's dry run with the moments' memory taken, thrown away: what does not fit is found now, not
    after an hour. Its seconds."""
    started = time.perf_counter()
    try:
        moments = zero_moments(optimizer)
        work.dry_run()
        del moments
    except RuntimeError as error:
        if _out_of_memory(error):
            raise UserError(
                f"{work.largest} does not fit in memory; lower execution.micro_batch_sequences"
            ) from error
        if not compiling:
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torch.compile fails here: {reason}; leave out execution.compile") from error
    model.zero_grad(set_to_none=False)
    return time.perf_counter() - started


def _fix_threads(progress: Progress, execution: ExecutionSettings, on_event: Callable[[Event], None]) -> None:
    """Compute with as many threads as the run did from its start: how a library cuts a product into sums may
    depend on them. `execution.threads` goes before."""
    begun, wanted = progress.threads, execution.threads or progress.threads
    if begun and wanted != begun:
        on_event(
            Notice(
                f"threads are now {wanted}, not {begun} as from its start: equal within rounding from here"
            )
        )
    elif begun and wanted != torch.get_num_threads():
        on_event(Notice(f"threads are {wanted} as from its start; execution.threads changes that"))
    progress.threads = wanted or torch.get_num_threads()
    torch.set_num_threads(progress.threads)  # once it was called, MKL takes no fewer by itself


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory has run out: torch's own kind, or that of its CPU allocator."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)
