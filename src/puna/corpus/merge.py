"""What looks at all groups in their order: lines, sentences, documents and books that came before.

Nothing here depends on where one group ends and the next begins.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.dedup import lines
from puna.corpus.dedup.books import Books
from puna.corpus.dedup.index import Index
from puna.corpus.dedup.lines import HashSet
from puna.corpus.dedup.sentences import Spans
from puna.corpus.fit import Thresholds
from puna.corpus.funnel import SourceStats, counts_of
from puna.corpus.groups import Group
from puna.corpus.passes import documents
from puna.corpus.record import document_schema, documents_folder, dropped_schema
from puna.corpus.settings import CorpusSettings
from puna.corpus.steps import Memory, merging, run
from puna.corpus.tables import Array, Writer

MOST_TEXT_BYTES = 1 << 34  # of memory for the digests of all texts, 16 a text; taken as they come


def mark_lines(
    settings: CorpusSettings, groups: list[Group], progress: Callable[[str, int, int], None]
) -> dict[str, dict[str, int]]:
    """Write which lines of each group stay; return counts by source.

    The scope of a source is all its groups, as far as `remembered_lines` reaches.
    """
    counts: dict[str, dict[str, int]] = {}
    for source in dict.fromkeys(group.source for group in groups):
        own = [group for group in groups if group.source == source]
        hashes = (np.load(group.path("lines"), allow_pickle=False) for group in own)
        seen = None if source.ccnet == "exact" else HashSet(settings.remembered_bytes)
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
    settings: CorpusSettings, groups: list[Group], thresholds: Thresholds, out: Path, root: Path
) -> dict[str, Any]:
    """Run the last steps on the documents of all groups, and write `out`'s Parquet files.

    The first copy is kept, in the order of sources and files. Returns counts: of each source what came
    through every step, reasons, licences, languages, buckets and hosts.
    """
    stats = {source.name: SourceStats() for source in settings.sources}
    seen = _remember(settings, out, root)
    with Writer(out / "dropped.parquet", dropped_schema()) as dropped:
        for source in settings.sources:
            steps = merging(source, settings, thresholds, seen)
            own = [group for group in groups if group.source.name == source.name]
            with Writer(out / f"{source.name}.parquet", document_schema()) as kept:
                for batch in documents(own):
                    run(steps, batch)
                    for record in batch:
                        stats[source.name].add(record)
                        (dropped if record.reason else kept).add(record)
    return {**counts_of(stats), **(_sentence_counts(seen.sentences) if seen.sentences else {})}


def _remember(settings: CorpusSettings, out: Path, root: Path) -> Memory:
    """Of nothing yet, or of a run that the settings name what was nearly equal to its documents."""
    uses_c4 = any(source.c4 for source in settings.sources)
    index = None
    if settings.uses_minhash:
        if settings.deduplicate_against:
            earlier = documents_folder(root / settings.deduplicate_against)
            shutil.copytree(earlier / "near", out / "near")
        index = Index(out / "near", threshold=settings.near_duplicate_threshold)
    return Memory(
        sentences=Spans(settings.remembered_bytes) if uses_c4 else None,
        texts=HashSet(MOST_TEXT_BYTES),
        near=index,
        books=Books(),
    )


def _sentence_counts(spans: Spans) -> dict[str, dict[str, int]]:
    """How many sentences were compared and removed."""
    return {"spans": {"found": spans.found, "removed": spans.removed, "scopes": spans.scopes}}
