"""The promises of the house: a class for each that is kept today, on runs of seconds.

Where one room's tests hold a promise they stand there: one epoch is one epoch, `TestOneEpochIsOneEpoch` in
tokens/test_batches.py; several processes equal one, train/test_parallel.py; weights written and read again,
model/weights; speed, bench/.
"""

import gzip
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from puna.corpus.record import documents_folder
from puna.errors import Stopped, UserError
from puna.report import lineage, summary
from puna.run import artifact
from puna.run.artifact import Artifact
from puna.run.settings import ExecutionSettings
from tests import tiny
from tests.plan.test_plan import SHAPES
from tests.tiny import Watcher, puna, run_here

ROOT = Path(__file__).parents[1]
STEPS = ("train.steps=40", "tokens.maximum_epochs=1000")


def raw_copy(finished: Path, copy: Path) -> Path:
    """A copy of the raw files and the recipe alone; the recipe's path."""
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("out"))
    return copy / "small.toml"


def untrained_copy(finished: Path, copy: Path) -> Path:
    """A copy with the run's stages before the training; the recipe's path."""
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("train-*", "scores-*"))
    return copy / "small.toml"


def losses(run: Path) -> list[float]:
    path = summary.stage_folder(run, "train") / "losses.jsonl"
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


class TestSameNumbers:
    """The same recipe gives the same weights."""

    def test_run_again_in_another_folder(self, finished: Path, tmp_path: Path) -> None:
        puna("run", raw_copy(finished, tmp_path / "copy"), "--out", tmp_path / "elsewhere")
        expected = tiny.digests(finished / "out")
        assert len(expected) == 6 and tiny.digests(tmp_path / "elsewhere") == expected

    def test_killed_in_the_middle_of_the_training_and_resumed(self, finished: Path, tmp_path: Path) -> None:
        path = untrained_copy(finished, tmp_path / "copy")
        out = path.parent / "out"
        command = ("run", path, "--out", out, "-s", "execution.checkpoint_steps=1")
        process = subprocess.Popen(
            tiny.command(*command),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=tiny.environment(),
        )
        end = time.monotonic() + 100
        while not any(out.glob("small/.scratch/train-*/step-*/index.json")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not any(out.glob("small/train-*"))
        assert "going on from the checkpoint of step" in puna(*command).stderr
        assert tiny.digests(out) == tiny.digests(finished / "out")

    @pytest.mark.timeout(600)
    def test_ten_kills_at_random_moments(self, finished: Path, tmp_path: Path) -> None:
        """SIGKILL to the whole process group, ten times, each somewhere in what is left of the run."""
        recipe, chance = raw_copy(finished, tmp_path / "copy"), random.Random(7)
        copy = recipe.parent
        run = tiny.command("run", recipe, "--out", copy / "out")
        kills = 0
        while kills < 10:
            process = subprocess.Popen(
                run,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env=tiny.environment(),
            )
            try:
                process.wait(chance.uniform(0.5, 5.0))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
            if process.returncode == 0:  # came to its end: begin again with what is left of the ten
                assert tiny.digests(copy / "out") == tiny.digests(finished / "out")
                shutil.rmtree(copy / "out")
            assert tiny.digests(copy / "out").items() <= tiny.digests(finished / "out").items()
        puna("run", recipe, "--out", copy / "out")
        assert tiny.digests(copy / "out") == tiny.digests(finished / "out")
        assert not list((copy / "out" / "small" / ".work").iterdir())
        assert not list((copy / "out" / "small" / ".scratch").iterdir())
        puna("verify", copy / "out")

    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_on_any_number_of_threads(
        self, threads: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All bits of the weights; scores are sums of torch, and round otherwise."""
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        path = untrained_copy(finished, tmp_path / "copy")
        out = path.parent / "out"
        puna("run", path, "--out", out, "-s", f"execution.threads={threads}")
        expected, found = tiny.digests(finished / "out"), tiny.digests(out)
        assert found.keys() == expected.keys()
        differ = {name.partition("-")[0] for name in expected if found[name] != expected[name]}
        assert differ <= {"scores"}
        scores, others = (
            summary.read(folder / "small")["bits_per_byte"] for folder in (finished / "out", out)
        )
        for source, values in scores.items():
            assert others[source] == pytest.approx(values, rel=1e-8)

    def test_without_a_compiler_under_a_fingerprint_of_its_own(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Documents and tokens are the same; the training is another, says so, and is near."""
        monkeypatch.setenv("CXX", "/no/such/compiler -O1")
        path = raw_copy(finished, tmp_path / "copy")
        out = path.parent / "out"
        told = " ".join(puna("run", path, "--out", out).stderr.split())
        assert "without Puna's kernels (/no/such/compiler -O1 does not build it: " in told
        assert "training runs on torch's operations" in told
        expected, found = tiny.digests(finished / "out"), tiny.digests(out)
        same = {name.partition("-")[0] for name in expected.keys() & found.keys()}
        assert same == {"fetch", "documents", "tokenizer", "tokens"}
        assert expected.items() >= {name: found[name] for name in expected.keys() & found.keys()}.items()
        assert losses(out / "small") == pytest.approx(losses(finished / "out" / "small"), rel=1e-4)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and a run of it that was stopped at step 20 of 40."""
    folder = tmp_path_factory.mktemp("half")
    path = tiny.write(folder)
    with pytest.raises(Stopped, match="step 20"):
        run_here(path, folder / "out", *STEPS, stop_after=20)
    return path, folder / "out"


@pytest.fixture(scope="module")
def whole(half: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Watcher]:
    """The same run without a stop."""
    finished, watcher = run_here(half[0], tmp_path_factory.mktemp("whole"), *STEPS)
    return finished["train"], watcher


BITWISE = {
    "workers": "2",
    "group_bytes": "100",
    "checkpoint_steps": "7",
    "checkpoints_kept": "1",
    "checkpoints_every": "4",
    "remat": "full",
    "memory_bytes": "5000000000",
    "threads": "1",
}
ROUNDED = {"micro_batch_sequences": "1", "compile": "true"}
ELSEWHERE = {"device", "ray"}  # a GPU; a cluster, in corpus/test_corpus.py


# Daft leaves its workers' pipes to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
class TestSameNumbersWhateverTheExecution:
    """How a run is computed may change in the middle of it."""

    def test_every_key_is_tried(self) -> None:
        assert ExecutionSettings.model_fields.keys() == BITWISE.keys() | ROUNDED | ELSEWHERE

    @pytest.mark.parametrize(
        "override",
        [
            *(f"execution.{key}={value}" for key, value in BITWISE.items()),
            "train.validation_steps=3",
            "train.validation_tokens=60",
        ],
    )
    def test_the_same_bits(
        self, half: tuple[Path, Path], whole: tuple[Artifact, Watcher], tmp_path: Path, override: str
    ) -> None:
        out = Path(shutil.copytree(half[1], tmp_path / "out"))
        finished, watcher = run_here(half[0], out, *STEPS, override)
        assert list(watcher.losses) == list(range(21, 41))
        assert finished["train"].digest == whole[0].digest

    @pytest.mark.parametrize("key", ["micro_batch_sequences", "compile"])
    def test_the_same_within_rounding(
        self, half: tuple[Path, Path], whole: tuple[Artifact, Watcher], tmp_path: Path, key: str
    ) -> None:
        out = Path(shutil.copytree(half[1], tmp_path / "out"))
        finished, watcher = run_here(half[0], out, *STEPS, f"execution.{key}={ROUNDED[key]}")
        assert list(watcher.losses) == list(range(21, 41))
        assert watcher.losses[21] == pytest.approx(whole[1].losses[21], rel=1e-6)
        assert watcher.losses[40] == pytest.approx(whole[1].losses[40], rel=1e-4)
        attempts = sorted((out / "logs" / finished["train"].folder.name / "attempts").glob("*.json"))
        values = [json.loads(path.read_bytes())["execution"][key] for path in attempts]
        assert len(values) == 2 and values[0] != values[1]


class TestFromRawToModelWithNothingButPip:
    """No network, no account, no compiler, no GPU."""

    REFUSING = """
import os, socket

class Refused(socket.socket):
    def connect(self, address):
        self._look(address)
        super().connect(address)

    def connect_ex(self, address):
        self._look(address)
        return super().connect_ex(address)

    def _look(self, address):
        if self.family != socket.AF_UNIX:
            with open(os.environ["CONNECTIONS"], "a") as log:
                print(address, file=log)
            raise OSError(f"no network: {address}")

socket.socket = Refused
"""

    def test_a_whole_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recipe, log = tiny.write(tmp_path), tmp_path / "connections"
        log.touch()
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(self.REFUSING)
        paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        monkeypatch.setenv("CONNECTIONS", str(log))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        told = puna("run", recipe, "--out", tmp_path / "out")
        assert "report: " in told.stdout and "there is no C++ compiler" in told.stderr
        assert log.read_text() == ""
        said = puna("generate", tmp_path / "out" / "small", "The old llama", "--tokens", 5).stdout
        assert said.startswith("The old llama")
        refused = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
        assert subprocess.run([sys.executable, "-c", refused], capture_output=True, check=False).returncode
        assert "127.0.0.1" in log.read_text()


def good(name: str) -> str:
    """A text that all filters keep."""
    return f"The {name} llama walks across the high plain every year, and its herder counts the animals. " * 4


class TestNothingIsLost:
    """Every raw file, and every record in it, is a document or a row with a reason."""

    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder of many kinds of files, some of them damaged, as a corpus."""
        raw = tmp_path_factory.mktemp("mixed") / "raw"
        raw.mkdir()
        texts = [good(f"rows {number}") for number in range(4)]
        rows = [{"text": text} for text in (*texts, texts[0], "short")]
        lines = [
            *map(json.dumps, rows),
            '{"text": "broken',
            '{"title": "none"}',
            "[1, 2]",
        ]  # a list of records
        (raw / "rows.jsonl").write_text("\n".join(lines))
        (raw / "again.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": good("packed")}).encode()))
        cut = gzip.compress(random.Random(1).randbytes(9000))[:4000]
        (raw / "cut.jsonl.gz").write_bytes(cut)
        (raw / "page.html").write_text(f"<html><body><p>{good('page')}</p></body></html>")
        (raw / "empty.html").write_text("")
        (raw / "notes.md").write_text(f"# Notes\n\n{good('notes')}\n")
        (raw / "book.txt").write_text(good("book"))
        (raw / "nothing.txt").write_text("")
        (raw / "binary.txt").write_bytes(bytes(range(256)) * 8)
        (raw / "paper.pdf").write_bytes(b"%PDF-1.7\n")
        (raw / "table.csv").write_text("a,b\n1,2\n")
        (raw / ".notes").write_text("hidden")
        with gzip.open(raw / "crawl.warc.gz", "wb") as file:
            for name, kind, body in (
                ("good", "text/html", f"<p>{good('crawled')}</p>"),
                ("picture", "image/png", "\x89PNG"),
                ("small", "text/html", "<p>hm</p>"),
            ):
                http = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n{body}".encode()
                head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/{name}\r\n"
                head += f"Content-Type: application/http\r\nContent-Length: {len(http)}\r\n\r\n"
                file.write(head.encode() + http + b"\r\n\r\n")
        result = puna("corpus", raw, "--out", raw.parent / "out", "-s", "corpus.on_damaged_file=skip")
        (raw.parent / "told").write_text(result.stderr)
        return raw

    def rows(self, made: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """Kept and dropped."""
        documents = documents_folder(made.parent / "out" / "raw")
        kept = [path for path in documents.glob("*.parquet") if path.stem != "dropped"]
        dropped = pq.read_table(documents / "dropped.parquet").to_pylist()
        return [row for path in kept for row in pq.read_table(path).to_pylist()], dropped

    def test_every_file_is_told_of(self, made: Path) -> None:
        kept, dropped = self.rows(made)
        seen = {Path(row["file"]).name for row in (*kept, *dropped)}
        told = (made.parent / "told").read_text()
        unread = {path.name for path in made.iterdir() if f"no reader takes {path}" in told}
        assert unread == {"paper.pdf", "table.csv"}
        assert seen == {path.name for path in made.iterdir()}
        reasons = {Path(row["file"]).name: row["reason"] for row in dropped if row["source"] == "unread"}
        assert reasons == {
            "paper.pdf": "no reader for .pdf",
            "table.csv": "no reader for .csv",
            ".notes": "hidden file",
        }
        assert all(row["reason"] for row in dropped)

    def test_every_record_is_a_document_or_a_row_with_a_reason(self, made: Path) -> None:
        kept, dropped = self.rows(made)
        fates = Counter((Path(row["file"]).name, row.get("reason", "")) for row in (*kept, *dropped))
        assert sum(count for (name, _), count in fates.items() if name == "rows.jsonl") == 10
        assert fates["rows.jsonl", ""] == 4 and fates["rows.jsonl", "exact duplicate"] == 1
        assert sum(count for (name, _), count in fates.items() if name == "crawl.warc.gz") == 3
        assert fates["crawl.warc.gz", ""] == 1
        texts = " ".join(row["text"] for row in kept)
        for name in ("rows 0", "rows 3", "packed", "page", "notes", "book", "crawled"):
            assert f"The {name} llama" in texts

    def test_the_counts_add_up(self, made: Path) -> None:
        kept, dropped = self.rows(made)
        metrics = artifact.load(documents_folder(made.parent / "out" / "raw")).metrics
        for name, steps in metrics["sources"].items():
            assert steps["kept"]["documents"] == sum(row["source"] == name for row in kept)
            assert metrics["dropped"][name] == Counter(
                row["reason"] for row in dropped if row["source"] == name
            )
            total = steps["kept"]["documents"] + sum(metrics["dropped"][name].values())
            assert steps["found"]["documents"] == total


class TestYouKnowWhatIsInIt:
    """Every token leads to its document, every artifact to its inputs and settings."""

    def test_every_token_of_a_batch(self, finished: Path) -> None:
        run = finished / "out" / "small"
        folder = summary.stage_folder(run, "documents")
        texts = {
            row["id"]: row["text"]
            for source in ("stories", "code")
            for row in pq.read_table(folder / f"{source}.parquet").to_pylist()
        }
        traced = 0
        for row, position in itertools.product(range(4), range(32)):
            try:
                origin = lineage.trace(run, 7, row, position)
            except UserError as padding:
                assert "is padding" in str(padding)
                continue
            assert origin["licence"] == {"stories": "CC0-1.0", "code": "MIT"}[origin["source"]]
            assert origin["url"] and origin["file"]
            assert origin["around"].strip() in texts[origin["id"]]
            traced += 1
        assert traced > 100

    def test_every_artifact_names_its_inputs_and_settings(self, finished: Path) -> None:
        run = finished / "out" / "small"
        made = [artifact.load(path.parent) for path in sorted(run.glob("*-*/artifact.json"))]
        known = {item.fingerprint: item.stage for item in made}
        inputs = {item.stage: {known[fingerprint] for fingerprint in item.inputs.values()} for item in made}
        assert inputs == {
            "fetch": set(),
            "documents": {"fetch"},
            "tokenizer": {"documents"},
            "tokens": {"documents", "tokenizer"},
            "train": {"tokenizer", "tokens"},
            "scores": {"documents", "tokens", "train"},
        }
        assert {item.stage for item in made if not item.settings} == {"fetch"}  # what is fetched decides
        (train,) = (item for item in made if item.stage == "train")
        assert (train.settings["train"]["steps"], train.settings["seed"]) == (20, 3)


class TestYouKnowBeforeYouPay:
    """Whether a training fits is told before it starts."""

    @pytest.mark.parametrize("policy", ["none", "llama", "full"])
    @pytest.mark.parametrize(("size", "micro"), [SHAPES[1], SHAPES[0]])
    def test_memory_told_is_memory_taken(self, size: dict[str, int], micro: int, policy: str) -> None:
        """Pages of a process of its own. Equal runs differ by up to 7% among themselves."""
        code = (
            "from puna.train.trainer import keep_freed_memory\n"
            "from puna.train.metrics import peak_memory_bytes as peak\n"
            "from tests.plan.test_plan import one_step, memory\nkeep_freed_memory(); before = peak()\n"
            f"config, settings, execution, step = one_step({size}, {micro}, remat={policy!r})\n"
            "step(); step()\n"
            "told = memory.training_bytes(config, settings, execution)\n"
            "copy = memory.snapshot_bytes(config, settings)  # of checkpoints, which is made when one is\n"
            "print(peak() - before, told - copy)"
        )
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT)
        measured, formula = map(int, result.stdout.split())
        assert measured == pytest.approx(formula, rel=0.25 if policy == "full" else 0.12)

    def test_what_does_not_fit_is_refused_before_anything_is_made(
        self, finished: Path, tmp_path: Path
    ) -> None:
        limit = ("-s", "execution.memory_bytes=1000000")
        path = raw_copy(finished, tmp_path / "copy")
        refused = puna("run", path, "--out", tmp_path / "out", *limit, code=2).stderr
        assert "training needs about" in refused and "may be used" in refused
        assert not tiny.digests(tmp_path / "out")


class TestSmallEnoughToRead:
    """At most 30 files and 3,000 lines of code between a batch on disk and the optimizer step."""

    def test_size_budgets(self) -> None:
        command = [sys.executable, ROOT / "tools" / "closure.py"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout
        assert "of 30\n" in result.stdout and "of 3,000\n" in result.stdout
