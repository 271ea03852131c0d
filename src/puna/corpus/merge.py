"""Raw files -> clean documents: the order of the steps.

Raw files are worked on in groups (`groups`), wherever the engine runs them. Between the steps that a group
goes through by itself stand those that look at all groups in their order: which lines were seen before, what
the quality models learn, where the percentiles lie, which sentences of C4's pages came before, and which
documents, near or exact. A killed run goes on at the first group without its file.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus import fit, steps
from puna.corpus.cards import card
from puna.corpus.engine import Engine, prepare
from puna.corpus.fit import Learnt
from puna.corpus.funnel import BOOK, DUPLICATE, NEAR, TAIL, UNLIKE, Tally
from puna.corpus.record import DAMAGED, document_schema
from puna.corpus.settings import CorpusSettings, SourceSettings
from puna.corpus.sources.fetch import RawFile
from puna.corpus.steps import Group
from puna.errors import UserError

MOST_TEXT_BYTES = 1 << 34  # of memory for the digests of all texts, 16 a text; taken as they come
Progress = Callable[[str, int, int], None]


def documents(
    settings: CorpusSettings,
    files: Mapping[str, Iterable[RawFile]],
    parts: Path,
    out: Path,
    progress: Progress,
    root: Path = Path(),
) -> dict[str, Any]:
    """Read, clean and filter every raw file; write `out/<source>.parquet` and `out/dropped.parquet`; return
    the funnel.

    files: of each source, taken one by one. parts: folder for finished groups, which a second call finds
    again. progress(what, groups done, groups in all). root: what the paths in settings start from. Raises
    UserError for a damaged file (policy "stop") and where no document is left.
    """
    prepare()
    parts.mkdir(parents=True, exist_ok=True)
    addresses, settings = settings, _without_addresses(settings)
    work = [
        Group(source, settings, number, parts.absolute(), root.absolute()).with_files(cut)
        for source in settings.sources
        for number, cut in enumerate(steps.groups(files[source.name], settings.group_bytes))
    ]
    engine = Engine(settings.workers, settings.ray)
    lined = [group for group in work if group.source.ccnet != "off"]
    _run(engine, steps.read, work, _after_reading, "reading", progress)
    _stop_if_damaged(settings, work)
    removed = _keep_lines(settings, lined, progress) if lined else {}
    _run(engine, steps.judge, lined, lambda group: "judged", "judging", progress)
    fit.models(settings, work, parts, progress)
    asking = [group for group in work if group.source.perplexity or group.source.reference]
    _run(engine, steps.score, asking, lambda group: "scores", "scoring", progress)
    learnt = fit.learnt(settings, asking, parts)
    progress("merging", len(work), len(work))
    funnel = _merge(settings, work, learnt, out, root)
    funnel["lines"] = removed
    for name, text in (("data_card.md", card.data_card), ("public_summary.md", card.public_summary)):
        (out / name).write_text(text(addresses, funnel))
    (out / "learnt.json").write_text(json.dumps(funnel["learnt"], indent=1) + "\n")
    for name in ("perplexity", "reference"):
        if (parts / name).is_dir():
            shutil.copytree(parts / name, out / name, copy_function=_link)
    funnel["empty"] = {
        name: _no_document(settings, funnel, name)
        for name, steps in funnel["sources"].items()
        if not steps["kept"]["documents"]
    }
    if len(funnel["empty"]) == len(settings.sources):
        raise UserError("\n".join(funnel["empty"].values()))
    return funnel


def _without_addresses(settings: CorpusSettings) -> CorpusSettings:
    """Settings as groups have them, which are sent to every worker: without the list of all files."""
    bare = tuple(source.model_copy(update={"uris": ()}) for source in settings.sources)
    return settings.model_copy(update={"sources": bare})


def _run(
    engine: Engine,
    work: Callable[[Group], None],
    jobs: list[Group],
    result: Callable[[Group], str],
    what: str,
    progress: Progress,
) -> None:
    """Run a step on every group whose file is not there yet."""
    waiting = [group for group in jobs if not group.path(result(group)).exists()]
    progress(what, len(jobs) - len(waiting), len(jobs))
    engine.each(work, waiting, lambda done: progress(what, len(jobs) - len(waiting) + done, len(jobs)))


def memory_bytes(settings: CorpusSettings) -> int:
    """What all processes together take at most, before quality models and but for single huge records: 300 MB
    of the one that merges, 250 MB of each worker, and the memory of the lines seen under ccnet, which that of
    the sentences seen under c4 follows. Beyond a few million documents 16 bytes come to that for each, and 10
    kB for each book."""
    lines = settings.line_memory_bytes * any(
        source.ccnet != "off" or source.c4 for source in settings.sources
    )
    return 300_000_000 + 250_000_000 * Engine(settings.workers, settings.ray).processes + lines


def _link(source: str, target: str) -> None:
    """A second name for a file, or a copy where there can be none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _after_reading(group: Group) -> str:
    return "judged" if group.source.ccnet == "off" else "read"


def _stop_if_damaged(settings: CorpusSettings, work: list[Group]) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if settings.on_damaged_file == "skip":
        return
    for group in work:
        path = group.path(_after_reading(group))
        table = pq.read_table(path, columns=["file", "reason", "detail"])
        if damaged := table.filter(pc.equal(table["reason"], DAMAGED)).to_pylist():
            path.unlink()  # to be read again once it is mended
            told = "\n  ".join(f"{row['file']}: {row['detail']}" for row in damaged)
            raise UserError(
                f"source {group.source.name}: {told}\nmend or remove the file, or set corpus.on_damaged_file to skip"
            )


def _keep_lines(
    settings: CorpusSettings, lined: list[Group], progress: Progress
) -> dict[str, dict[str, int]]:
    """Write which lines of each group stay. The scope of a source is all its groups, as far as memory
    reaches."""
    from puna.corpus.dedup import lines

    def hashes(group: Group) -> Any:
        return np.load(group.path("lines"), allow_pickle=False)

    counts: dict[str, dict[str, int]] = {}
    for source in dict.fromkeys(group.source for group in lined):
        own = [group for group in lined if group.source == source]
        found = removed = 0
        if source.ccnet == "exact":
            answers = lines.unrepeated(map(hashes, own), settings.line_memory_bytes)
        else:
            seen = lines.Seen(settings.line_memory_bytes)
            answers = (seen.first_time(hashes(group)) for group in own)
        for number, (group, keep) in enumerate(zip(own, answers, strict=True)):
            progress(f"{source.name}: lines", number, len(own))
            found, removed = found + len(keep), removed + int((~keep).sum())
            with steps.Array(group.path("keep")) as kept:
                kept.add(keep)
        exact = -(-found // lines.scope_lines(settings.line_memory_bytes))
        counts[source.name] = {
            "found": found,
            "removed": removed,
            "scopes": exact if source.ccnet == "exact" else seen.scopes,
        }
    return counts


def _no_document(settings: CorpusSettings, funnel: dict[str, Any], source: str) -> str:
    """What to tell about a source of which nothing is left."""
    return (
        f"no document is left of source {source} ({_reasons(funnel['dropped'][source])}); give other files, another reader for them, or "
        f"loosen the filters (corpus.minimum_characters={settings.minimum_characters}, corpus.languages={list(settings.languages)}, "
        f"corpus.near_duplicates={settings.near_duplicates}{f', corpus.known={settings.known}' * bool(settings.known)})"
    )


def _reasons(dropped: dict[str, int]) -> str:
    return (
        ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1]))
        or "no records found"
    )


def _merge(
    settings: CorpusSettings, work: list[Group], learnt: Learnt, out: Path, root: Path
) -> dict[str, Any]:
    """Take all groups in order: filter by quality, drop what was there before, the first one kept; write
    documents and dropped."""
    import pyarrow as pa

    dropped_schema = pa.schema(
        [(name, pa.string()) for name in ("source", "file", "url", "reason", "detail", "excerpt")]
    )
    dropped_schema = dropped_schema.insert(2, pa.field("offset", pa.int64()))
    tallies = {source.name: Tally() for source in settings.sources}
    earlier = _Earlier(settings, out, root)
    with steps.Writer(out / "dropped.parquet", dropped_schema) as dropped:
        for source in settings.sources:
            own = [group for group in work if group.source == source]
            with steps.Writer(out / f"{source.name}.parquet", document_schema()) as kept:
                for group in own:
                    for rows, signatures in _batches(group):
                        _filter(rows, source, settings, learnt)
                        earlier.drop(rows, signatures, source)
                        for row in rows:
                            tallies[source.name].add(row, row["reason"])
                            if row["reason"]:
                                dropped.add(
                                    {**row, "excerpt": (row["text"] or "")[: steps.EXCERPT], "text": None}
                                )
                            else:
                                kept.add(row)
    names = [source.name for source in settings.sources]
    spans = earlier.spans
    return {
        **(
            {"spans": {"found": spans.found, "removed": spans.removed, "scopes": spans.scopes}}
            if spans
            else {}
        ),
        "sources": {name: tallies[name].funnel() for name in names},
        **{
            key: {name: dict(sorted(getattr(tallies[name], key).items())) for name in names}
            for key in ("dropped", "licences", "languages")
        },
        "buckets": {
            name: dict(sorted(tallies[name].buckets.items())) for name in names if tallies[name].buckets
        },
        "hosts": {
            name: {"hosts": len(tallies[name].hosts), "top": tallies[name].top_hosts()}
            for name in names
            if tallies[name].hosts
        },
        "learnt": learnt.told(),
    }


def _batches(group: Group) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    """The judged rows of a group with their scores, and the MinHash signatures of those that are still in, a
    few at a time."""
    signatures = (
        np.load(group.path("near"), mmap_mode="r", allow_pickle=False) if group.settings.signs else None
    )
    scores = (
        steps.rows_of(group.path("scores"), ["perplexity", "reference_score"])
        if group.path("scores").exists()
        else None
    )
    at = 0
    for batch in steps.batches_of(group.path("judged")):
        rows = [{**row, "signed": not row["reason"]} for row in batch]
        if scores is not None:
            for row in rows:
                row |= next(scores)
        size = sum(row["signed"] for row in rows)
        yield rows, None if signatures is None else signatures[at : at + size]
        at += size


def _filter(
    rows: list[dict[str, Any]], source: SourceSettings, settings: CorpusSettings, learnt: Learnt
) -> None:
    """Give rows their bucket, and a reason to those that a quality filter drops."""
    for row in rows:
        if row["perplexity"] is not None and settings.perplexity:
            row["bucket"] = learnt.bucket(source.name, row["perplexity"])
            if row["bucket"] not in settings.perplexity.keep:
                row |= {
                    "reason": TAIL,
                    "detail": f"{row['bucket']}: {row['perplexity']:.1f}, {learnt.told_bounds(source.name)}",
                }
        if (
            not row["reason"]
            and row["reference_score"] is not None
            and row["reference_score"] < learnt.reference_threshold
        ):
            row |= {
                "reason": UNLIKE,
                "detail": f"score {row['reference_score']:.3f} of at least {learnt.reference_threshold:.3f}",
            }


class _Earlier:
    """What has been kept so far, of all sources and of the run that the settings name as known."""

    def __init__(self, settings: CorpusSettings, out: Path, root: Path) -> None:
        from puna.corpus.dedup.books import Books
        from puna.corpus.dedup.index import Index
        from puna.corpus.dedup.lines import Seen
        from puna.corpus.dedup.sentences import Spans

        self._settings, self._texts, self._books = settings, Seen(MOST_TEXT_BYTES), Books()
        self.spans = (
            Spans(settings.line_memory_bytes) if any(source.c4 for source in settings.sources) else None
        )
        self._index = None
        if settings.signs:
            if settings.known:
                shutil.copytree(documents_folder(root / settings.known) / "near", out / "near")
            self._index = Index(out / "near", threshold=settings.near_duplicates)

    def drop(self, rows: list[dict[str, Any]], signatures: Any, source: SourceSettings) -> None:
        """Give a reason to rows whose text, or nearly so, was kept before; under c4, once they lost the
        sentences that came before.

        signatures: of the rows that came in without a reason.
        """
        own = [row for row in rows if row["signed"]]
        shortened = self._shorten([row for row in rows if not row["reason"]]) if source.c4 else []
        fresh = [row for row in rows if not row["reason"]]
        first = self._texts.first_time(np.array([int(row["id"][:16], 16) for row in fresh], np.uint64))
        for row, is_first in zip(fresh, first.tolist(), strict=True):
            if not is_first:
                row |= {"reason": DUPLICATE, "detail": f"of {row['id']}"}
        if self._index is not None:
            places = [place for place, row in enumerate(own) if not row["reason"]]
            signatures = _signed_anew([own[place] for place in places], signatures[places], shortened)
            found = self._index.add([own[place]["id"] for place in places], signatures)
            again = np.flatnonzero(found >= 0)
            for at, identity in zip(again.tolist(), self._index.ids(found[again]), strict=True):
                own[places[at]] |= {"reason": NEAR, "detail": f"of {identity}"}
        for row in fresh if source.books else ():
            if not row["reason"] and (match := self._books.add(row["id"], row["text"])):
                row |= {"reason": BOOK, "detail": f"{match[1]:.0%} of {match[0]}"}

    def _shorten(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take out of pages the spans of sentences that came before: the rows of a new text, dropped where
        that is too short. Their language and scores are those of the whole page."""
        from puna.corpus.dedup.sentences import REPEATED
        from puna.corpus.filters.c4 import MINIMUM_SENTENCES

        assert self.spans is not None
        shortened = []
        for row, (text, sentences) in zip(
            rows, self.spans.unseen([row["text"] for row in rows]), strict=True
        ):
            if text == row["text"]:
                continue
            if sentences < MINIMUM_SENTENCES:
                row["reason"] = REPEATED
            else:
                row |= steps.measured(text, self._settings)
                shortened.append(row)
        return shortened


def _signed_anew(rows: list[dict[str, Any]], signatures: Any, changed: list[dict[str, Any]]) -> Any:
    """The rows' signatures, made again for those whose text has changed."""
    from puna.corpus.dedup import near

    those = set(map(id, changed))
    places = [place for place, row in enumerate(rows) if id(row) in those]
    if places:
        signatures[places] = near.signatures([rows[place]["text"] for place in places])
    return signatures


def documents_folder(run: Path) -> Path:
    """The documents artifact of a run's folder, or the folder itself where it is one. Raises UserError where
    there is none."""
    if (run / "dropped.parquet").is_file():
        return run
    found = sorted(run.glob("documents-*"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{run.absolute()} holds no documents: name a run's folder, such as out/first")
    return found[-1]
