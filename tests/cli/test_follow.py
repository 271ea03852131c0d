"""puna eval follow: checkpoints of a training that goes on, and its end."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from puna.cli import follow
from puna.evaluate.log import identify
from puna.generate.load import load
from puna.train.checkpoint import Progress, Saver
from puna.train.losses import Losses
from tests.cli.test_eval import puna
from tests.cli.test_usage import Capture
from tests.evaluate import made


def test_checkpoints_are_measured_until_training_is_done(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    run, rows = tmp_path / "out" / "small", made.write(tmp_path / "rows")
    (trained,) = run.glob("train-*")
    hidden = tmp_path / "hidden"
    trained.rename(hidden)  # training goes on
    scratch = run / ".scratch" / trained.name
    scratch.mkdir(parents=True)
    shutil.copy(hidden / "losses.jsonl", scratch)
    whole = load(hidden)
    model, digests = whole.model, [identify(whole)["model"]]
    model.norm.weight.data.mul_(1.5)  # other weights than those at the end
    digests.insert(0, identify(whole)["model"])
    losses = Losses(scratch / "losses.jsonl")
    with Saver(model, torch.optim.AdamW(model.parameters()), losses) as saver:
        saver.save(scratch, Progress(4))
    (scratch / "step-00000008").mkdir()  # one that is being removed
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            hidden.rename(trained)

    monkeypatch.setattr(follow.time, "sleep", sleep)
    monkeypatch.setattr(follow.os, "nice", lambda level: None)
    words = ("follow", tmp_path / "small.toml", "--out", tmp_path / "out", "--data", rows, "--limit", 3)
    text = puna(monkeypatch, capsys, *words, "--tasks", "winogrande,crows_pairs")
    lines = {
        line["step"]: line for line in map(json.loads, (trained / "losses.jsonl").read_text().splitlines())
    }
    tokens = [lines[4]["tokens"], lines[max(lines)]["tokens"]]
    # What the small model cannot read, winogrande here, has no score.
    told = re.findall(r"^([\d,]+) tokens: crows_pairs, 3 of 1,508: [\d.]+%$", text, re.MULTILINE)
    assert [int(each.replace(",", "")) for each in told] == tokens and looks == [10.0, 10.0, 0]
    results = run / "eval" / trained.name
    first, last = (
        json.loads((results / str(each) / "crows_pairs.paper.json").read_text()) for each in tokens
    )
    assert [first["model"], last["model"]] == digests and first["scores"] != last["scores"]
    assert (results / "curves.html").read_text().count("<circle") == 2
    looks.clear()
    assert (
        puna(monkeypatch, capsys, *words, "--tasks", "winogrande,crows_pairs")
        == f"curves: {results}/curves.html\n"
    )
