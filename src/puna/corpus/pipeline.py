"""Raw files -> clean documents: the order of the steps, and the funnel of what each removed.

Raw files are worked on in groups. Each group is one Daft plan (read -> clean -> score -> filter) whose result is committed as a
pair of Parquet files, so a run that is killed goes on at the next group. Exact duplicates are then dropped over all groups in one
pass, and one file of documents a source is written.
"""

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from puna.artifact import sync
from puna.corpus.document import Found, Skipped, digest, document_schema
from puna.corpus.fetch import RawFile
from puna.corpus.quality import heuristics, language
from puna.corpus.settings import CorpusSettings, SourceSettings
from puna.errors import UserError

DAMAGED, DUPLICATE = "damaged file", "exact duplicate"
# The steps of the funnel in order, and the reasons that end a document there; any other reason is a reader's own.
STEPS = {
    "read": (DAMAGED,),
    "heuristics": ("too short", "few alphanumeric characters"),
    "language": ("other language", "language unsure"),
    "kept": (DUPLICATE,),
}
FUNNEL = ("found", *STEPS)
CONTROL = {code: None for code in (*range(32), 127) if chr(code) not in "\n\t"}
ROW_GROUP_BYTES = 8_000_000


def groups(files: list[RawFile], group_bytes: int) -> list[list[RawFile]]:
    """Cut one source's files, in order, into groups of about `group_bytes` raw bytes, at least one file each."""
    cut: list[list[RawFile]] = []
    room = 0
    for file in files:
        if not cut or file.bytes > room:
            cut.append([])
            room = group_bytes
        cut[-1].append(file)
        room -= file.bytes
    return cut


def clean(text: str) -> str:
    """Unify line ends, drop control characters (but tab) and white space at line ends and at both ends of the text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.translate(CONTROL)
    text = text.encode("utf-8", "ignore").decode("utf-8")  # lone surrogates cannot be written as UTF-8
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def _read(file: RawFile, source: SourceSettings, settings: CorpusSettings) -> Iterator[dict[str, Any]]:
    """Every record of a raw file as one row: a document (reason "") or a skipped record with its reason."""
    reader = importlib.import_module(f"puna.corpus.readers.{source.reader}")
    offset = 0
    try:
        for record in reader.read(file.path):
            offset = record.offset
            if isinstance(record, Skipped):
                if record.reason == "not UTF-8" and source.reader in ("lines", "jsonl") and settings.on_damaged_file == "stop":
                    raise UserError(f"not UTF-8 text at byte {record.offset}; convert the file to UTF-8")
                yield _row(file, source, record.url, record.offset, reason=record.reason)
            else:
                yield _judge(file, source, record, settings)
    except (UserError, OSError, EOFError) as error:
        yield _row(file, source, "", offset, reason=DAMAGED, detail=str(error))


def _row(file: RawFile, source: SourceSettings, url: str, offset: int, **fields: Any) -> dict[str, Any]:
    empty = {field.name: None for field in document_schema()}
    return {**empty, "reason": "", "detail": "", "source": source.name, "file": file.name, "url": url, "offset": offset, **fields}


def _judge(file: RawFile, source: SourceSettings, found: Found, settings: CorpusSettings) -> dict[str, Any]:
    text = clean(found.text)
    figures = heuristics.measure(text)
    label, score = language.identify(text)
    kept_languages = settings.languages if source.languages is None else source.languages
    reason = heuristics.refuse(text, figures, settings.minimum_characters)
    if not reason and kept_languages and label not in kept_languages:
        reason = "other language"
    if not reason and kept_languages and score < settings.language_score:
        reason = "language unsure"
    title, licence = (clean(part) for part in (found.title, found.licence or source.licence))
    return _row(
        file, source, clean(found.url), found.offset, reason=reason, id=digest(text), title=title, licence=licence,
        raw_digest=found.raw_digest, language=label, language_score=score, alphanumeric_fraction=figures.alphanumeric_fraction,
        mean_line_length=figures.mean_line_length, text=text,
    )  # fmt: skip


def _run_group(files: list[RawFile], source: SourceSettings, settings: CorpusSettings) -> Any:
    """One group as an Arrow table of rows, in the order of the files and of the records in them."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import daft
    import pyarrow as pa

    schema = document_schema().append(pa.field("reason", pa.string())).append(pa.field("detail", pa.string()))
    struct = pa.struct([pa.field("record", pa.int64()), *schema])

    def rows(number: int) -> Iterator[dict[str, Any]]:
        for record, row in enumerate(_read(files[number], source, settings)):
            yield {"record": record, **row}

    read = daft.func(rows, return_dtype=daft.DataType.from_arrow_type(struct))
    plan = daft.from_pydict({"number": list(range(len(files)))})
    plan = plan.select(daft.col("number"), read(daft.col("number")).alias("row"))
    plan = plan.select("number", *(daft.col("row").get(name).alias(name) for name in ("record", *schema.names)))
    plan = plan.where(daft.col("record").not_null())  # a file without records comes as one empty row
    table = plan.sort(["number", "record"]).to_arrow()
    return table.select(schema.names).cast(schema)


def documents(
    settings: CorpusSettings, files: dict[str, list[RawFile]], parts: Path, out: Path, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Read, clean and filter every raw file; write `out/<source>.parquet` and `out/dropped.parquet`; return the funnel.

    files: raw files per source. parts: folder for finished groups, which a second call finds again. progress(source, groups done,
    groups in all). Raises UserError for a damaged file (policy "stop") and for a source without documents.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    work = [
        (source, number, group)
        for source in settings.sources
        for number, group in enumerate(groups(files[source.name], settings.group_bytes))
    ]
    parts.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for done, (source, number, group) in enumerate(work):
        progress(source.name, done, len(work))
        path = parts / f"{source.name}-{number:05d}.parquet"
        paths.append(path)
        if path.exists():
            continue
        table = _run_group(group, source, settings)
        damaged = table.filter(pc.equal(table["reason"], DAMAGED)).select(["file", "detail"]).to_pylist()
        if damaged and settings.on_damaged_file == "stop":
            told = "\n  ".join(f"{row['file']}: {row['detail']}" for row in damaged)
            raise UserError(f"source {source.name}: {told}\nmend or remove the file, or set corpus.on_damaged_file to skip")
        part = path.with_suffix(".part")
        pq.write_table(table, part, compression="zstd")
        sync(part)
        os.replace(part, path)
    progress("duplicates", len(work), len(work))
    funnel = _merge(settings, paths, out)
    empty = [name for name, steps in funnel["sources"].items() if not steps["kept"]["documents"]]
    if empty:
        told = "; ".join(f"{name}: {_reasons(funnel['dropped'][name])}" for name in empty)
        raise UserError(
            f"no document is left of source {', '.join(empty)} ({told}); give other files, another reader for them, or loosen the filters "
            f"(corpus.minimum_characters={settings.minimum_characters}, corpus.languages={list(settings.languages)})"
        )
    return funnel


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1])) or "no records found"


def _merge(settings: CorpusSettings, paths: list[Path], out: Path) -> dict[str, Any]:
    """Drop exact duplicates over all groups in order, the first one kept; write the documents and the list of what was dropped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = document_schema()
    fields = ("source", "file", "offset", "url", "reason", "detail")
    tallies = {source.name: _Tally() for source in settings.sources}
    seen: set[bytes] = set()
    writers: dict[str, Any] = {}
    dropped_writer = None
    for path in paths:
        table = pq.read_table(path)
        reasons = table["reason"].to_pylist()
        columns = {name: table[name].to_pylist() for name in ("id", "text", "source", "licence", "language")}
        for row, identity in enumerate(columns["id"]):
            if not reasons[row]:
                key = bytes.fromhex(identity)
                reasons[row] = DUPLICATE if key in seen else ""
                seen.add(key)
            tallies[columns["source"][row]].add({name: column[row] for name, column in columns.items()}, reasons[row])
        table = table.set_column(table.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string()))
        dropped = table.filter(pa.array([bool(reason) for reason in reasons], pa.bool_())).select(fields)
        dropped_writer = dropped_writer or pq.ParquetWriter(out / "dropped.parquet", dropped.schema, compression="zstd")
        dropped_writer.write_table(dropped)
        kept = table.filter(pa.array([not reason for reason in reasons], pa.bool_())).select(schema.names)
        if len(kept):
            name = kept["source"][0].as_py()
            if name not in writers:
                writers[name] = pq.ParquetWriter(out / f"{name}.parquet", schema, compression="zstd")
            writers[name].write_table(kept, row_group_size=max(1, len(kept) * ROW_GROUP_BYTES // max(1, kept.nbytes)))
    for writer in (*writers.values(), dropped_writer):
        if writer is not None:
            writer.close()
    return {
        "sources": {name: tally.funnel() for name, tally in tallies.items()},
        "dropped": {name: dict(sorted(tally.dropped.items())) for name, tally in tallies.items()},
        "licences": {name: dict(sorted(tally.licences.items())) for name, tally in tallies.items()},
        "languages": {name: dict(sorted(tally.languages.items())) for name, tally in tallies.items()},
    }


class _Tally:
    """Counts of one source on its way through the steps: how many documents, and bytes of their text, came through each."""

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()

    def add(self, row: dict[str, Any], reason: str) -> None:
        """Count one record. A record without id never became a text."""
        stopped_at = next((step for step, reasons in STEPS.items() if reason in reasons), None) if row["id"] else "read"
        for step in FUNNEL:
            if step == stopped_at:
                break
            self.documents[step] += 1
            self.bytes[step] += len((row["text"] or "").encode())
        if reason:
            self.dropped[reason] += 1
        else:
            self.licences[row["licence"] or "unknown"] += 1
            self.languages[row["language"] or "unknown"] += 1

    def funnel(self) -> dict[str, dict[str, int]]:
        return {step: {"documents": self.documents[step], "bytes": self.bytes[step]} for step in FUNNEL}


def iterate(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Stream the rows of a documents file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()
