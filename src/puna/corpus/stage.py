"""The corpus' two stages: fetch finds raw files and their digests; documents cleans and filters their texts.

Light to import: what reads and writes documents is imported by the stage when it runs.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from puna.corpus.engine import Engine
from puna.corpus.record import documents_folder
from puna.corpus.settings import CorpusSettings, SourceSettings
from puna.corpus.sources import fetch as sources
from puna.corpus.sources import listing
from puna.errors import UserError
from puna.run import artifact, machine
from puna.run.artifact import Artifact
from puna.run.digests import cached_digest
from puna.run.settings import ExecutionSettings, not_hashed
from puna.run.stage import Context, Metrics

VERSIONS = {"fetch": 7, "documents": 16}
FOLDER_READERS = ("arxiv", "code", "none")  # for them a folder is one paper, one package, one row
MERGE_BYTES, WORKER_BYTES = 300_000_000, 250_000_000  # of memory: the process that merges, and each worker


class FetchSettings(BaseModel):
    """Where raw files come from. What a fingerprint covers is their content instead: `fetch_content`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[SourceSettings, ...] = not_hashed()
    on_damaged_file: Literal["stop", "skip"] = not_hashed()
    root: Path = not_hashed()


def fetch_content(settings: FetchSettings) -> dict[str, str]:
    """Return a digest of what each source is read from: of remote files the one in their address is taken.

    Raises UserError where a local file does not exist or cannot be read.
    """
    digests: dict[str, str] = {}
    skip = settings.on_damaged_file == "skip"
    for source in settings.sources:
        entries = hashlib.sha256()
        for address in sources.parse_all(source.uris):
            members = {"members": address.members} if address.members else {}
            if address.kind != "local":
                entries.update(_line({"uri": address.uri.partition("!")[0], **members}))
                continue
            files = sources.local_files(source.name, address, settings.root, skip)
            _refuse_folders(source, files)
            for file in files:
                entries.update(_line({"name": file.name, "digest": file.digest, **members}))
        digests[source.name] = entries.hexdigest()
    return digests


def _refuse_folders(source: SourceSettings, files: list[sources.RawFile]) -> None:
    folders = [file.name for file in files if file.path.is_dir()]
    if folders and source.reader not in FOLDER_READERS:
        raise UserError(
            f"source {source.name}: {folders[0]} is a folder, and the reader {source.reader} takes files; "
            f"write {folders[0]}/*"
        )


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def fetch(settings: FetchSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Download remote files, unpack what is named inside archives, and list every raw file with its digest.

    The lists are `<source>.jsonl`. Downloaded and unpacked files lie beside them; local ones stay where they
    are.
    """
    counts: Metrics = {}
    total, done = sum(len(source.uris) for source in settings.sources), 0
    for source in settings.sources:
        count = counts[source.name] = {"files": 0, "bytes": 0}
        with listing.path_of(context.work, source.name).open("wb") as listed:
            for address in sources.parse_all(source.uris):
                context.reporter.progress(source.name, done, total)
                for file in _resolve(source.name, address, settings, context):
                    listing.write(listed, context.work, file)
                    count["files"] += 1
                    count["bytes"] += file.bytes
                done += max(1, len(address.members))
    return counts


def _resolve(
    source: str, address: sources.Address, settings: FetchSettings, context: Context
) -> list[sources.RawFile]:
    """Raw files that an address names, downloaded and unpacked."""
    skip, folder = settings.on_damaged_file == "skip", context.work / source
    if address.kind != "local":
        return sources.fetch(source, address, folder, _downloads(address, context), skip)
    files = sources.local_files(source, address, settings.root, skip)
    if not address.members:
        return files
    unpacked: list[sources.RawFile] = []
    for file in files:
        unpacked += [file] if file.unreadable else sources.unpack(file, address.members, folder, skip)
    return unpacked


def _downloads(address: sources.Address, context: Context) -> Path:
    """Folder of earlier downloads: to find the address' digest, where it was, or by this stage."""
    earlier = context.scratch.parent / sources.DOWNLOADS
    return earlier if (earlier / address.sha256).is_file() else context.scratch


class DocumentsSettings(BaseModel):
    """What documents are made by, beside the raw files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: CorpusSettings
    root: Path = not_hashed()


def documents_content(settings: DocumentsSettings) -> dict[str, Any]:
    """Digests of the files that the settings name, and of the earlier run that documents are compared with.

    Raises UserError where one of them does not exist, and where that run compared documents otherwise.
    """
    corpus, root = settings.corpus, settings.root
    files = {}
    for path in filter(None, (*corpus.opt_out.paths(), corpus.bad_words)):
        if not (root / path).is_file():
            key = "bad_words" if path == corpus.bad_words else "opt_out"
            raise UserError(f"corpus.{key}: no file at {root / path}; paths start from corpus.root")
        files[path] = cached_digest(root / path)
    return {"files": files, "known": _digest_of_earlier_run(corpus, root)}


def _digest_of_earlier_run(corpus: CorpusSettings, root: Path) -> str:
    if not corpus.deduplicate_against:
        return ""
    try:
        earlier = artifact.load(documents_folder(root / corpus.deduplicate_against))
    except UserError as error:
        raise UserError(f"corpus.deduplicate_against: {error}; paths start from corpus.root") from error
    index = earlier.path("near/index.json")
    threshold = json.loads(index.read_bytes())["threshold"] if index.is_file() else 1
    if threshold != corpus.near_duplicate_threshold:
        raise UserError(
            f"corpus.deduplicate_against: {corpus.deduplicate_against} was made with "
            f"near_duplicate_threshold = {threshold}; set it to that here, too"
        )
    return earlier.digest


def documents(settings: DocumentsSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Turn raw files into clean documents, one Parquet file a source, and a list of what was dropped.

    Raises UserError where that may take more memory than there is, for a damaged file under the policy
    "stop", and where no document is left.
    """
    from puna.corpus import pipeline

    corpus, execution = settings.corpus, context.execution
    _check_memory(memory_bytes(corpus, execution), context)
    fetched = inputs["fetch"].folder
    files = {source.name: listing.read(fetched, source.name, settings.root) for source in corpus.sources}
    return pipeline.documents(
        corpus,
        files,
        scratch=context.scratch,
        out=context.work,
        root=settings.root,
        execution=execution,
        progress=context.reporter.progress,
    )


def memory_bytes(corpus: CorpusSettings, execution: ExecutionSettings) -> int:
    """Most memory that all processes together take, but for quality models and single huge records.

    Lines seen under ccnet are forgotten before sentences under c4 are remembered. Beyond a few million
    documents 16 bytes come to that for each, and 10 kB for each book.
    """
    remembers = any(source.ccnet != "off" or source.c4 for source in corpus.sources)
    lines = corpus.remembered_bytes if remembers else 0
    return MERGE_BYTES + WORKER_BYTES * Engine(execution.workers, execution.ray).processes + lines


def _check_memory(needed: int, context: Context) -> None:
    free, limit = machine.available_bytes(), context.execution.memory_bytes
    context.reporter.note(f"at most {needed / 1e6:,.0f} MB of memory, of {free / 1e6:,.0f} MB free")
    room = min(limit or free, free)
    if needed > room:
        raise UserError(
            f"the corpus may take {needed / 1e6:,.0f} MB of memory and may use {room / 1e6:,.0f} MB (what is "
            "free, or execution.memory_bytes where that is less): lower execution.workers or "
            "corpus.remembered_lines"
        )
