"""What follows a tuning: questions about passages of one's own documents, and the model for other programs.

The stages *passages* and *exports* of a recipe that asks for them.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from puna.errors import UserError
from puna.model.weights import content as weights
from puna.run.artifact import Artifact
from puna.run.digests import cached_digest
from puna.run.settings import not_hashed
from puna.run.stage import Context, Metrics
from puna.tune.encode import base_path


class ProbeStageSettings(BaseModel):
    """What a probe depends on beside the tuned model; the base's content is hashed beside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path | None = not_hashed()


class PassagesStageSettings(ProbeStageSettings):
    """What answers about passages depend on. held_out: a file, a JSON list of {question, text}, whose content
    is hashed beside."""

    held_out: Path = not_hashed()


class ExportsStageSettings(BaseModel):
    """gguf: number format of its weights; merged: of those of the folder for transformers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gguf: str = "Q8_0"
    merged: str = "BF16"


def content(settings: PassagesStageSettings) -> dict[str, Any]:
    """Digests of the questions and of the base, where it is no input. Raises UserError for a file that holds
    no questions, before anything is trained."""
    _questions(settings.held_out)
    return {"held_out": cached_digest(settings.held_out), **weights.content(settings.base)}


def _questions(path: Path) -> list[dict[str, str]]:
    try:
        found = json.loads(path.read_bytes())
        if all(isinstance(each[key], str) for each in found for key in ("question", "text")):
            return list(found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"after.passages: {path} cannot be read as questions: {error}") from error
    raise UserError(f'after.passages: {path} is no list of {{"question": "...", "text": "..."}}')


def passages(settings: PassagesStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Ask base and tuned model about passages that were held out: {before, after, advice}; {"skipped": why}
    where one of them reads too little for a passage and its question."""
    from puna.tune.passages import advice, ask

    held_out = _questions(settings.held_out)
    found = both("passages", partial(ask, held_out=held_out), settings.base, inputs, context)
    return found | ({"advice": advice(found["before"], found["after"])} if "after" in found else {})


def both(
    what: str, ask: Callable[..., Any], base: Path | None, inputs: Mapping[str, Artifact], context: Context
) -> dict[str, Any]:
    """{before, after}: what `ask` is answered by the base and the tuned model, of which one is in memory at a
    time; {"skipped": why} where one of them reads too little for it."""
    from puna.train.trainer import keep_freed_memory
    from puna.tune import probe

    found: dict[str, Any] = {}
    for name, path in (("before", base_path(base, inputs)), ("after", inputs["tuned"].folder)):
        context.reporter.progress("models asked", len(found), 2)
        keep_freed_memory()  # what was trained or asked before is given back
        try:
            found[name] = ask(*probe.loaded(path))
        except UserError as error:
            context.reporter.note(f"not asked about {what}: {error}")
            return {"skipped": str(error)}
    return found


def exports(settings: ExportsStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Write the tuned model as a folder for transformers, `merged`, and as `model.gguf`."""
    from puna.generate import load

    opened = load.open_model(load.open_source(inputs["tuned"].folder))
    for number, (name, form, kind) in enumerate(
        (("merged", "hf", settings.merged), ("model.gguf", "gguf", settings.gguf))
    ):
        context.reporter.progress("exports", number, 2)
        load.save(opened, context.work / name, form, kind)
    return {"merged": settings.merged, "gguf": settings.gguf}
