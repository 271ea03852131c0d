"""Passes over one group of raw files: the steps between two points at which all groups are looked at.

Each pass reads the file of the one before and leaves one of its own, so a run that was stopped goes on at the
first group that lacks it.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.corpus import extract
from puna.corpus.dedup import near
from puna.corpus.groups import Group
from puna.corpus.record import DAMAGED, Record, record_schema, score_schema
from puna.corpus.settings import CorpusSettings
from puna.corpus.steps import Step, cleaning, filtering, run, scoring
from puna.corpus.tables import (
    BATCH_CHARACTERS,
    batches,
    characters_of,
    count_rows,
    read_records,
    rows_of,
    writing_array,
    writing_table,
)
from puna.errors import UserError


def read(group: Group) -> None:
    """Raw files -> clean texts and hashes of their lines; filtered at once where lines are not compared."""
    source, settings = group.source, group.settings
    records = extract.records(group.files, source, settings, group.root)
    steps = cleaning(source, settings)
    if source.ccnet == "off":
        _filter(group, records, [*steps, *filtering(source, settings, group.root)])
        return
    with (
        writing_table(group.path("read"), record_schema(), "lz4") as writer,
        writing_array(group.path("lines")) as hashes,
    ):
        hashes.add(np.zeros(0, np.uint64))
        for batch in _batches(records):
            run(steps, batch)
            for record in batch:
                writer.add(record)
                if not record.reason:
                    hashes.add(record.line_hashes)


def filter(group: Group) -> None:
    """Clean texts, and which of their lines stay -> documents."""
    _filter(group, _with_kept_lines(group), filtering(group.source, group.settings, group.root))


def _with_kept_lines(group: Group) -> Iterator[Record]:
    keep = np.load(group.path("keep"), allow_pickle=False)
    start = 0
    for record in read_records(group.path("read")):
        if not record.reason:
            end = start + record.text.count("\n") + 1
            record.kept_lines, start = keep[start:end], end
        yield record


def _filter(group: Group, records: Iterable[Record], steps: list[Step]) -> None:
    """Write what comes through the steps, and the signatures. Signatures have their name first."""
    with contextlib.ExitStack() as opened:
        writer = opened.enter_context(writing_table(group.path("filtered"), record_schema(), "lz4"))
        signatures = None
        if group.settings.uses_minhash:
            signatures = opened.enter_context(writing_array(group.path("minhash")))
            signatures.add(near.signatures([]))
        for batch in _batches(records):
            run(steps, batch)
            for record in batch:
                writer.add(record)
                if signatures and not record.reason:
                    signatures.add(record.signature[None])


def score(group: Group) -> None:
    """Documents -> the scores that their source asks for; those of dropped records are null."""
    steps = scoring(group.source, group.folder)
    with writing_table(group.path("scores"), score_schema(), "lz4") as writer:
        for batch in _batches(read_records(group.path("filtered"))):
            run(steps, batch)
            for record in batch:
                writer.add(record)


def documents(groups: Iterable[Group], done: int = 0) -> Iterator[list[Record]]:
    """What the passes left of all groups: records with scores and signatures, about a megabyte at a time.

    done: so many records are left out; groups that have no more are not read.
    """
    return _batches(_documents_after(groups, done))


def _documents_after(groups: Iterable[Group], done: int) -> Iterator[Record]:
    for group in groups:
        count = count_rows(group.path("filtered")) if done else 0
        if done < count or not done:
            yield from itertools.islice(_documents(group), done, None)
        done = max(0, done - count)


def _documents(group: Group) -> Iterator[Record]:
    signatures = scores = None
    if group.settings.uses_minhash:
        signatures = iter(np.asarray(np.load(group.path("minhash"), mmap_mode="r", allow_pickle=False)))
    if group.path("scores").exists():
        scores = rows_of(group.path("scores"))
    for record in read_records(group.path("filtered")):
        if scores is not None:
            score = next(scores)
            record.perplexity, record.reference_score = score["perplexity"], score["reference_score"]
        if signatures is not None and not record.reason:
            record.signature = next(signatures)
        yield record


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Take records in order, about a megabyte of text at a time."""
    return batches(records, characters_of, BATCH_CHARACTERS)


@dataclass(frozen=True)
class Pass:
    """A function of a group, and which file it leaves last."""

    function: Callable[[Group], None]
    leaves: Callable[[Group], Path]


READ = Pass(read, lambda group: group.path("filtered" if group.source.ccnet == "off" else "read"))
FILTER = Pass(filter, lambda group: group.path("filtered"))
SCORE = Pass(score, lambda group: group.path("scores"))


def stop_if_damaged(settings: CorpusSettings, groups: list[Group]) -> None:
    """Under the policy "stop", raise UserError for the first group with a damaged file."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if settings.on_damaged_file == "skip":
        return
    for group in groups:
        path = READ.leaves(group)
        table = pq.read_table(path, columns=["file", "reason", "detail"])
        if damaged := table.filter(pc.equal(table["reason"], DAMAGED)).to_pylist():
            path.unlink()  # to be read again once it is mended
            files = "\n  ".join(f"{row['file']}: {row['detail']}" for row in damaged)
            raise UserError(
                f"source {group.source.name}: {files}\n"
                "mend or remove the file, or set corpus.on_damaged_file to skip"
            )
