"""Trainings of two and three processes under torchrun, one of which is stopped, killed, hangs, is slow, fails
or is told to end."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

ROOT = Path(__file__).parents[2]
TIME_OUT = 4.0
HOST = re.escape(socket.gethostname())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with all that comes before the training."""
    folder = tmp_path_factory.mktemp("corpus")
    tiny.puna("run", tiny.write(folder), "--out", folder / "out", "-s", "train.steps=5")
    for path in (*folder.glob("out/small/train-*"), *folder.glob("out/small/logs/train-*")):
        shutil.rmtree(path)
    return folder


@pytest.fixture
def folder(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "run"))


class Run:
    """A run under torchrun, and what it prints, with the moments."""

    def __init__(self, folder: Path, *changes: str, fault: str = "", processes: int = 2) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["-m", "tests.run.faulty", "run", str(folder / "small.toml"), "--out", str(folder / "out")]
        for change in (f"cluster.time_out_seconds={TIME_OUT}", "train.steps=2000", *changes):
            command += ["-s", change]
        environment = {**tiny.environment(), "OMP_NUM_THREADS": "1"}
        if fault:
            environment["FAULT"] = fault
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT
        )
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    def wait_for(self, pattern: str, seconds: float = 90) -> float:
        """When a line with a pattern was printed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for when, line in list(self.lines):
                if re.search(pattern, line):
                    return when
            assert self._reader.is_alive() or any(re.search(pattern, line) for _, line in self.lines), (
                self.told
            )
            time.sleep(0.02)
        raise AssertionError(f"nothing like {pattern} in\n{self.told}")

    @property
    def told(self) -> str:
        return "".join(line for _, line in list(self.lines))

    def workers(self) -> list[int]:
        """The processes that torchrun has started, by rank."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, KeyError):
                if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    variables = dict(
                        item.split(b"=", 1) for item in (path / "environ").read_bytes().split(b"\0") if item
                    )
                    found[int(variables[b"RANK"])] = int(path.name)
        return [found[rank] for rank in sorted(found)]

    def end(self, seconds: float = 60) -> dict[int, int]:
        """Wait for torchrun; exit codes of the processes that did not end with 0, by rank."""
        self.process.wait(seconds)
        self._reader.join(10)
        codes = re.findall(r"rank\s*:\s*(\d+).*\n\s*exitcode\s*:\s*(-?\d+)", self.told)
        return {int(rank): int(code) for rank, code in codes}

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()


def begun(run: Run) -> None:
    run.wait_for("step     1 of")


def once(run: Run, pattern: str) -> None:
    """One message, once."""
    assert len(re.findall("^puna: .*", run.told, re.MULTILINE)) == 1, run.told
    assert re.search(f"^puna: {pattern}", run.told, re.MULTILINE), run.told


@pytest.mark.parametrize(
    ("processes", "rank"),
    [
        (2, 1),
        pytest.param(2, 0, marks=pytest.mark.slow),
        pytest.param(3, 0, marks=pytest.mark.slow),
        pytest.param(3, 2, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_process_is_named_within_the_time_out(folder: Path, processes: int, rank: int) -> None:
    with Run(folder, processes=processes) as run:
        begun(run)
        stopped = run.workers()[rank]
        os.kill(stopped, signal.SIGSTOP)
        when = time.monotonic()
        assert run.wait_for("^puna: ") - when < TIME_OUT + 5
        os.kill(stopped, signal.SIGKILL)  # torchrun would wait another 30 seconds
        codes = run.end()
        assert {code for other, code in codes.items() if other != rank} == {2}
        once(run, rf"process {rank} on {HOST}, at step [\d,]+, phase \w+: silent for 4\.\d s\.")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("1 5 forward hang", 2),
        pytest.param("0 5 data hang", 2, marks=pytest.mark.slow),
        pytest.param("1 5 reduce hang", 2, marks=pytest.mark.slow),
        pytest.param("1 0 save hang", 2, marks=pytest.mark.slow),
    ],
)
def test_a_process_that_hangs_is_named_within_the_time_out(folder: Path, fault: str, code: int) -> None:
    rank, _, phase, _ = fault.split()
    with Run(folder, fault=fault) as run:
        when = run.wait_for("^fault at")
        assert run.wait_for("^puna: ") - when < TIME_OUT + 5
        codes = run.end()
        once(run, rf"process {rank} on {HOST}, at step [\d,]+, phase {phase}: hangs for \d+\.\d s")
        assert codes == {0: code, 1: code}


@pytest.mark.parametrize(("processes", "rank"), [(2, 0), pytest.param(3, 1, marks=pytest.mark.slow)])
def test_a_killed_process_is_named(folder: Path, processes: int, rank: int) -> None:
    with Run(
        folder, "cluster.time_out_seconds=600", fault=f"{rank} 5 forward kill", processes=processes
    ) as run:
        when = run.wait_for("^fault at")
        assert run.wait_for("^puna: ") - when < 10
        codes = run.end()
        once(run, rf"process {rank} on {HOST}, at step \d+, phase \w+: silent for 3\.\d s\. Ended")
        assert codes == {other: -9 if other == rank else 2 for other in range(processes)}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("1 5 forward memory", "phase forward: a batch of .* does not fit in memory"),
        pytest.param("0 5 reduce memory", "phase reduce: a batch of .* does not fit", marks=pytest.mark.slow),
        pytest.param("1 5 data bug", "phase data: KeyError: 'nobody foresaw", marks=pytest.mark.slow),
        pytest.param("1 0 save disk", "phase save: .*No space left on device", marks=pytest.mark.slow),
    ],
)
def test_what_ends_one_process_ends_all_with_its_message(folder: Path, fault: str, told: str) -> None:
    rank = int(fault[0])
    with Run(folder, "cluster.time_out_seconds=600", fault=fault) as run:
        when = run.wait_for("^fault at")
        assert run.wait_for("^puna: ") - when < 10
        codes = run.end()
        assert re.search(rf"^puna: process {rank} on {HOST}, at step \d+, {told}", run.told, re.MULTILINE)
        assert codes == {rank: 1 if "bug" in fault else 2, 1 - rank: 2}
        assert run.lines[-1][0] - when < 15


@pytest.mark.parametrize(
    ("phase", "seconds"),
    [
        ("forward", 0.1),
        pytest.param("data", 0.1, marks=pytest.mark.slow),
        pytest.param("reduce", 0.1, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_slow_process_is_named_within_twenty_steps(
    folder: Path, phase: str, seconds: float, rank: int
) -> None:
    with Run(
        folder, "train.steps=40", "cluster.time_out_seconds=60", fault=f"{rank} 12 {phase} {seconds}"
    ) as run:
        run.wait_for("✓ train")
        events = metrics(folder)
        steps = [line["step"] for line in events if "tokens_per_second" in line]
        told = [at for at, line in enumerate(events) if "is slow" in line.get("text", "")]
        assert len(told) == 1, [line for line in events if "text" in line]
        before = [line["step"] for line in events[: told[0]] if "tokens_per_second" in line]
        assert steps == list(range(1, 41)) and 12 < before[-1] <= 12 + 20
        assert re.match(rf"process {rank} on {HOST} is slow: {phase} takes", events[told[0]]["text"])


def metrics(folder: Path) -> list[dict[str, Any]]:
    (log,) = folder.glob("out/small/logs/train-*/metrics.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def busy() -> Iterator[None]:
    """Three programs that keep all cores busy."""
    command = [sys.executable, "-c", "import time\nend = time.time() + 120\nwhile time.time() < end: pass"]
    programs = [subprocess.Popen(command) for _ in range(3)]
    yield
    for program in programs:
        program.kill()
        program.wait()


@pytest.mark.slow
def test_nobody_is_slow_in_plain_steps_beside_busy_programs(folder: Path, busy: None) -> None:
    with Run(folder, "train.steps=200", "cluster.time_out_seconds=60") as run:
        run.wait_for("✓ train", 200)
        assert not [line for line in metrics(folder) if "is slow" in line.get("text", "")]


@pytest.mark.parametrize(
    ("numbers", "to", "code"),
    [
        ([signal.SIGTERM], "1", 143),
        pytest.param([signal.SIGUSR1], "all", 143, marks=pytest.mark.slow),
        pytest.param([signal.SIGINT], "0", 130, marks=pytest.mark.slow),
        pytest.param([signal.SIGTERM, signal.SIGUSR1], "all", 143, marks=pytest.mark.slow),
        pytest.param([signal.SIGTERM], "torchrun", None, marks=pytest.mark.slow),
    ],
)
def test_a_signal_is_a_saved_stop_of_all(
    folder: Path, numbers: list[signal.Signals], to: str, code: int | None
) -> None:
    with Run(folder, "execution.checkpoint_steps=100000") as run:
        begun(run)
        workers = run.workers()
        for number in numbers:
            for process in {"all": workers, "torchrun": [run.process.pid]}.get(to) or [workers[int(to)]]:
                os.kill(process, number)
        codes = run.end()
        (saved,) = folder.glob("out/small/.scratch/train-*/step-*/index.json")
        step = int(saved.parent.name.removeprefix("step-"))
        assert run.told.count("stopped and saved") == 1 and f"stopped and saved at step {step};" in run.told
        assert (
            re.search(rf"\({numbers[0].name}, first seen by process \d on {HOST}\)", run.told)
            or len(numbers) > 1
        )
        if code is not None:
            assert codes == {0: code, 1: code}


@pytest.mark.slow
def test_a_second_signal_ends_at_once_also_where_torch_waits(folder: Path) -> None:
    """Process 0 waits for a process that is stopped, so that Python itself cannot take a signal."""
    with Run(folder, "cluster.time_out_seconds=600") as run:
        begun(run)
        first, second = run.workers()
        os.kill(second, signal.SIGSTOP)
        time.sleep(1)
        os.kill(first, signal.SIGTERM)
        time.sleep(4)
        when = time.monotonic()
        os.kill(first, signal.SIGTERM)
        assert run.wait_for("^puna: process 0 .*told twice to end") - when < 5
        os.kill(second, signal.SIGKILL)
        assert run.end()[0] == 143


@pytest.mark.slow
def test_without_torchrun_all_stop_and_save(folder: Path) -> None:
    with Run(folder, "execution.checkpoint_steps=100000") as run:
        begun(run)
        workers = run.workers()
        run.process.kill()
        end = time.monotonic() + 30
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert len(list(folder.glob("out/small/.scratch/train-*/step-*/index.json"))) == 1
        assert "stopped and saved at step" in run.told and "torchrun has ended" in run.told


def test_a_file_tells_programs_outside_where_a_training_is(folder: Path) -> None:
    with Run(folder) as run:
        begun(run)
        path = folder / "out" / "small" / "logs" / "heartbeat.json"
        end = time.monotonic() + 20
        while not path.exists() or json.loads(path.read_text())["loss"] is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        told = json.loads(path.read_text())
        assert told["pid"] == run.workers()[0] and told["host"] == socket.gethostname()
        assert told["step"] > 0 and 0 <= told["seconds"] < 20 and told["loss"] > 0
        time.sleep(4)
        assert json.loads(path.read_text())["step"] > told["step"]


@pytest.mark.slow
def test_a_clock_that_jumps_by_a_day_changes_nothing(folder: Path) -> None:
    with Run(folder, "train.steps=60", fault="1 5 data day") as run:
        run.wait_for("fault at")
        assert run.end() == {} and run.process.returncode == 0 and "puna: " not in run.told


@pytest.mark.slow
def test_what_is_not_saved_before_torchrun_kills_is_told(folder: Path) -> None:
    """A save that takes a minute, and a signal to torchrun."""
    with Run(folder, "cluster.time_out_seconds=600", fault="1 0 save 60") as run:
        run.wait_for("fault at")
        run.process.send_signal(signal.SIGTERM)
        run.end()
        once(run, rf"process \d on {HOST}, at step \d+, phase save: nothing is saved yet 25 s after")
        assert not list(folder.glob("out/small/.scratch/train-*/step-*/index.json"))
