"""The training loop: one optimizer step, many times, safely.

    resume -> [ work.step(n): loss and gradients -> judge, update ] -> validate, checkpoint -> trained weights

The state is the model, the optimizer and one integer, all in a checkpoint: a run that was stopped or killed
goes on to the same weights, bit for bit.
"""

import contextlib
import ctypes
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from puna.errors import Stopped, UserError
from puna.run import compiled
from puna.run.settings import DEFAULT_CLUSTER, DEFAULT_EXECUTION, ClusterSettings, ExecutionSettings
from puna.train import checkpoint, health
from puna.train.checkpoint import Kept, Progress
from puna.train.health import SPIKE, WHY, Judge
from puna.train.losses import LOSSES, Losses
from puna.train.optimizer import build, learning_rate, update, zero_moments
from puna.train.parallel import ALONE, Parallel
from puna.train.settings import OptimizerSettings

MOST_SKIPPED_IN_A_ROW = 10
# What torch says, in a plain RuntimeError, when the system gives it no more memory.
NO_MEMORY = ("can't allocate memory", "DefaultCPUAllocator")


@dataclass(frozen=True)
class Outcome:
    """What a work's step found. loss: mean over the step's batch, where the model is; tokens: read so far,
    without padding; figures: others of this work, by name; part: of the loss, what this process computed."""

    loss: torch.Tensor | float
    tokens: int
    figures: Mapping[str, float] = field(default_factory=dict)
    part: torch.Tensor | float = 0.0


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
        finite = (isinstance(value, str) or math.isfinite(value) for value in line.values())
        return {name: line[name] if known else None for name, known in zip(line, finite, strict=True)}


class StepEvent(StepFigures):
    """One finished step."""


@dataclass(frozen=True)
class SkippedStepEvent(StepFigures):
    """A step that was not taken, and why (`health.WHY`); nothing but the count of steps has changed. skipped:
    how many so far, with this one."""

    skipped: int
    why: str


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
    all processes call this and are told the events; the first one writes the losses. A step whose loss or
    gradient norm is not finite is skipped, and one of a spike by `settings.spikes`. Raises Stopped when
    `should_stop` turned true in any process (after saving), UserError when a micro-batch does not fit, when
    ten steps in a row, or all there are, were skipped, and when processes that should hold the same do not.
    """
    keep_freed_memory(large=parallel.team.size > 1)
    optimizer = build(model, settings)
    seconds = dry_run(model, optimizer, work, compiling=execution.compile)
    if execution.compile:
        folder = compiled.keep_blocks()
        on_event(Notice(f"compiled the blocks in {seconds:.1f} s; the next run finds most of it in {folder}"))
    losses = Losses(checkpoints / LOSSES)
    progress = _resume(model, optimizer, losses, settings, before_decay, on_event, parallel)
    _fix_threads(progress, execution, on_event)
    back = settings.rollback_steps if settings.spikes == "rollback" else None
    kept = Kept(execution.checkpoints_kept, execution.checkpoints_every, back)
    run = _Run(model, optimizer, settings, progress, losses, parallel, on_event)
    with checkpoint.Saver(model, optimizer, losses, parallel) as run.saver:
        while progress.step < settings.steps:
            with parallel.phase("forward", progress.step + 1), _fitting(work):
                outcome = work.step(progress.step)
            with parallel.phase("reduce"), _fitting(work):
                run.judge(outcome)
            run.settle(run.behind)
            with parallel.phase("save"), _fitting(work):
                run.saver.prepare()
            step, last = progress.step, progress.step == settings.steps
            stopping, due = parallel.team.any(should_stop(), run.saver.is_due(cluster.checkpoint_seconds))
            validating = last or step % settings.validation_steps == 0
            every = (execution.checkpoint_steps, kept.every, kept.back)
            saving = stopping or due or last or any(step % steps == 0 for steps in every if steps)
            turning = before_decay is not None and step == settings.decay_start
            if saving or turning or step % cluster.replica_check_steps == 0:
                run.check_replicas()
            if validating or saving or turning:
                run.settle()
            if validating:
                with parallel.phase("validation"):
                    on_event(ValidationEvent(step, outcome.tokens, work.validate()))
            with parallel.phase("save"):
                if before_decay is not None and turning:
                    run.saver.save(before_decay, progress, with_losses=True)
                if saving:
                    run.saver.save(checkpoints, progress, kept=kept)
                if stopping or last:
                    run.saver.wait()
            if stopping:
                raise Stopped(step)
            run.clock()
    return progress


class _Run:
    """The steps of one training as they are judged, counted and told.

    On a GPU a step is told when the next one is under way, so that the host never waits for the device, and
    who listens finds the weights of that one; what is saved, and where spikes are undone, waits.
    """

    saver: checkpoint.Saver

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.AdamW,
        settings: OptimizerSettings,
        progress: Progress,
        losses: Losses,
        parallel: Parallel,
        on_event: Callable[[Event], None],
    ) -> None:
        self.model, self.optimizer, self.settings, self.progress = model, optimizer, settings, progress
        self.losses, self.parallel, self.on_event = losses, parallel, on_event
        self._judge = Judge(settings.spikes == "keep")
        lines = losses.lines() if parallel.team.rank == 0 else []
        self._judge.remember(parallel.team.broadcast(health.newest(lines)))
        device = next(model.parameters()).device
        self.behind = int(device.type != "cpu" and settings.spikes != "rollback")
        self._waiting: list[tuple[int, Outcome, torch.Tensor, torch.cuda.Event | None]] = []
        self.clock()

    def clock(self) -> None:
        """Begin to count the next step's seconds."""
        self._started = time.perf_counter()

    def judge(self, outcome: Outcome) -> None:
        """Take the step, or not."""
        step = self.progress.step
        judged = update(
            *(self.model, self.optimizer, step, self.settings, outcome.loss),
            *(self._judge, self.parallel, outcome.part),
        )
        self.progress.step += 1
        loss = torch.as_tensor(outcome.loss, device=judged.norm.device)
        figures = torch.stack([value.double() for value in (loss, *judged)]).to("cpu", non_blocking=True)
        there = torch.cuda.current_stream().record_event() if judged.norm.is_cuda else None
        self._waiting.append((self.progress.step, outcome, figures, there))

    def settle(self, behind: int = 0) -> None:
        """Count and tell the steps that wait for it, but for so many."""
        while len(self._waiting) > behind:
            self._tell(*self._waiting.pop(0))

    def _tell(
        self, step: int, outcome: Outcome, figures_of_step: torch.Tensor, there: torch.cuda.Event | None
    ) -> None:
        if there is not None:
            there.synchronize()
        loss, norm, verdict, left_out, source = figures_of_step.tolist()
        progress, settings = self.progress, self.settings
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if left_out else 0
        progress.skipped += bool(left_out)
        where = f" in process {int(source)}" if source >= 0 else ""
        seconds, figures = time.perf_counter() - self._started, dict(outcome.figures)
        event: StepEvent | SkippedStepEvent
        if left_out and verdict == SPIKE and settings.spikes == "rollback":
            figures |= self._roll_back(step)
        found = (step, outcome.tokens, loss, learning_rate(step - 1, settings), norm, seconds)
        if left_out:
            event = SkippedStepEvent(*found, progress.skipped, WHY[int(verdict)] + where, figures=figures)
        else:
            event = StepEvent(*found, figures=figures)
        if self.parallel.team.rank == 0:
            self.losses.append(event.line())
        self.on_event(event)
        if verdict == SPIKE and not left_out:
            self.on_event(Notice(f"step {step:,}: a spike of loss or gradients, kept (train.spikes)"))
        if progress.skipped_in_a_row >= min(MOST_SKIPPED_IN_A_ROW, settings.steps):
            diverged = UserError(
                f"training diverged: {progress.skipped_in_a_row} steps in a row were skipped, the last with "
                f"loss {loss}, gradient norm {norm} at step {step}{where}; lower train.learning_rate"
            )
            diverged.add_note("all processes")
            raise diverged

    def _roll_back(self, step: int) -> dict[str, float]:
        """Take the state of the last step that `settings.rollback_steps` divides: the data since are passed
        over."""
        before = (step - 1) // self.settings.rollback_steps * self.settings.rollback_steps
        self.saver.wait()
        path = self.losses.path.parent / f"step-{before:08d}"
        figures: dict[str, float] = {}
        told = f"step {step:,}: a spike before the first state to go back to: it alone is passed over"
        if before:
            try:
                checkpoint.load(path, self.saver.trainable, self.optimizer, self.parallel.team)
            except UserError as error:
                told = f"step {step:,}: a spike, and no state of step {before:,} to go back to: {error}"
            else:
                figures["rolled_back_to"] = before
                told = f"step {step:,}: a spike of loss or gradients; the weights are those of step "
                told += f"{before:,} again, and the data of steps {before + 1:,} to {step:,} are passed over"
        self.on_event(Notice(told))
        return figures

    def check_replicas(self) -> None:
        """See `health.check_replicas`."""
        if self.parallel.team.size > 1:
            state = checkpoint.state_of(self.saver.trainable, self.optimizer)
            health.check_replicas(state, self.parallel)


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
    weights = (model, optimizer, losses)
    progress, passed = checkpoint.resume(losses.path.parent, *weights, settings.steps, parallel)
    told = f"going on from the checkpoint of step {progress.step}"
    if not progress.step and before_decay is not None:
        progress, damaged = checkpoint.resume(before_decay, *weights, settings.decay_start, parallel)
        passed += damaged
        told = f"going on from step {progress.step}, where the decay of an earlier training began"
    for text in passed:
        on_event(Notice(f"passed over a checkpoint: {text}"))
    if progress.step or passed:
        on_event(Notice(told if progress.step else "no checkpoint is whole: beginning with the first step"))
    return progress


def keep_freed_memory(large: bool = False) -> None:
    """Have glibc keep what is freed for the next step: giving it back costs a cleared page for every 4 kB at
    the next allocation. What other work has left is given back first: it does not fit as it lies. large:
    blocks above 32 MiB, too, as several processes gather and reduce them."""
    library = ctypes.CDLL(None)
    mallopt, trim = (getattr(library, name, None) for name in ("mallopt", "malloc_trim"))
    if mallopt is not None and trim is not None:  # Android has the first alone
        trim(0)
        # Of malloc.h; 32 MiB is the largest threshold it takes.
        trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 32 << 20)
        if large:
            mallopt(mmap_max, 0)


def dry_run(model: nn.Module, optimizer: torch.optim.AdamW, work: Work, *, compiling: bool) -> float:
    """The work's dry run with the moments' memory taken, thrown away: what does not fit is found now, not
    after an hour. Its seconds."""
    started = time.perf_counter()
    try:
        with _fitting(work):
            moments = zero_moments(optimizer)
            work.dry_run()
            del moments
    except RuntimeError as error:
        if not compiling:
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torch.compile fails here: {reason}; leave out execution.compile") from error
    model.zero_grad(set_to_none=False)
    return time.perf_counter() - started


@contextlib.contextmanager
def _fitting(work: Work) -> Iterator[None]:
    """Raises UserError where the block needs more memory than there is."""
    try:
        yield
    except RuntimeError as error:
        if _out_of_memory(error):
            remedy = "lower execution.micro_batch_sequences"
            raise UserError(f"{work.largest} does not fit in memory; {remedy}") from error
        raise


def _fix_threads(progress: Progress, execution: ExecutionSettings, on_event: Callable[[Event], None]) -> None:
    """Compute with as many threads as the run did from its start: how a library cuts a product into sums may
    depend on them. `execution.threads` goes before."""
    begun, wanted = progress.threads, execution.threads or progress.threads
    if begun and wanted != begun:
        told = f"threads are now {wanted}, not {begun} as from its start: equal within rounding from here"
        on_event(Notice(told))
    elif begun and wanted != torch.get_num_threads():
        on_event(Notice(f"threads are {wanted} as from its start; execution.threads changes that"))
    progress.threads = wanted or torch.get_num_threads()
    torch.set_num_threads(progress.threads)  # once it was called, MKL takes no fewer by itself


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory has run out: torch's own kind, or that of its CPU allocator."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)
