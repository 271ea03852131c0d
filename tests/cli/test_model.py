"""puna generate and trace on a finished run."""

import json
import os
import shutil
from pathlib import Path

import pytest

from puna.cli import model as cli
from puna.errors import UserError
from puna.generate import sequences
from puna.tokens.tokenizer import Tokenizer
from tests.tiny import puna


def test_trace_leads_to_the_document(finished: Path) -> None:
    run = finished / "out" / "small"
    sources = set()
    for step, row, position in ((1, 0, 0), (20, 3, 31), (7, 1, 20), (12, 2, 9)):
        origin = json.loads(puna("trace", run, step, row, position, "--json").stdout)
        sources.add(origin["source"])
        assert origin["licence"] in ("CC0-1.0", "MIT") and origin["url"] and origin["file"]
        assert "language_score" in origin
        of_stories = origin["source"] == "stories"
        path = finished / origin["file"] if of_stories else finished / "project" / origin["title"]
        assert origin["text"][:100] in path.read_text()
        assert origin["token"].strip() in origin["around"] or origin["token"].startswith("<")
    assert sources <= {"stories", "code"}
    assert "licence" in puna("trace", run, 1, 0, 0).stdout
    refused = puna("trace", run, 21, 0, 0, code=2).stderr
    assert "step 21 is outside this run: it has steps 1 to 20" in refused


def test_trace_of_short_sequences_and_of_the_long_ones_behind_them(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    run = tmp_path / "copy" / "out" / "small"
    recipe = ("run", tmp_path / "copy" / "small.toml", "--out", run.parent)
    puna(*recipe, "-s", "train.short_length=16", "-s", "train.short_steps=12")
    for step, row, position in ((1, 7, 3), (12, 4, 15), (13, 3, 31), (20, 0, 20)):
        origin = json.loads(puna("trace", run, step, row, position, "--json").stdout)
        assert origin["token"].strip() in origin["around"] or origin["token"].startswith("<")
    for step, row, position, told in (
        (12, 8, 0, "row 8 is outside step 12: it has rows 0 to 7"),
        (12, 0, 16, "position 16 is outside step 12: it has positions 0 to 15"),
        (13, 4, 0, "row 4 is outside step 13: it has rows 0 to 3"),
        (21, 0, 0, "step 21 is outside this run: it has steps 1 to 20"),
    ):
        assert told in puna("trace", run, step, row, position, code=2).stderr
    told = puna(*recipe, "-s", "train.short_length=16", "-s", "train.short_steps=20")
    assert "all 20 steps have short sequences" in told.stdout + told.stderr


def test_a_run_whose_batches_were_drawn_otherwise_is_not_traced(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "out" / "small", tmp_path / "small")
    (path,) = tmp_path.glob("small/train-*/batches.json")
    known = json.loads(path.read_bytes())
    del known["version"]
    path.write_text(json.dumps(known))
    refused = puna("trace", tmp_path / "small", 1, 0, 0, code=2).stderr
    assert "was trained by another version of Puna; run its recipe again" in refused


def test_generate_goes_on(finished: Path) -> None:
    run = finished / "out" / "small"
    arguments = ("generate", run, "The old llama", "--tokens", 10, "--temperature", 0)
    plain = puna(*arguments).stdout
    result = json.loads(puna(*arguments, "--json").stdout)
    assert plain == f"The old llama{result['text']}\n" and 0 < result["tokens"] <= 10
    whole = [puna("generate", run, "The old llama", "--tokens", 1000, "--seed", seed) for seed in range(3)]
    told = "of 1,000 tokens: with the prompt they fill the model's context of 32\n"
    assert any(result.stderr.endswith(told) for result in whole)  # the others ended their texts
    assert puna("generate", run, "The old llama", "--tokens", 3).stderr == ""
    assert "the model reads 32" in puna("generate", run, "word " * 60, code=2).stderr
    assert puna(*arguments, "--mode", "int8").stdout.startswith("The old llama")


def test_generate_takes_a_folder_of_weights_too(finished: Path) -> None:
    run = finished / "out" / "small"
    (weights,) = run.glob("train-*")
    arguments = ("The old llama", "--tokens", 5, "--seed", 7, "--json")
    assert puna("generate", weights, *arguments).stdout == puna("generate", run, *arguments).stdout


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "params.json"])
def test_damaged_weights_are_not_used(finished: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "small"
    shutil.copytree(finished / "out" / "small", run)
    (path,) = run.glob(f"train-*/{name}")
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for folder in (run, path.parent):
        with pytest.raises(UserError, match=f"is damaged: the content of {name} does not match its digest"):
            cli.generate(folder, "The old llama", tokens=1)
    (path.parent / "artifact.json").unlink()
    with pytest.raises(UserError, match="is not an artifact"):
        cli.generate(run, "The old llama", tokens=1)


def test_a_text_is_printed_in_whole_characters(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, text = finished / "out" / "small", "\u2581 \xf6\U0001f999."
    (path,) = run.glob("train-*/tokenizer.model")
    ids = Tokenizer(path.read_bytes()).encode("\n" + text)[1:]  # after its first space: no text begins
    drawn = iter(ids)
    monkeypatch.setattr(sequences, "choose", lambda logits, how, number: next(drawn))
    cli.generate(run, "On:", tokens=len(ids), top_p=0.9)
    assert capsys.readouterr().out == f"On:\n{text}\n" and next(drawn, None) is None


def test_a_run_is_exported_imported_and_generates_the_same(finished: Path, tmp_path: Path) -> None:
    run = finished / "out" / "small"
    arguments = ("The old llama", "--tokens", 5, "--seed", 7, "--json")
    expected = puna("generate", run, *arguments).stdout
    for form in ("hf", "gguf", "meta"):
        told = json.loads(puna("export", form, run, tmp_path / form, "--json").stdout)
        assert (told["from"], told["to"], told["begin token"], told["stop tokens"]) == (
            "native",
            form,
            1,
            [2],
        )
        if form == "hf":
            modes = {path.stat().st_mode for path in (tmp_path / form).iterdir()}
            assert len(modes) == 1
        assert "padding rows           0" in puna("import", tmp_path / form, tmp_path / f"from-{form}").stdout
        assert puna("generate", tmp_path / f"from-{form}", *arguments).stdout == expected
        assert puna("generate", tmp_path / form, *arguments).stdout == expected
        assert "exists" in puna("export", form, run, tmp_path / form, code=2).stderr
    assert f"written to             {tmp_path / 'b'}\n" in puna("export", "hf", run, tmp_path / "b").stdout
    refused = puna("export", "hf", run, tmp_path / "q", "--type", "Q8_0", code=2).stderr
    assert "hf holds weights as F32, F16, BF16, not as Q8_0" in refused and not (tmp_path / "q").exists()
    assert "no such file or folder" in puna("import", "/nope", tmp_path / "q", code=2).stderr
    (tmp_path / "text").write_text("no model")
    assert "holds no model" in puna("import", tmp_path / "text", tmp_path / "q", code=2).stderr


def test_checkpoints_that_are_kept_are_exported_as_the_model_is(finished: Path, tmp_path: Path) -> None:
    left_out = shutil.ignore_patterns("train-*", "scores-*")
    copy = Path(shutil.copytree(finished, tmp_path / "copy", ignore=left_out))
    run, recipe = (
        copy / "out" / "small",
        ("small.toml", "--out", "out", "-s", "execution.checkpoints_every=8"),
    )
    told = puna("run", *recipe, "-s", "train.steps=16", cwd=copy).stderr
    (folder,) = run.glob(".shared/train/train-*")
    steps = [folder / f"step-{step:08d}" for step in (8, 16)]
    assert sorted(folder.glob("step-*")) == steps and "checkpoints of each 8 steps stay in" in told
    assert "step-00000008" in puna("verify", run).stdout and not any(run.glob(".scratch/*"))

    def exported(source: Path, form: str, out: str) -> dict[str, bytes]:
        puna("export", form, source, tmp_path / out)
        return {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}

    of_run = exported(run, "hf", "run")
    assert exported(steps[1], "hf", "last") == of_run and "tokenizer.json" in of_run
    of_middle = exported(steps[0], "hf", "middle")
    assert {name for name, content in of_middle.items() if content != of_run[name]} == {"model.safetensors"}
    arguments = ("The old llama", "--tokens", 5, "--temperature", 0)
    assert puna("generate", steps[1], *arguments).stdout == puna("generate", run, *arguments).stdout
    # The same training, unfinished, with a checkpoint that a kill has left half removed.
    (made,) = run.glob("train-*")
    scratch = run / ".scratch" / made.name
    shutil.move(folder, scratch)
    shutil.rmtree(made)
    (scratch / "step-00000016" / "index.json").unlink()
    assert "will go on after step 8" in puna("show", *recipe, "-s", "train.steps=16", cwd=copy).stdout
    refused = puna("export", "hf", run, tmp_path / "none", code=2).stderr
    assert "is not finished; name a checkpoint: " in refused and "step-00000008" in refused
    refused = puna("export", "hf", scratch / "step-00000016", tmp_path / "none", code=2).stderr
    assert "is no finished checkpoint" in refused and not (tmp_path / "none").exists()
