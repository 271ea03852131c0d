"""A stage: one arrow of the way of the data, from its own typed settings and finished inputs to files.

A stage never sees the recipe. What its function can read is what its fingerprint covers: its settings, the
content of the files that these name, and its inputs. How the work is done (`ExecutionSettings`) comes with
the context, changes no result beyond rounding, and is recorded beside the artifact.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from puna.run.artifact import Artifact
from puna.run.processes import ALONE, Processes
from puna.run.settings import DEFAULT_CLUSTER, ClusterSettings, ExecutionSettings

Settings = TypeVar("Settings")
Metrics = dict[str, Any]


class Reporter(Protocol):
    """What a build tells the person who watches it."""

    def stage(self, name: str, state: str, detail: str = "") -> None:
        """A stage starts ("start"), exists already ("reuse") or has finished ("done")."""

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` parts of `what` are finished."""

    def note(self, text: str) -> None:
        """One line about what is about to happen."""

    def event(self, event: Any) -> None:
        """An event of the training loop (see train.trainer.Event)."""


@dataclass(frozen=True)
class Context:
    """What a stage's function is given beside its settings and inputs.

    work: the folder that becomes the artifact. scratch: finished parts that a next attempt finds again.
    shared: a folder of all stages of this name in the run, whatever their settings; it stays when they are
    done. logs: for what differs between equal runs. should_stop: whether a stop was asked for. pausable: a
    block in which a stop is asked for, not forced. processes: of this run; cluster: how they share the work.
    """

    execution: ExecutionSettings
    work: Path
    scratch: Path
    shared: Path
    logs: Path
    reporter: Reporter
    should_stop: Callable[[], bool] = lambda: False
    pausable: Callable[[], AbstractContextManager[None]] = nullcontext
    processes: Processes = ALONE
    cluster: ClusterSettings = DEFAULT_CLUSTER


@dataclass(frozen=True)
class Stage(Generic[Settings]):
    """One stage of a run.

    name: of its artifact; stages of one kind may have names of their own and be repeated. kind: which stage
    it is, and version: of its code; raise it when a change of code changes the result. settings: everything
    of the recipe that the result depends on (a pydantic model; fields marked `not_hashed` are left out of the
    fingerprint). function(settings, inputs, context): fills `context.work` and returns the metrics that go
    into the artifact. inputs: for each name that the function knows an input by, the name of a stage of the
    same run, or the folder of a finished artifact, which may be another recipe's. content: digests of the
    files that the settings name, taken when a run is planned. together: whether all processes of a run call
    the function; the first one fills `context.work`.
    """

    name: str
    kind: str
    version: int
    settings: Settings
    function: Callable[[Settings, Mapping[str, Artifact], Context], Metrics]
    inputs: Mapping[str, str | Path] = field(default_factory=dict)
    content: Callable[[], Any] = lambda: None
    together: bool = False
