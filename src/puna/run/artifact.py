"""A directory that knows what it is: what made it, from what, and the digest of every file in it.

An artifact is written in a work folder and appears under its final name by one atomic rename, so a folder
with an `artifact.json` is always whole. `artifact.json` holds nothing that differs between two runs of the
same recipe: no times, no absolute paths.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from puna.errors import UserError
from puna.run.digests import cached_digest, file_digest, remember
from puna.run.files import sync, write_atomically
from puna.run.settings import HASHED

MANIFEST = "artifact.json"
TOLD = ("stage", "fingerprint", "inputs", "files", "metrics")  # what it says of an artifact, beside settings
CURRENT = "stages.json"  # in a run's folder: stage name -> folder of its artifact


def canonical(value: Any) -> Any:
    """`value` as plain JSON types in a fixed form. Raises TypeError for what cannot be hashed by its content
    (never guesses)."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in _hashed_fields(type(value))}
        return {
            name: canonical(item) for name, item in fields.items() if item is not None or _always(value, name)
        }
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot fingerprint a {type(value).__name__}: {value!r}")


def _hashed_fields(model: type[BaseModel]) -> list[str]:
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return [name for name, extra in extras.items() if not isinstance(extra, dict) or extra.get(HASHED, True)]


def _always(value: BaseModel, name: str) -> bool:
    """Whether a field is hashed where it is None, too: all but those that came later, marked "if set"."""
    extra = type(value).model_fields[name].json_schema_extra
    return not isinstance(extra, dict) or extra.get(HASHED) != "if set"


def fingerprint(value: Any) -> str:
    """First 12 hex digits of the SHA-256 of `value`'s canonical JSON: equal settings have equal fingerprints
    on every machine."""
    text = json.dumps(canonical(value), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    inputs: fingerprints of what it was made from. settings: those that made it, as they were hashed. files:
    path inside the folder -> {"bytes": int, "sha256": hex}. digest: of everything above it.
    """

    folder: Path
    stage: str
    fingerprint: str
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    metrics: dict[str, Any] = field(default_factory=dict)
    settings: Any = None
    digest: str = ""

    def path(self, name: str) -> Path:
        return self.folder / name

    def remember(self) -> None:
        """Record the digests of its files, which were taken a moment ago, so that the next run reads none."""
        for name, entry in self.files.items():
            remember(self.folder / name, entry["sha256"])

    @property
    def bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.files.values())

    def manifest(self) -> dict[str, Any]:
        body = {name: getattr(self, name) for name in TOLD}
        body |= {} if self.settings is None else {"settings": self.settings}
        return {**body, "digest": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}

    def verify(self, read: bool = True) -> None:
        """Digest every file again. Raises UserError naming the first that is missing, changed or unknown.

        read: also those that, by size, time and inode, have not changed since they were last digested.
        """
        digest_of = file_digest if read else cached_digest
        damaged = f"artifact {self.folder} is damaged"
        remedy = f"remove the folder {self.folder} and run again to rebuild it"
        for name, entry in self.files.items():
            path = self.folder / name
            if not path.is_file():
                raise UserError(f"{damaged}: {name} is missing; {remedy}")
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise UserError(f"{damaged}: {name} has {size} bytes instead of {entry['bytes']}; {remedy}")
            if digest_of(path) != entry["sha256"]:
                raise UserError(f"{damaged}: the content of {name} does not match its digest; {remedy}")
        known = {*self.files, MANIFEST}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in known:
                raise UserError(f"artifact {self.folder} holds a file it does not know: {name}; {remedy}")


def load(folder: Path) -> Artifact:
    """Read a finished artifact's manifest (files are checked by `Artifact.verify`). Raises UserError when it
    is absent or damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} is not an artifact: it has no {MANIFEST}")
    damaged, remedy = f"artifact {folder} is damaged: {MANIFEST}", "remove the folder and run again"
    try:
        manifest = json.loads(path.read_bytes())
        told = {key: manifest[key] for key in (*TOLD, "digest")}
        artifact = Artifact(folder, settings=manifest.get("settings"), **told)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{damaged} cannot be read ({error}); {remedy}") from error
    if artifact.manifest()["digest"] != artifact.digest:
        raise UserError(f"{damaged} does not match its own digest; {remedy}")
    return artifact


def commit(
    work: Path,
    folder: Path,
    *,
    stage: str,
    fingerprint: str,
    inputs: dict[str, str],
    metrics: dict[str, Any],
    settings: Any = None,
) -> Artifact:
    """Turn the files under `work` into the artifact `folder`: digests, fsync, one rename. All or nothing."""
    files = {}
    for path in sorted(work.rglob("*")):
        if path.is_file() and path != work / MANIFEST:
            sync(path)
            described = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            files[path.relative_to(work).as_posix()] = described
    artifact = Artifact(folder, stage, fingerprint, inputs, files, canonical(metrics), canonical(settings))
    manifest = artifact.manifest()
    write_atomically(work / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    for child in [path for path in work.rglob("*") if path.is_dir()]:
        sync(child)
    sync(work)
    if folder.exists() and not (folder / MANIFEST).exists():  # what an interrupted removal left
        remove(folder)
    os.replace(work, folder)
    sync(folder.parent)
    return load(folder)


def remove(folder: Path) -> None:
    """Remove a folder so that a kill half-way never leaves something that looks finished: the manifest goes
    first."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def set_current(run: Path, stage: str, folder: Path) -> None:
    """Record the artifact of a stage that the last run in a folder made or found."""
    path = run / CURRENT
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        known = {}
    if known.get(stage) != folder.name:
        write_atomically(path, json.dumps({**known, stage: folder.name}, indent=1) + "\n")


def current(run: Path, stage: str) -> Path:
    """The folder of a stage's artifact of the last run in a run's folder.

    Raises UserError where there is none, and where it is not known which of several it is.
    """
    try:
        return run / json.loads((run / CURRENT).read_bytes())[stage]
    except (OSError, ValueError, KeyError, TypeError):
        found = sorted(path.parent for path in run.glob(f"{stage}-*/{MANIFEST}"))
    if not found:
        raise UserError(f"{run.absolute()} holds no {stage}: name a run's folder, such as out/first")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{run.absolute()} holds several {stage}: name one of {names}")
    return found[0]
