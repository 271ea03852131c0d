"""The corpus' stages: what their fingerprints cover, where raw files come from, how much memory they take."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puna.corpus import stage
from puna.corpus.record import documents_folder
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import DOWNLOADS
from puna.errors import UserError
from puna.run import artifact
from puna.run.artifact import Artifact
from puna.run.settings import ExecutionSettings
from puna.run.stage import Context

LINE = "The llamas of the high plain are counted every spring by the people of the village. " * 4


class Quiet:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, state: str, detail: str = "") -> None: ...

    def progress(self, what: str, done: int, total: int) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def event(self, event: Any) -> None: ...


def context(folder: Path, execution: ExecutionSettings | None = None) -> Context:
    folders = [folder / name for name in ("work", ".scratch/stage", "shared", "logs")]
    for each in folders:
        each.mkdir(parents=True, exist_ok=True)
    return Context(execution or ExecutionSettings(workers=1), *folders, Quiet())


def corpus(uris: list[str], **settings: Any) -> CorpusSettings:
    source = {"name": "a", "reader": "lines", "uris": uris, **settings.pop("source", {})}
    return CorpusSettings.model_validate({"sources": [source], **settings})


def fetch_settings(settings: CorpusSettings, root: Path) -> stage.FetchSettings:
    return stage.FetchSettings(sources=settings.sources, on_damaged_file="stop", root=root)


def test_importing_the_stages_loads_no_heavy_library() -> None:
    heavy = ("torch", "daft", "numpy", "pyarrow")
    code = f"import sys, puna.corpus.stage; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_content_of_fetch_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LINE)
    settings = fetch_settings(corpus(["*.txt"]), tmp_path)
    content = stage.fetch_content(settings)
    digest = hashlib.sha256(LINE.encode()).hexdigest()
    listed = json.dumps({"name": "a.txt", "digest": digest}) + "\n"
    assert content == {"a": hashlib.sha256(listed.encode()).hexdigest()}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text(LINE)
    assert stage.fetch_content(fetch_settings(corpus(["a.txt"]), tmp_path / "other")) == content
    (tmp_path / "a.txt").write_text("changed")
    assert stage.fetch_content(settings) != content
    assert artifact.canonical(settings) == {}
    with pytest.raises(UserError, match=r"source a: other is a folder, .* reader lines .* write other/\*"):
        stage.fetch_content(fetch_settings(corpus(["other"]), tmp_path))


def test_what_was_downloaded_to_find_its_digest_is_not_downloaded_again(tmp_path: Path) -> None:
    digest = hashlib.sha256(LINE.encode()).hexdigest()
    given = context(tmp_path)
    earlier = tmp_path / ".scratch" / DOWNLOADS
    earlier.mkdir()
    (earlier / digest).write_text(LINE)
    settings = fetch_settings(corpus([f"https://nowhere.invalid/a.txt#sha256={digest}"]), tmp_path)
    assert stage.fetch(settings, {}, given) == {"a": {"files": 1, "bytes": len(LINE)}}
    (entry,) = map(json.loads, (given.work / "a.jsonl").read_text().splitlines())
    assert (given.work / entry["path"]).read_text() == LINE and entry["digest"] == digest


def test_documents_depend_on_the_files_that_their_settings_name(tmp_path: Path) -> None:
    (tmp_path / "domains.txt").write_text("a.org\n")
    settings = stage.DocumentsSettings(
        corpus=corpus(["*"], opt_out={"domains": "domains.txt"}), root=tmp_path
    )
    digest = hashlib.sha256(b"a.org\n").hexdigest()
    assert stage.documents_content(settings) == {"files": {"domains.txt": digest}, "known": ""}
    missing = stage.DocumentsSettings(corpus=corpus(["*"], bad_words="words.txt"), root=tmp_path)
    with pytest.raises(UserError, match=r"corpus\.bad_words: no file at .*words\.txt"):
        stage.documents_content(missing)


def test_an_earlier_run_is_the_one_that_finished_last(tmp_path: Path) -> None:
    """Not the one whose folder has the newest time stamp."""
    made = {}
    (tmp_path / "run").mkdir()
    for name in ("documents-1", "documents-2"):
        work = tmp_path / "work"
        work.mkdir()
        (work / "dropped.parquet").write_bytes(name.encode())
        (work / "near").mkdir()
        (work / "near" / "index.json").write_text('{"threshold": 0.8}')
        made[name] = artifact.commit(
            work, tmp_path / "run" / name, stage="documents", fingerprint=name, inputs={}, metrics={}
        )
    settings = stage.DocumentsSettings(corpus=corpus(["*"], deduplicate_against="run"), root=tmp_path)
    with pytest.raises(UserError, match=r"corpus\.deduplicate_against: .*documents-1, documents-2"):
        stage.documents_content(settings)
    artifact.set_current(tmp_path / "run", "documents", tmp_path / "run" / "documents-1")
    assert stage.documents_content(settings)["known"] == made["documents-1"].digest
    own = tmp_path / "run" / "documents-2"
    assert documents_folder(own) == own
    compared = settings.corpus.model_copy(update={"near_duplicate_threshold": 0.7})
    with pytest.raises(UserError, match=r"was made with near_duplicate_threshold = 0\.8; set it"):
        stage.documents_content(settings.model_copy(update={"corpus": compared}))


def test_memory_holds_what_is_remembered_under_ccnet_and_then_under_c4() -> None:
    execution = ExecutionSettings(workers=2)
    settings = corpus(["*"])
    without = stage.memory_bytes(settings, execution)
    assert without == 300_000_000 + 2 * 250_000_000
    other = settings.sources[0].model_copy(update={"name": "b"})
    for changes in ([{"c4": True}, {}], [{}, {"ccnet": "on"}], [{"c4": True}, {"ccnet": "on", "c4": True}]):
        pairs = zip((settings.sources[0], other), changes, strict=True)
        sources = tuple(source.model_copy(update=change) for source, change in pairs)
        changed = settings.model_copy(update={"sources": sources, "remembered_lines": 1_000_000})
        assert stage.memory_bytes(changed, execution) == without + 16_000_000


@pytest.mark.parametrize("limit", ["execution.memory_bytes", "free memory"])
def test_documents_that_may_take_too_much_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    allowed = 549_999_999  # a byte too few
    free = 10 * allowed if limit == "execution.memory_bytes" else allowed
    monkeypatch.setattr(stage.machine, "available_bytes", lambda: free)
    memory_bytes = allowed if limit == "execution.memory_bytes" else 0
    execution = ExecutionSettings(workers=1, memory_bytes=memory_bytes)
    settings = stage.DocumentsSettings(corpus=corpus(["*"]), root=tmp_path)
    with pytest.raises(UserError) as refused:
        stage.documents(settings, {}, context(tmp_path, execution))
    for key in ("execution.workers", "corpus.remembered_lines", "execution.memory_bytes"):
        assert key in str(refused.value)


def test_both_stages_turn_files_into_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(LINE)
    settings = corpus(["a.txt"])
    first = context(tmp_path / "first")
    counts = stage.fetch(fetch_settings(settings, tmp_path), {}, first)
    assert counts == {"a": {"files": 1, "bytes": len(LINE)}}
    fetched = Artifact(first.work, "fetch", "0", {}, {})
    second = context(tmp_path / "second")
    metrics = stage.documents(
        stage.DocumentsSettings(corpus=settings, root=tmp_path), {"fetch": fetched}, second
    )
    assert metrics["sources"]["a"]["kept"]["documents"] == 1
    assert (second.work / "a.parquet").is_file() and (second.work / "data_card.md").is_file()
