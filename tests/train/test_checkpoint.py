"""Checkpoints: what is saved, what damage is found, what a kill leaves, and other layouts."""

import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from puna.errors import UserError
from puna.train import checkpoint
from puna.train.checkpoint import Kept, Progress, Saver, resume
from puna.train.losses import Losses
from puna.train.parallel import Box

from .test_parallel import together

FILE = "rank-00000.safetensors"


def training(folder: Path, seed: int = 0) -> tuple[torch.nn.Module, torch.optim.AdamW, Losses]:
    """A model with moments, and the losses of the steps so far."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.Linear(40, 8))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    losses = Losses(folder / "losses.jsonl")
    losses.begin()
    for step in range(3):
        train(model, optimizer)
        losses.append({"step": step + 1, "loss": 1.0})
    return model, optimizer, losses


def train(model: torch.nn.Module, optimizer: torch.optim.AdamW) -> None:
    model(torch.randn(16, 24)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def state(model: torch.nn.Module, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    found = checkpoint.state_of(checkpoint.trainable_of(model), optimizer)
    return {name: value.detach().clone() for name, value in found.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def blank() -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(99)
    model = torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.Linear(40, 8))
    return model, torch.optim.AdamW(model.parameters(), fused=True)


def loaded(folder: Path, steps: int = 100) -> tuple[int, dict[str, torch.Tensor], list[str]]:
    """Step, state and what was passed over; a copy of the losses is cut, not they."""
    model, optimizer = blank()
    progress, passed = resume(folder, model, optimizer, Losses(folder / "losses.jsonl"), steps)
    return progress.step, state(model, optimizer), passed


def test_a_checkpoint_is_a_file_that_others_read_and_one_index(tmp_path: Path) -> None:
    model, optimizer, losses = training(tmp_path)
    with Saver(model, optimizer, losses) as saver:
        saver.save(tmp_path, Progress(3, 1))
    path = tmp_path / "step-00000003"
    expected = state(model, optimizer)
    assert sorted(item.name for item in path.iterdir()) == ["index.json", FILE]
    assert equal(load_file(path / FILE), expected)
    index = checkpoint.verify(path)
    assert index["tensors"].keys() == expected.keys() and index["progress"]["skipped"] == 1
    assert index["tensors"]["0.weight"] == {
        "dtype": "F32",
        "shape": [40, 24],
        "parts": [[FILE, index["tensors"]["0.weight"]["parts"][0][1], [0, 0], [40, 24]]],
    }
    assert loaded(tmp_path)[0] == 3 and equal(loaded(tmp_path)[1], expected)


def test_what_is_saved_is_the_state_of_its_step_although_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer, losses = training(tmp_path)
    expected, real = state(model, optimizer), checkpoint._Snapshot.write

    def late(self: Any, folder: Path) -> Any:
        time.sleep(0.5)
        return real(self, folder)

    monkeypatch.setattr(checkpoint._Snapshot, "write", late)
    with Saver(model, optimizer, losses) as saver:
        began = time.monotonic()
        saver.save(tmp_path, Progress(3))
        assert time.monotonic() - began < 0.4
        train(model, optimizer)
        losses.append({"step": 4, "loss": 1.0})
        assert not (tmp_path / "step-00000003").exists()
    step, found, _ = loaded(tmp_path)
    assert step == 3 and equal(found, expected) and not equal(state(model, optimizer), expected)


def test_a_save_holds_training_up_for_no_more_than_a_copy_takes(tmp_path: Path) -> None:
    """In time of the processor, which a busy machine does not stretch; digest and file are the thread's.
    `python bench/save.py` measures time on the wall."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(10)))
        optimizer, losses = (
            torch.optim.AdamW(model.parameters(), fused=True),
            Losses(tmp_path / "losses.jsonl"),
        )
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        losses.begin()
        copies = {name: torch.zeros_like(value) for name, value in state(model, optimizer).items()}
        copied, saved = [], []
        with Saver(model, optimizer, losses) as saver:
            saver.prepare()  # so that not even the first save takes the memory
            for _ in range(7):
                began = time.thread_time()
                for name, value in checkpoint.state_of(saver.trainable, optimizer).items():
                    copies[name].copy_(value.detach())
                copied.append(time.thread_time() - began)
                began = time.thread_time()
                saver.save(tmp_path, Progress(1))
                saved.append(time.thread_time() - began)
                saver.wait()
    finally:
        torch.set_num_threads(threads)
    assert sum(value.nbytes for value in copies.values()) > 120e6
    assert saved[0] < 2 * sorted(copied)[3] and sorted(saved)[3] < 1.2 * sorted(copied)[3], (saved, copied)


def test_a_checkpoint_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    """But for digits of the step: those of all losses before it are one digest."""
    sizes = {}
    for step in (1_000, 100_000):
        model, optimizer, losses = training(tmp_path)
        lines = b'{"step": 1, "tokens": 1, "loss": 1.0}\n' * step
        losses.path.write_bytes(lines)
        assert losses.go_on(losses.path, step, hashlib.sha256(lines).hexdigest())
        with Saver(model, optimizer, losses) as saver:
            saver.save(tmp_path, Progress(step, skipped=step // 10, threads=2))
        place = tmp_path / f"step-{step:08d}"
        sizes[step] = {path.name: path.stat().st_size for path in place.iterdir()}
        assert step == 1_000 or loaded(tmp_path, step)[0] == step
    grown = {name: size - sizes[1_000][name] for name, size in sizes[100_000].items()}
    assert grown == {FILE: 0, "index.json": 4}  # two digits of the step, and of what was skipped


def flip(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def two_saved(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The checkpoints of steps 3 and 4, and what they hold."""
    model, optimizer, losses = training(folder)
    with Saver(model, optimizer, losses) as saver:
        saver.save(folder, Progress(3))
        first = state(model, optimizer)
        train(model, optimizer)
        losses.append({"step": 4, "loss": 1.0})
        saver.save(folder, Progress(4))
    return first, state(model, optimizer)


def test_a_thousand_flipped_bits_are_all_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over file and index, in blocks of 1,000 bytes."""
    monkeypatch.setattr(checkpoint, "BLOCK", 1000)
    first, second = two_saved(tmp_path)
    assert equal(loaded(tmp_path)[1], second)
    path, chance = tmp_path / "step-00000004", random.Random(1)
    boxes = {name: Box((0,) * value.dim(), tuple(value.shape), True) for name, value in second.items()}
    lines = (tmp_path / "losses.jsonl").read_bytes()
    header = 8 + int.from_bytes((path / FILE).read_bytes()[:8], "little")
    for name, count in ((FILE, 700), ("index.json", 300)):
        raw = (path / name).read_bytes()
        for bit in chance.sample(range(8 * len(raw)), count):
            (path / name).write_bytes(flip(raw, bit))
            with pytest.raises(UserError, match="damaged"):
                checkpoint.verify(path)
            with contextlib.suppress(UserError):  # of blocks of the file's header, none is needed
                assert equal(checkpoint.read_tensors(path, checkpoint.read_index(path), boxes), second)
                assert name == FILE and bit < 8 * header
        step, found, (told,) = loaded(tmp_path)
        assert step == 3 and equal(found, first) and str(path / name) in told
        (path / name).write_bytes(raw)
        (tmp_path / "losses.jsonl").write_bytes(lines)


def test_bits_that_flip_between_digest_and_write_are_all_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, real = random.Random(2), checkpoint._Snapshot._write_file

    def flipped(path: Path, view: memoryview) -> None:
        real(path, memoryview(flip(bytes(view), chance.randrange(8 * len(view)))))

    monkeypatch.setattr(checkpoint._Snapshot, "_write_file", staticmethod(flipped))
    model, optimizer, losses = training(tmp_path)
    with Saver(model, optimizer, losses) as saver:
        for _ in range(300):
            saver.save(tmp_path, Progress(3))
            saver.wait()
            with pytest.raises(UserError, match="damaged"):
                checkpoint.verify(tmp_path / "step-00000003")
    step, _, (told,) = loaded(tmp_path)
    assert step == 0 and "block 0 does not match its digest" in told


def test_a_checkpoint_that_cannot_be_loaded_changes_nothing(tmp_path: Path) -> None:
    """Although all but its last block is sound."""
    training_state = two_saved(tmp_path)
    for step in (3, 4):
        file = tmp_path / f"step-0000000{step}" / FILE
        file.write_bytes(flip(file.read_bytes(), 8 * file.stat().st_size - 9))
    begun = state(*blank())
    step, found, passed = loaded(tmp_path)
    assert step == 0 and len(passed) == 2 and equal(found, begun) and not equal(found, training_state[1])


@pytest.mark.parametrize("moment", ["digest", "write", "index", "rename", "renamed", "prune"])
def test_a_kill_at_any_moment_of_a_save_leaves_the_checkpoint_before_or_this_one(
    tmp_path: Path, moment: str
) -> None:
    """`kill -9` in a child, whose thread has come so far."""
    model, optimizer, losses = training(tmp_path)
    saver = Saver(model, optimizer, losses)
    saver.save(tmp_path, Progress(3))
    saver.wait()
    first = state(model, optimizer)
    train(model, optimizer)
    losses.append({"step": 4, "loss": 1.0})
    second = state(model, optimizer)
    if (child := os.fork()) == 0:
        real = os.replace

        def die(*arguments: Any) -> None:
            if moment == "write":
                arguments[0].write_bytes(arguments[1][:5000])
            if moment == "renamed":
                real(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        def replace(source: Path, target: Path) -> None:
            die(source, target) if target.name.startswith("step-") else real(source, target)

        if moment == "digest":
            checkpoint._Snapshot.write = die  # type: ignore[method-assign]
        elif moment == "write":
            checkpoint._Snapshot._write_file = staticmethod(die)  # type: ignore[method-assign,assignment]
        elif moment == "index":
            Saver._finish = die  # type: ignore[method-assign]
        elif moment == "prune":
            checkpoint.remove = lambda path: (
                (path / "index.json").unlink(missing_ok=True)
                or (  # type: ignore
                    path.name.endswith("4") or die()
                )
            )
        else:
            os.replace = replace  # type: ignore[assignment]
        saver.save(tmp_path, Progress(4), kept=Kept(1))
        saver.wait()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    step, found, passed = loaded(tmp_path)
    assert not (tmp_path / ".saving").exists()
    if moment in ("renamed", "prune"):
        assert step == 4 and equal(found, second) and not passed
    else:
        assert step == 3 and equal(found, first)
        assert passed == [f"{tmp_path / '.saving'} was not finished, and is removed"]
    saver.save(tmp_path, Progress(4), kept=Kept(1))  # and the next save clears what was left
    saver.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.jsonl", "step-00000004"]


def test_a_disk_that_is_full_is_told_by_the_next_save_and_takes_nothing_along(tmp_path: Path) -> None:
    model, optimizer, losses = training(tmp_path)
    saver = Saver(model, optimizer, losses)
    saver.save(tmp_path, Progress(2))
    saver.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        saver.save(tmp_path, Progress(3), kept=Kept(1))
        with pytest.raises(OSError, match=f"File too large.*{FILE}"):
            saver.save(tmp_path, Progress(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.jsonl", "step-00000002"]
    saver.save(tmp_path, Progress(3), kept=Kept(1))
    saver.wait()
    assert loaded(tmp_path)[0] == 3


def test_a_checkpoint_of_another_model_is_passed_over(tmp_path: Path) -> None:
    two_saved(tmp_path)
    other = torch.nn.Sequential(torch.nn.Linear(24, 41), torch.nn.Linear(41, 8))
    optimizer = torch.optim.AdamW(other.parameters())
    progress, passed = resume(tmp_path, other, optimizer, Losses(tmp_path / "losses.jsonl"), 9)
    assert progress.step == 0 and "is of another model: 0.bias [40]" in passed[0]


def test_each_block_is_read_once_and_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "BLOCK", 1000)
    _, second = two_saved(tmp_path)
    path, read = tmp_path / "step-00000004", []
    real = checkpoint.hashlib.sha256
    monkeypatch.setattr(checkpoint.hashlib, "sha256", lambda raw: read.append(bytes(raw)) or real(raw))
    index = json.loads((path / "index.json").read_bytes())
    whole = {name: Box((0,) * value.dim(), tuple(value.shape), True) for name, value in second.items()}
    assert equal(checkpoint.read_tensors(path, index, whole), second)
    assert len(read) == len(set(read)) == len(index["files"][FILE]["blocks"]) - 1  # but that of the header
    read.clear()
    found = checkpoint.read_tensors(path, index, {"0.weight": Box((10, 4), (20, 3), True)})
    assert torch.equal(found["0.weight"], second["0.weight"][10:30, 4:7])
    assert len(read) == len(set(read)) <= 4  # 20 rows of 96 bytes


@pytest.mark.parametrize(
    ("layout", "others"), [("2x2", ["1x1", "1x2"]), ("replicate", ["1x1"]), ("2x1", ["3x1"])]
)
def test_processes_load_what_others_wrote(tmp_path: Path, layout: str, others: list[str]) -> None:
    """FSDP2, HSDP and tensor parallelism, of two, three and four processes; as torch's DCP does."""
    written = together(count(layout), "write", layout, tmp_path, module="reshard")
    assert len(checkpoint.verify(tmp_path / "step-00000004")["files"]) == count(layout)
    for other in others:
        assert together(count(other), "load", other, tmp_path, module="reshard") == written


def test_a_disk_that_is_full_for_one_process_is_told_by_all(tmp_path: Path) -> None:
    assert together(2, "full", "2x1", tmp_path, module="reshard") == "File too large"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.jsonl", "step-00000004"]


def count(layout: str) -> int:
    data, _, tensor = layout.partition("x")
    return 4 if layout == "replicate" else int(data) * int(tensor)
