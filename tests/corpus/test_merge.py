"""A merge that was killed goes on, and gives the bytes of one that was not."""

import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from puna.corpus import merge, passes, saved, tables
from puna.corpus.dedup import index
from puna.corpus.fit import Thresholds
from puna.corpus.funnel import BOOK, DUPLICATE, NEAR
from puna.corpus.groups import FILE_BYTES, Group, groups_of
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile
from puna.run import files

from . import driver
from .test_corpus import SENTENCES, job, run, start, text, write
from .test_pipeline import content, quiet

FILES = 8  # of each source
PIECE = 7_000
SMALL, LARGE = 1, 3 * FILE_BYTES  # bytes of a group: a file, three files
SHARED = " ".join(sentence.format("well", "smith", 1500) for sentence in SENTENCES[:3])
SOURCES = {"pages": {"c4": True}, "books": {"books": True}}


def write_files(folder: Path) -> dict[str, list[Path]]:
    """Pages with three sentences in common, texts twice or nearly so, and books that hold other ones."""
    files: dict[str, list[Path]] = {"pages": [], "texts": [], "books": []}
    for n in range(FILES):
        rows = {
            "pages": [f"{text(100 + n)} {SHARED}", text(200 + n)],
            "texts": [text(300 + n // 2), text(100 + n, 60), text(100 + n, 60).replace("feast", "party")],
            "books": [text(500 + n // 2) + (f" {text(600 + n)}" if n % 2 else ""), text(200 + n)],
        }
        for name, texts in rows.items():
            files[name].append(write(folder / f"{name}-{n}.txt", texts))
    return files


Merge = Callable[..., tuple[dict[str, Any], dict[str, bytes]]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[CorpusSettings, dict[int, list[Group]]]:
    """Settings, and the groups of two sizes, read."""
    folder = tmp_path_factory.mktemp("groups")
    files = write_files(folder)
    listed = [{"name": name, "reader": "lines", "uris": ["*"], **SOURCES.get(name, {})} for name in files]
    settings = CorpusSettings.model_validate({"sources": listed})
    raw = {
        name: [RawFile(name, path.name, str(path), "", path.stat().st_size) for path in paths]
        for name, paths in files.items()
    }
    groups = {}
    for size in (SMALL, LARGE):
        groups[size] = groups_of(settings, raw, folder / str(size), folder, size)
        for group in groups[size]:
            passes.read(group)
    return settings, groups


@pytest.fixture
def merged(prepared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Merge:
    """Function (name of the attempt's folders) -> counts and the content of `out`."""
    settings, groups = prepared
    monkeypatch.setattr(os, "fsync", lambda file: None)  # which a killed process does not need
    monkeypatch.setattr(merge, "PIECE_CHARACTERS", PIECE)
    for module in (passes, tables):
        monkeypatch.setattr(module, "BATCH_CHARACTERS", PIECE // 2)

    def work(
        name: str, group_bytes: int = SMALL, progress: Callable[..., None] = quiet, thresholds: Any = None
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        out = tmp_path / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        counts = merge.merge(
            settings,
            groups[group_bytes],
            thresholds or Thresholds({}),
            scratch=tmp_path / f"{name}-scratch",
            out=out,
            root=tmp_path,
            progress=progress,
        )
        return counts, content(out)

    return work


class Killed(BaseException):
    """Nothing that would be done after a kill is done for it."""


def stop_at(group: int) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if done == group:
            raise Killed

    return progress


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The groups whose documents are read from here on."""
    read: list[str] = []
    original = passes._documents

    def documents(group: Group) -> Any:
        read.append(group.name)
        return original(group)

    monkeypatch.setattr(passes, "_documents", documents)
    return read


def test_the_corpus_has_all_that_a_merge_remembers(merged: Merge) -> None:
    counts, files = merged("whole")
    assert counts["spans"]["removed"] == 3 * (FILES - 1)
    assert (
        counts["dropped"]["texts"][DUPLICATE] == FILES // 2 and counts["dropped"]["texts"][NEAR] >= FILES // 2
    )
    assert counts["dropped"]["books"] == {BOOK: FILES // 2, DUPLICATE: FILES}
    assert {"near/index.json", "near/ids.bin", "dropped.parquet", "books.parquet"} < set(files)


def test_a_killed_process_does_not_merge_finished_groups_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_files(tmp_path)
    options: dict[str, Any] = {"sources": SOURCES, "piece_characters": PIECE}
    counts, whole = run(job(tmp_path, "whole", files, **options))
    for module, name in (
        (merge, "PIECE_CHARACTERS"),
        (passes, "BATCH_CHARACTERS"),
        (tables, "BATCH_CHARACTERS"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))  # the driver changes them
    read = recorded(monkeypatch)
    for group in (5, 13, 22):
        process = start(job(tmp_path, "killed", files, None, ("merging", group), True, **options))
        _, err = process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL, err
    path = job(tmp_path, "killed", files, **options)
    monkeypatch.setattr(sys, "argv", ["driver", str(path)])
    driver.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == counts
    assert content(tmp_path / "killed") == content(whole)
    assert len(read) <= 3 * FILES - 22 + 2 and all(name.startswith("books") for name in read)


def test_a_merge_goes_on_behind_the_last_piece(merged: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    """In groups of another size, too; and once it is through, nothing is merged again."""
    whole = merged("whole")
    read = recorded(monkeypatch)
    assert merged("whole", LARGE) == whole and not read
    for size, group in ((SMALL, 3), (LARGE, 2), (SMALL, 9), (LARGE, 4), (SMALL, 18)):
        with pytest.raises(Killed):
            merged("again", size, stop_at(group))
        gc.collect()
    read.clear()
    assert merged("again") == whole
    assert 0 < len(read) <= 3 * FILES - 18 + 2


def test_killed_at_any_moment_the_bytes_are_the_same(
    merged: Merge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each sync, rename, removal and cut of a file; and some of the next attempts, too."""
    whole = merged("whole")
    left = 0

    def dying(call: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return call(*arguments, **options)

        return wrapped

    kills = 0
    for step in range(1, 1000, 23):
        with monkeypatch.context() as patch:
            for module in (saved, index, files):
                patch.setattr(module, "sync", dying(files.sync))
            for module, name in ((os, "replace"), (os, "truncate"), (Path, "unlink")):
                patch.setattr(module, name, dying(getattr(module, name)))
            ends = []
            for patience in (step, step // 2):
                left = patience
                try:
                    ends.append(merged("killed") == whole)
                except Killed:
                    kills += 1
                gc.collect()  # what held a lock
        assert all(ends)
        assert merged("killed") == whole
        shutil.rmtree(tmp_path / "killed-scratch")
        if len(ends) == 2:
            break
    assert kills > 20


@pytest.mark.parametrize(
    "name", ["state.json", "rows/texts.bin", "seen/texts.bin", "near/ids.bin", "seen/books.bin"]
)
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_what_is_damaged_is_not_believed(
    merged: Merge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    whole = merged("whole")
    path = tmp_path / "whole-scratch" / "merge" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[:-1] if damage == "cut" else raw)
    read = recorded(monkeypatch)
    assert merged("whole") == whole and len(read) == 3 * FILES


def test_another_merge_is_not_taken_for_this_one(merged: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = merged("whole")
    read = recorded(monkeypatch)
    assert merged("whole", thresholds=Thresholds({}, reference=0.5)) == whole and len(read) == 3 * FILES


def test_pieces_of_any_size_give_the_same_documents(
    merged: Merge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, _ = merged("small")
    monkeypatch.setattr(merge, "PIECE_CHARACTERS", 1 << 30)
    assert merged("large")[0] == counts
    for name in ("pages", "texts", "books", "dropped"):
        small, large = (pq.read_table(tmp_path / each / f"{name}.parquet") for each in ("small", "large"))
        assert small.equals(large)
