"""The steps that a group of raw files goes through by itself: read, filter, score.

Each step reads the file of the one before and leaves one of its own, so a run that was stopped goes on at the
first group that lacks it. The order is CCNet's (Wenzek et al. 2020): repeated lines go first, then the
language is identified, then quality is scored. A source that does not ask for line deduplication is filtered
as it is read.
"""

import contextlib
import functools
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.filters import heuristics, language
from puna.corpus.funnel import TAIL, UNLIKE
from puna.corpus.readers import reader
from puna.corpus.record import (
    DAMAGED,
    RawDocument,
    SkippedRecord,
    TruncatedFile,
    digest,
    document_schema,
    row_schema,
)
from puna.corpus.settings import CorpusSettings, OptOutSettings, SourceSettings
from puna.corpus.sources.fetch import RawFile
from puna.corpus.tables import BATCH_CHARACTERS, Array, Writer, batches_of, rows_of, unfinished
from puna.errors import UserError

ASKS_FIRST = ("warc", "wikipedia", "github")  # readers that check opt-outs before they extract a text
CONTROL = bytes(code for code in (*range(32), 127) if chr(code) not in "\n\t")
BLANK_LINES = re.compile(r"\n{3,}")
CCNET_CHARACTERS = 300  # shorter documents are dropped by CCNet before anything else
FILE_BYTES = 4096  # what a raw file counts as at least
CHUNK = 1 << 18  # characters, and the rest of a line, of a text that are cleaned at once
EXCERPT = 500  # characters kept of a dropped document, to check the filter by
SUFFIXES = {  # of a group's files: the list of its raw files, and what each step leaves
    "files": "json",
    "read": "parquet",
    "lines": "npy",
    "keep": "npy",
    "filtered": "parquet",
    "minhash": "npy",
    "scores": "parquet",
}


@dataclass(frozen=True)
class Group:
    """Some raw files of a source, which go through each step together.

    first: how many raw files of the source come before them. folder: where its own files are, and root: what
    paths in the settings start from. key: of its raw files, set by `with_files`.
    """

    source: SourceSettings
    settings: CorpusSettings
    first: int
    folder: Path
    root: Path
    key: str = ""

    @property
    def name(self) -> str:
        """What its files' names begin with: the same only for the same raw files at the same place."""
        return f"{self.source.name}-{self.first:08d}-{self.key}"

    def path(self, kind: str) -> Path:
        """Return the path of one of its files (a key of `SUFFIXES`)."""
        return self.folder / f"{self.name}.{kind}.{SUFFIXES[kind]}"

    @property
    def files(self) -> list[RawFile]:
        """Its raw files, in order. The list is on disk, since a corpus may have millions."""
        return [RawFile(*fields) for fields in json.loads(self.path("files").read_bytes())]

    def with_files(self, files: Iterable[RawFile]) -> "Group":
        """Return the group of these raw files, and write their list.

        Its key comes from their names, digests and sizes, so what an earlier attempt left is found again only
        where it cut the source in the same place, also while processes of that attempt still write.
        """
        listed = [astuple(file) for file in files]
        content = [(name, sha256, size) for _source, name, _location, sha256, size in listed]
        group = replace(self, key=digest(json.dumps(content))[:12])
        part = unfinished(group.path("files"))
        part.write_text(json.dumps(listed))
        os.replace(part, group.path("files"))
        return group


def cut_into_groups(files: Iterable[RawFile], group_bytes: int) -> Iterator[list[RawFile]]:
    """Cut a source's files, in order, into groups of about `group_bytes` raw bytes, at least one file each.

    A tiny file counts as a block of a disk, so that a group has not too many of them.
    """
    group: list[RawFile] = []
    room = group_bytes
    for file in files:
        size = max(file.bytes, FILE_BYTES)
        if group and size > room:
            yield group
            group, room = [], group_bytes
        group.append(file)
        room -= size
    if group:
        yield group


def read(group: Group) -> None:
    """Raw files -> rows of cleaned text; filtered at once, unless line deduplication comes first."""
    if group.source.ccnet == "off":
        with _filtered_rows(group) as filtered:
            for row in _rows(group):
                filtered.add(row)
        return
    from puna.corpus.dedup import lines

    with Writer(group.path("read"), row_schema(), "lz4") as writer, Array(group.path("lines")) as hashes:
        hashes.add(np.zeros(0, np.uint64))
        for row in _rows(group):
            if not row["reason"] and group.source.ccnet == "exact" and len(row["text"]) < CCNET_CHARACTERS:
                row |= {"reason": "too short", "id": digest(row["text"]), "size": len(row["text"].encode())}
            if not row["reason"]:
                hashes.add(lines.line_hashes([row["text"]])[0])
            writer.add(row)


def _rows(group: Group) -> Iterator[dict[str, Any]]:
    for file in group.files:
        yield from _rows_of_file(file, group)


def _rows_of_file(file: RawFile, group: Group) -> Iterator[dict[str, Any]]:
    """One row for every record of a raw file: a cleaned text (reason ""), or the reason why it is none."""
    if file.unreadable:
        yield _row(file, group.source, "", 0, reason=DAMAGED, detail=file.unreadable)
        return
    offset, empty = 0, True
    try:
        for row in _records(file, group):
            offset, empty = row["offset"], False
            yield row
    except TruncatedFile as error:
        yield _row(file, group.source, error.url, error.offset, reason=DAMAGED, detail=str(error))
    except (UserError, OSError, EOFError) as error:
        detail = str(error)
        if isinstance(error, OSError) and error.errno:
            # The system's words without a path, which would differ from machine to machine.
            detail = f"{Path(error.filename or file.path).name}: {error.strerror}"
        yield _row(file, group.source, "", offset, reason=DAMAGED, detail=detail)
    else:
        if empty:
            yield _row(file, group.source, "", 0, reason="nothing in the file")


def _records(file: RawFile, group: Group) -> Iterator[dict[str, Any]]:
    source, settings = group.source, group.settings
    read_file, asks_first = reader(source.reader), source.reader in ASKS_FIRST
    opted_out = _opt_out(settings.opt_out, group.root)
    for record in read_file(file.path, opted_out) if asks_first else read_file(file.path):
        skipped = isinstance(record, SkippedRecord)
        asked = asks_first and not skipped
        if opted_out and not asked and (reason := opted_out(record.url)):
            yield _row(file, source, record.url, record.offset, reason=reason)
        elif skipped:
            in_lines = source.reader in ("lines", "jsonl")
            if record.reason == "not UTF-8" and in_lines and settings.on_damaged_file == "stop":
                raise UserError(f"not UTF-8 text at byte {record.offset}; convert the file to UTF-8")
            yield _row(file, source, record.url, record.offset, reason=record.reason)
        else:
            yield _document(file, source, record, settings)


def _document(
    file: RawFile, source: SourceSettings, record: RawDocument, settings: CorpusSettings
) -> dict[str, Any]:
    text, detail = clean(record.text), ""
    if settings.privacy:
        from puna.corpus.filters.privacy import scrub

        text, counts = scrub(text, settings.privacy)
        detail = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return _row(
        file,
        source,
        clean(record.url),
        record.offset,
        title=clean(record.title),
        licence=clean(record.licence or source.licence),
        raw_digest=record.raw_digest,
        text=text,
        detail=detail,
    )


def _row(file: RawFile, source: SourceSettings, url: str, offset: int, **fields: Any) -> dict[str, Any]:
    empty = {**dict.fromkeys(document_schema().names), "reason": "", "detail": ""}
    return {**empty, "source": source.name, "file": file.name, "url": url, "offset": offset, **fields}


@functools.cache
def _opt_out(settings: OptOutSettings, root: Path) -> Any:
    """Function url -> reason or ""; None where the settings name no opt-outs."""
    if not settings.paths():
        return None
    from puna.corpus.filters.opt_out import OptOut

    named = (settings.patterns, settings.domains, settings.robots)
    patterns, domains, robots = (root / path if path else None for path in named)
    return OptOut(patterns, domains, robots).refuses


def clean(text: str) -> str:
    """Unify line ends, drop control characters but tab, and white space at line ends and both ends."""
    if len(text) <= CHUNK:
        return _clean_lines(text).strip("\n")
    out, at = io.StringIO(), 0
    while at < len(text):
        end = text.find("\n", at + CHUNK) + 1 or len(text)
        out.write(_clean_lines(text[at:end]))
        at = end
    return out.getvalue().strip("\n")


def _clean_lines(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Bytes of control characters are no part of others in UTF-8; lone surrogates cannot be written in it.
    text = text.encode("utf-8", "ignore").translate(None, CONTROL).decode()
    if not text.isascii() or " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t"):
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    return text


def filter(group: Group) -> None:
    """Take the lines that `keep` marks of every text, and filter what is left."""
    from puna.corpus.dedup import lines

    keep = np.load(group.path("keep"), allow_pickle=False)
    at = 0
    with _filtered_rows(group) as filtered:
        for row in rows_of(group.path("read"), row_schema().names):
            if not row["reason"]:
                text = row["text"]
                count = text.count("\n") + 1
                marks = keep[at : at + count]
                at += count
                if not marks.all():
                    row["text"] = lines.keep_lines([text], np.array([0, count]), marks)[0].strip("\n")
                    if group.source.ccnet == "on" and "\n\n\n" in row["text"]:
                        row["text"] = BLANK_LINES.sub("\n\n", row["text"])
                if not row["text"]:
                    row |= {"reason": "only repeated lines", "id": digest(""), "size": 0, "text": text}
            filtered.add(row)


class _FilteredRows:
    """Filters rows and writes them, and MinHash signatures of those that are still in."""

    def __init__(self, group: Group, writer: Writer, signatures: Array | None) -> None:
        self.group, self._writer, self._signatures = group, writer, signatures
        self._texts: list[str] = []
        self._characters = 0

    def add(self, row: dict[str, Any]) -> None:
        if not row["reason"]:
            row |= _filter_text(row["text"], self.group)
            if not row["reason"] and self._signatures:
                self._texts.append(row["text"])
                self._characters += len(row["text"])
                if self._characters > BATCH_CHARACTERS:
                    self.minhash()
        if row["reason"]:
            row["text"] = (row["text"] or "")[:EXCERPT]
        self._writer.add(row)

    def minhash(self) -> None:
        """Write the signatures of the texts that wait for it; of none, they still give the file its width."""
        from puna.corpus.dedup import near

        if self._signatures:
            texts, self._texts, self._characters = self._texts, [], 0
            self._signatures.add(near.signatures(texts))


@contextlib.contextmanager
def _filtered_rows(group: Group) -> Iterator[_FilteredRows]:
    """What filters a group's rows. Its files have their names when the block ends well, signatures first."""
    with contextlib.ExitStack() as opened:
        writer = opened.enter_context(Writer(group.path("filtered"), row_schema(), "lz4"))
        signatures = None
        if group.settings.uses_minhash:
            signatures = opened.enter_context(Array(group.path("minhash")))
        filtered = _FilteredRows(group, writer, signatures)
        yield filtered
        filtered.minhash()


def _filter_text(text: str, group: Group) -> dict[str, Any]:
    """Fields of a text after the filters: figures, language, and the reason it is dropped for, or ""."""
    source, settings = group.source, group.settings
    languages = settings.languages if source.languages is None else source.languages
    c4_reason = ""
    if source.c4:
        from puna.corpus.filters.c4 import c4_clean

        bad_words = _bad_words(group.root / settings.bad_words) if settings.bad_words else None
        cleaned, c4_reason = c4_clean(text, bad_words, every_script=languages != ("en",))
        text = text if c4_reason else cleaned
    fields = text_fields(text, settings)
    fields["reason"] = c4_reason or fields["reason"]
    if fields["reason"]:
        return {**fields, "language": "", "language_score": 0.0}
    label, score = language.identify(text, glue_lines=source.ccnet == "exact")
    fields |= {"language": label, "language_score": score}
    if languages and (label not in languages or score < settings.language_score):
        reason = "other language" if label not in languages else "language unsure"
        fields |= {"reason": reason, "detail": f"{label}, score {score:.2f}"}
    return fields


def text_fields(text: str, settings: CorpusSettings) -> dict[str, Any]:
    """Return a text with its id, size and figures, and the reason that these drop it for, or ""."""
    figures = heuristics.measure(text)
    return {
        "text": text,
        "reason": heuristics.refuse(text, figures, settings.minimum_characters),
        "id": digest(text),
        "size": len(text.encode()),
        "alphanumeric_fraction": figures.alphanumeric_fraction,
        "mean_line_length": figures.mean_line_length,
    }


@functools.cache
def _bad_words(path: Path) -> Any:
    from puna.corpus.filters.c4 import BadWords

    return BadWords(path)


def score(group: Group) -> None:
    """Write perplexity and reference score of every row.

    They are null for rows that were dropped, and where the source does not ask for them.
    """
    import pyarrow as pa

    schema = pa.schema([("perplexity", pa.float32()), ("reference_score", pa.float32())])
    with Writer(group.path("scores"), schema) as writer:
        for rows in batches_of(group.path("filtered"), ["text", "reason"]):
            texts = [row["text"] for row in rows if not row["reason"]]
            scores = {name: iter(values.tolist()) for name, values in _scores(group, texts).items()}
            for row in rows:
                is_in = not row["reason"]
                writer.add({name: next(values) if is_in else None for name, values in scores.items()})


def _scores(group: Group, texts: list[str]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    if texts and group.source.perplexity:
        scores["perplexity"] = perplexity_model(group.folder / "perplexity").perplexities(texts)
    if texts and group.source.reference:
        scores["reference_score"] = reference_model(group.folder / "reference").score(texts)
    return scores


@functools.cache
def perplexity_model(folder: Path) -> Any:
    """Load an n-gram model, once a process."""
    from puna.corpus.filters import perplexity

    return perplexity.load(folder)


@functools.cache
def reference_model(folder: Path) -> Any:
    """Load a classifier of cited pages, once a process."""
    from puna.corpus.filters import reference

    return reference.load(folder)


@dataclass(frozen=True)
class FilterThresholds:
    """Limits of the quality filters, learnt from the corpus at hand.

    perplexity: of each source that is filtered by it, the perplexities at the two percentiles. reference:
    scores below it are dropped.
    """

    perplexity: dict[str, tuple[float, float]]
    reference: float = 0.0

    def describe(self) -> dict[str, Any]:
        """Return the limits as they are written in `learnt.json`."""
        limits: dict[str, Any] = {"perplexity": {name: list(two) for name, two in self.perplexity.items()}}
        return limits | ({"reference": self.reference} if self.reference else {})

    def filter(self, row: dict[str, Any], settings: CorpusSettings) -> None:
        """Give a scored row its bucket, and a reason where a quality filter drops it."""
        value, score = row["perplexity"], row["reference_score"]
        if value is not None and settings.perplexity:
            from puna.corpus.filters.perplexity import bucket

            head, tail = self.perplexity[row["source"]]
            row["bucket"] = bucket(value, (head, tail))
            if row["bucket"] not in settings.perplexity.keep:
                limits = f"head below {head:.1f}, tail above {tail:.1f}"
                row |= {"reason": TAIL, "detail": f"{row['bucket']}: {value:.1f}, {limits}"}
        if not row["reason"] and score is not None and score < self.reference:
            detail = f"score {score:.3f} of at least {self.reference:.3f}"
            row |= {"reason": UNLIKE, "detail": detail}
