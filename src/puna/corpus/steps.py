"""What is done to one group of raw files, by itself: read, clean, judge, score. Each step ends with a file
written by one rename.

The order is CCNet's (Wenzek et al. 2020): lines seen before are removed first, then the language is told,
then quality is scored. A source that does not ask for line deduplication is judged as it is read.
"""

import contextlib
import functools
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.engine import give_back
from puna.corpus.filters import heuristics, language
from puna.corpus.readers import reader
from puna.corpus.record import DAMAGED, BrokenOff, Found, Skipped, digest, document_schema, row_schema
from puna.corpus.settings import CorpusSettings, SourceSettings
from puna.corpus.sources.fetch import RawFile
from puna.errors import UserError
from puna.run.artifact import sync

ASKS_FIRST = (
    "warc",
    "wikipedia",
    "github",
)  # readers that ask for opt-outs themselves, before they take out a text
CONTROL = bytes(code for code in (*range(32), 127) if chr(code) not in "\n\t")
BLANK_LINES = re.compile(r"\n{3,}")
CCNET_CHARACTERS = 300  # shorter documents are dropped by CCNet before anything else
BATCH_CHARACTERS, ROW_CHARACTERS = (
    1_000_000,
    1_000,
)  # of text in memory at once, on the way to a file; what a row without text counts as
FILE_BYTES = 4096  # what a raw file counts as at least
BATCHES_FREED = (
    4  # after so many, what was freed goes back to the system, lest it pile up over a group (1% of the time)
)
PIECE = 1 << 18  # characters, and the rest of a line, of a text that are cleaned at once
EXCERPT = 500  # characters kept of a dropped document, to judge the filter by
SUFFIXES = {
    "files": "json",
    "read": "parquet",
    "lines": "npy",
    "keep": "npy",
    "judged": "parquet",
    "near": "npy",
    "scores": "parquet",
}


@dataclass(frozen=True)
class Group:
    """Some of a source's raw files, worked on and committed together. folder: for its parts; root: what
    settings' files start from."""

    source: SourceSettings
    settings: CorpusSettings
    number: int
    folder: Path
    root: Path

    def path(self, kind: str) -> Path:
        """The file of its raw files' names, or of a finished step: read, lines, keep, judged, near,
        scores."""
        return self.folder / f"{self.source.name}-{self.number:05d}.{kind}.{SUFFIXES[kind]}"

    @property
    def files(self) -> list[RawFile]:
        """Its raw files, in order. They are listed on disk, for a corpus may have millions."""
        return [RawFile(*fields) for fields in json.loads(self.path("files").read_bytes())]

    def with_files(self, files: Iterable[RawFile]) -> "Group":
        """Write down its raw files."""
        part = part_of(self.path("files"))
        part.write_text(json.dumps([astuple(file) for file in files]))
        os.replace(part, self.path("files"))
        return self


def groups(files: Iterable[RawFile], group_bytes: int) -> Iterator[list[RawFile]]:
    """Cut one source's files, in order, into groups of about `group_bytes` raw bytes, at least one file each;
    of tiny files, which count as a block of a disk, not too many."""
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


def clean(text: str) -> str:
    """Unify line ends, drop control characters (but tab) and white space at line ends and at both ends of the
    text."""
    if len(text) <= PIECE:
        return _clean_lines(text).strip("\n")
    out, at = io.StringIO(), 0
    while at < len(text):
        end = text.find("\n", at + PIECE) + 1 or len(text)
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


class Writer:
    """A Parquet file of rows that appears under its name when the block ends well. Rows are written about a
    megabyte at a time.

    compression: zstd for what stays, lz4 for what is read once more, and soon.
    """

    def __init__(self, path: Path, schema: Any, compression: str = "zstd") -> None:
        self.path, self.schema, self.compression = path, schema, compression
        self._part = part_of(path)
        self._rows: list[dict[str, Any]] = []
        self._characters = 0
        self._flushes = 0
        self._file: Any = None

    def __enter__(self) -> "Writer":
        import pyarrow.parquet as pq

        self._file = pq.ParquetWriter(self._part, self.schema, compression=self.compression)
        return self

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._characters += len(row.get("text") or "") + ROW_CHARACTERS
        if self._characters > BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
        self._rows, self._characters = [], 0
        self._flushes += 1
        if self._flushes % BATCHES_FREED == 0:
            give_back()

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._file.close()
        if kind is None:
            commit(self._part, self.path)


def part_of(path: Path) -> Path:
    """Where a file is written until it is whole: of this process alone, for one that was killed a moment ago
    may still be at it."""
    return path.with_suffix(f".{os.getpid()}.part")


def commit(part: Path, path: Path) -> None:
    """Give a written file its name."""
    sync(part)
    os.replace(part, path)


class Array:
    """A .npy file that appears under its name when the block ends well. Rows are added some at a time, for a
    group may have many; first some of none, if there may be no more, for their type and width."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, part_of(path)
        self._file: Any = None
        self._like: Any = None
        self._count = 0

    def __enter__(self) -> "Array":
        self._file = self._part.open("wb")
        return self

    def add(self, rows: "np.ndarray[Any, Any]") -> None:
        if self._like is None:
            self._like = rows[:0].copy()
            self._header()
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def _header(self) -> None:
        descr, shape = np.lib.format.dtype_to_descr(self._like.dtype), (self._count, *self._like.shape[1:])
        # It leaves room for any count, so that it can be written over.
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": descr, "fortran_order": False, "shape": shape}
        )

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None:
                self._file.seek(0)
                self._header()
        finally:
            self._file.close()
        if kind is None:
            commit(self._part, self._path)


def read(group: Group) -> None:
    """Raw files -> rows of cleaned text; judged at once, unless line deduplication comes first."""
    if group.source.ccnet == "off":
        with _judged(group) as judged:
            for row in _rows(group):
                judged.add(row)
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


def judge(group: Group) -> None:
    """Take the lines that `keep` marks of every text, and judge what is left."""
    from puna.corpus.dedup import lines

    keep = np.load(group.path("keep"), allow_pickle=False)
    at = 0
    with _judged(group) as judged:
        for row in rows_of(group.path("read"), row_schema().names):
            if not row["reason"]:
                whole = row["text"]
                size = whole.count("\n") + 1
                kept = keep[at : at + size]
                at += size
                if not kept.all():
                    row["text"] = lines.keep_lines([row["text"]], np.array([0, size]), kept)[0].strip("\n")
                    if group.source.ccnet == "on" and "\n\n\n" in row["text"]:
                        row["text"] = BLANK_LINES.sub("\n\n", row["text"])
                if not row["text"]:
                    row |= {"reason": "only repeated lines", "id": digest(""), "size": 0, "text": whole}
            judged.add(row)


class _Judged:
    """Judges rows and writes them, and MinHash signatures of those that are still in."""

    def __init__(self, group: Group, writer: Writer, signatures: Array | None) -> None:
        self.group, self._writer, self._signatures = group, writer, signatures
        self._texts: list[str] = []
        self._characters = 0

    def add(self, row: dict[str, Any]) -> None:
        if not row["reason"]:
            row |= _judge(row["text"], self.group)
            if not row["reason"] and self._signatures:
                self._texts.append(row["text"])
                self._characters += len(row["text"])
                if self._characters > BATCH_CHARACTERS:
                    self.sign()
        if row["reason"]:
            row["text"] = (row["text"] or "")[:EXCERPT]
        self._writer.add(row)

    def sign(self) -> None:
        """Sign the texts that wait for it."""
        from puna.corpus.dedup import near

        if self._signatures:
            texts, self._texts, self._characters = self._texts, [], 0
            self._signatures.add(near.signatures(texts))


@contextlib.contextmanager
def _judged(group: Group) -> Iterator[_Judged]:
    """What judges a group's rows; the files have their names when the block ends well, the signatures before
    the rows."""
    with contextlib.ExitStack() as opened:
        writer = opened.enter_context(Writer(group.path("judged"), row_schema(), "lz4"))
        signatures = opened.enter_context(Array(group.path("near"))) if group.settings.signs else None
        judged = _Judged(group, writer, signatures)
        yield judged
        judged.sign()  # maybe of no text, for the array's width


def _judge(text: str, group: Group) -> dict[str, Any]:
    """What becomes of a text: its figures, and the reason it is dropped for, or ""."""
    source, settings = group.source, group.settings
    kept_languages = settings.languages if source.languages is None else source.languages
    reason = ""
    if source.c4:
        from puna.corpus.filters.c4 import c4_clean

        bad_words = _bad_words(group.root / settings.bad_words) if settings.bad_words else None
        cleaned, reason = c4_clean(text, bad_words, every_script=kept_languages != ("en",))
        text = text if reason else cleaned
    found = measured(text, settings)
    reason = reason or found["reason"]
    label, score = ("", 0.0) if reason else language.identify(text, glue_lines=source.ccnet == "exact")
    told = {}
    if not reason and kept_languages and (label not in kept_languages or score < settings.language_score):
        reason = "other language" if label not in kept_languages else "language unsure"
        told = {"detail": f"{label}, score {score:.2f}"}
    return {**found, **told, "reason": reason, "language": label, "language_score": score}


def measured(text: str, settings: CorpusSettings) -> dict[str, Any]:
    """A text with its id, size and figures, and the reason that these drop it for, or ""."""
    figures = heuristics.measure(text)
    return {
        "text": text, "reason": heuristics.refuse(text, figures, settings.minimum_characters), "id": digest(text),
        "size": len(text.encode()), "alphanumeric_fraction": figures.alphanumeric_fraction, "mean_line_length": figures.mean_line_length,
    }  # fmt: skip


def _rows(group: Group) -> Iterator[dict[str, Any]]:
    for file in group.files:
        yield from _read(file, group)


def _read(file: RawFile, group: Group) -> Iterator[dict[str, Any]]:
    """Every record of a raw file as one row: a cleaned text (reason ""), or a record that is none, with its
    reason."""
    source, settings = group.source, group.settings
    if file.unreadable:
        yield _row(file, source, "", 0, reason=DAMAGED, detail=file.unreadable)
        return
    read = reader(source.reader)
    refuses = _opt_out(
        settings.opt_out.patterns, settings.opt_out.domains, settings.opt_out.robots, group.root
    )
    offset, found, asked = 0, False, source.reader in ASKS_FIRST
    try:
        for record in read(file.path, refuses) if asked else read(file.path):
            offset, found = record.offset, True
            if refuses and (not asked or isinstance(record, Skipped)) and (reason := refuses(record.url)):
                yield _row(file, source, record.url, offset, reason=reason)
            elif isinstance(record, Skipped):
                if (
                    record.reason == "not UTF-8"
                    and source.reader in ("lines", "jsonl")
                    and settings.on_damaged_file == "stop"
                ):
                    raise UserError(f"not UTF-8 text at byte {record.offset}; convert the file to UTF-8")
                yield _row(file, source, record.url, offset, reason=record.reason)
            else:
                yield _document(file, source, record, settings)
    except BrokenOff as error:
        yield _row(file, source, error.url, error.offset, reason=DAMAGED, detail=str(error))
        return
    except (UserError, OSError, EOFError) as error:
        # The system's words without a path, which would differ from machine to machine.
        told = (
            f"{Path(error.filename or file.path).name}: {error.strerror}"
            if isinstance(error, OSError) and error.errno
            else str(error)
        )
        yield _row(file, source, "", offset, reason=DAMAGED, detail=told)
        return
    if not found:
        yield _row(file, source, "", 0, reason="nothing in the file")


def _document(
    file: RawFile, source: SourceSettings, found: Found, settings: CorpusSettings
) -> dict[str, Any]:
    text, title, licence = (
        clean(part) for part in (found.text, found.title, found.licence or source.licence)
    )
    detail = ""
    if settings.privacy:
        from puna.corpus.filters.privacy import scrub

        text, counts = scrub(text, settings.privacy)
        detail = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return _row(
        file,
        source,
        clean(found.url),
        found.offset,
        title=title,
        licence=licence,
        raw_digest=found.raw_digest,
        text=text,
        detail=detail,
    )


def _row(file: RawFile, source: SourceSettings, url: str, offset: int, **fields: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(document_schema().names),
        "reason": "",
        "detail": "",
        "source": source.name,
        "file": file.name,
        "url": url,
        "offset": offset,
        **fields,
    }


@functools.cache
def _bad_words(path: Path) -> Any:
    from puna.corpus.filters.c4 import BadWords

    return BadWords(path)


@functools.cache
def _opt_out(patterns: str, domains: str, robots: str, root: Path) -> Any:
    """url -> reason or "", once read; None where nothing is opted out of."""
    if not (patterns or domains or robots):
        return None
    from puna.corpus.filters.opt_out import OptOut

    files = [root / path if path else None for path in (patterns, domains, robots)]
    return OptOut(files[0], files[1], files[2]).refuses


def batches_of(path: Path, columns: list[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """The rows of a Parquet file as they were written together, so about a megabyte at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns).to_pylist()


def rows_of(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file."""
    for batch in batches_of(path, columns):
        yield from batch


def score(group: Group) -> None:
    """Perplexity and reference score of every row that is still in, null for the others and where the source
    does not ask."""
    import pyarrow as pa

    schema = pa.schema([("perplexity", pa.float32()), ("reference_score", pa.float32())])
    with Writer(group.path("scores"), schema) as writer:
        for rows in batches_of(group.path("judged"), ["text", "reason"]):
            kept = [place for place, row in enumerate(rows) if not row["reason"]]
            found: list[dict[str, Any]] = [{"perplexity": None, "reference_score": None} for _ in rows]
            for name, scores in _scores(group, [rows[place]["text"] for place in kept]).items():
                for place, value in zip(kept, scores.tolist(), strict=True):
                    found[place][name] = value
            for row in found:
                writer.add(row)


def _scores(group: Group, texts: list[str]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    if texts and group.source.perplexity:
        scores["perplexity"] = perplexity_model(group.folder / "perplexity").perplexities(texts)
    if texts and group.source.reference:
        scores["reference_score"] = reference_model(group.folder / "reference").score(texts)
    return scores


@functools.cache
def perplexity_model(folder: Path) -> Any:
    from puna.corpus.filters import perplexity

    return perplexity.load(folder)


@functools.cache
def reference_model(folder: Path) -> Any:
    from puna.corpus.filters import reference

    return reference.load(folder)
