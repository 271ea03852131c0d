"""The stages of a run: makes what is missing, skips what exists.

A stage's fingerprint hashes its own settings, its code's version number, the content of files that its
settings name, and the fingerprints of its inputs. Its artifact is `<out>/<recipe>/<stage>-<fingerprint>/`, so
running a recipe again does nothing, and changing one setting redoes what depends on it. What differs between
two equal runs (times, speeds, the report) lies beside the artifacts, never in them.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.run import artifact, files
from puna.run.artifact import Artifact
from puna.run.meter import Meter
from puna.run.processes import ALONE, Processes
from puna.run.settings import DEFAULT_CLUSTER, DEFAULT_EXECUTION, ClusterSettings, ExecutionSettings
from puna.run.stage import Context, Reporter, Stage

ATTEMPT_SECONDS = 5.0  # between two entries of what an attempt has cost: a kill loses so much at most


@dataclass(frozen=True)
class Planned:
    """A stage with its fingerprint, those of its inputs, and the folder its artifact has or will have."""

    stage: Stage[Any]
    fingerprint: str
    inputs: Mapping[str, str]
    folder: Path

    @property
    def done(self) -> bool:
        return (self.folder / artifact.MANIFEST).is_file()


@dataclass(frozen=True)
class Build:
    """The stages of one run, in an order in which each comes after its inputs, with their output folder."""

    folder: Path
    stages: Sequence[Stage[Any]]
    execution: ExecutionSettings = DEFAULT_EXECUTION
    should_stop: Callable[[], bool] = lambda: False
    pausable: Callable[[], AbstractContextManager[None]] = nullcontext
    processes: Processes = ALONE
    cluster: ClusterSettings = DEFAULT_CLUSTER
    _planned: list[Planned] = field(default_factory=list)

    def plan(self) -> list[Planned]:
        """Every stage in order, with its fingerprint. Raises UserError when files or inputs are not there."""
        if not self._planned:
            known: dict[str, str] = {}
            for stage in self.stages:
                inputs = {role: _fingerprint_of(source, known) for role, source in stage.inputs.items()}
                told = {"stage": stage.kind, "version": stage.version, "settings": stage.settings}
                told |= {"content": stage.content(), "inputs": inputs}
                known[stage.name] = artifact.fingerprint(told)
                folder = self.folder / f"{stage.name}-{known[stage.name]}"
                self._planned.append(Planned(stage, known[stage.name], inputs, folder))
        return self._planned

    def run(self, reporter: Reporter) -> dict[str, Artifact]:
        """Make every artifact that is missing; all of them by stage name.

        Of several processes the first one does so, and the others help with the stages that all make
        together: they get {}. Raises UserError for what a person can put right, Stopped where a stage was
        asked to stop.
        """
        if self.processes.rank:
            return self._help(reporter)
        planned = self.plan()
        finished: dict[str, Artifact] = {}
        complete = all(item.done for item in planned)
        with nullcontext() if complete else files.locked(self.folder):
            for item in planned:
                name = item.stage.name
                if item.done:
                    finished[name] = artifact.load(item.folder)
                    finished[name].verify(read=False)
                    reporter.stage(name, "reuse", item.fingerprint)
                    if item.stage.together:
                        self.processes.tell({"stage": name, "done": True})
                else:
                    reporter.stage(name, "start", item.fingerprint)
                    finished[name] = self._make(item, finished, reporter)
                    reporter.stage(name, "done", item.fingerprint)
                artifact.set_current(self.folder, name, item.folder)
        return finished

    def _help(self, reporter: Reporter) -> dict[str, Artifact]:
        """What the processes other than the first do: wait, and call the functions of some stages with it.

        Raises UserError where the first one has another recipe.
        """
        processes = self.processes
        for stage in (stage for stage in self.stages if stage.together):
            if processes.local_rank == (processes.rank == processes.local_rank):  # once a machine
                reporter.note(
                    f"process {processes.rank} of {processes.world} waits for process 0, which makes what "
                    f"stage {stage.name} needs"
                )
            told = processes.hear()
            if told["stage"] != stage.name or told.get("settings", "") not in ("", _settings_of(stage)):
                raise UserError("the recipe here is not that of process 0: it was changed in between")
            if told.get("done"):
                continue
            inputs = {role: artifact.load(Path(folder)) for role, folder in told["inputs"].items()}
            folders = [Path(folder) for folder in told["folders"]]
            stage.function(stage.settings, inputs, self._context(folders, Silent()))
        return {}

    def _context(self, folders: Sequence[Path], reporter: Reporter) -> Context:
        """folders: for the artifact, scratch, what is shared, logs."""
        work, scratch, shared, logs = folders
        how = (self.should_stop, self.pausable, self.processes, self.cluster)
        return Context(self.execution, work, scratch, shared, logs, reporter, *how)

    def _make(self, item: Planned, finished: Mapping[str, Artifact], reporter: Reporter) -> Artifact:
        stage = item.stage
        kinds = (".work", ".scratch", "logs")
        work, scratch, logs = (self.folder / kind / item.folder.name for kind in kinds)
        folders = (work, scratch, self.folder / ".shared" / stage.name, logs)
        artifact.remove(work)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        inputs = {
            role: finished[source] if isinstance(source, str) else artifact.load(source)
            for role, source in stage.inputs.items()
        }
        if stage.together:
            told: dict[str, Any] = {"stage": stage.name, "settings": _settings_of(stage)}
            told["inputs"] = {role: str(made.folder.absolute()) for role, made in inputs.items()}
            told["folders"] = [str(folder.absolute()) for folder in folders]
            self.processes.tell(told)
        try:
            with _attempt(logs / "attempts", self.execution):
                metrics = stage.function(stage.settings, inputs, self._context(folders, reporter))
                result = artifact.commit(
                    work,
                    item.folder,
                    stage=stage.kind,
                    fingerprint=item.fingerprint,
                    inputs=dict(item.inputs),
                    metrics=metrics,
                    settings=stage.settings,
                )
        finally:
            artifact.remove(work)
        artifact.remove(scratch)
        result.remember()  # now, since files may have had a second name in scratch
        return result


class Silent:
    """A reporter that tells nobody."""

    def stage(self, name: str, state: str, detail: str = "") -> None: ...
    def progress(self, what: str, done: int, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def event(self, event: Any) -> None: ...


def _settings_of(stage: Stage[Any]) -> str:
    return artifact.fingerprint({"version": stage.version, "settings": stage.settings})


def _fingerprint_of(source: str | Path, known: Mapping[str, str]) -> str:
    return known[source] if isinstance(source, str) else artifact.load(source).fingerprint


@contextlib.contextmanager
def _attempt(folder: Path, execution: ExecutionSettings) -> Iterator[None]:
    """Keep account of one attempt at a stage while the block runs: how it is executed, and its time and
    energy so far, every few seconds, since a killed process cannot tell them any more."""
    folder.mkdir(exist_ok=True)
    path, meter, started = folder / f"{time.time_ns()}.json", Meter(), time.monotonic()
    ended = threading.Event()

    def record() -> None:
        spent = {"seconds": time.monotonic() - started, "joules": meter.joules()}
        account = json.dumps({**spent, "execution": execution.model_dump()})
        with contextlib.suppress(OSError):  # a full disk must not hide why the stage ends
            files.write_atomically(path, account + "\n")

    def keep_recording() -> None:
        while not ended.wait(ATTEMPT_SECONDS):
            record()

    thread = threading.Thread(target=keep_recording, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        record()


def cost(logs: Path) -> dict[str, float | None]:
    """Seconds and joules of all attempts at a stage; joules are None where not every attempt was metered."""
    accounts = []
    for path in sorted((logs / "attempts").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            account = json.loads(path.read_bytes())
            accounts.append((float(account["seconds"]), account["joules"]))
    joules = [measured for _, measured in accounts]
    metered = bool(accounts) and None not in joules
    return {"seconds": sum(seconds for seconds, _ in accounts), "joules": sum(joules) if metered else None}
