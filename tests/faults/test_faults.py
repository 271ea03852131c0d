"""The faults of the table, by number: restarted or gone on with, a run ends with the losses and the weights
of one that nothing disturbed, bit for bit where the layout is the same.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from puna.run import files
from puna.train import checkpoint
from tests import tiny

from . import TABLE, elsewhere

ROOT = Path(__file__).parents[2]
STEPS = 20  # with a checkpoint every four
KILLED = "step 0 10"  # with checkpoints of steps 4 and 8


def command(*arguments: Any, world: int = 2, restarts: int = 0) -> list[str]:
    how = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    launcher = [*how, "--max-restarts", str(restarts)] if world > 1 else []
    return [sys.executable, *launcher, "-m", "tests.faults.injected", *map(str, arguments)]


def environment(fault: str) -> dict[str, str]:
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    return {**tiny.environment(), **paths, "OMP_NUM_THREADS": "1", "FAULT": fault or "none 0 0"}


def recipe(folder: Path, *changes: str) -> tuple[Any, ...]:
    return ("run", folder / "small.toml", "--out", folder / "out", *changes)


def run(
    folder: Path,
    *changes: str,
    fault: str = "",
    world: int = 2,
    restarts: int = 0,
    code: int = 0,
    before: tuple[str, ...] = (),
) -> str:
    """What a run says. code: of its exit; 1 is torchrun's where a process failed. before: words of the
    command before its own."""
    done = subprocess.run(
        [*before, *command(*recipe(folder, *changes), world=world, restarts=restarts)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=environment(fault),
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


def trained(folder: Path) -> tuple[list[dict[str, float]], Path]:
    """The lines of the losses, and the file of the weights."""
    (made,) = folder.glob("out/small/train-*")
    lines = (made / "losses.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], made / "model.safetensors"


def scratch(folder: Path) -> Path:
    (found,) = folder.glob("out/small/.scratch/train-*")
    return found


def steps(folder: Path) -> list[int]:
    """Of the checkpoints that are finished."""
    return sorted(checkpoint.step_of(path) for path in checkpoint.finished(folder))


@pytest.fixture(scope="module")
def base(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with all that comes before the training."""
    left_out = shutil.ignore_patterns("train-*", "scores-*")
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("faults") / "base", ignore=left_out))


@pytest.fixture(scope="module")
def whole(base: Path) -> Path:
    """The oracle: two processes that nothing disturbs."""
    folder = Path(shutil.copytree(base, base.with_name("whole")))
    run(folder)
    assert len(trained(folder)[0]) == STEPS
    return folder


@pytest.fixture(scope="module")
def cut(base: Path) -> Path:
    """A run of two processes that was killed."""
    folder = Path(shutil.copytree(base, base.with_name("cut")))
    run(folder, fault=KILLED, code=1)
    assert steps(scratch(folder)) == [4, 8]
    return folder


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


@pytest.fixture
def stopped(cut: Path, tmp_path: Path) -> Path:
    """A copy of the run that was killed."""
    return Path(shutil.copytree(cut, tmp_path / "stopped"))


def same(folder: Path, whole: Path) -> None:
    """Equal losses, and equal digests of the weights and of all artifacts."""
    assert trained(folder)[0] == trained(whole)[0]
    assert tiny.digests(folder / "out") == tiny.digests(whole / "out")


def restarted(copy: Path, whole: Path, fault: str) -> str:
    """What is said by a run that has a fault and is started again by torchrun, to the same bits."""
    told = run(copy, fault=fault, restarts=1)
    assert told.count("the fault\n") == 1
    same(copy, whole)
    return told


def test_01_a_process_is_killed_in_a_step(copy: Path, whole: Path) -> None:
    assert "going on from the checkpoint of step 8" in restarted(copy, whole, "step 1 10")


def test_02_the_first_process_is_killed(copy: Path, whole: Path) -> None:
    assert "going on from the checkpoint of step 8" in restarted(copy, whole, "step 0 10")


@pytest.mark.parametrize("rank", [0, 1])
def test_03_a_kill_while_a_checkpoint_is_staged(copy: Path, whole: Path, rank: int) -> None:
    assert "going on from the checkpoint of step 4" in restarted(copy, whole, f"staged {rank} 8")


@pytest.mark.parametrize("fault", ["written", "renamed"], ids=["04 before the index", "05 in the rename"])
def test_04_05_a_kill_before_a_checkpoint_is_whole(copy: Path, whole: Path, fault: str) -> None:
    told = restarted(copy, whole, f"{fault} 0 8")
    assert ".saving was not finished, and is removed" in told
    assert "going on from the checkpoint of step 4" in told


@pytest.mark.parametrize("signals", [1, 2], ids=["06 SIGTERM", "07 SIGTERM twice"])
def test_06_07_a_stop_goes_on_to_the_same_bits(copy: Path, whole: Path, signals: int) -> None:
    """Twice: a second later, while the first one is obeyed or after that."""
    with subprocess.Popen(
        command(*recipe(copy)), stderr=subprocess.PIPE, text=True, env=environment("slow all 6")
    ) as process:
        end = time.monotonic() + 150
        while not list(copy.glob("out/small/.scratch/train-*/step-*4/index.json")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
        told = process.communicate(timeout=100)[1]
    assert process.returncode and not list(copy.glob("out/small/train-*"))
    saved = max(steps(scratch(copy)))
    assert 4 <= saved < STEPS
    if signals == 1:
        assert f"stopped and saved at step {saved};" in told
    assert f"going on from the checkpoint of step {saved}" in run(copy)
    same(copy, whole)


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        ("rank-00001.safetensors", "cut", r"rank-00001.safetensors has [\d,]+ bytes instead of"),
        ("rank-00001.safetensors", "flip", "rank-00001.safetensors is damaged: block 0 does not match"),
        ("index.json", "flip", r"index.json is damaged"),
        ("rank-00000.safetensors", "remove", "rank-00000.safetensors is missing"),
    ],
    ids=["09 cut short", "10 flipped bit", "11 flipped bit in the index", "12 gone"],
)
def test_09_10_11_12_a_damaged_checkpoint(
    stopped: Path, whole: Path, file: str, damage: str, told: str
) -> None:
    path = scratch(stopped) / "step-00000008" / file
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    path.write_bytes(raw[: len(raw) - (damage == "cut")])
    if damage == "remove":
        path.unlink()
    said = run(stopped)
    assert re.search(f"passed over a checkpoint: .*step-00000008/{told}", said), said
    assert "going on from the checkpoint of step 4" in said
    same(stopped, whole)


def on_a_disk(folder: Path, size: int, keep: Path, read_only: bool = False) -> tuple[str, ...]:
    """Words before a command that give it a disk of `size` bytes at `folder`, and leave in `keep` a copy of
    what lies there in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = f" && mount -o remount,ro {folder}" if read_only else ""
    script = (
        f'mount -t tmpfs -o size={size} x {folder}{lock} && "$@"; code=$?; cp -r {folder} {keep}; exit $code'
    )
    words = ("unshare", "-Urm", "sh", "-c", script, "sh")
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here (unshare -Urm)")
    shutil.rmtree(keep)
    return words


def test_13_a_disk_that_is_full_in_a_save(copy: Path, cut: Path, whole: Path, tmp_path: Path) -> None:
    """With room for a checkpoint and a half, and what lies beside them."""
    place, kept = copy / "out" / "small" / ".scratch", tmp_path / "kept"
    size = sum(path.stat().st_size for path in scratch(cut).rglob("step-00000008/*"))
    words = on_a_disk(place, 300_000 + 3 * size // 2, kept)
    told = run(copy, before=words, code=1)
    assert "No space left on device" in told and "rank-0000" in told
    (left,) = kept.iterdir()
    assert steps(left) == [4] and not (left / ".saving").exists()
    checkpoint.verify(left / "step-00000004")
    shutil.rmtree(place)
    shutil.move(kept, place)
    assert "going on from the checkpoint of step 4" in run(copy)
    same(copy, whole)


def test_14_a_folder_that_cannot_be_written(copy: Path, tmp_path: Path) -> None:
    words = on_a_disk(copy / "out" / "small" / ".scratch", 10_000_000, tmp_path / "kept", read_only=True)
    assert re.search(r"puna: .*Read-only file system", run(copy, before=words, code=1))


def test_14_a_disk_that_fails_in_a_save(copy: Path, whole: Path) -> None:
    told = run(copy, fault="failing 1 8", code=1)
    assert re.search(r"puna: .*rank-00001\.safetensors: Input/output error; the disk", told), told
    assert steps(scratch(copy)) == [4] and not (scratch(copy) / ".saving").exists()
    assert "going on from the checkpoint of step 4" in run(copy)
    same(copy, whole)


@pytest.mark.slow
def test_15_16_other_processes_and_layouts_at_each_resume(copy: Path, whole: Path) -> None:
    """Two processes, one, three on a batch of four, two that share each layer, and two again: the same
    tokens, the same numbers within rounding."""
    tensor = ("-s", "cluster.mesh.shard=1", "-s", "cluster.mesh.tensor=2")
    often = ("-s", "execution.checkpoint_steps=1")
    run(copy, *often, fault="step 0 4", code=1)
    run(copy, *often, fault="step 0 8", world=1, code=-signal.SIGKILL)
    run(copy, *often, fault="step 0 12", world=3, code=1)
    run(copy, *often, *tensor, fault="step 0 16", code=1)
    told = run(copy)
    assert re.search(r"going on from the checkpoint of step 1[345]", told)
    (lines, weights), (expected, others) = trained(copy), trained(whole)
    assert [(line["step"], line["tokens"]) for line in lines] == [
        (line["step"], line["tokens"]) for line in expected
    ]
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=1e-6)
    theirs = load_file(others)
    for name, weight in load_file(weights).items():
        assert (weight - theirs[name]).norm() <= 1e-5 * theirs[name].norm()


def shard(folder: Path) -> Path:
    (found,) = folder.glob("out/small/tokens-*/stories.train.bin")
    return found


def test_17_a_damaged_token_shard(stopped: Path) -> None:
    """Where the file system does not tell that it has changed: the first batch that reads it does."""
    path = shard(stopped)
    raw = bytearray(path.read_bytes())
    raw[20::100] = b"\xff" * len(raw[20::100])  # tokens of 65,280 and more
    path.write_bytes(raw)
    told = run(stopped, fault="rot all 0", code=1)
    assert re.search(rf"{path} is damaged: at byte [\d,]+ stands token [\d,]+ of a vocabulary of 320", told)
    path.write_bytes(raw[:-2])
    told = run(stopped, fault="rot all 0", code=1)
    assert f"{path} holds" in told and "one of them is damaged" in told
    assert steps(scratch(stopped)) == [4, 8] and not list(stopped.glob("out/small/train-*"))


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_18_a_token_shard_is_not_what_it_was(stopped: Path, change: str) -> None:
    path = shard(stopped)
    raw = path.read_bytes()
    path.unlink() if change == "gone" else path.write_bytes(raw[:-4] + raw[-2:] + raw[-2:])
    told = run(stopped, code=1)
    expected = "is missing" if change == "gone" else "does not match its digest"
    assert re.search(rf"puna: artifact .* is damaged: (the content of )?{path.name} {expected}", told), told
    assert steps(scratch(stopped)) == [4, 8]


def test_22_the_clock_jumps_a_day(copy: Path, whole: Path) -> None:
    clock = ("-s", "cluster.checkpoint_seconds=3600", "-s", "cluster.time_out_seconds=60")
    run(copy, *clock, fault="clock all 6")
    same(copy, whole)


def calls(path: Path) -> Iterator[str]:
    """Calls of modules' functions, as module.function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def test_22_no_training_asks_the_clock_on_the_wall() -> None:
    """But for names of files, and for what a person reads."""
    asked = {
        (path.parent.name, path.name)
        for room in ("train", "run")
        for path in (ROOT / "src" / "puna" / room).glob("*.py")
        if {"time.time", "time.time_ns", "datetime.now"} & set(calls(path))
    }
    assert asked <= {("run", "build.py"), ("run", "digests.py"), ("run", "watch.py")}


def test_two_runs_in_one_folder(copy: Path, whole: Path) -> None:
    """The second one is refused, and changes nothing."""
    with files.locked(copy / "out" / "small"):
        assert "puna: another run is at work in" in run(copy, code=1)
    assert not list(copy.glob("out/small/.scratch/*"))


def shown(folder: Path, *changes: str, fault: str = "") -> dict[str, Any]:
    """What a run would do about the training."""
    words = ("show", *recipe(folder, *changes, "--json")[1:])
    done = subprocess.run(
        command(*words, world=1), capture_output=True, text=True, check=True, env=environment(fault)
    )
    return next(row for row in json.loads(done.stdout) if row["stage"] == "train")


def test_another_recipe_or_version_does_not_go_on(stopped: Path) -> None:
    """Unless it is forced: by a checkpoint that is put into its folder."""
    other = ("-s", "train.learning_rate=0.02")
    assert shown(stopped)["state"] == "will go on after step 8"
    assert shown(stopped, "-s", "execution.remat=full")["state"] == "will go on after step 8"
    assert shown(stopped, fault="version 0 0")["state"] == "will run"
    row = shown(stopped, *other)
    assert row["state"] == "will run"
    assert "the recipe here is not that of process 0" in run(stopped, fault="recipe 1 0", code=1)
    assert steps(scratch(stopped)) == [4, 8]
    forced = scratch(stopped).with_name(Path(row["folder"]).name)
    shutil.copytree(scratch(stopped), forced)
    assert "going on from the checkpoint of step 8" in run(stopped, *other)


def test_every_fault_has_a_test() -> None:
    """Here, or where the table says."""
    here = set(
        map(int, re.findall(r"\d\d", " ".join(re.findall(r"def (test_[\d_]+)", Path(__file__).read_text()))))
    )
    for number, (fault, tests) in TABLE.items():
        assert tests or number in here or number in ("lock", "fingerprint"), fault
    assert {number for number in TABLE if isinstance(number, int)} == set(range(1, 23))
    for test in elsewhere():
        path, _, name = test.partition("::")
        assert not name or f"def {name}(" in (ROOT / path).read_text(), test
