"""`puna corpus` on a folder, and the questions one can ask of what it leaves."""

import json
from pathlib import Path

import pytest

from . import tiny
from .report.test_report import checked
from .tiny import puna


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    rows = [
        {"url": f"https://example.org/<{n}>", "text": line}
        for n, line in enumerate((folder / "raw" / "stories-0.txt").read_text().split("\n"))
    ]
    (folder / "raw" / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    result = puna("corpus", folder / "raw", "--out", folder / "out")
    assert "page: " in result.stdout and "dropped of datasets: " in result.stdout
    return folder / "out" / "raw"


def test_what_it_leaves(made: Path) -> None:
    (documents,) = made.glob("documents-*")
    assert {path.name for path in documents.iterdir()} >= {
        "artifact.json",
        "dropped.parquet",
        "data_card.md",
        "public_summary.md",
        "datasets.parquet",
    }
    page = (made / "corpus.html").read_text()
    checked(page)
    assert "datasets: kept" in page and "https://example.org/&lt;" in page and "<script" not in page
    card = (documents / "data_card.md").read_text()
    assert "## Why records were dropped" in card and "| datasets | texts of a published dataset | 14 |" in card


def test_again_is_nothing_to_do_and_the_recipe_runs(made: Path) -> None:
    result = puna("corpus", made.parents[1] / "raw", "--out", made.parent)
    assert "already there" in result.stderr
    result = puna("corpus", made / "recipe.toml", "--out", made.parents[1] / "other", "--json")
    assert json.loads(result.stdout)["sources"]["datasets"]["found"]["documents"] == 14


def test_dropped_records_are_listed(made: Path) -> None:
    rows = [json.loads(line) for line in puna("corpus", "dropped", made, "--source", "datasets", "--json").stdout.splitlines()]
    assert {row["reason"] for row in rows} >= {"too short"} and all(row["source"] == "datasets" for row in rows)
    assert "too short" in puna("corpus", "dropped", made, "--reason", "too short").stdout
    assert "no dropped record for the reason 'nonsense'" in puna("corpus", "dropped", made, "--reason", "nonsense", code=2).stderr


def test_scores_of_a_text(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("This is a letter about the long road to the market, and about nothing else at all.")
    (row,) = json.loads(puna("corpus", "score", path, "--json").stdout)
    assert row["language"] == "en" and row["score"] > 0.5 and row["perplexity"] is None
    assert "learnt no quality models" in puna("corpus", "score", path, "--run", made, code=2).stderr
    assert "no such file" in puna("corpus", "score", tmp_path / "nothing", code=2).stderr


def test_mistakes_are_told(tmp_path: Path) -> None:
    assert "no such file or folder" in puna("corpus", tmp_path / "nothing", code=2).stderr
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert "nothing here that a reader takes" in puna("corpus", tmp_path / "picture.png", "--out", tmp_path, code=2).stderr
