"""Questions to a finished corpus: how it would score a text, and what it dropped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from puna.corpus import groups
from puna.corpus.pipeline import documents_folder
from puna.corpus.quality import language
from puna.corpus.readers import streams
from puna.errors import UserError


def score(files: list[Path], run: Path | None) -> list[dict[str, Any]]:
    """Language, its score, and by a run's models perplexity, bucket and reference score (None where it has none) of text files.

    Raises UserError for a file that is no text and a run without models.
    """
    folder = documents_folder(run) if run else None
    if folder and not any((folder / name).is_dir() for name in ("perplexity", "reference")):
        raise UserError(f"{run} learnt no quality models: set corpus.perplexity or corpus.reference, and ask for them in a source")
    rows = []
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: {'a folder; name files' if path.is_dir() else 'no such file'}")
        text = streams.text_of(b"".join(streams.chunks(path)))
        if text is None or not text.strip():
            raise UserError(f"{path}: {'empty' if not path.stat().st_size else 'not a text'}")
        text = groups.clean(text)
        label, certainty = language.identify(text)
        row: dict[str, Any] = {"file": str(path), "language": label, "score": certainty, "characters": len(text)}
        row |= {"perplexity": None, "bucket": None, "reference": None}
        if folder and (folder / "perplexity").is_dir():
            row["perplexity"] = float(groups.perplexity_model(folder / "perplexity").perplexities([text])[0])
            row["bucket"] = _bucket(folder, row["perplexity"])
        if folder and (folder / "reference").is_dir():
            row["reference"] = float(groups.reference_model(folder / "reference").score([text])[0])
        rows.append(row)
    return rows


def _bucket(folder: Path, perplexity: float) -> str | None:
    """By the percentiles of the first source that was filtered."""
    import json

    from puna.corpus.quality.perplexity import bucket

    path = folder / "learnt.json"
    thresholds = json.loads(path.read_bytes())["perplexity"] if path.is_file() else {}
    return bucket(perplexity, tuple(next(iter(thresholds.values())))) if thresholds else None


def dropped(run: Path, reason: str = "", source: str = "") -> Iterator[dict[str, Any]]:
    """Dropped records of a run, in order, of one reason and one source where they are named."""
    names = ["source", "file", "offset", "url", "reason", "detail"]
    for row in groups.rows_of(documents_folder(run) / "dropped.parquet", names):
        if (not reason or row["reason"] == reason) and (not source or row["source"] == source):
            yield row
