"""A recipe as stages; runs what is missing, skips what is there.

A stage's fingerprint hashes its own settings, its code's version number and the fingerprints of its inputs.
Its artifact is `<out>/<recipe>/<stage>-<fingerprint>/`, so running a recipe again does nothing, and changing
one setting redoes what depends on it. What differs between two equal runs (times, speeds, the report) lies
beside the artifacts, never in them.
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from puna.run import artifact, meter
from puna.run.artifact import Artifact


class View(Protocol):
    """What a build tells the person who watches it."""

    def stage(self, name: str, state: str, detail: str = "") -> None:
        """A stage starts ("start"), is there already ("reuse") or has finished ("done")."""

    def progress(self, what: str, done: int, total: int) -> None: ...

    def note(self, text: str) -> None:
        """One line about what is about to happen."""

    def event(self, event: Any) -> None:
        """An event of the training loop (see train.loop.Event)."""


@dataclass(frozen=True)
class Stage:
    """One arrow of the way of the data.

    settings: everything of the recipe that its result depends on. work: fills the folder it is given and
    returns the metrics that go into the artifact.
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    settings: Any
    work: Callable[["Context"], dict[str, Any]]


@dataclass(frozen=True)
class Planned:
    """A stage with its fingerprint and the folder its artifact has or will have."""

    stage: Stage
    fingerprint: str
    folder: Path

    @property
    def done(self) -> bool:
        return (self.folder / artifact.MANIFEST).is_file()


@dataclass(frozen=True)
class Context:
    """What a stage's work is given. work: the folder that becomes the artifact; scratch: finished parts that
    a next attempt finds again; logs: for what differs between equal runs; pausable: a block in which a stop
    is asked for, not forced."""

    recipe: Any
    root: Path
    inputs: dict[str, Artifact]
    work: Path
    scratch: Path
    logs: Path
    view: View
    should_stop: Callable[[], bool] = lambda: False
    pausable: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Build:
    """One recipe with its output folder. root: the folder that local files of the corpus are relative to."""

    recipe: Any
    root: Path
    folder: Path
    stages: list[Stage]
    should_stop: Callable[[], bool] = lambda: False
    pausable: Callable[[], AbstractContextManager[None]] = nullcontext
    _planned: list[Planned] = field(default_factory=list)

    def until(self, last: str) -> "Build":
        """The same build, ended after a stage."""
        place = next(number for number, stage in enumerate(self.stages) if stage.name == last)
        return Build(
            self.recipe, self.root, self.folder, self.stages[: place + 1], self.should_stop, self.pausable
        )

    def plan(self) -> list[Planned]:
        """Every stage in order, with its fingerprint. Raises UserError when the recipe's local files are not
        there."""
        if not self._planned:
            known: dict[str, str] = {}
            for stage in self.stages:
                inputs = {name: known[name] for name in stage.inputs}
                known[stage.name] = artifact.fingerprint(
                    {
                        "stage": stage.name,
                        "version": stage.version,
                        "settings": stage.settings,
                        "inputs": inputs,
                    }
                )
                self._planned.append(
                    Planned(stage, known[stage.name], self.folder / f"{stage.name}-{known[stage.name]}")
                )
        return self._planned

    def run(self, view: View) -> dict[str, Artifact]:
        """Make every artifact that is missing; all of them by stage name. Raises UserError for what a person
        can put right."""
        planned = self.plan()
        finished: dict[str, Artifact] = {}
        complete = all(item.done for item in planned)
        with nullcontext() if complete else artifact.locked(self.folder):
            for item in planned:
                name = item.stage.name
                if item.done:
                    finished[name] = artifact.load(item.folder)
                    finished[name].verify()
                    view.stage(name, "reuse", item.fingerprint)
                    continue
                view.stage(name, "start", item.fingerprint)
                finished[name] = self._make(item, finished, view)
                view.stage(name, "done", item.fingerprint)
        return finished

    def _make(self, item: Planned, finished: dict[str, Artifact], view: View) -> Artifact:
        name = f"{item.stage.name}-{item.fingerprint}"
        scratch, work, logs = (self.folder / folder / name for folder in (".scratch", ".work", "logs"))
        artifact.remove(work)
        for folder in (scratch, work, logs):
            folder.mkdir(parents=True, exist_ok=True)
        inputs = {name: finished[name] for name in item.stage.inputs}
        context = Context(
            self.recipe, self.root, inputs, work, scratch, logs, view, self.should_stop, self.pausable
        )
        started, joules = time.monotonic(), meter.joules_counted()
        try:
            metrics = item.stage.work(context)
            result = artifact.commit(
                work,
                item.folder,
                stage=item.stage.name,
                fingerprint=item.fingerprint,
                inputs={name: finished[name].fingerprint for name in item.stage.inputs},
                metrics=metrics,
            )
        finally:
            artifact.remove(work)
            _add_cost(logs / "cost.json", time.monotonic() - started, joules)
        artifact.remove(scratch)
        return result


def _add_cost(path: Path, seconds: float, joules_before: float | None) -> None:
    """Add an attempt's time and energy to a stage's log."""
    try:
        before = cost(path.parent)
        joules = meter.joules_counted()
        used = joules - joules_before if joules is not None and joules_before is not None else 0.0
        artifact.write_atomically(
            path,
            json.dumps({"seconds": before["seconds"] + seconds, "joules": before["joules"] + max(0.0, used)}),
        )
    except OSError:
        pass  # a log that cannot be written (a full disk) must not hide why the stage ended


def cost(logs: Path) -> dict[str, float]:
    """Seconds and measured joules (0 where there is no meter) of all attempts of a stage."""
    try:
        return json.loads((logs / "cost.json").read_bytes())
    except (OSError, ValueError):
        return {"seconds": 0.0, "joules": 0.0}
