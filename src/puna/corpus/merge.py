"""What looks at all groups in their order: lines, sentences, documents and books that came before.

Nothing here depends on where one group ends and the next begins.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.funnel import BOOK, DUPLICATE, NEAR, SourceStats
from puna.corpus.record import document_schema, documents_folder
from puna.corpus.settings import CorpusSettings, SourceSettings
from puna.corpus.steps import EXCERPT, FilterThresholds, Group, text_fields
from puna.corpus.tables import BATCH_CHARACTERS, Array, Writer, characters_of, rows_of

MOST_TEXT_BYTES = 1 << 34  # of memory for the digests of all texts, 16 a text; taken as they come


def mark_lines(
    settings: CorpusSettings, groups: list[Group], progress: Callable[[str, int, int], None]
) -> dict[str, dict[str, int]]:
    """Write which lines of each group stay; return counts by source.

    The scope of a source is all its groups, as far as `remembered_lines` reaches.
    """
    from puna.corpus.dedup import lines

    counts: dict[str, dict[str, int]] = {}
    for source in dict.fromkeys(group.source for group in groups):
        own = [group for group in groups if group.source == source]
        hashes = (np.load(group.path("lines"), allow_pickle=False) for group in own)
        seen = None if source.ccnet == "exact" else lines.HashSet(settings.remembered_bytes)
        if seen is None:
            marks = lines.unrepeated(hashes, settings.remembered_bytes)
        else:
            marks = map(seen.mark_new, hashes)
        found = removed = 0
        for number, (group, keep) in enumerate(zip(own, marks, strict=True)):
            progress(f"{source.name}: lines", number, len(own))
            found, removed = found + len(keep), removed + int((~keep).sum())
            with Array(group.path("keep")) as file:
                file.add(keep)
        scopes = seen.scopes if seen else math.ceil(found / lines.scope_lines(settings.remembered_bytes))
        counts[source.name] = {"found": found, "removed": removed, "scopes": scopes}
    return counts


def merge(
    settings: CorpusSettings, groups: list[Group], thresholds: FilterThresholds, out: Path, root: Path
) -> dict[str, Any]:
    """Filter rows by their scores, drop those that came before, and write `out`'s Parquet files.

    The first copy is kept, in the order of sources and files. Returns counts: of each source what came
    through every step, reasons, licences, languages, buckets and hosts.
    """
    stats = {source.name: SourceStats() for source in settings.sources}
    deduplicator = Deduplicator(settings, out, root)
    with Writer(out / "dropped.parquet", _dropped_schema()) as dropped:
        for source in settings.sources:
            own = [group for group in groups if group.source.name == source.name]
            with Writer(out / f"{source.name}.parquet", document_schema()) as documents:
                for rows in _batches(own):
                    for row in rows:
                        thresholds.filter(row, settings)
                    deduplicator.drop(rows, source)
                    for row in rows:
                        stats[source.name].add(row, row["reason"])
                        if row["reason"]:
                            excerpt = (row["text"] or "")[:EXCERPT]
                            dropped.add({**row, "excerpt": excerpt, "text": None})
                        else:
                            documents.add(row)
    return {**_counts(stats), **deduplicator.counts()}


def _dropped_schema() -> Any:
    import pyarrow as pa

    names = ("source", "file", "offset", "url", "reason", "detail", "excerpt")
    return pa.schema([(name, pa.int64() if name == "offset" else pa.string()) for name in names])


def _batches(groups: Iterable[Group]) -> Iterator[list[dict[str, Any]]]:
    """Rows of a source's groups, about a megabyte at a time."""
    batch: list[dict[str, Any]] = []
    characters = 0
    for group in groups:
        for row in _scored_rows(group):
            batch.append(row)
            characters += characters_of(row)
            if characters > BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _scored_rows(group: Group) -> Iterator[dict[str, Any]]:
    """Filtered rows of a group with their scores and, where it is compared by it, their MinHash signature."""
    signatures = scores = None
    if group.settings.uses_minhash:
        signatures = iter(np.asarray(np.load(group.path("minhash"), mmap_mode="r", allow_pickle=False)))
    if group.path("scores").exists():
        scores = rows_of(group.path("scores"), ["perplexity", "reference_score"])
    for row in rows_of(group.path("filtered")):
        if scores is not None:
            row |= next(scores)
        row["signature"] = next(signatures) if signatures is not None and not row["reason"] else None
        yield row


def _counts(stats: dict[str, SourceStats]) -> dict[str, Any]:
    """Counts of all sources, each by source."""
    counts: dict[str, Any] = {"sources": {name: own.funnel() for name, own in stats.items()}}
    for key in ("dropped", "licences", "languages"):
        counts[key] = {name: dict(sorted(getattr(own, key).items())) for name, own in stats.items()}
    counts["buckets"] = {
        name: dict(sorted(own.buckets.items())) for name, own in stats.items() if own.buckets
    }
    counts["hosts"] = {
        name: {"hosts": len(own.hosts), "top": own.top_hosts()} for name, own in stats.items() if own.hosts
    }
    return counts


class Deduplicator:
    """Remembers what was kept, of all sources and of a run that the settings name, and drops its repeats."""

    def __init__(self, settings: CorpusSettings, out: Path, root: Path) -> None:
        from puna.corpus.dedup.books import Books
        from puna.corpus.dedup.index import Index
        from puna.corpus.dedup.lines import HashSet
        from puna.corpus.dedup.sentences import Spans

        self._settings = settings
        self._texts, self._books = HashSet(MOST_TEXT_BYTES), Books()
        uses_c4 = any(source.c4 for source in settings.sources)
        self._spans = Spans(settings.remembered_bytes) if uses_c4 else None
        self._index = None
        if settings.uses_minhash:
            if settings.deduplicate_against:
                earlier = documents_folder(root / settings.deduplicate_against)
                shutil.copytree(earlier / "near", out / "near")
            self._index = Index(out / "near", threshold=settings.near_duplicate_threshold)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many sentences were compared and removed, where a source asks for that."""
        spans = self._spans
        if spans is None:
            return {}
        return {"spans": {"found": spans.found, "removed": spans.removed, "scopes": spans.scopes}}

    def drop(self, rows: list[dict[str, Any]], source: SourceSettings) -> None:
        """Give a reason to rows whose text was kept before, or nearly so.

        Under c4, they lose the sentences that came before first.
        """
        if source.c4:
            self._remove_sentences([row for row in rows if not row["reason"]])
        self._drop_equal([row for row in rows if not row["reason"]])
        self._drop_near([row for row in rows if not row["reason"]])
        if source.books:
            self._drop_books([row for row in rows if not row["reason"]])

    def _remove_sentences(self, rows: list[dict[str, Any]]) -> None:
        """Take out the spans of sentences that came before, and drop pages of which too little is left.

        Language and scores stay those of the whole page.
        """
        from puna.corpus.dedup import near
        from puna.corpus.dedup.sentences import REPEATED
        from puna.corpus.filters.c4 import MINIMUM_SENTENCES

        assert self._spans is not None
        shortened = []
        unseen = self._spans.unseen([row["text"] for row in rows])
        for row, (text, sentences) in zip(rows, unseen, strict=True):
            if text == row["text"]:
                continue
            if sentences < MINIMUM_SENTENCES:
                row["reason"] = REPEATED
            else:
                row |= text_fields(text, self._settings)
                shortened.append(row)
        if self._index is not None:
            signatures = near.signatures([row["text"] for row in shortened])
            for row, signature in zip(shortened, signatures, strict=True):
                row["signature"] = signature

    def _drop_equal(self, rows: list[dict[str, Any]]) -> None:
        digests = np.array([int(row["id"][:16], 16) for row in rows], np.uint64)
        for row, is_new in zip(rows, self._texts.mark_new(digests).tolist(), strict=True):
            if not is_new:
                row |= {"reason": DUPLICATE, "detail": f"of {row['id']}"}

    def _drop_near(self, rows: list[dict[str, Any]]) -> None:
        if self._index is None or not rows:
            return
        signatures = np.stack([row["signature"] for row in rows])
        earlier = self._index.add([row["id"] for row in rows], signatures)
        repeats = np.flatnonzero(earlier >= 0)
        for number, identity in zip(repeats.tolist(), self._index.ids(earlier[repeats]), strict=True):
            rows[number] |= {"reason": NEAR, "detail": f"of {identity}"}

    def _drop_books(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if match := self._books.add(row["id"], row["text"]):
                identity, overlap = match
                row |= {"reason": BOOK, "detail": f"{overlap:.0%} of {identity}"}
