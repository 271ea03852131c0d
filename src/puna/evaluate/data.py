"""Rows of tasks: from files of a folder, or from the hub at a pinned revision; digests enforced.

A row has its publisher's own field names. The SHA-256 of a file is recorded when it is first used, in
`evaluation-data.sha256` of the user's cache, and a file that is another one later is refused.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from puna.errors import UserError
from puna.run.compiled import cache
from puna.run.digests import cached_digest

RECORD = "evaluation-data.sha256"


class Part(NamedTuple):
    """Files of a task. names: under which a folder may have it, or patterns such as `test/*.csv`, in a folder
    or in its subfolder of the task's name; the first that is there is taken. hub: owner/name@revision:path,
    for tasks whose revision is known. columns: of CSV files without a line of names. needed: whether
    there is no task without it."""

    names: tuple[str, ...]
    hub: str = ""
    columns: tuple[str, ...] = ()
    needed: bool = True


class Row(dict[str, Any]):
    """A row by field names. number: from 0; origin: its file, and `stem` the file's name without suffix."""

    number: int
    origin: Path

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"{self.origin}, row {self.number + 1}: no field {name!r}; it has {', '.join(map(str, self))}"
        )

    def choices(self) -> tuple[list[str], int]:
        """(options, number of the right one), in any form in which publishers have them: texts with a number
        `label`, texts beside labels, or pairs of both, with an `answerKey`."""
        question = self.get("question")
        holder = question if isinstance(question, Mapping) else self
        choices = holder["choices"]
        if isinstance(choices, Mapping):
            texts, labels = list(choices["text"]), list(choices["label"])
        elif choices and isinstance(choices[0], Mapping):
            texts, labels = [each["text"] for each in choices], [each["label"] for each in choices]
        else:
            return list(choices), int(self["answer"] if "answer" in self else self["label"])
        return texts, labels.index(str(self["answerKey"]).strip())


class Data:
    """The files of one task. folder: where they are; None, or a folder without them: from the hub."""

    def __init__(self, task: str, parts: Mapping[str, Part], folder: Path | None) -> None:
        self.task, self.parts, self.folder = task, parts, folder

    def rows(self, part: str = "items") -> Iterator[Row]:
        """Yield the rows of a part. Raises UserError where a file is missing, damaged, or not the one that
        was first used."""
        number = 0
        for path in self.files(part):
            _enforce_digest(path)
            try:
                for fields in _read(path, self.parts[part].columns):
                    row = Row(fields)
                    row.number, row.origin = number, path
                    number += 1
                    yield row
            except (ValueError, csv.Error, EOFError, gzip.BadGzipFile) as error:
                raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error

    def files(self, part: str) -> list[Path]:
        """Return the files of a part, in order; none where it is not needed and not there."""
        wanted = self.parts[part]
        for base in (self.folder / self.task, self.folder) if self.folder else ():
            for name in wanted.names:
                if found := sorted(base.glob(name)):
                    return found
        if self.folder is None and wanted.hub and (path := _download(wanted.hub)):
            return [path]
        if not wanted.needed:
            return []
        network = f", or install huggingface_hub for {wanted.hub}" if wanted.hub and not self.folder else ""
        where = self.folder or "the folder that --data names"
        raise UserError(f"{self.task} needs {' or '.join(wanted.names)} in {where}{network}")


def _download(hub: str) -> Path | None:
    """The local copy of a file of the hub at its revision; None where huggingface_hub is not installed."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        return None
    name, _, rest = hub.partition("@")
    revision, _, path = rest.partition(":")
    try:
        return Path(hf_hub_download(name, path, repo_type="dataset", revision=revision))
    except Exception as error:  # whatever its network library raises
        raise UserError(f"cannot fetch {hub}: {error}; or name a folder that has it with --data") from error


def _read(path: Path, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Rows of .jsonl, .csv, .tsv (each also .gz), .json and .txt with one JSON object, .lst, .parquet."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        yield from parquet.read_table(path).to_pylist()
        return
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = content.decode("utf-8-sig")
    if plain.suffix in (".csv", ".tsv"):
        lines = io.StringIO(text, newline="")
        yield from csv.DictReader(lines, columns or None, delimiter="," if plain.suffix == ".csv" else "\t")
    elif plain.suffix == ".lst":
        yield from ({"label": line} for line in text.splitlines())
    elif plain.suffix in (".json", ".txt"):
        content = json.loads(text)
        yield from content if isinstance(content, list) else [content]
    else:
        yield from (json.loads(line) for line in text.split("\n") if line.strip())


def _enforce_digest(path: Path) -> None:
    """Record a file's digest at its first use; raise UserError where it is not that of its first use."""
    record, name, digest = cache() / RECORD, str(path.absolute()), cached_digest(path)
    lines = record.read_text(encoding="utf-8").split("\n") if record.is_file() else []
    known = {line[66:]: line[:64] for line in reversed(lines)}
    if known.get(name, digest) != digest:
        raise UserError(
            f"{path} has changed since it was first used: SHA-256 {digest}, then {known[name]}; scores would "
            f"not be comparable. Put the old file back, or remove its line from {record}"
        )
    if name not in known:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("a", encoding="utf-8") as file:  # by several runs at once, a line each
            file.write(f"{digest}  {name}\n")
