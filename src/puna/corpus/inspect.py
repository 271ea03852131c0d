"""Questions to a finished corpus: how it would score a text, and what it dropped."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from puna.corpus.filters import language, perplexity, reference
from puna.corpus.filters.clean import clean
from puna.corpus.funnel import BOOK, DUPLICATE, NEAR
from puna.corpus.record import documents_folder
from puna.corpus.sources import streams
from puna.corpus.tables import rows_of
from puna.errors import UserError
from puna.run import artifact

LOOKED_UP_AT_ONCE = 20_000  # dropped records: each lot reads the ids of all documents once
PLACE = ("source", "url", "file", "offset")


def score(files: list[Path], run: Path | None) -> list[dict[str, Any]]:
    """Score text files: language, and by a run's models perplexity, bucket and reference score.

    What the run has no model for is None. Raises UserError for a file that is no text and a run without
    models.
    """
    folder = documents_folder(run) if run else None
    if folder and not any((folder / name).is_dir() for name in ("perplexity", "reference")):
        raise UserError(
            f"{run} learnt no quality models: set corpus.perplexity or corpus.reference, and ask for them in "
            "a source"
        )
    rows = []
    for path in files:
        text = _text(path)
        label, certainty = language.identify(text)
        row = {"file": str(path), "language": label, "score": certainty, "characters": len(text)}
        rows.append(row | _model_scores(text, folder))
    return rows


def _text(path: Path) -> str:
    """Cleaned text of a file. Raises UserError where it has none."""
    if not path.is_file():
        raise UserError(f"{path}: {'a folder; name files' if path.is_dir() else 'no such file'}")
    text = streams.decode(b"".join(streams.chunks(path)))
    if text is None or not text.strip():
        raise UserError(f"{path}: {'not a text' if path.stat().st_size else 'empty'}")
    return clean(text)


def _model_scores(text: str, folder: Path | None) -> dict[str, Any]:
    """What the models of a run's documents say of a text."""
    scores: dict[str, Any] = {"perplexity": None, "bucket": None, "reference": None}
    if folder and (folder / "perplexity").is_dir():
        value = float(perplexity.model_in(folder / "perplexity").perplexities([text])[0])
        scores |= {"perplexity": value, "bucket": _bucket(folder, value)}
    if folder and (folder / "reference").is_dir():
        scores["reference"] = float(reference.model_in(folder / "reference").score([text])[0])
    return scores


def _bucket(folder: Path, value: float) -> str | None:
    """Bucket by the percentiles of the first source that was filtered."""
    path = folder / "learnt.json"
    thresholds = json.loads(path.read_bytes())["perplexity"] if path.is_file() else {}
    return perplexity.bucket(value, tuple(next(iter(thresholds.values())))) if thresholds else None


def dropped(run: Path, reason: str = "", source: str = "", most: int = 0) -> Iterator[dict[str, Any]]:
    """Stream a run's dropped records in order, of reasons that begin so and of one source where named.

    most: how many, 0 for all. Duplicates have in "of" the document that they repeat: its id, where it is kept
    and, if that is this run, its source, url, file and offset; others have None, and so have all of a run
    before version 10, whose list has no column "repeats".
    """
    folder = documents_folder(run)
    names = [*PLACE, "reason", "detail", "repeats", "excerpt"]
    wanted = (
        row
        for row in rows_of(folder / "dropped.parquet", names)
        if row["reason"].startswith(reason) and (not source or row["source"] == source)
    )
    left = itertools.islice(wanted, most or None)
    while rows := list(itertools.islice(left, LOOKED_UP_AT_ONCE)):
        places = kept_places(folder, rows)
        for row in rows:
            identity = row.pop("repeats", "")
            yield row | {"of": {"id": identity, **places[identity, row["reason"]]} if identity else None}


def dropped_counts(run: Path) -> dict[str, dict[str, int]]:
    """Return how many records of each source were dropped for each reason."""
    return artifact.load(documents_folder(run)).metrics["dropped"]


def kept_places(folder: Path, dropped: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Find the documents that dropped ones repeat: by (id, reason), where they are kept, and their place.

    The place is source, url, file and offset, None where this run does not keep the document.
    """
    asked = {(row["repeats"], row["reason"]) for row in dropped if row.get("repeats")}
    ids = {identity for identity, _ in asked}
    places = _find_documents(folder, ids)
    # Equal texts are compared before near ones, with those of this run alone, and near ones before books:
    # what is repeated may have been dropped itself.
    has_books = len(places) < len(ids) and any(BOOK in counts for counts in dropped_counts(folder).values())
    near = "in an earlier run, or dropped itself" if has_books else "in an earlier run"
    elsewhere = {
        DUPLICATE: "in no file: the first of them was dropped by a later filter",
        NEAR: near,
        BOOK: near,
    }
    return {
        (identity, reason): places.get(identity) or {"kept": elsewhere[reason], **dict.fromkeys(PLACE)}
        for identity, reason in asked
    }


def _find_documents(folder: Path, ids: set[str]) -> dict[str, dict[str, Any]]:
    """Places of those documents that a run keeps, by id; reads the ids of all documents until it has them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    places: dict[str, dict[str, Any]] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for path in sorted(set(folder.glob("*.parquet")) - {folder / "dropped.parquet"}):
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                if len(places) == len(ids):
                    return places
                known = pc.is_in(file.read_row_group(number, ["id"])["id"], value_set=wanted)
                indices = pc.indices_nonzero(known)
                if len(indices):
                    rows = file.read_row_group(number, ["id", *PLACE]).take(indices).to_pylist()
                    places |= {row.pop("id"): {"kept": "in this run", **row} for row in rows}
    return places


def describe(place: Mapping[str, Any]) -> str:
    """Say where a document is: its address with file and offset, or that it is in an earlier run."""
    return f"{place['url']}, {place['file']}:{place['offset']}" if place["file"] else place["kept"]
