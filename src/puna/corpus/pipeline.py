"""What happens to a page between its raw file and the documents: the steps, in order.

Raw files go through the steps in groups, which workers take in any order. Between them stands what looks at
all groups in their order: which lines came before, what the quality filters learn, and which documents are
repeats. A run that was stopped goes on at the first group without a step's result.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from puna.corpus import fit, steps
from puna.corpus.cards.data_card import data_card
from puna.corpus.cards.public_summary import public_summary
from puna.corpus.engine import Engine, prepare
from puna.corpus.merge import mark_lines, merge
from puna.corpus.record import DAMAGED
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile
from puna.corpus.steps import Group
from puna.errors import UserError
from puna.run.settings import ExecutionSettings

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
    scratch.mkdir(parents=True, exist_ok=True)
    groups = _cut_into_groups(settings, files, scratch, root, execution.group_bytes)
    each_group = functools.partial(_each_group, Engine(execution.workers, execution.ray), progress)

    # 1. Read: extract the text of every record, clean it, and replace personal data. A source that does not
    #    ask for CCNet's line deduplication goes through step 3 at once.
    each_group(steps.read, groups, _after_reading, "reading")
    _stop_if_damaged(settings, groups)

    # 2. Mark lines that came before (Wenzek et al. 2020).
    lined = [group for group in groups if group.source.ccnet != "off"]
    lines = mark_lines(settings, lined, progress)

    # 3. Filter: remove those lines; C4's heuristics, length, language; MinHash signatures of what is left.
    each_group(steps.filter, lined, lambda group: "filtered", "filtering")

    # 4. Score: perplexity, and likeness to pages that Wikipedia cites, by models trained on this corpus.
    fit.train_models(settings, groups, scratch, progress)
    scored = [group for group in groups if group.source.perplexity or group.source.reference]
    each_group(steps.score, scored, lambda group: "scores", "scoring")
    thresholds = fit.thresholds(settings, scored, scratch)

    # 5. Merge: drop low scores and what came before: sentences, equal and near-equal documents, books.
    progress("merging", len(groups), len(groups))
    counts = merge(settings, groups, thresholds, out, root)
    counts |= {"learnt": thresholds.describe(), "lines": lines}

    _write_cards(settings, counts, out)
    _copy_models(scratch, out)
    counts["empty"] = _explain_empty(settings, counts)
    return counts


def _cut_into_groups(
    settings: CorpusSettings,
    files: Mapping[str, Iterable[RawFile]],
    scratch: Path,
    root: Path,
    group_bytes: int,
) -> list[Group]:
    """Groups of all sources, in order. What is left of groups of another size is removed."""
    # Groups are sent to every worker, so their settings go without the list of all files.
    sources = tuple(source.model_copy(update={"uris": ()}) for source in settings.sources)
    settings = settings.model_copy(update={"sources": sources})
    groups = []
    for source in sources:
        first = 0
        for own in steps.cut_into_groups(files[source.name], group_bytes):
            group = Group(source, settings, first, scratch.absolute(), root.absolute())
            groups.append(group.with_files(own))
            first += len(own)
    names = {group.name for group in groups}
    for path in scratch.iterdir():
        if path.is_file() and path.name.partition(".")[0] not in names:
            path.unlink()
    return groups


def _each_group(
    engine: Engine,
    progress: Progress,
    step: Callable[[Group], None],
    groups: list[Group],
    result: Callable[[Group], str],
    what: str,
) -> None:
    """Run a step on every group that lacks its result."""
    waiting = [group for group in groups if not group.path(result(group)).exists()]
    finished = len(groups) - len(waiting)
    progress(what, finished, len(groups))
    for done in engine.each(step, waiting):
        progress(what, finished + done, len(groups))


def _after_reading(group: Group) -> str:
    return "filtered" if group.source.ccnet == "off" else "read"


def _stop_if_damaged(settings: CorpusSettings, groups: list[Group]) -> None:
    """Under the policy "stop", raise UserError for the first group with a damaged file."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if settings.on_damaged_file == "skip":
        return
    for group in groups:
        path = group.path(_after_reading(group))
        table = pq.read_table(path, columns=["file", "reason", "detail"])
        if damaged := table.filter(pc.equal(table["reason"], DAMAGED)).to_pylist():
            path.unlink()  # to be read again once it is mended
            files = "\n  ".join(f"{row['file']}: {row['detail']}" for row in damaged)
            raise UserError(
                f"source {group.source.name}: {files}\n"
                "mend or remove the file, or set corpus.on_damaged_file to skip"
            )


def _write_cards(settings: CorpusSettings, counts: dict[str, Any], out: Path) -> None:
    (out / "data_card.md").write_text(data_card(settings, counts))
    (out / "public_summary.md").write_text(public_summary(settings, counts))
    (out / "learnt.json").write_text(json.dumps(counts["learnt"], indent=1) + "\n")


def _copy_models(scratch: Path, out: Path) -> None:
    for name in ("perplexity", "reference"):
        if (scratch / name).is_dir():
            shutil.copytree(scratch / name, out / name, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


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
    for name, documents_after in counts["sources"].items():
        if not documents_after["kept"]["documents"]:
            empty[name] = (
                f"no document is left of source {name} ({_list_reasons(counts['dropped'][name])}); give "
                f"other files, another reader for them, or loosen the filters ({', '.join(filters)})"
            )
    if len(empty) == len(settings.sources):
        raise UserError("\n".join(empty.values()))
    return empty


def _list_reasons(dropped: dict[str, int]) -> str:
    ordered = sorted(dropped.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {reason}" for reason, count in ordered) or "no records found"
