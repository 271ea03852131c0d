"""Questions to a finished corpus: how it would score a text, and what it dropped."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from puna.corpus import steps
from puna.corpus.filters import language
from puna.corpus.funnel import BOOK, DUPLICATE, NEAR
from puna.corpus.merge import documents_folder
from puna.corpus.sources import streams
from puna.errors import UserError
from puna.run import artifact

REPEATED = re.compile(r"\bof ([0-9a-f]{32})$")
LOOKED_UP_AT_ONCE = 20_000  # dropped records: each lot reads the ids of all documents once


def score(files: list[Path], run: Path | None) -> list[dict[str, Any]]:
    """Language, its score, and by a run's models perplexity, bucket and reference score (None where it has
    none) of text files.

    Raises UserError for a file that is no text and a run without models.
    """
    folder = documents_folder(run) if run else None
    if folder and not any((folder / name).is_dir() for name in ("perplexity", "reference")):
        raise UserError(
            f"{run} learnt no quality models: set corpus.perplexity or corpus.reference, and ask for them in a source"
        )
    rows = []
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: {'a folder; name files' if path.is_dir() else 'no such file'}")
        text = streams.text_of(b"".join(streams.chunks(path)))
        if text is None or not text.strip():
            raise UserError(f"{path}: {'empty' if not path.stat().st_size else 'not a text'}")
        text = steps.clean(text)
        label, certainty = language.identify(text)
        row: dict[str, Any] = {
            "file": str(path),
            "language": label,
            "score": certainty,
            "characters": len(text),
        }
        row |= {"perplexity": None, "bucket": None, "reference": None}
        if folder and (folder / "perplexity").is_dir():
            row["perplexity"] = float(steps.perplexity_model(folder / "perplexity").perplexities([text])[0])
            row["bucket"] = _bucket(folder, row["perplexity"])
        if folder and (folder / "reference").is_dir():
            row["reference"] = float(steps.reference_model(folder / "reference").score([text])[0])
        rows.append(row)
    return rows


def _bucket(folder: Path, perplexity: float) -> str | None:
    """By the percentiles of the first source that was filtered."""
    import json

    from puna.corpus.filters.perplexity import bucket

    path = folder / "learnt.json"
    thresholds = json.loads(path.read_bytes())["perplexity"] if path.is_file() else {}
    return bucket(perplexity, tuple(next(iter(thresholds.values())))) if thresholds else None


def dropped(run: Path, reason: str = "", source: str = "", most: int = 0) -> Iterator[dict[str, Any]]:
    """Dropped records of a run, in order, of reasons that begin so and of one source where they are named;
    `most` of them, 0: all.

    of: for duplicates, the document they repeat: its id, where it is kept and, if that is this run, its
    source, url, file and offset; else None.
    """
    folder = documents_folder(run)
    names = ["source", "file", "offset", "url", "reason", "detail", "excerpt"]
    wanted = (
        row
        for row in steps.rows_of(folder / "dropped.parquet", names)
        if row["reason"].startswith(reason) and (not source or row["source"] == source)
    )
    left = itertools.islice(wanted, most or None)
    while rows := list(itertools.islice(left, LOOKED_UP_AT_ONCE)):
        places = kept_places(folder, rows)
        for row in rows:
            identity = repeated(row)
            yield row | {"of": {"id": identity, **places[identity, row["reason"]]} if identity else None}


def dropped_counts(run: Path) -> dict[str, dict[str, int]]:
    """How many records of each source were dropped for each reason."""
    return artifact.load(documents_folder(run)).metrics["dropped"]


def repeated(row: Mapping[str, Any]) -> str:
    """The id of the document that a dropped one repeats, "" where its reason is another."""
    match = REPEATED.search(row["detail"] or "") if row["reason"] in (DUPLICATE, NEAR, BOOK) else None
    return match[1] if match else ""


def kept_places(folder: Path, dropped: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """By (id, reason), where the documents are that dropped ones repeat, and their source, url, file and
    offset, None where this run does not keep them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = ["source", "url", "file", "offset"]
    asked = {(identity, row["reason"]) for row in dropped if (identity := repeated(row))}
    ids = {identity for identity, _ in asked}
    found: dict[str, dict[str, Any]] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for path in sorted(folder.glob("*.parquet")) if ids else ():
        if path.name == "dropped.parquet":
            continue
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups if len(found) < len(ids) else 0):
                here = pc.indices_nonzero(
                    pc.is_in(file.read_row_group(number, ["id"])["id"], value_set=wanted)
                )
                if len(here):
                    rows = file.read_row_group(number, ["id", *names]).take(here).to_pylist()
                    found |= {row.pop("id"): {"kept": "in this run", **row} for row in rows}
    # Equal texts are compared before near ones, with those of this run alone, and near ones before books:
    # what is repeated may have been dropped itself.
    books = len(found) < len(ids) and any(BOOK in counts for counts in dropped_counts(folder).values())
    elsewhere = {
        DUPLICATE: "nowhere: it was dropped itself",
        NEAR: "in an earlier run" + ", or dropped itself" * books,
    }
    return {
        (identity, reason): found.get(identity)
        or {"kept": elsewhere.get(reason, elsewhere[NEAR]), **dict.fromkeys(names)}
        for identity, reason in asked
    }


def told(place: Mapping[str, Any]) -> str:
    """Where a document is, in a few words: its address with file and place, or the earlier run."""
    return f"{place['url']}, {place['file']}:{place['offset']}" if place["file"] else place["kept"]
