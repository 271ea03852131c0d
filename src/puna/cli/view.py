"""What a person sees while a recipe runs: a line a stage, a bar inside it, the figures of the training."""

import bisect
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

MEANING = {
    "fetch": "raw files",
    "documents": "clean documents",
    "tokenizer": "SentencePiece model",
    "tokens": "token shards",
    "train": "trained weights",
    "scores": "bits per byte, samples",
    "replay": "the base's own answers",
    "rows": "encoded conversations",
    "probe": "what it learned and forgot",
    "passages": "answers about passages",
    "exports": "the model for other programs",
}
TUNED = "tuned weights"  # what all other stages make
SAMPLE_CHARACTERS = 90
LINE_SECONDS = 15.0  # between lines of figures where there is no terminal
PACE_STEPS = 100  # over which the pace is taken that tells the end
DAY = 86_400.0


class Pace:
    """The speed and the end of a training, from the moments at which its steps ended.

    now: the clock, in seconds since 1970. The speed is the median over steps; the end is told from the last
    steps with all that lay between them, such as validations.
    """

    def __init__(self, total_steps: int, now: Callable[[], float] = time.time) -> None:
        self.total_steps, self.now = total_steps, now
        self._speeds: list[float] = []
        self._ends: deque[tuple[int, float]] = deque(maxlen=PACE_STEPS)

    def add(self, step: int, tokens: int, seconds: float) -> None:
        """A step ended now. tokens: of all steps up to it; seconds: its own."""
        bisect.insort(self._speeds, tokens / step / seconds)
        self._ends.append((step, self.now()))

    def speed(self) -> float:
        """Tokens a second in the median step."""
        return self._speeds[len(self._speeds) // 2]

    def end(self) -> str:
        """The time of day at which the last step will end, with the day where it is far; "" so early that
        nobody knows."""
        (first, began), (last, ended) = self._ends[0], self._ends[-1]
        if last == first or last == self.total_steps:
            return ""
        left = (self.total_steps - last) * (ended - began) / (last - first)
        return time.strftime("%H:%M" if left < DAY / 2 else "%a %d %b %H:%M", time.localtime(ended + left))


class Live(Progress):
    """A bar with lines below it, each cut where the terminal ends."""

    below: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for line in self.below:
            yield Text(f"    {line}", no_wrap=True, overflow="ellipsis", style="dim")


class ConsoleView:
    """Prints to standard error, so that standard output holds results alone. Bars only on a terminal."""

    def __init__(self, total_steps: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress: Live | None = None
        self._task: Any = None
        self._started = self._last_line = 0.0
        self._expected: dict[str, int] = {}
        self._told: set[str] = set()
        self._begin_training(total_steps)

    def _begin_training(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self._pace = Pace(total_steps)
        self._smooth: float | None = None
        self._held_out: float | None = None
        self._writes = ""
        self._first_step = 0  # after 1: a stopped training goes on

    def expect(self, steps: dict[str, int]) -> None:
        """Say how many steps the stages have that train, by their names, where it is not one called train."""
        self._expected = steps

    def begin(self, source: str | Path, folder: Path) -> None:
        """Say at once what is read and where results go: libraries and digests may take seconds."""
        self._line(f"[dim]{escape(f'{source} → {folder}')}[/]")

    def stage(self, name: str, state: str, detail: str = "") -> None:
        """See run.stage.Reporter."""
        self.close()
        if state == "reuse" and name in self._told:  # made by an earlier part of the same command
            return
        if state != "start":
            self._told.add(name)
        label, described = f"{name:<10}", f"{detail}  {MEANING.get(name, TUNED)}"
        if state == "reuse":
            self._line(f"[green]✓[/] {label} [dim]{described}, exists already[/]")
        elif state == "start":
            self._started = self._last_line = time.monotonic()
            self._line(f"[cyan]▸[/] {label} [dim]{described} ...[/]")
            if name in self._expected:
                self._begin_training(self._expected[name])
            self._bar("getting ready", 0, self.total_steps if name in ("train", *self._expected) else None)
        else:
            trained = name in ("train", *self._expected)
            since = f" since step {self._first_step}" if trained and self._first_step > 1 else ""
            spent = f"{time.monotonic() - self._started:.1f} s{since}"
            self._line(f"[green]✓[/] {label} [dim]{described}, {spent}[/]")

    def progress(self, what: str, done: int, total: int) -> None:
        """See run.stage.Reporter."""
        self._bar(what, done, total)
        if self._line_is_due():
            self._line(f"  {escape(what)}: {done:,} of {total:,}")

    def note(self, text: str) -> None:
        """See run.stage.Reporter."""
        self._line(f"  {escape(text)}")

    def event(self, event: Any) -> None:
        """Show an event of the training loop."""
        from puna.train.trainer import Notice, SamplesEvent, SkippedStepEvent, StepEvent, ValidationEvent

        if isinstance(event, Notice):
            self.note(event.text)
        elif isinstance(event, ValidationEvent) and event.losses:
            losses = ", ".join(f"{source} {loss:.3f}" for source, loss in event.losses.items())
            self._held_out = sum(event.losses.values()) / max(1, len(event.losses))
            self._line(f"  step {event.step:>5}  held-out nats per token: {escape(losses)}")
        elif isinstance(event, SamplesEvent) and event.samples:
            written = " ".join(f"{event.samples[0]['prompt']}{event.samples[0]['text']}".split())
            self._writes = written[:SAMPLE_CHARACTERS]
            self._line(f"  step {event.step:>5}  it writes: {escape(self._writes)}")
        elif isinstance(event, SkippedStepEvent):
            why = f"loss {event.loss}, gradient norm {event.gradient_norm}"
            self._line(f"  step {event.step:>5}  skipped, {event.why}: {why}; {event.skipped} skipped so far")
        elif isinstance(event, StepEvent):
            self._step(event)

    def _step(self, event: Any) -> None:
        self._first_step = self._first_step or event.step
        self._smooth = event.loss if self._smooth is None else 0.9 * self._smooth + 0.1 * event.loss
        self._pace.add(event.step, event.tokens, event.seconds)
        end = self._pace.end()
        figures = [f"loss {self._smooth:.3f}"]
        if self._held_out is not None:
            figures.append(f"held out {self._held_out:.3f}")
        figures.append(f"{self._pace.speed():,.0f} tokens/s")
        until = [f"ends about {end}"] if end else []
        writes = (f"it writes: {self._writes}",) if self._writes else ()
        self._bar("  ".join(until), event.step, self.total_steps, ("  ".join(figures), *writes))
        if event.step == 1 or self._line_is_due():
            rate = f"rate {event.learning_rate:.2e}"
            self._line("  ".join([f"  step {event.step:>5} of {self.total_steps}", *figures, rate, *until]))

    def _line_is_due(self) -> bool:
        """Whether it is time for a line of figures where no bar shows them; then the next is due later."""
        now = time.monotonic()
        if self.console.is_terminal or now - self._last_line < LINE_SECONDS:
            return False
        self._last_line = now
        return True

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _bar(self, what: str, done: int, total: int | None, below: tuple[str, ...] = ()) -> None:
        """Show a bar; one that moves to and fro where nobody knows the total."""
        if not self.console.is_terminal:
            return
        if self._progress is None:
            told = TextColumn("so far · {task.description}", markup=False)
            columns = (SpinnerColumn(), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), told)
            self._progress = Live(*columns, console=self.console, transient=True)
            self._task = self._progress.add_task(what, total=total)
            self._progress.start()
        self._progress.below = below
        self._progress.update(self._task, description=what, completed=done, total=total)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
