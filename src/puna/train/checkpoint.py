"""Save and resume a training, bitwise and on any layout: trainable weights, the optimizer's state, progress.

    step-00000100/
      rank-00000.safetensors ...    what each process holds of them; what several hold, once
      index.json                    which part of which tensor lies where; the SHA-256 of each block of a file

A save copies the state to host memory and returns. A thread digests the copy, writes and syncs it while the
next steps run; when all processes have reported, the first one writes the index and renames the folder. So a
kill half-way leaves none, and a bit that flips between digest and load is noticed: a damaged checkpoint is
passed over for the one before it. Whoever loads reads the blocks that it needs, each once.

The data order needs no saving: it is a function of the step. Nor do the losses: their lines lie in one file
(`losses`), and a checkpoint holds the digest of those before it.
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from puna.errors import UserError
from puna.model.tensor_parallel import local
from puna.run import files
from puna.train.losses import LOSSES, Losses
from puna.train.parallel import ALONE, Box, Parallel, Team, box_of

SAVING = ".saving"
INDEX = "index.json"
FORMAT = 1
DIGEST = b', "sha256": "'  # of the index, behind all else in it
BLOCK = 16 << 20  # bytes that have a digest of their own
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Kept(NamedTuple):
    """Which checkpoints stay: the newest ones; all of each `every` steps; the last two of each `back`, to
    which a training may have to go back."""

    newest: int
    every: int | None = None
    back: int | None = None


@dataclass
class Progress:
    """What a run has done. step: batches seen; skipped: those of them whose step was not taken;
    skipped_in_a_row: those since the last step that was; threads: of its computations, 0 where it has not
    begun."""

    step: int
    skipped: int = 0
    skipped_in_a_row: int = 0
    threads: int = 0


class Saver:
    """Writes the checkpoints of one training, one at a time, while it goes on.

    losses: the lines of all steps so far. What a save finds wrong, such as a full disk, is raised by the next
    one, or by `wait`, in all processes.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, losses: Losses, parallel: Parallel = ALONE
    ) -> None:
        # Kept, since FSDP2 gives a module other parameters while its weights are gathered.
        self.trainable, self.optimizer, self.losses = trainable_of(model), optimizer, losses
        self.team, self.saved = parallel.saving, time.monotonic()
        self._snapshot: _Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None

    def prepare(self) -> "tuple[_Snapshot, dict[str, Tensor]]":
        """Take the memory of the copy, all pages of it, once there is a state; both. At the first save it
        would hold the training up, and what does not fit would be found late."""
        state = state_of(self.trainable, self.optimizer)
        if self._snapshot is None or self._snapshot.names != state.keys():
            self._snapshot = _Snapshot(state, self.team.rank)
        return self._snapshot, state

    def save(
        self, folder: Path, progress: Progress, *, kept: Kept | None = None, with_losses: bool = False
    ) -> None:
        """Begin to write the checkpoint of `progress.step`; remove all that are not `kept` then, and those of
        later steps, which were passed over; None: none.

        with_losses: put a copy of their lines into the checkpoint, for trainings that go on from it in
        another folder. Nothing stays of a checkpoint that cannot be written.
        """
        self.wait()
        snapshot, state = self.prepare()
        snapshot.take(state)
        if not with_losses:
            self.saved = time.monotonic()
        index: dict[str, Any] = {"format": FORMAT, "progress": dict(vars(progress))}
        lines = 0
        if self.team.rank == 0:
            index["losses_sha256"] = self.losses.digest
            lines = self.losses.path.stat().st_size if with_losses else 0
        arguments = (folder, snapshot, index, lines, kept)
        self._thread = threading.Thread(target=self._write, args=arguments)
        self._thread.start()

    def is_due(self, seconds: float | None) -> bool:
        """Whether the last save, or the start, is more than so many seconds ago; None: never."""
        return seconds is not None and time.monotonic() - self.saved >= seconds

    def wait(self) -> None:
        """Wait until the checkpoint is there. Raises what was wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Wait for the thread; an error that is on its way tells more than one of its."""
        with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
            self.wait()

    def _write(
        self, folder: Path, snapshot: "_Snapshot", index: dict[str, Any], lines: int, kept: Kept | None
    ) -> None:
        """What the thread does. lines: bytes of the losses that are copied."""
        work, team = folder / SAVING, self.team
        try:
            team.first(lambda: _empty(work))
            reports = team.gather(team.together(lambda: snapshot.write(work)))
            team.first(lambda: self._finish(work, index, reports, lines))
            team.first(lambda: _remove_old(folder, kept, index["progress"]["step"]))
        except Exception as error:
            self._problem = error
        finally:
            if team.rank == 0:
                shutil.rmtree(work, ignore_errors=True)

    def _finish(
        self, work: Path, index: dict[str, Any], reports: Sequence[dict[str, Any]], lines: int
    ) -> None:
        """Write the index of what the processes have written, and give the folder its name."""
        index["files"] = {report["file"]: report["described"] for report in reports}
        tensors: dict[str, Any] = {}
        for report in reports:
            for name, (dtype, shape, start, held, offset) in report["parts"].items():
                entry = tensors.setdefault(name, {"dtype": dtype, "shape": shape, "parts": []})
                entry["parts"].append([report["file"], offset, start, held])
        index["tensors"] = tensors
        files.sync(self.losses.path)
        if lines:
            with self.losses.path.open("rb") as file:
                files.write_atomically(work / LOSSES, file.read(lines))
        files.write_atomically(work / INDEX, _with_digest(json.dumps(index, sort_keys=True).encode()[:-1]))
        files.sync(work)
        target = work.with_name(f"step-{index['progress']['step']:08d}")
        remove(target)
        os.replace(work, target)
        files.sync(target.parent)


class _Snapshot:
    """A copy of a process's part of the state in host memory, as the bytes of a safetensors file, which the
    library reads, too."""

    def __init__(self, state: Mapping[str, Tensor], rank: int) -> None:
        self.file, self.names = f"rank-{rank:05d}.safetensors", set(state)
        self.parts: dict[str, tuple[str, Sequence[int], Sequence[int], Sequence[int], int]] = {}
        boxes = {name: box_of(tensor, rank) for name, tensor in state.items()}
        own = [name for name, box in boxes.items() if box.first and 0 not in box.shape]
        # All are aligned; the order is the same whether the run was resumed or not.
        own.sort(key=lambda name: (-state[name].element_size(), name))
        header: dict[str, Any] = {}
        end = 0
        for name in own:
            start, end = end, end + math.prod(boxes[name].shape) * state[name].element_size()
            described = {"dtype": NAMES[state[name].dtype], "shape": boxes[name].shape}
            header[name] = {**described, "data_offsets": [start, end]}
        raw = json.dumps(header).encode()
        raw += b" " * (-(8 + len(raw)) % 64)  # tensors on lines of the cache
        begin = 8 + len(raw)
        self.bytes = torch.zeros(begin + end, dtype=torch.uint8)
        if any(tensor.device.type == "cuda" for tensor in state.values()):
            # torch's own pinned memory comes in powers of two.
            torch.cuda.cudart().cudaHostRegister(self.bytes.data_ptr(), self.bytes.numel(), 0)
        self.bytes[:begin] = torch.frombuffer(
            bytearray(len(raw).to_bytes(8, "little") + raw), dtype=torch.uint8
        )
        self.copies: dict[str, Tensor] = {}
        for name in own:
            first, last = (begin + offset for offset in header[name]["data_offsets"])
            box, whole = boxes[name], list(state[name].shape)
            self.parts[name] = (header[name]["dtype"], whole, box.start, box.shape, first)
            self.copies[name] = self.bytes[first:last].view(state[name].dtype).view(box.shape)

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Copy the state of now."""
        for name, copy in self.copies.items():
            copy.copy_(local(state[name].detach()), non_blocking=True)
        if self.bytes.is_pinned():
            torch.cuda.synchronize()

    def write(self, folder: Path) -> dict[str, Any]:
        """Digest the copy, write it, sync it; what the index says of it."""
        view = self.bytes.numpy().data
        blocks = [hashlib.sha256(view[at : at + BLOCK]).hexdigest() for at in range(0, len(view), BLOCK)]
        self._write_file(folder / self.file, view)
        described = {"bytes": len(view), "blocks": blocks}
        return {"file": self.file, "described": described, "parts": self.parts}

    @staticmethod
    def _write_file(path: Path, rest: memoryview) -> None:
        with path.open("wb", buffering=0) as file:
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error


def resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Losses,
    most_steps: int,
    parallel: Parallel = ALONE,
) -> tuple[Progress, list[str]]:
    """Load the newest checkpoint of at most `most_steps` steps that is whole into model and optimizer; step 0
    where there is none. Also what was passed over.

    Written on any layout, loaded on any other; all processes take the same one. losses: is left with the
    lines of the steps before the checkpoint.
    """
    team, passed = parallel.team, []
    if team.rank == 0 and (folder / SAVING).exists():
        passed.append(f"{folder / SAVING} was not finished, and is removed")
        shutil.rmtree(folder / SAVING, ignore_errors=True)
    saved = _saved(folder) if team.rank == 0 else []
    for name in team.broadcast([path.name for path in saved if step_of(path) <= most_steps]):
        try:
            progress = load(folder / name, trainable_of(model), optimizer, team, losses)
        except (UserError, OSError) as error:
            passed.append(str(error))
            continue
        return progress, passed
    if team.rank == 0:
        losses.begin()
    return Progress(0), passed


def load(
    path: Path,
    trainable: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    team: Team,
    losses: Losses | None = None,
) -> Progress:
    """Load one checkpoint. losses: is left with the lines of its steps. Raises UserError, in all processes,
    where it is damaged in any, before anything has changed."""

    def read() -> tuple[dict[str, Any], dict[str, Tensor]]:
        index = read_index(path)
        boxes = _boxes(path, index, trainable)
        return index, read_tensors(path, index, boxes)

    index, values = team.together(read)
    progress = Progress(**index["progress"])

    def go_on() -> None:
        if losses is None or team.rank:
            return
        source = path / LOSSES if (path / LOSSES).exists() else losses.path
        if not losses.go_on(source, progress.step, index["losses_sha256"]):
            raise UserError(f"{source} does not hold the losses of the steps before {path}")

    team.together(go_on)
    with torch.no_grad():
        for name in list(values):
            value, owner, key = values.pop(name), *_split(name, trainable)
            parameter = trainable[owner]
            if not key:
                local(parameter).copy_(value)
            elif tuple(index["tensors"][name]["shape"]) == tuple(parameter.shape):
                state = optimizer.state[parameter][key] = torch.empty_like(parameter, dtype=value.dtype)
                local(state).copy_(value)
            else:
                optimizer.state[parameter][key] = value.to(parameter.device)
    return progress


def _boxes(path: Path, index: dict[str, Any], trainable: Mapping[str, nn.Parameter]) -> dict[str, Box]:
    """Which part of each tensor of a checkpoint is needed here. Raises UserError where it is another
    model's."""
    boxes = {}
    for name, entry in index["tensors"].items():
        owner, key = _split(name, trainable)
        shape = tuple(entry["shape"])
        parameter = trainable.get(owner)
        if parameter is None or (not key and shape != tuple(parameter.shape)):
            raise UserError(f"{path} is of another model: {name} {list(shape)}")
        whole = Box((0,) * len(shape), shape, True)
        boxes[name] = box_of(parameter) if shape == tuple(parameter.shape) else whole
    if missing := sorted(trainable.keys() - boxes.keys()):
        raise UserError(f"{path} is of another model: it holds no {missing[0]}")
    return boxes


def read_tensors(path: Path, index: dict[str, Any], boxes: Mapping[str, Box]) -> dict[str, Tensor]:
    """Parts of tensors of a checkpoint, whatever parts they were written in. Raises UserError where what is
    needed of a file is damaged, or where parts are missing."""
    values: dict[str, Tensor] = {}
    wanted: list[tuple[str, int, str, Sequence[int], Sequence[int]]] = []
    for name, box in boxes.items():
        entry = index["tensors"][name]
        values[name] = torch.empty(box.shape, dtype=DTYPES[entry["dtype"]])
        wanted += [
            (file, offset, name, start, shape)
            for file, offset, start, shape in entry["parts"]
            if all(map(_meet, start, shape, box.start, box.shape))
        ]
    counts = dict.fromkeys(values, 0)
    for file, parts in itertools.groupby(sorted(wanted), key=lambda part: part[0]):
        blocks = _Blocks(path / file, index["files"][file])
        for _, offset, name, start, shape in parts:
            counts[name] += _read_part(blocks, offset, start, shape, values[name], boxes[name])
    for name, value in values.items():
        if counts[name] != value.numel():
            raise UserError(f"{path} holds {counts[name]:,} of {value.numel():,} numbers of {name}")
    return values


def _meet(start: int, size: int, other: int, other_size: int) -> bool:
    """Whether two ranges have something in common."""
    return max(start, other) < min(start + size, other + other_size)


def _read_part(
    blocks: "_Blocks", offset: int, start: Sequence[int], shape: Sequence[int], value: Tensor, box: Box
) -> int:
    """Read what a part of a file and a box have in common into the box's tensor, about a block at a time;
    its count of numbers."""
    source, target = [], []
    for at, length, begin, size in zip(start, shape, box.start, box.shape, strict=True):
        low, high = max(at, begin), min(at + length, begin + size)
        if low >= high:
            return 0
        source.append(slice(low - at, high - at))
        target.append(slice(low - begin, high - begin))
    rows = source[0] if source else slice(0, 1)
    row_bytes = math.prod(shape[1:]) * value.element_size()
    place = value[tuple(target)] if shape else value[None]
    at_once = max(BLOCK // row_bytes, 1)
    for first in range(rows.start, rows.stop, at_once):
        last = min(first + at_once, rows.stop)
        raw = blocks.read(offset + first * row_bytes, offset + last * row_bytes)
        part = torch.frombuffer(raw, dtype=value.dtype).view(last - first, *shape[1:])
        place[first - rows.start : last - rows.start].copy_(part[(slice(None), *source[1:])])
    return place.numel()


class _Blocks:
    """Reads a file of a checkpoint by blocks, each of which is compared with its digest. Ranges are asked for
    in their order, so no block is read twice."""

    def __init__(self, path: Path, described: dict[str, Any]) -> None:
        self.path, self.digests, self.bytes = path, described["blocks"], described["bytes"]
        self._number, self._block = -1, b""
        size = path.stat().st_size if path.is_file() else -1
        if size != self.bytes:
            told = f"has {size:,} bytes instead of {self.bytes:,}" if size >= 0 else "is missing"
            raise UserError(f"{path} {told}")

    def read(self, start: int, end: int) -> bytearray:
        """Bytes of the file. Raises UserError for a damaged block."""
        raw = bytearray()
        while start < end:
            number, at = divmod(start, BLOCK)
            raw += memoryview(self.block(number))[at : at + end - start]
            start = (number + 1) * BLOCK
        return raw

    def block(self, number: int) -> bytes:
        if number != self._number:
            self._number, self._block = -1, b""  # before the next one takes memory
            with self.path.open("rb", buffering=0) as file:
                file.seek(number * BLOCK)
                block = b"".join(iter(lambda: file.read(BLOCK - file.tell() + number * BLOCK), b""))
            if hashlib.sha256(block).hexdigest() != self.digests[number]:
                raise UserError(f"{self.path} is damaged: block {number} does not match its digest")
            self._number, self._block = number, block
        return self._block


def verify(path: Path) -> dict[str, Any]:
    """Read all of a checkpoint again; its index. Raises UserError naming what is damaged or missing."""
    index = read_index(path)
    for file, described in index["files"].items():
        blocks = _Blocks(path / file, described)
        for number in range(len(blocks.digests)):
            blocks.block(number)
    return index


def read_index(path: Path) -> dict[str, Any]:
    """The index of a checkpoint. Raises UserError where it is missing or a bit of it has changed."""
    file = path / INDEX
    if not file.is_file():
        raise UserError(f"{path} is no finished checkpoint: it has no {INDEX}")
    raw = file.read_bytes()
    body, _, _ = raw.rpartition(DIGEST)
    if raw != _with_digest(body):
        raise UserError(f"{file} is damaged: it does not match its own digest")
    index: dict[str, Any] = json.loads(raw)
    if index["format"] != FORMAT:
        raise UserError(f"{path} is of format {index['format']}; known is {FORMAT}")
    return index


def _with_digest(body: bytes) -> bytes:
    """An index as it is written. body: its JSON without the last brace; the digest of that comes last."""
    return body + DIGEST + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def trainable_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that a training changes, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def state_of(trainable: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that a checkpoint holds: weights by their names, and what the optimizer knows of each."""
    state: dict[str, Tensor] = {}
    for name, parameter in trainable.items():
        state[name] = parameter
        state.update({f"{name}.{key}": value for key, value in optimizer.state[parameter].items()})
    return state


def _split(name: str, trainable: Mapping[str, nn.Parameter]) -> tuple[str, str]:
    """(parameter's name, key of the optimizer's state or "") of a tensor's name."""
    if name in trainable:
        return name, ""
    owner, _, key = name.rpartition(".")
    return owner, key


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(path.name.removeprefix("step-"))


def _saved(folder: Path) -> list[Path]:
    """Checkpoints, newest first; also those that a kill has left half removed, without an index."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def remove(path: Path) -> None:
    """Remove a checkpoint so that a kill half-way never leaves something that looks finished."""
    (path / INDEX).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def finished(folder: Path) -> list[Path]:
    """The checkpoints of a folder that were finished, newest first."""
    return [path for path in _saved(folder) if (path / INDEX).is_file()]


def _remove_old(folder: Path, kept: Kept | None, step: int) -> None:
    """Remove all checkpoints that are not kept, those of steps after `step`, and what is left of others."""
    whole = finished(folder)
    stay = whole
    if kept is not None:
        whole = [path for path in whole if step_of(path) <= step]
        stay = whole[: kept.newest]
        stay += [path for path in whole if kept.every and step_of(path) % kept.every == 0]
        stay += [path for path in whole if kept.back and step_of(path) % kept.back == 0][:2]
    for old in _saved(folder):
        if old not in stay:
            remove(old)


def _empty(work: Path) -> None:
    """Make the folder in which a checkpoint is written."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
