"""Runs on made rows: scores by hand, kills, resumption, what does not fit, samples."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.errors import UserError
from puna.evaluate import runner
from puna.evaluate.data import Data, Part
from puna.evaluate.log import identify
from puna.evaluate.scoring import split
from puna.evaluate.task import Generation, Options, Task, find
from puna.generate.load import Loaded
from tests.evaluate import made
from tests.evaluate.stopping_engine import Engine, Stop


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return made.loaded()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("made"))


def measure(
    task: str | Task, loaded: Loaded, out: Path, data: Path, stop_after: int = -1, **more: Any
) -> Any:
    """(result, how many trees or samples the model was asked for)."""
    engine, options = (
        Engine(loaded, stop_after),
        Options(more.pop("profile", "paper"), more.pop("shots", None)),
    )
    task = find(task) if isinstance(task, str) else task
    result = runner.run(task, loaded, engine, options, out, identify(loaded), data=data, **more)
    return result, engine.asked


def lines(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def test_scores_are_those_of_the_model_by_hand(loaded: Loaded, folder: Path, tmp_path: Path) -> None:
    result, _ = measure("boolq", loaded, tmp_path, folder)
    items = list(find("boolq").items(Data("boolq", find("boolq").parts, folder), Options()))
    right = []
    for row, item in zip(lines(tmp_path, "boolq.paper.items.jsonl"), items, strict=True):
        sums = []
        for context, option in item.pairs():
            given, scored = split(loaded.tokenizer, context, option)
            with torch.inference_mode():
                rows = loaded.model(torch.tensor([given + scored]))[0].double().log_softmax(-1)
            told = rows[len(given) - 1 : -1].tolist()
            sums.append(sum(told[n][token] for n, token in enumerate(scored)))
        assert [option[0] for option in row["options"]] == pytest.approx(sums[:2], abs=1e-4)
        assert [option[2] for option in row["options"]] == pytest.approx(sums[2:], abs=1e-4)
        lifts = [sums[0] - sums[2], sums[1] - sums[3]]
        assert row["chosen"]["answer"] == lifts.index(max(lifts))
        right.append(float(row["chosen"]["answer"] in item.right))
        assert row["scores"]["answer"] == right[-1]
    mean = sum(right) / 6
    assert result["main"] == "answer" and result["scores"]["answer"] == {
        "value": mean, "stderr": pytest.approx(math.sqrt(mean * (1 - mean) / 5)), "n": 6
    }  # fmt: skip
    assert json.loads((tmp_path / "boolq.paper.json").read_text()) == result


def test_partial_data_says_so(loaded: Loaded, folder: Path, tmp_path: Path) -> None:
    result, _ = measure("piqa", loaded, tmp_path, folder)
    assert (result["n"], result["of"], result["partial"]) == (6, 1838, True)
    whole, _ = measure(replace(find("piqa"), size=6), loaded, tmp_path, folder)
    assert whole["partial"] is False
    limited, asked = measure(replace(find("piqa"), size=6), loaded, tmp_path / "b", folder, limit=4)
    assert (limited["n"], limited["of"], limited["partial"], asked) == (4, 6, True, 4)
    last, _ = measure("race_high", loaded, tmp_path, folder, profile="lm-eval")
    assert last["of"] == 1045


def test_averages_are_over_questions_and_over_groups(loaded: Loaded, folder: Path, tmp_path: Path) -> None:
    result, _ = measure("mmlu", loaded, tmp_path, folder)
    rows = lines(tmp_path, "mmlu.paper.items.jsonl")
    assert result["groups"].keys() == {"Other", "anatomy", "Social Science", "us_foreign_policy"}
    anatomy = [row["scores"]["none"] for row in rows if "anatomy" in row["groups"]]
    assert result["groups"]["Other"]["none"]["value"] == sum(anatomy) / 3
    assert result["groups"]["Other"]["none"]["n"] == 3 and result["shots"] == 5


def test_mc2_is_the_right_answers_share_of_probability(loaded: Loaded, folder: Path, tmp_path: Path) -> None:
    result, _ = measure("truthfulqa_mc2", loaded, tmp_path, folder)
    for row in lines(tmp_path, "truthfulqa_mc2.paper.items.jsonl"):
        weights = [math.exp(option[0]) for option in row["options"]]
        assert row["scores"]["share"] == pytest.approx(sum(weights[:2]) / sum(weights))
    assert result["scores"].keys() == {"share"}


@pytest.mark.parametrize("kill", (0, 2, 5))
def test_a_killed_run_goes_on_and_asks_nothing_twice(
    kill: int, loaded: Loaded, folder: Path, tmp_path: Path
) -> None:
    whole, asked = measure("piqa", loaded, tmp_path / "whole", folder)
    assert asked == 6
    with pytest.raises(Stop):
        measure("piqa", loaded, tmp_path / "killed", folder, stop_after=kill)
    assert not (tmp_path / "killed" / "piqa.paper.json").exists()
    log = tmp_path / "killed" / "piqa.paper.log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"run": "cut o')  # a line that the kill cut off
    result, rest = measure("piqa", loaded, tmp_path / "killed", folder)
    assert rest == 6 - kill and result == whole
    names = ("whole/piqa.paper.items.jsonl", "killed/piqa.paper.items.jsonl")
    assert lines(tmp_path, names[0]) == lines(tmp_path, names[1])
    assert measure("piqa", loaded, tmp_path / "killed", folder)[1] == 0
    assert len(log.read_text().splitlines()) == 6


def test_what_makes_other_answers_is_asked_anew(loaded: Loaded, folder: Path, tmp_path: Path) -> None:
    assert measure("mmlu", loaded, tmp_path, folder)[1] == 6
    assert measure("mmlu", loaded, tmp_path, folder, shots=2)[1] == 6
    assert measure("mmlu", loaded, tmp_path, folder, seed=1)[1] == 6
    assert measure("mmlu", loaded, tmp_path, folder, profile="lm-eval")[1] == 6
    assert measure(replace(find("mmlu"), version=99), loaded, tmp_path, folder)[1] == 6
    other = made.loaded()
    with torch.no_grad():
        other.model.norm.weight[3] += 1e-3
    assert measure("mmlu", other, tmp_path, folder)[1] == 6
    for again in ({}, {"shots": 2}, {"seed": 1}, {"profile": "lm-eval"}):
        assert measure("mmlu", loaded, tmp_path, folder, **again)[1] == 0


def test_the_identity_is_of_weights_and_tokenizer(loaded: Loaded) -> None:
    same, other = made.loaded(), made.loaded()
    assert identify(same) == identify(loaded)
    with torch.no_grad():
        other.model.tok_embeddings.weight[0, 0] += 1e-3
    told = identify(other)
    assert told["model"] != identify(loaded)["model"] and told["tokenizer"] == identify(loaded)["tokenizer"]
    other.tokenizer.adds_bos = False
    assert identify(other)["tokenizer"] != told["tokenizer"]


def test_items_over_the_context_drop_shots_are_skipped_or_fail(folder: Path, tmp_path: Path) -> None:
    mmlu = find("mmlu")
    items = list(mmlu.items(Data("mmlu", mmlu.parts, folder), Options("paper", 5)))
    lengths = [runner.prepare(made.loaded(), items[0], shots).request.longest() for shots in range(6)]
    assert lengths == sorted(set(lengths))
    for shots in range(5):
        short = made.loaded(lengths[shots])  # just so many examples fit before the first item
        assert runner.fit(short, items[0], "drop-shots").shots == shots
        assert runner.fit(short, items[0], "drop-shots").request.longest() == lengths[shots]
        assert runner.fit(short, items[0], "skip") is None
        with pytest.raises(
            UserError, match=f"item 0 has {lengths[5]} tokens; the model reads {lengths[shots]}"
        ):
            runner.fit(short, items[0], "fail")
    result, _ = measure("mmlu", made.loaded(lengths[2]), tmp_path, folder)
    assert result["dropped_shots"]["0"] == 2 and len(result["dropped_shots"]) == 6 - len(result["skipped"])
    assert {row["item"]: row["shots"] for row in lines(tmp_path, "mmlu.paper.items.jsonl")} == result[
        "dropped_shots"
    ]
    none, asked = measure("mmlu", made.loaded(lengths[0] - 40), tmp_path / "none", folder)
    assert (none["skipped"], none["n"], none["scores"], asked) == ([str(n) for n in range(6)], 0, {}, 0)
    assert none["partial"]


def test_the_cost_is_told_before_with_shared_prefixes_counted_once(
    loaded: Loaded, folder: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    measure("mmlu", loaded, tmp_path, folder, tell=told.append)
    mmlu = find("mmlu")
    items = list(mmlu.items(Data("mmlu", mmlu.parts, folder), Options("paper", 5)))
    prefixes = set()
    extra = 0
    for item in items:
        for branch in runner.prepare(loaded, item, 5).request.branches:
            prefixes |= {tuple(branch.context[: end + 1]) for end in range(len(branch.context))}
            extra += sum(len(option) - 1 for option in branch.options)
    assert told[0].startswith(
        f"mmlu: 6 items, {len(prefixes) + extra:,} tokens to read, about 0.0 min, at most "
    )
    measure("mmlu", loaded, tmp_path, folder, tell=told.append)
    assert len([text for text in told if "to read" in text]) == 1  # nothing is left to ask


def counting(samples: int) -> Task:
    """Answers to write, right where they have an e."""

    def items(data: Data, options: Options) -> Iterator[Generation]:
        for number in range(3):
            yield Generation(
                id=str(number), question=f"The llama of {number} is", check=lambda text: float("e" in text),
                stops=(".",), max_new_tokens=4, samples=samples, temperature=1.0,
            )  # fmt: skip

    return Task("counting", 1, 3, {"items": Part(("none",))}, items)


@pytest.mark.parametrize("kill", (0, 2, 7, 12))
def test_repeats_are_the_same_when_a_run_goes_on(kill: int, loaded: Loaded, tmp_path: Path) -> None:
    whole, asked = measure(counting(4), loaded, tmp_path / "whole", tmp_path, seed=3)
    texts = {row["item"]: row["texts"] for row in lines(tmp_path / "whole", "counting.paper.items.jsonl")}
    assert asked == 12 and all(len(each) == 4 for each in texts.values())
    assert len({text for each in texts.values() for text in each}) > 3
    assert whole["scores"]["accuracy"]["value"] == sum("e" in t for each in texts.values() for t in each) / 12
    if kill < 12:
        with pytest.raises(Stop):
            measure(counting(4), loaded, tmp_path / "killed", tmp_path, stop_after=kill, seed=3)
    result, rest = measure(counting(4), loaded, tmp_path / "killed", tmp_path, seed=3)
    assert rest == 12 - kill % 12 and result == whole
    again = lines(tmp_path / "killed", "counting.paper.items.jsonl")
    assert {row["item"]: row["texts"] for row in again} == texts


def test_more_samples_keep_those_that_are_there(loaded: Loaded, tmp_path: Path) -> None:
    assert measure(counting(2), loaded, tmp_path, tmp_path)[1] == 6
    first = {row["item"]: row["texts"] for row in lines(tmp_path, "counting.paper.items.jsonl")}
    assert measure(counting(4), loaded, tmp_path, tmp_path)[1] == 6
    more = {row["item"]: row["texts"] for row in lines(tmp_path, "counting.paper.items.jsonl")}
    assert {item: texts[:2] for item, texts in more.items()} == first


def test_items_of_the_corpus_are_marked_with_the_score_without_them(
    loaded: Loaded, tmp_path: Path, folder: Path
) -> None:
    passage = "the old llama that led the herd over the high plain was never seen again"
    rows = [
        {"passage": f"{n} {passage if n < 2 else 'x'}", "question": "is it so", "answer": n % 2 > 0}
        for n in range(5)
    ]
    (tmp_path / "dev.jsonl").write_text(made.jsonl(*rows))
    documents = ["Nothing.", f"They say {passage.upper()}!"]
    result, _ = measure("boolq", loaded, tmp_path / "out", tmp_path, documents=lambda: documents)
    told = lines(tmp_path / "out", "boolq.paper.items.jsonl")
    assert [row["in_corpus"] for row in told] == [True, True, False, False, False]
    assert result["in_corpus"]["items"] == ["0", "1"] and result["scores"]["none"]["n"] == 5
    rest = result["in_corpus"]["scores_without"]["none"]
    assert rest["n"] == 3 and rest["value"] == sum(row["scores"]["none"] for row in told[2:]) / 3
    assert "in_corpus" not in measure("boolq", loaded, tmp_path / "out", tmp_path)[0]
