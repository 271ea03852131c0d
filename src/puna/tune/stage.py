"""The stages of a tuning recipe beside *rows* and *replay*: those that train, and what asks their result."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from puna.run.artifact import Artifact
from puna.run.settings import not_hashed
from puna.run.stage import Context, Metrics
from puna.tune import finish, replay
from puna.tune.settings import IF_SET, SupervisedSettings

__all__ = ["finish", "replay"]  # whose code stands under the versions, too

VERSIONS = {"replay": 1, "rows": 2, "supervised": 4, "probe": 1, "passages": 1, "exports": 1}


class SupervisedStageSettings(BaseModel):
    """What tuned weights depend on.

    base: where the weights that are tuned lie, an input's folder or a place whose content is hashed beside.
    weights: of each set that is trained on, by its name; replay: (name of the set, its share). selected:
    validations an epoch, where they decide which weights are kept. kernels: which code computes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    base: Path | None = not_hashed()
    stage: SupervisedSettings
    max_tokens: int
    weights: dict[str, float]
    replay: tuple[str, float] | None
    selected: int | None = Field(None, json_schema_extra=IF_SET)
    kernels: str


def supervised(
    settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], context: Context
) -> Metrics:
    """See `tune.supervised.tune`, with libraries that take seconds to load."""
    from puna.tune import supervised as work

    return work.tune(settings, inputs, context)


def probed(settings: finish.ProbeStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Ask the base and the tuned model the same: what was learned and forgotten, and what to know of it.

    {"skipped": why} where one of them reads too little for the questions.
    """
    from puna.tune import probe

    found = finish.both("what was learned and forgotten", probe.probe, settings.base, inputs, context)
    told = probe.warnings(found["before"], found["after"]) if "after" in found else []
    for text in told:
        context.reporter.note(text)
    return {**found, "warnings": told}
