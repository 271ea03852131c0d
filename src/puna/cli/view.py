"""What a person sees while a recipe runs: a line a stage, a bar inside it, the figures of the training."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

MEANING = {
    "fetch": "raw files",
    "documents": "clean documents",
    "tokenizer": "SentencePiece model",
    "tokens": "token shards",
    "train": "trained weights",
    "scores": "bits per byte, samples",
}
SAMPLE_CHARACTERS = 90
LINE_SECONDS = 15.0  # between lines of the training's figures


class ConsoleView:
    """Prints to standard error, so that standard output holds results alone. Bars only on a terminal."""

    def __init__(self, total_steps: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: Any = None
        self._started = self._last_line = 0.0
        self.total_steps = total_steps
        self._smooth: float | None = None

    def begin(self, source: str | Path, folder: Path) -> None:
        """Say at once what is read and where results go: libraries and digests may take seconds."""
        self._line(f"[dim]{escape(f'{source} → {folder}')}[/]")

    def stage(self, name: str, state: str, detail: str = "") -> None:
        """See run.stage.Reporter."""
        self.close()
        label, described = f"{name:<10}", f"{detail}  {MEANING[name]}"
        if state == "reuse":
            self._line(f"[green]✓[/] {label} [dim]{described}, exists already[/]")
        elif state == "start":
            self._started = time.monotonic()
            self._line(f"[cyan]▸[/] {label} [dim]{described} ...[/]")
        else:
            self._line(f"[green]✓[/] {label} [dim]{described}, {time.monotonic() - self._started:.1f} s[/]")

    def progress(self, what: str, done: int, total: int) -> None:
        """See run.stage.Reporter."""
        self._bar(what, done, total)

    def note(self, text: str) -> None:
        """See run.stage.Reporter."""
        self._line(f"  {escape(text)}")

    def event(self, event: Any) -> None:
        """Show an event of the training loop."""
        from puna.train.trainer import Notice, SamplesEvent, SkippedStepEvent, StepEvent, ValidationEvent

        if isinstance(event, Notice):
            self.note(event.text)
        elif isinstance(event, ValidationEvent):
            losses = ", ".join(f"{source} {loss:.3f}" for source, loss in event.losses.items())
            self._line(f"  step {event.step:>5}  held-out nats per token: {losses}")
        elif isinstance(event, SamplesEvent):
            written = " ".join(f"{event.samples[0]['prompt']}{event.samples[0]['text']}".split())
            self._line(f"  step {event.step:>5}  it writes: {written[:SAMPLE_CHARACTERS]}")
        elif isinstance(event, SkippedStepEvent):
            why = f"loss {event.loss}, gradient norm {event.gradient_norm}"
            self._line(f"  step {event.step:>5}  skipped: {why}; {event.skipped} skipped so far")
        elif isinstance(event, StepEvent):
            self._smooth = event.loss if self._smooth is None else 0.9 * self._smooth + 0.1 * event.loss
            speed = event.tokens / event.step / event.seconds
            figures = f"loss {self._smooth:.3f}  {speed:,.0f} tokens/s"
            self._bar(figures, event.step, self.total_steps)
            now = time.monotonic()
            if not self.console.is_terminal and now - self._last_line > LINE_SECONDS:
                self._last_line = now
                steps = f"step {event.step:>5} of {self.total_steps}"
                self._line(f"  {steps}  {figures}  rate {event.learning_rate:.2e}")

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _bar(self, what: str, done: int, total: int) -> None:
        if not self.console.is_terminal:
            return
        if self._progress is None:
            columns = (
                "  ",
                BarColumn(30),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self.console, transient=True)
            self._progress.start()
            self._task = self._progress.add_task(what, total=total)
        self._progress.update(self._task, description=what, completed=done, total=total)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
