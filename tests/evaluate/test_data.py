"""Rows of files of every kind, from a folder and the hub; digests of what was first used."""

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from puna.errors import UserError
from puna.evaluate.data import RECORD, Data, Part, Row

ROWS = [{"goal": "Feed it — \u2028 now", "label": 0}, {"goal": "Lead it", "label": 1}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("puna.evaluate.data.cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def data(folder: Path | None, *names: str, **more: Any) -> Data:
    return Data("herd", {"items": Part(names, **more)}, folder)


def test_files_of_every_kind_have_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "c.json").write_text(json.dumps(ROWS))
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d.parquet"):
        rows = list(data(tmp_path, name).rows())
        assert rows == ROWS and [row.number for row in rows] == [0, 1] and rows[0].origin.name == name
    (tmp_path / "e.csv").write_text('\ufeffgoal,label\n"Feed it, twice",0\n')
    (tmp_path / "f.tsv").write_text("Feed it\t0\n")
    (tmp_path / "g.lst").write_text("0\n1\n")
    assert list(data(tmp_path, "e.csv").rows()) == [{"goal": "Feed it, twice", "label": "0"}]
    assert list(data(tmp_path, "f.tsv", columns=("goal", "label")).rows()) == [
        {"goal": "Feed it", "label": "0"}
    ]
    assert list(data(tmp_path, "g.lst").rows()) == [{"label": "0"}, {"label": "1"}]


def test_a_folder_of_the_tasks_name_comes_first_and_patterns_take_all(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text('{"of": "another"}\n')
    (tmp_path / "herd" / "test").mkdir(parents=True)
    (tmp_path / "herd" / "dev.jsonl").write_text('{"of": "herd"}\n')
    for name in "ba":
        (tmp_path / "herd" / "test" / f"{name}.txt").write_text(json.dumps({"of": name}))
    assert list(data(tmp_path, "dev.jsonl").rows()) == [{"of": "herd"}]
    every = list(data(tmp_path, "missing.jsonl", "test/*.txt").rows())
    assert every == [{"of": "a"}, {"of": "b"}] and [row.number for row in every] == [0, 1]


def test_what_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"herd needs a.jsonl or b.jsonl in .*\Z"):
        data(tmp_path, "a.jsonl", "b.jsonl").files("items")
    assert data(tmp_path, "a.jsonl", needed=False).files("items") == []
    (tmp_path / "a.jsonl").write_text('{"goal": 1}\n{"goal"\n')
    with pytest.raises(UserError, match=r"a.jsonl: cannot be read as jsonl: "):
        list(data(tmp_path, "a.jsonl").rows())
    (tmp_path / "b.jsonl").write_text(LINES)
    (first, _) = data(tmp_path, "b.jsonl").rows()
    with pytest.raises(UserError, match=r"b.jsonl, row 1: no field 'sol1'; it has goal, label"):
        first["sol1"]


def test_a_file_that_changed_since_its_first_use_is_refused(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    assert list(data(tmp_path, "a.jsonl").rows()) == list(data(tmp_path, "a.jsonl").rows())
    path.write_text(LINES.replace("Lead", "Load"))
    with pytest.raises(
        UserError, match=r"a.jsonl has changed since it was first used: SHA-256 .*evaluation-data"
    ):
        list(data(tmp_path, "a.jsonl").rows())
    assert (cache / RECORD).read_text().count("\n") == 1
    (cache / RECORD).unlink()
    assert len(list(data(tmp_path, "a.jsonl").rows())) == 2


def test_the_hub_is_asked_at_a_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(name: str, path: str, **how: str) -> str:
        calls.append((name, path, how))
        (tmp_path / "got.jsonl").write_text(LINES)
        return str(tmp_path / "got.jsonl")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    rows = data(None, "a.jsonl", hub="owner/herd@abc123:data/test.jsonl").rows()
    assert list(rows) == ROWS
    assert calls == [("owner/herd", "data/test.jsonl", {"repo_type": "dataset", "revision": "abc123"})]

    def fail(*arguments: Any, **how: Any) -> str:
        raise OSError("no route")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=fail))
    with pytest.raises(UserError, match=r"cannot fetch owner/herd@abc123:x: no route; or name a folder"):
        list(data(None, "a.jsonl", hub="owner/herd@abc123:x").rows())
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        UserError, match=r"herd needs a.jsonl in the folder that --data names, or install hugg"
    ):
        list(data(None, "a.jsonl", hub="owner/herd@abc123:x").rows())


def test_choices_of_every_form() -> None:
    texts = ["llama", "fox"]
    labels = [{"text": "llama", "label": "1"}, {"text": "fox", "label": "2"}]
    forms: list[dict[str, Any]] = [
        {"choices": texts, "label": 1},
        {"choices": texts, "answer": 1},
        {"choices": {"text": texts, "label": ["A", "B"]}, "answerKey": "B"},
        {"question": {"stem": "Which?", "choices": labels}, "answerKey": " 2"},
    ]
    assert all(Row(form).choices() == (texts, 1) for form in forms)
