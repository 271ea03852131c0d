"""What happens to raw files until they are documents: passes over groups of them, and what stands between.

The steps that a document goes through are listed in `steps.py`. Raw files take them in groups, which workers
take in any order. Between the passes stands what looks at all groups in their order: which lines came before,
what the quality filters learn, and which documents are repeats. A run that was stopped goes on at the first
group without a pass's result, or in the middle of the merge.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from puna.corpus import fit, passes
from puna.corpus.cards.data_card import data_card
from puna.corpus.cards.public_summary import public_summary
from puna.corpus.engine import Engine, prepare
from puna.corpus.groups import Group, groups_of
from puna.corpus.merge import mark_lines, merge
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile
from puna.errors import UserError
from puna.run.settings import ExecutionSettings

SHOWN_HOSTS = 1_000
Progress = Callable[[str, int, int], None]


def documents(
    settings: CorpusSettings,
    files: Mapping[str, Iterable[RawFile]],
    *,
    scratch: Path,
    out: Path,
    root: Path,
    execution: ExecutionSettings,
    progress: Progress,
) -> dict[str, Any]:
    """Read, clean, filter and deduplicate raw files into `out`; return counts of every step.

    files: of each source, taken one by one. scratch: folder of finished groups, which a second call finds
    again. progress(what, groups done, groups in all). root: what paths in the settings start from. Raises
    UserError for a damaged file (policy "stop") and where no document is left.
    """
    prepare()
    engine = Engine(execution.workers, execution.ray)
    groups = groups_of(settings, files, scratch, root, execution.group_bytes)
    lined = [group for group in groups if group.source.ccnet != "off"]
    scored = [group for group in groups if group.source.perplexity or group.source.reference]

    # 1. Extract the text of every record and clean it; sources without ccnet are filtered at once.
    _on_each(groups, passes.READ, engine, partial(progress, "reading"))
    passes.stop_if_damaged(settings, groups)

    # 2. Filter: without the lines that came before, by heuristics, length and language.
    lines = mark_lines(settings, lined, progress)
    _on_each(lined, passes.FILTER, engine, partial(progress, "filtering"))

    # 3. Score: perplexity, and likeness to pages that Wikipedia cites, by models trained on this corpus.
    fit.train_models(settings, groups, scratch, progress)
    _on_each(scored, passes.SCORE, engine, partial(progress, "scoring"))
    thresholds = fit.thresholds(settings, scored, scratch)

    # 4. Merge: drop low scores and what came before: sentences, equal and near-equal documents, books.
    counts = merge(settings, groups, thresholds, scratch=scratch, out=out, root=root, progress=progress)
    counts |= {"learnt": thresholds.describe(), "lines": lines}

    _write_hosts(out / "domains.csv", counts["hosts"])
    (out / "data_card.md").write_text(data_card(settings, counts))
    (out / "public_summary.md").write_text(public_summary(settings, counts))
    (out / "learnt.json").write_text(json.dumps(counts["learnt"], indent=1) + "\n")
    fit.copy_models(scratch, out)
    counts["empty"] = _explain_empty(settings, counts)
    return counts


def _on_each(
    groups: list[Group], what: passes.Pass, engine: Engine, progress: Callable[[int, int], None]
) -> None:
    """Make a pass over every group that lacks the file that it leaves. progress(done, in all)."""
    waiting = [group for group in groups if not what.leaves(group).exists()]
    finished = len(groups) - len(waiting)
    progress(finished, len(groups))
    for done in engine.each(what.function, waiting):
        progress(finished + done, len(groups))


def _write_hosts(path: Path, hosts: dict[str, Any]) -> None:
    """List the hosts with most text, for the public summary; only the first of them stay in the counts."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("source", "host", "bytes"))
        for source, own in hosts.items():
            rows.writerows((source, host, size) for host, size in own["top"].items())
            own["top"] = dict(itertools.islice(own["top"].items(), SHOWN_HOSTS))


def _explain_empty(settings: CorpusSettings, counts: dict[str, Any]) -> dict[str, str]:
    """What to do about each source of which no document is left. Raises UserError where none has one."""
    filters = [
        f"corpus.minimum_characters={settings.minimum_characters}",
        f"corpus.languages={list(settings.languages)}",
        f"corpus.near_duplicate_threshold={settings.near_duplicate_threshold}",
    ]
    if settings.deduplicate_against:
        filters.append(f"corpus.deduplicate_against={settings.deduplicate_against}")
    empty = {}
    for name in settings.text_sources:
        if not counts["sources"][name]["kept"]["documents"]:
            empty[name] = (
                f"no document is left of source {name} ({_list_reasons(counts['dropped'][name])}); give "
                f"other files, another reader for them, or loosen the filters ({', '.join(filters)})"
            )
    if len(empty) == len(settings.text_sources):
        raise UserError("\n".join(empty.values()))
    return empty


def _list_reasons(dropped: dict[str, int]) -> str:
    ordered = sorted(dropped.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {reason}" for reason, count in ordered) or "no records found"
