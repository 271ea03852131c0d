"""What looks at all groups in their order: lines, sentences, documents and books that came before.

Nothing here depends on where one group ends and the next begins. The merge is saved piece by piece, since it
takes long and is one process: what it wrote, what it remembers, the index of near-duplicates, and how many
records went through (saved.py).
"""

import bisect
import contextlib
import itertools
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.dedup import index, lines
from puna.corpus.dedup.books import Books
from puna.corpus.dedup.lines import HashSet
from puna.corpus.dedup.sentences import Spans
from puna.corpus.fit import Thresholds
from puna.corpus.funnel import SourceStats, counts_of
from puna.corpus.groups import Group
from puna.corpus.passes import documents
from puna.corpus.record import Record, document_schema, documents_folder, dropped_schema
from puna.corpus.saved import Saved
from puna.corpus.settings import CorpusSettings
from puna.corpus.steps import Memory, merging, run
from puna.corpus.tables import Rows, characters_of, count_rows, link_or_copy, writing_array
from puna.run.artifact import fingerprint

# Of text, between two points from which a killed merge goes on; the same for any size of groups, since the
# files of the corpus show them: each begins a row group.
PIECE_CHARACTERS = 16_000_000
FORMAT = 1  # of what is saved
RECALLED_AT_ONCE = 1 << 23  # bytes
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
            with writing_array(group.path("keep")) as file:
                file.add(keep)
        scopes = seen.scopes if seen else math.ceil(found / lines.scope_lines(settings.remembered_bytes))
        counts[source.name] = {"found": found, "removed": removed, "scopes": scopes}
    return counts


def merge(
    settings: CorpusSettings,
    groups: list[Group],
    thresholds: Thresholds,
    *,
    scratch: Path,
    out: Path,
    root: Path,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Run the last steps on the documents of all groups, and write `out`'s Parquet files.

    The first copy is kept, in the order of sources and files. A merge that was killed goes on behind the last
    piece that it saved in `scratch`. Returns counts: of each source what came through every step, reasons,
    licences, languages, buckets and hosts.
    """
    key = fingerprint({"format": FORMAT, "settings": settings, "thresholds": repr(thresholds)})
    made = _Merge(settings, Saved(scratch / "merge", key), root)
    last = shown = 0
    for number, source in enumerate(settings.sources):
        own = [group for group in groups if group.source.name == source.name]
        last += len(own)
        if number < made.source:
            continue
        ends = list(itertools.accumulate(count_rows(group.path("filtered")) for group in own))
        steps = merging(source, settings, thresholds, made.seen)
        characters = 0
        for batch in documents(own, made.records):
            reached = last - len(own) + bisect.bisect_right(ends, made.records)
            for group in range(shown, reached + 1):
                progress("merging", group, len(groups))
            shown = reached
            characters += sum(map(characters_of, batch))
            run(steps, batch)
            made.add(source.name, batch)
            if characters > PIECE_CHARACTERS:
                made.save()
                characters = 0
        made.source, made.records = number + 1, 0
        made.save()
    progress("merging", len(groups), len(groups))
    return made.finish(out)


class _Merge:
    """What a merge has written and what it remembers, both as of the last piece that was saved.

    source, records: how many sources are done, and how many records of the next one.
    """

    def __init__(self, settings: CorpusSettings, saved: Saved, root: Path) -> None:
        self.saved, self.source, self.records = saved, 0, 0
        content = saved.load()
        if content is None and settings.uses_minhash and settings.deduplicate_against:
            shutil.copytree(
                documents_folder(root / settings.deduplicate_against) / "near", saved.folder / "near"
            )
        elif content and content["near"]:
            index.restore(saved.folder / "near", content["near"])
        for folder in ("rows", "seen"):
            (saved.folder / folder).mkdir(exist_ok=True)
        self.stats = {source.name: SourceStats() for source in settings.sources}
        self.dropped = Rows(self._rows("dropped"), dropped_schema())
        self.kept = {name: Rows(self._rows(name), document_schema()) for name in self.stats}
        self.seen = _remember(settings, saved.folder)
        self.books_saved = 0
        if content:
            self._recall(content)

    def _rows(self, name: str) -> Path:
        return self.saved.folder / "rows" / f"{name}.bin"

    def _memories(self) -> dict[Path, HashSet]:
        """Where what is new in each set of hashes is written."""
        folder, seen = self.saved.folder / "seen", self.seen
        spans = {folder / "sentences.bin": seen.sentences.seen} if seen.sentences else {}
        return {folder / "texts.bin": seen.texts, **spans}

    @property
    def _books(self) -> Path:
        return self.saved.folder / "seen" / "books.bin"

    def add(self, source: str, batch: list[Record]) -> None:
        """Write records of a source that went through the steps."""
        self.records += len(batch)
        for record in batch:
            self.stats[source].add(record)
            (self.dropped if record.reason else self.kept[source]).add(record)

    def save(self) -> None:
        """End a piece: have the next attempt go on behind it."""
        for rows in (self.dropped, *self.kept.values()):
            rows.flush()
        for path, hashes in self._memories().items():
            with path.open("ab") as file:
                file.write(hashes.news().data)
        books = self.seen.books
        with self._books.open("ab") as file:
            for book in zip(
                books.identities[self.books_saved :], books.samples[self.books_saved :], strict=True
            ):
                pickle.dump(book, file)
        self.books_saved = len(books.identities)
        near, sentences = self.seen.near, self.seen.sentences
        content = {
            "source": self.source,
            "records": self.records,
            "stats": {name: stats.counters() for name, stats in self.stats.items()},
            "sentences": [sentences.found, sentences.removed] if sentences else [],
            "near": near.commit() if near else {},
        }
        paths = [self.dropped.path, *(rows.path for rows in self.kept.values())]
        paths += [*self._memories(), self._books, *(near.files() if near else [])]
        self.saved.save(content, paths)

    def _recall(self, content: dict[str, Any]) -> None:
        """Remember what was remembered when a piece was saved."""
        self.source, self.records = content["source"], content["records"]
        self.stats = {name: SourceStats.of(counters) for name, counters in content["stats"].items()}
        for path, hashes in self._memories().items():
            for start in range(0, path.stat().st_size, RECALLED_AT_ONCE):
                hashes.mark_new(np.fromfile(path, np.uint64, RECALLED_AT_ONCE // 8, offset=start))
                hashes.news()
        with self._books.open("rb") as file, contextlib.suppress(EOFError):
            while True:
                self.seen.books.add_again(*pickle.load(file))
        self.books_saved = len(self.seen.books.identities)
        if self.seen.sentences:
            self.seen.sentences.found, self.seen.sentences.removed = content["sentences"]

    def finish(self, out: Path) -> dict[str, Any]:
        """Write what was saved into `out`; return the counts."""
        for name, rows in (("dropped", self.dropped), *self.kept.items()):
            rows.finish(out / f"{name}.parquet")
        if self.seen.near:
            self.seen.near.close()
            shutil.copytree(self.saved.folder / "near", out / "near", copy_function=link_or_copy)
        return {
            **counts_of(self.stats),
            **(_sentence_counts(self.seen.sentences) if self.seen.sentences else {}),
        }


def _remember(settings: CorpusSettings, folder: Path) -> Memory:
    """Of nothing yet, but for the index of near-duplicates, where there is one in `folder`."""
    near = None
    if settings.uses_minhash:
        near = index.Index(folder / "near", threshold=settings.near_duplicate_threshold)
    return Memory(
        sentences=Spans(settings.remembered_bytes) if any(source.c4 for source in settings.sources) else None,
        texts=HashSet(MOST_TEXT_BYTES, keeps_news=True),
        near=near,
        books=Books(),
    )


def _sentence_counts(spans: Spans) -> dict[str, dict[str, int]]:
    """How many sentences were compared and removed."""
    return {"spans": {"found": spans.found, "removed": spans.removed, "scopes": spans.scopes}}
