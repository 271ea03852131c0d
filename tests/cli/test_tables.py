"""puna eval paper, and lm-evaluation-harness, on a small model and made rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.generate.load import save
from tests.cli.test_eval import puna
from tests.cli.test_usage import Capture
from tests.evaluate import made
from tests.evaluate.test_endpoint import Server, serving

WRITTEN = (".md", ".html", ".json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The made rows, and two models that differ."""
    for name in ("one", "two"):
        model = made.loaded()
        with torch.no_grad():
            model.model.output.weight.mul_(-1 if name == "two" else 1)
        save(model, tmp_path / "made" / name, "native")
    return made.write(tmp_path / "made")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def results(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """A folder with results of two models."""
    for name in ("one", "two"):
        words = (folder / name, "--data", folder, "--out", tmp_path / name, "--tasks", "boolq,crows_pairs")
        puna(monkeypatch, capsys, *words)
    return tmp_path


def test_two_models_in_the_papers_tables(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = ("paper", results / "one", results / "two", "--out", results / "new" / "tables")
    text = puna(monkeypatch, capsys, *words)
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("Table ")] == [
        f"Table {number}" for number in range(3, 17)
    ]
    scores = [json.loads((results / name / "boolq.paper.json").read_text()) for name in ("one", "two")]
    lines = [line.split() for line in text.splitlines()]
    for name, score in zip(("one", "two"), scores, strict=True):
        at = next(n for n, line in enumerate(lines) if line[:1] == [name])
        assert lines[at][1] == f"{100 * score['scores']['answer']['value']:.1f}"
        assert lines[at + 2][:3] == ["n", "6", "partial"]
    found = json.loads((results / "new" / "tables.json").read_text())
    assert found[9]["models"]["two"][4]["items"] == 3 and found[9]["number"] == 12
    assert "| one |" in (results / "new" / "tables.md").read_text()
    assert "<strong>two</strong>" in (results / "new" / "tables.html").read_text()
    assert f"written: {results}/new/tables.md" in text
    assert json.loads(puna(monkeypatch, capsys, *words, "--json")) == found


def test_a_model_just_measured_goes_into_the_tables(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    words = (folder / "one", "--data", folder, "--out", tmp_path / "one", "--paper")
    problem = puna(monkeypatch, capsys, *words, code=2)
    assert f"{tmp_path}/one has no results of profile paper" in problem
    assert "Table 3:" in puna(monkeypatch, capsys, *words, "--tasks", "piqa", "--limit", 2)
    assert all((tmp_path / f"one-paper{suffix}").is_file() for suffix in WRITTEN)
    again = puna(monkeypatch, capsys, *words)
    assert "\none " in again and "2 partial" in again


def test_a_folder_holds_one_model(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    told = puna(monkeypatch, capsys, "paper", results, "--out", results / "tables", code=2)
    assert f"{results} has results of several models: name a folder" in told
    assert not list(results.glob("tables*"))


def test_tasks_of_the_harness_as_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("lm_eval", reason="pip install 'puna[lm-eval]'")
    scores = {"alias": "arc", "acc,none": 0.25, "acc_stderr,none": 0.0123}
    found = {"results": {"arc_easy": scores}, "n-samples": {"arc_easy": {"effective": 40}}, "versions": {}}
    asked: list[Any] = []

    def run(loaded: Any, tasks: Any, **more: Any) -> Any:
        asked.append((tasks, more))
        return found

    monkeypatch.setattr("puna.evaluate.harness.run", run)
    save(made.loaded(), tmp_path / "one", "native")
    words = (tmp_path / "one", "--harness", "lm-eval", "--tasks", "arc_easy", "--limit", 40)
    text = puna(monkeypatch, capsys, *words)
    (row,) = [line.split("|") for line in text.splitlines() if "acc" in line]
    assert [cell.strip() for cell in row if cell.strip()][-4:] == ["acc", "0.25", "±", "0.0123"]
    assert text.endswith("items: arc_easy 40\n")
    assert json.loads(puna(monkeypatch, capsys, *words, "--json")) == found
    assert asked[0] == (["arc_easy"], {"shots": None, "limit": 40, "folder": None})
    assert "name tasks" in puna(monkeypatch, capsys, tmp_path / "one", code=2)


def test_an_endpoint_is_asked_by_its_address(
    folder: Path,
    tmp_path: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (server.url, "--data", folder, "--tasks", "naturalquestions", "--limit", 2, "--paper")
    text = puna(monkeypatch, capsys, *words)
    assert len(server.asked) == 2 and server.asked[0]["model"] == "org/small"
    assert "\nsmall (endpoint)  " in text and "which an endpoint does not give." in text
    assert (tmp_path / "eval" / "small" / "naturalquestions.paper.json").is_file()
    refused = puna(monkeypatch, capsys, server.url, "--data", folder, "--tasks", "piqa", code=2)
    assert refused.endswith(
        f"{server.url} gives no log-probabilities: choose tasks whose answers are written\n"
    )
