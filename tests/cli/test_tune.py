"""puna tune, and what the other commands make of a tuned run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from puna.report import summary
from tests import tiny
from tests.run.test_processes import several
from tests.tiny import puna
from tests.tune import small
from tests.tune.test_stage import run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A recipe with its finished run in out/shop, and what was printed."""
    path = small.write(tmp_path_factory.mktemp("tuned"))
    return path, puna("tune", path, "stages.sft.epochs=1", "--out", path.parent / "out")


def test_the_forecast_comes_first_and_the_next_command_last(tuned: Any) -> None:
    path, told = tuned
    figures = summary.read(path.parent / "out" / "shop")
    sft = figures["tuned"]["sft"]
    counts = [f"{sft[name]:,}" for name in ("conversations", "tokens", "learned_tokens")]
    forecast = "{} conversations, {} tokens, {} of them learned".format(*counts)
    assert f"{forecast}, " in told.stderr
    rows = figures["forecasts"]["sft"]["rows"]
    packed = f"in {rows} packed rows; {sft['steps']} steps, about "
    assert packed in told.stderr
    assert told.stderr.index(forecast) < told.stderr.index("step     1 of")
    assert told.stdout.splitlines()[-1].endswith(f"chat {path.parent}/out/shop")
    assert figures["forecasts"]["sft"]["steps"] == sft["steps"]


def test_again_there_is_nothing_to_do(tuned: Any) -> None:
    path, first = tuned
    told = puna("tune", path, "stages.sft.epochs=1", "--out", path.parent / "out")
    assert "nothing to do: every stage exists" in told.stderr
    assert told.stdout == first.stdout


def test_other_commands_take_the_run(tuned: Any, tmp_path: Path) -> None:
    path, first = tuned
    run = path.parent / "out" / "shop"
    rows = json.loads(puna("show", path, "-s", "stages.sft.epochs=1", "--out", run.parent, "--json").stdout)
    assert [(row["stage"], row["state"]) for row in rows] == [
        (name, "exists") for name in ("replay", "rows", "sft", "probe")
    ]
    assert "every file is as its manifest says" in puna("verify", run).stdout
    assert puna("report", run).stdout == first.stdout
    text = json.loads(puna("generate", run, "Ana buys", "--tokens", "4", "--json").stdout)
    assert text["prompt"] == "Ana buys"
    puna("export", "hf", run, tmp_path / "hf")
    told = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert "GPT:" in told["chat_template"]
    ours, theirs = (
        load_file(summary.model_folder(run) / "model.safetensors"),
        load_file(tmp_path / "hf" / "model.safetensors"),
    )
    assert len(ours) == len(theirs)


def test_a_forecast_alone_trains_nothing(tuned: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(tuned[0].parent, tmp_path / "copy")
    told = json.loads(puna("tune", copy / "shop.toml", "--forecast", "--json", "--out", copy / "out").stdout)
    assert told["sft"]["steps"] == -(-told["sft"]["conversations"] // 16)
    assert told["sft"]["cpu_seconds"] > 0 and told["sft"]["memory_bytes"] > 1e8
    assert len(list((copy / "out" / "shop").glob("sft-*"))) == 1  # the one before, of one epoch


def test_what_does_not_go_is_one_message(tuned: Any) -> None:
    path = tuned[0]
    assert f"tunes a base model: puna tune {path}" in puna("run", path, code=2).stderr
    told = puna("tune", path, "stages.sft.epoch=1", "chat.formt=koala", code=2).stderr
    assert "stages.sft.epoch: unknown key; did you mean epochs?" in told
    assert "chat.formt: unknown key; did you mean format?" in told
    told = puna(
        "tune", path, "execution.memory_bytes=100000000", "--out", path.parent / "other", code=2
    ).stderr
    assert "does not fit" in told


def test_two_processes_tune_to_the_same_weights(tuned: Any, tmp_path: Path) -> None:
    path = small.write(tmp_path / "two", base=False)
    shutil.copytree(tuned[0].parent / "base", path.parent / "base")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *launch,
        "-m",
        "puna",
        "tune",
        path,
        "stages.sft.epochs=1",
        "stages.sft.noise_alpha=5",
        "--out",
        tmp_path / "out",
    ]
    told = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=240,
        env=tiny.environment(),
        check=False,
    )
    assert told.returncode == 0, told.stderr
    one, watcher = run(path, "stages.sft.epochs=1", "stages.sft.noise_alpha=5")
    two = summary.model_folder(tmp_path / "out" / "shop")
    lines = (two / "losses.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == pytest.approx(
        list(watcher.losses.values()), rel=1e-7
    )
    before = load_file(path.parent / "base" / "model.safetensors")
    here, there = load_file(one["sft"].folder / "model.safetensors"), load_file(two / "model.safetensors")
    for name, weight in here.items():
        assert (there[name] - weight).abs().max() < 1e-5, name
        assert not weight.equal(before[name])


@pytest.mark.parametrize("option", ["--forecast", "--ask"])
def test_what_waits_for_an_answer_is_for_one_process(tuned: Any, tmp_path: Path, option: str) -> None:
    path, _ = tuned
    told = several("tune", path, option, "--out", tmp_path / "out", code=1).stderr
    assert told.count("--forecast and --ask are for one process") == 1, told
    assert not (tmp_path / "out").exists()
