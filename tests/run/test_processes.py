"""One recipe on two processes that torchrun starts: the same numbers, one set of artifacts, and resumes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from puna.errors import UserError
from puna.run.processes import Processes, mesh_sizes
from puna.run.settings import MeshSettings
from tests import tiny

ROOT = Path(__file__).parents[2]
CHANGES = ("-s", "train.learning_rate=1e-3", "-s", "train.steps=60", "-s", "execution.checkpoint_steps=1")


def torchrun(*arguments: Any, restarts: int = 0) -> list[str]:
    how = ["--nproc-per-node", "2", "--max-restarts", str(restarts)]
    launcher = ["-m", "torch.distributed.run", *how, "-m", "puna"]
    return [sys.executable, *launcher, *map(str, arguments)]


def several(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command line on two processes; torchrun ends with 1 where one of them fails."""
    result = subprocess.run(
        torchrun(*arguments), capture_output=True, text=True, timeout=240, check=False, env=environment()
    )
    assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def environment() -> dict[str, str]:
    return {**tiny.environment(), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    tiny.puna("run", tiny.write(folder), "--out", folder / "out", *CHANGES)
    return folder


@pytest.fixture
def copy(alone: Path, tmp_path: Path) -> Path:
    """A copy of it without what comes from the training."""
    left_out = shutil.ignore_patterns("train-*", "scores-*")
    return Path(shutil.copytree(alone, tmp_path / "copy", ignore=left_out))


def trained(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The lines of the losses, and the weights."""
    (made,) = folder.glob("out/small/train-*")
    lines = (made / "losses.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], load_file(made / "model.safetensors")


def same(folder: Path, other: Path) -> None:
    """The same numbers but for rounding, of the same tokens."""
    (one, weights), (two, others) = trained(folder), trained(other)
    assert len(one) == len(two) == 60
    for line, expected in zip(one, two, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-7)
        assert line["tokens"] == expected["tokens"] and line["step"] == expected["step"]
    for name, weight in weights.items():
        assert (weight - others[name]).norm() <= 1e-5 * others[name].norm()


def killed(command: list[str], folder: Path, step: int) -> None:
    """Run a command until the checkpoint of a step is there; then `kill -9` to all its processes."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    end = time.monotonic() + 200
    while newest(folder) < step:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.001)
    for worker in workers(process.pid):
        os.kill(worker, signal.SIGKILL)
    process.kill()
    process.wait()
    assert newest(folder) < 60 and not any(folder.glob("out/small/train-*"))


def workers(parent: int) -> list[int]:
    """The processes that torchrun has started, which have sessions of their own."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.name))
    return sorted(found)


def newest(folder: Path) -> int:
    found = folder.glob("out/small/.scratch/train-*/step-*/index.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)


@pytest.mark.parametrize("mesh", ["replicate=1", "shard=1 tensor=2"], ids=["shard 2", "tensor 2"])
def test_two_processes_make_one_set_of_artifacts_with_the_numbers_of_one(
    alone: Path, copy: Path, mesh: str
) -> None:
    how = [part for key in mesh.split() for part in ("-s", f"cluster.mesh.{key}")]
    run = ("run", copy / "small.toml", "--out", copy / "out", *CHANGES)
    told = several(*run, *how)
    same(copy, alone)
    assert tiny.digests(copy / "out").keys() == tiny.digests(alone / "out").keys()
    assert (
        told.stdout.count("bits per byte  model") == 1 and told.stderr.count("held-out nats per token") == 6
    )
    assert "process 1 of 2 waits for process 0" in told.stderr
    (log,) = copy.glob("out/small/logs/train-*/metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if "tokens_per_second" in line] == list(range(1, 61))
    (of_one,) = alone.glob("out/small/logs/train-*/metrics.jsonl")
    assert samples(log) == samples(of_one) != []
    for ours, theirs in zip(validations(log), validations(of_one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    tiny.puna("verify", copy / "out")
    if mesh == "replicate=1":
        before = tiny.digests(copy / "out")
        assert "nothing to do" in several(*run).stderr and "nothing to do" in tiny.puna(*run).stderr
        assert tiny.digests(copy / "out") == before


def validations(log: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["losses"] for line in lines if line.get("kind") == "validation"]


def samples(log: Path) -> list[tuple[int, list[dict[str, Any]]]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["step"], line["samples"]) for line in lines if line.get("kind") == "samples"]


def test_two_processes_then_one_then_two(alone: Path, copy: Path) -> None:
    run = ("run", copy / "small.toml", "--out", copy / "out", *CHANGES)
    killed(torchrun(*run), copy, 5)
    killed(tiny.command(*run), copy, newest(copy) + 5)
    several(*run)
    same(copy, alone)


def test_keys_that_may_change_change_on_the_way(alone: Path, copy: Path) -> None:
    """All at once, those of the layout, too: the run goes on, in the same folder, to the same numbers."""
    run = ("run", copy / "small.toml", "--out", copy / "out", *CHANGES)
    killed(torchrun(*run), copy, 30)
    execution = ("micro_batch_sequences=1", "remat=full", "checkpoint_steps=7", "checkpoints_kept=1")
    cluster = ("mesh.tensor=2", "checkpoint_seconds=0.5", "time_out_seconds=50")
    keys = [f"execution.{key}" for key in execution] + [f"cluster.{key}" for key in cluster]
    told = several(*run, *(word for key in keys for word in ("-s", key)))
    assert "going on from the checkpoint of step" in told.stderr
    same(copy, alone)


def test_a_stop_of_torchrun_is_saved_by_all(alone: Path, copy: Path) -> None:
    run = (
        "run",
        copy / "small.toml",
        "--out",
        copy / "out",
        *CHANGES,
        "-s",
        "execution.checkpoint_steps=1000",
    )
    with subprocess.Popen(
        torchrun(*run), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step     1 of 60" in line:
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    saved = newest(copy)
    assert 0 < saved < 60 and f"stopped and saved at step {saved};" in rest and process.returncode
    several(*run)
    same(copy, alone)


def test_a_process_that_is_silent_ends_the_run_and_it_goes_on(alone: Path, copy: Path) -> None:
    run = ("run", copy / "small.toml", "--out", copy / "out", *CHANGES)
    with subprocess.Popen(
        torchrun(*run, "-s", "cluster.time_out_seconds=4"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as process:
        while newest(copy) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        silent = workers(process.pid)[-1]
        os.kill(silent, signal.SIGSTOP)
        stopped = time.monotonic()
        assert process.stderr is not None
        told = next(line for line in process.stderr if "silent for 4" in line)
        assert "puna: process" in told and time.monotonic() - stopped < 30
        os.kill(silent, signal.SIGKILL)  # torchrun itself would wait another 30 seconds
        process.stderr.read()
    assert process.returncode
    several(*run)
    same(copy, alone)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("mesh.pipeline=2", "there is no pipeline or context parallelism"),
        ("mesh.tensor=3", "2 processes, which torchrun started, cannot be divided by replicate x tensor = 3"),
        ("mesh.shard=0", 'shard 0: a number of processes, 1 or more, or "all" is needed'),
        ("mesh.tensor=2 -s execution.compile=true", "compiled blocks do not go with cluster.mesh.tensor"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, key: str, told: str) -> None:
    path = tiny.write(tmp_path)
    lines = several("run", path, "-s", *f"cluster.{key}".split(), code=1).stderr
    assert lines.count(told) == 1, lines
    assert not (tmp_path / "out").exists()


def test_processes_of_two_machines_that_are_started_again_agree_which_start_it_is(tmp_path: Path) -> None:
    """torchrun counts restarts by machine, and only on that whose process failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "two"]
    how = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "1", "--monitor-interval", "0.1"]
    script = ["-m", "tests.run.restarted", str(tmp_path)]
    command = [sys.executable, "-m", "torch.distributed.run", *how, *where, *script]
    machines = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT)
        for _ in range(2)
    ]
    try:
        told = [machine.communicate(timeout=150)[1] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "heard-1", "heard-2"]


def test_a_process_alone_has_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    processes = Processes.started()
    processes.tell({"stage": "train"})
    processes.close()
    processes.leave_group()
    assert (processes.rank, processes.world) == (0, 1)


def test_the_mesh_of_so_many_processes() -> None:
    assert mesh_sizes(MeshSettings(), 6) == (1, 6, 1)
    assert mesh_sizes(MeshSettings(replicate=2, tensor=8), 64) == (2, 4, 8)
    assert mesh_sizes(MeshSettings(replicate=2, shard=4, tensor=8), 64) == (2, 4, 8)
    for mesh, world in (
        (MeshSettings(shard=4), 6),
        (MeshSettings(tensor=8), 4),
        (MeshSettings(replicate=4), 6),
    ):
        with pytest.raises(UserError, match=r"is not|cannot be divided"):
            mesh_sizes(mesh, world)
