"""The whole way on a tiny recipe: same digests whatever happens, and every command on what it leaves."""

import itertools
import json
import lzma
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sentencepiece
import torch

from puna.cli import run as cli
from puna.errors import UserError
from puna.evaluate import stage as evaluate
from puna.model.llama import Llama
from puna.model.weights import native
from puna.report import summary
from puna.run import artifact, digests
from puna.run.settings import ExecutionSettings
from puna.run.stage import Context
from puna.tokens.batches import planned
from puna.tokens.shards import load
from tests import tiny
from tests.text.test_ngram import BEGIN, END, Reference
from tests.tiny import puna
from tests.train.test_checkpoint import two_saved

STAGES = ["fetch", "documents", "tokenizer", "tokens", "train", "scores"]


def changed_copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the raw files and the recipe alone."""
    shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("out"))
    return tmp_path / "copy"


def test_summary_has_every_figure(finished: Path) -> None:
    figures = json.loads((finished / "out" / "small" / "summary.json").read_text())
    steps = figures["sources"]["stories"]["steps"]
    assert steps["found"]["documents"] == 42
    assert steps["kept"].keys() == {"documents", "bytes"}
    assert steps["kept"]["documents"] == 36
    assert figures["dropped"]["stories"] == {"exact duplicate": 3, "too short": 3}
    assert figures["licences"] == {"stories": {"CC0-1.0": 36}, "code": {"MIT": 8}}
    assert figures["documents"] == 44
    assert figures["tokens"] == tokens_trained(finished / "out" / "small", 20)
    assert set(figures["seconds"]) == set(STAGES)
    assert all(value > 0 for value in figures["seconds"].values())
    assert figures["tokens_per_second"] > 0
    assert 0 < figures["matmul_peak_share"] < 1.2
    assert figures["peak_memory_bytes"] > 1e8
    assert figures["energy"]["kwh"] > 0
    assert figures["energy"]["kg_co2"] > 0
    assert [stage["stage"] for stage in figures["stages"]] == STAGES


def tokens_trained(run: Path, steps: int) -> int:
    """Tokens that a run's batches read, counted one by one; padding is none."""
    known = json.loads((summary.stage_folder(run, "train") / "batches.json").read_bytes())
    folder = summary.stage_folder(run, "tokens")
    batches = planned(known, lambda source: load(folder, source, "train", known["vocab_size"]))
    where = itertools.product(range(steps), range(4), range(32))
    return sum(batches.trace(*place) is not None for place in where)


def test_scores_are_those_of_the_formulas(finished: Path) -> None:
    """Bits per byte of every method, computed from the artifacts with plain loops in float64."""
    run = finished / "out" / "small"
    (documents,), (tokens,), (train,) = (run.glob(f"{stage}-*") for stage in ("documents", "tokens", "train"))
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(train / "tokenizer.model"))
    model = native.load(train, dtype=torch.float64)
    training = [ids for source in ("stories", "code") for ids in shard_documents(tokens, source, "train")]
    counts = Counter(token for ids in training for token in ids[1:])
    vocab_size = tokenizer.vocab_size()
    total = counts.total() + vocab_size
    five_gram = Reference(training, 5, outcomes=vocab_size - 1)
    figures = json.loads((run / "summary.json").read_text())
    for source in ("stories", "code"):
        all_texts = pq.read_table(documents / f"{source}.parquet")["text"].to_pylist()
        texts = [all_texts[row] for row in np.load(tokens / f"{source}.held_out.rows.npy")]
        held_out = shard_documents(tokens, source, "held_out")
        assert all((ids[0], ids[-1]) == (BEGIN, END) for ids in held_out)
        assert [tokenizer.decode(ids) for ids in held_out] == texts
        scored = [token for ids in held_out for token in ids[1:]]
        bits = {
            "model": sum(model_bits(model, ids, length=32) for ids in held_out),
            "xz": 8 * len(lzma.compress(b"".join(text.encode() + b"\xff" for text in texts), preset=9)),
            "unigram": sum(-math.log2((counts[token] + 1) / total) for token in scored),
            "five_gram": sum(five_gram_bits(five_gram, ids) for ids in held_out),
        }
        size = sum(len(text.encode()) for text in texts)
        expected = {method: value / size for method, value in bits.items()}
        assert figures["held_out_bytes"][source] == size
        assert figures["bits_per_byte"][source] == pytest.approx(expected, rel=1e-5)
    assert list(figures["bits_per_byte"]) == ["stories", "code"]


def test_the_five_gram_learns_from_a_part_or_is_left_out_or_refused(finished: Path, tmp_path: Path) -> None:
    run, notes = finished / "out" / "small", []

    class Listener:
        def progress(self, what: str, done: int, total: int) -> None: ...
        def note(self, text: str) -> None:
            notes.append(text)

    inputs = {
        name: artifact.load(summary.stage_folder(run, name)) for name in ("documents", "tokens", "train")
    }
    known = artifact.load(summary.stage_folder(run, "scores"))

    def scored(memory_bytes: int = 0, **options: Any) -> dict[str, Any]:
        settings = evaluate.ScoresSettings.model_validate(
            known.settings | {"evaluate": known.settings["evaluate"] | options}
        )
        execution = ExecutionSettings(memory_bytes=memory_bytes)
        context: Any = Context(execution, *[tmp_path] * 4, Listener())
        return evaluate.score(settings, inputs, context)

    everything = known.metrics["five_gram_tokens"]["all"]
    assert known.metrics["five_gram_tokens"]["learned"] == everything
    most = everything // 2
    part = scored(ngram_tokens=most)
    learned = part["five_gram_tokens"]["learned"]
    assert 0.7 * most < learned <= most and part["five_gram_tokens"]["all"] == everything
    assert notes == [
        f"the 5-gram learned from {learned:,} of {everything:,} training tokens, by "
        f"evaluate.ngram_tokens = {most:,}"
    ]
    without = scored(ngram=False, memory_bytes=1000)
    assert "five_gram_tokens" not in without
    for source, values in known.metrics["bits_per_byte"].items():
        others = {method: value for method, value in values.items() if method != "five_gram"}
        assert without["bits_per_byte"][source] == others
        assert part["bits_per_byte"][source] == {
            **others,
            "five_gram": pytest.approx(values["five_gram"], rel=1),
        }
        assert part["bits_per_byte"][source]["five_gram"] > values["five_gram"]
    with pytest.raises(UserError, match=rf"0\.1 GB for {most:,} tokens .* evaluate\.ngram = false"):
        scored(ngram_tokens=most, memory_bytes=50_000_000)


def test_figures_without_a_five_gram_are_printed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = summary.read(finished / "out" / "small")
    cli._print_figures(finished, figures | {"five_gram_tokens": {"learned": 1000, "all": 20_000}}, False)
    printed = capsys.readouterr().out
    assert "5-gram" in printed and "The 5-gram learned from 1,000 of 20,000 training tokens." in printed
    del figures["five_gram_tokens"]
    for values in figures["bits_per_byte"].values():
        del values["five_gram"]
    cli._print_figures(finished, figures, False)
    printed = capsys.readouterr().out
    assert "5-gram" not in printed and "unigram" in printed


def shard_documents(folder: Path, source: str, split: str) -> list[list[int]]:
    """Tokens of each document of a split, begin and end tokens included."""
    tokens = np.fromfile(folder / f"{source}.{split}.bin", np.uint16)
    offsets = np.load(folder / f"{source}.{split}.offsets.npy")
    return [tokens[start:end].tolist() for start, end in itertools.pairwise(offsets)]


def model_bits(model: Llama, document: list[int], length: int) -> float:
    """Bits of all tokens after the first one, in windows that start every length / 2 tokens.

    The first window scores all of its tokens, each later one the half that the window before did not reach.
    """
    nats = 0.0
    for start in range(0, len(document) - 1, length // 2):
        window = document[start : start + length + 1]
        with torch.inference_mode():
            log_probabilities = model(torch.tensor([window[:-1]]))[0].log_softmax(-1)
        for at in range(length // 2 if start else 0, len(window) - 1):
            nats -= log_probabilities[at, window[at + 1]].item()
    return nats / math.log(2)


def five_gram_bits(model: Reference, document: list[int]) -> float:
    """Bits of all tokens after the first one, each after up to four tokens before it."""
    bits = 0.0
    for at in range(1, len(document)):
        context = tuple(document[max(0, at - 4) : at])
        bits -= math.log2(model.probability(context, document[at]))
    return bits


def test_metrics_have_a_line_a_step_and_one_a_validation(finished: Path) -> None:
    (path,) = finished.glob("out/small/logs/train-*/metrics.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [line for line in lines if "learning_rate" in line]
    assert [line["step"] for line in steps] == list(range(1, 21))
    figures = {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "matmul_peak_share"}
    assert figures | {"peak_memory_bytes"} <= set(steps[0]) and "estimated_joules" not in steps[0]
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.3
    validations = [line for line in lines if line.get("kind") == "validation"]
    assert [line["step"] for line in validations] == [10, 20]
    assert all(line["losses"].keys() == {"stories", "code"} for line in validations)


def test_artifacts_hold_nothing_of_how_often_a_run_was_validated_or_what_it_cost(finished: Path) -> None:
    (train,) = finished.glob("out/small/train-*")
    assert not list(train.glob("validation*"))
    assert "validation" not in json.loads((train / "artifact.json").read_bytes())["metrics"]
    run = finished / "out" / "small"
    seconds = json.loads((run / "summary.json").read_text())["seconds"]
    for stage in STAGES:
        (attempt,) = run.glob(f"logs/{stage}-*/attempts/*.json")
        account = json.loads(attempt.read_bytes())
        assert account["seconds"] == seconds[stage] and "joules" in account
        assert account["execution"]["checkpoint_steps"] == 4
        assert not list(run.glob(f"{stage}-*/attempts"))


def test_a_second_run_does_nothing_and_says_so(finished: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in (finished / "out" / "small").rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    result = puna("run", finished / "small.toml", "--out", finished / "out")
    assert "nothing to do: every stage exists" in result.stderr
    assert result.stderr.count("exists already") == 6
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_execution_is_nothing_to_do(finished: Path) -> None:
    changes = ["-s", "execution.micro_batch_sequences=2", "-s", "execution.remat=full"]
    result = puna("run", finished / "small.toml", "--out", finished / "out", *changes, "--json")
    assert "nothing to do: every stage exists" in result.stderr
    assert json.loads(result.stdout) == json.loads((finished / "out/small/summary.json").read_text())


def test_show_names_what_will_run(finished: Path) -> None:
    arguments = ("show", finished / "small.toml", "--out", finished / "out", "--json")
    rows = json.loads(puna(*arguments).stdout)
    assert [row["stage"] for row in rows] == STAGES and {row["state"] for row in rows} == {"exists"}
    assert [row["inputs"] for row in rows][1:3] == [["fetch"], ["documents"]]
    assert all((Path(row["folder"]) / "artifact.json").is_file() for row in rows)
    rows = json.loads(puna(*arguments, "-s", "train.learning_rate=1e-3").stdout)
    assert [row["state"] for row in rows] == ["exists"] * 4 + ["will run"] * 2
    plain = puna("show", finished / "small.toml", "--out", finished / "nowhere").stdout
    assert plain.count("will run") == 6 and "exists" not in plain


def test_show_reads_no_data(finished: Path, tmp_path: Path) -> None:
    copy = changed_copy(finished, tmp_path)
    arguments = ["show", str(copy / "small.toml"), "--out", str(finished / "out"), "--json"]
    time.sleep(0.2)  # digests of files that have just changed are not cached
    before = puna(*arguments).stdout
    assert {row["state"] for row in json.loads(before)} == {"exists"}
    code = (
        "import sys; from puna.cli.main import main; from puna.run import digests\n"
        "def read(path): raise AssertionError(f'{path} is read')\n"
        f"digests.file_digest = read; sys.argv = {['puna', *arguments]!r}; main()"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout == before


def test_show_notices_content_that_changes_under_an_old_time(finished: Path, tmp_path: Path) -> None:
    copy = changed_copy(finished, tmp_path)
    arguments = ("show", copy / "small.toml", "--out", finished / "out", "--json")
    assert {row["state"] for row in json.loads(puna(*arguments).stdout)} == {"exists"}
    path = copy / "stories-0.txt"
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {row["state"] for row in json.loads(puna(*arguments).stdout)} == {"will run"}


def test_a_change_redoes_only_what_hangs_on_it(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    before = tiny.digests(tmp_path / "copy" / "out")
    change = ("-s", "evaluate.sample_tokens=5")
    puna("run", tmp_path / "copy" / "small.toml", "--out", tmp_path / "copy" / "out", *change)
    after = tiny.digests(tmp_path / "copy" / "out")
    assert {name.partition("-")[0] for name in after.keys() - before.keys()} == {"scores"}


def test_the_figures_are_those_of_the_recipe_that_was_run_last(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    recipe, out = tmp_path / "copy" / "small.toml", tmp_path / "copy" / "out"
    before = (out / "small" / "summary.json").read_text()
    puna("run", recipe, "--out", out, "-s", "train.steps=10", "-s", "train.warmup_steps=2")
    assert json.loads((out / "small" / "summary.json").read_text())["tokens"] == tokens_trained(
        out / "small", 10
    )
    again = puna("run", recipe, "--out", out)
    assert (
        "nothing to do" not in again.stderr
        and f"{json.loads(before)['tokens']:,} tokens trained" in again.stdout
    )
    told = json.loads((out / "small" / "summary.json").read_text())
    assert {**told, "date": ""} == {**json.loads(before), "date": ""}


def test_sources_too_small_to_train_on_are_refused_or_left_out(finished: Path, tmp_path: Path) -> None:
    folder = changed_copy(finished, tmp_path)
    recipe, wished = folder / "small.toml", 'tokens.small_sources="leave out"'
    (folder / "one.txt").write_text(
        "Vicuñas live above the last houses, where the grass is short and the wind never rests for long. "
        "Nobody owns them, and when the people of the valley come up once in a year to shear their wool, "
        "they are let go again before it gets dark.\n"
    )
    (folder / "none.txt").write_text("too short\n")
    for name in ("one", "none"):
        with recipe.open("a") as file:
            file.write(f'[[corpus.sources]]\nname = "{name}"\nreader = "lines"\nuris = ["{name}.txt"]\n')
    assert "no document is left of source none" in puna("run", recipe, "--out", folder / "out", code=2).stderr
    told = puna("run", recipe, "--out", folder / "out", "-s", wished).stderr
    assert "left out, with fewer than two documents: none, one" in told
    figures = json.loads((folder / "out" / "small" / "summary.json").read_text())
    assert list(figures["bits_per_byte"]) == ["stories", "code"]
    assert list(figures["sources"]) == ["stories", "code", "one", "none"]
    shares = [f"--set=tokens.mixture.{name}={{share=0.25}}" for name in figures["sources"]]
    refused = puna("run", recipe, "--out", folder / "out", "-s", wished, *shares, code=2)
    assert "tokens.mixture names none, which has fewer than two documents" in refused.stderr


def test_a_damaged_summary_is_told_and_made_anew(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    run = tmp_path / "copy" / "out" / "small"
    for content in ("{", "{}", "[]"):
        (run / "summary.json").write_text(content)
        assert "summary.json is damaged; remove it" in puna("report", run, code=2).stderr
    puna("run", tmp_path / "copy" / "small.toml", "--out", tmp_path / "copy" / "out")
    puna("report", run)


def test_an_output_folder_that_cannot_be(finished: Path) -> None:
    for out in (finished / "small.toml", Path("/dev/null"), Path("/proc/x")):
        refused = puna("run", finished / "small.toml", "--out", out, code=2).stderr
        assert f"cannot make the folder {out}/small" in refused


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_goes_on(
    finished: Path, tmp_path: Path, number: signal.Signals
) -> None:
    copy = changed_copy(finished, tmp_path)
    changes = ["-s", "train.steps=4000", "-s", "execution.checkpoint_steps=100000"]
    process = subprocess.Popen(
        tiny.command("run", copy / "small.toml", "--out", copy / "out", *changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=tiny.environment(),
    )
    waiting = time.monotonic() + 100
    while not any(path.stat().st_size > 3000 for path in copy.glob("out/small/logs/train-*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < waiting
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopped and saved at step" in errors
    assert len(list(copy.glob("out/small/.scratch/train-*/step-*/index.json"))) == 1
    assert not list(copy.glob("out/small/train-*"))
    shown = puna("show", copy / "small.toml", "--out", copy / "out", *changes).stdout
    assert re.search(r"train .* will go on after step \d", shown) and shown.count("will run") == 1
    told = puna("verify", copy / "out" / "small").stdout
    assert "every file is as its manifest says\nunfinished: train-" in told


def test_a_damaged_artifact_is_named_and_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    out = tmp_path / "copy" / "out"
    assert puna("verify", out).stdout.count("small/") == 6
    (path,) = out.glob("small/tokens-*/stories.train.bin")
    raw = bytearray(path.read_bytes())
    raw[10] ^= 1
    path.write_bytes(raw)
    result = puna("verify", out, "--json", code=2)
    assert [row["sound"] for row in json.loads(result.stdout)].count(False) == 1
    for again in (result, puna("run", tmp_path / "copy" / "small.toml", "--out", out, code=2)):
        assert "stories.train.bin does not match its digest; remove the folder" in again.stderr
        assert "Traceback" not in again.stderr


def test_verify_reads_everything(finished: Path, tmp_path: Path) -> None:
    """Also files that are known to be as they were when they were last digested."""
    shutil.copytree(finished, tmp_path / "copy")
    out = tmp_path / "copy" / "out"
    (path,) = out.glob("small/tokens-*/stories.train.bin")
    digest = json.loads((path.parent / "artifact.json").read_bytes())["files"][path.name]["sha256"]
    with path.open("r+b") as file:
        file.write(bytes([path.read_bytes()[0] ^ 1]))
    digests.remember(path, digest)  # as of a disk that loses a bit
    puna("run", tmp_path / "copy" / "small.toml", "--out", out)
    for folder in (path.parent, out / "small", out):
        refused = puna("verify", folder, code=2)
        assert "stories.train.bin does not match its digest" in refused.stderr
        assert "damaged" in refused.stdout


def test_raw_files_may_have_the_names_of_ours(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path)
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as archive:
        for name in ("artifact.json", "summary.json"):
            archive.writestr(f"raw/{name}", "The old llama walks across the high plain. " * 20)
    recipe.write_text(recipe.read_text().replace('uris = ["stories-*.txt"]', 'uris = ["texts.zip!*.json"]'))
    puna("corpus", recipe, "--out", tmp_path / "out")
    assert "damaged" not in puna("verify", tmp_path / "out").stdout


def test_the_report_shows_the_recipe_as_it_was_run(finished: Path, tmp_path: Path) -> None:
    copy = changed_copy(finished, tmp_path)
    recipe, out = copy / "small.toml", tmp_path / "out"
    with subprocess.Popen(
        tiny.command("run", recipe, "--out", out), stderr=subprocess.PIPE, text=True, env=tiny.environment()
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("▸ train"):
                recipe.write_text(recipe.read_text().replace("learning_rate = 5e-3", "learning_rate = 9e-1"))
    assert process.returncode == 0
    page = (out / "small" / "report.html").read_text()
    assert "5e-3" in page
    assert "9e-1" not in page


def test_verify_names_what_is_gone(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    run = tmp_path / "out" / "small"
    (tokens,) = run.glob("tokens-*")
    shutil.rmtree(tokens)
    (run / "report.html").unlink()
    for folder in (run, tmp_path / "out"):
        refused = puna("verify", folder, "--json", code=2)
        rows = [row for row in json.loads(refused.stdout) if not row["sound"]]
        assert [(row["artifact"], row["state"]) for row in rows] == [
            (str(tokens), "gone"),
            (str(run / "report.html"), "gone"),
        ]
        assert len(json.loads(refused.stdout)) == 7
        assert refused.stderr == f"puna: {rows[0]['problem']}\n{rows[1]['problem']}\n"
        assert f"{tokens} is gone, and {run}/summary.json lists it; run the recipe again" in refused.stderr
    assert puna("verify", run, code=2).stdout.count(" gone\n") == 2
    (run / "summary.json").write_text("{")
    assert "summary.json is damaged" in puna("verify", run, code=2).stderr


def test_report_and_its_figures(finished: Path) -> None:
    run = finished / "out" / "small"
    assert json.loads(puna("report", run, "--json").stdout) == json.loads((run / "summary.json").read_text())
    page = (run / "report.html").read_text()
    content = ("stories", "CC0-1.0", "exact duplicate", "The old llama", "5-gram", "kWh", "<svg")
    for text in (*content, "checkpoint_steps = 4"):
        assert text in page
    for source in ("http://", "https://", "src=", "<script", "@import", "url("):
        assert source not in page.replace("http://www.w3.org", "")
    printed = puna("report", run).stdout
    assert printed.endswith(f"report: {run.resolve()}/report.html\n") and "44 documents" in printed
    assert "5-gram on" in printed and "in the median step" in printed and "in the mean" in printed
    assert 'href="corpus.html"' in page and f"puna generate {run} " in page
    corpus = (run / "corpus.html").read_text()
    assert 'href="report.html"' in corpus and " tokens" in corpus and "Public summary</h2>" in corpus
    assert "/nope: no such folder" in puna("report", "/nope", code=2).stderr
    assert "holds no finished run" in puna("report", finished, code=2).stderr


def break_recipe(folder: Path, old: str, new: str) -> None:
    path = folder / "small.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


BAD: dict[str, tuple[Any, str]] = {
    "unknown key": (
        lambda f: break_recipe(f, "seed = 3", "sead = 3"),
        "sead: unknown key; did you mean seed?",
    ),
    "missing file": (
        lambda f: break_recipe(f, "stories-*.txt", "storys.txt"),
        "source stories: nothing at storys.txt",
    ),
    "not UTF-8": (
        lambda f: (f / "stories-1.txt").write_bytes(b"\xff" + (f / "stories-1.txt").read_bytes()),
        "stories-1.txt: not UTF-8 text",
    ),
    "folder for files": (
        lambda f: break_recipe(f, "stories-*.txt", "project"),
        "project is a folder, and the reader lines takes files",
    ),
    "empty corpus": (
        lambda f: [path.write_text("") for path in f.glob("stories-*.txt")],
        "no document is left of source stories",
    ),
    "vocabulary too large": (
        lambda f: break_recipe(f, "vocab_size = 320", "vocab_size = 9000"),
        "tokenizer.vocab_size=9000 does not suit",
    ),
    "batch too large": (
        lambda f: break_recipe(f, "batch_sequences = 4", "batch_sequences = 100000000"),
        "does not fit; lower execution.micro_batch",
    ),
    "little memory": (
        lambda f: break_recipe(f, "group_bytes = 4000", "group_bytes = 4000\nmemory_bytes = 20_000_000"),
        "a micro-batch of 4 sequences of 32 tokens does not fit",
    ),
    "too many epochs": (
        lambda f: break_recipe(f, "maximum_epochs = 100", "maximum_epochs = 0.1"),
        "more than tokens.maximum_epochs=0.1",
    ),
    "long prompt": (
        lambda f: break_recipe(f, "The old llama ", "llama " * 50),
        "evaluate.prompts: prompt 1 has",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gives_one_message_and_leaves_nothing_half_written(
    finished: Path, tmp_path: Path, kind: str
) -> None:
    copy = changed_copy(finished, tmp_path)
    breaks, message = BAD[kind]
    breaks(copy)
    result = puna("run", copy / "small.toml", "--out", copy / "out", code=2)
    check_refused(result, copy, message)


def test_truncated_archives(finished: Path, tmp_path: Path) -> None:
    copy = changed_copy(finished, tmp_path)
    packed = shutil.make_archive(str(copy / "project"), "gztar", copy / "project")
    Path(packed).write_bytes(Path(packed).read_bytes()[:-200])
    break_recipe(copy, '"project"', '"project.tar.gz"')
    result = puna("run", copy / "small.toml", "--out", copy / "out", code=2)
    check_refused(result, copy, "project.tar.gz: the archive is damaged or ends early")


def test_a_full_disk(finished: Path, tmp_path: Path) -> None:
    """The file system's word for it, through a limit on the size of files that no weights fit in."""
    import resource

    copy = changed_copy(finished, tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    result = puna("run", copy / "small.toml", "--out", copy / "out", code=2, preexec_fn=limit)
    check_refused(result, copy, "rank-00000.safetensors: File too large")
    made = {path.name.partition("-")[0] for path in copy.glob("out/small/*-*")}
    assert made == {"fetch", "documents", "tokenizer", "tokens"}
    puna("run", copy / "small.toml", "--out", copy / "out")
    assert tiny.digests(copy / "out") == tiny.digests(finished / "out")


def check_refused(result: subprocess.CompletedProcess[str], folder: Path, message: str) -> None:
    """One message that says what; no traceback; only whole artifacts and logs are left."""
    assert message in result.stderr and result.stderr.count("puna: ") == 1
    assert "Traceback" not in result.stderr and result.stdout == ""
    run = folder / "out" / "small"
    if run.exists():
        assert not list((run / ".work").glob("*")) and not (run / "summary.json").exists()
        assert all((path / "artifact.json").is_file() for path in run.glob("*-*"))
        if list(run.glob("*-*")):
            puna("verify", folder / "out")


def test_verify_reads_the_checkpoints_that_other_trainings_go_on_from(tmp_path: Path) -> None:
    two_saved(tmp_path / "shared")
    assert [row["sound"] for row in cli._artifact_rows(tmp_path)] == [True, True]
    file = tmp_path / "shared" / "step-00000003" / "rank-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    rows = {Path(row["artifact"]).name: row for row in cli._artifact_rows(tmp_path)}
    assert rows["step-00000004"]["sound"] and rows["step-00000003"]["state"] == "damaged"
    assert str(file) in rows["step-00000003"]["problem"]
