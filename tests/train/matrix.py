"""Trainings of a tiny model over layouts of processes, many in one start; run by test_matrix.

python -m tests.train.matrix cells LAYOUT FOLDER    the layout's cells of the table, each in its folder
python -m tests.train.matrix layouts FOLDER         a training that changes its layout, and small batches
python -m tests.train.matrix keys FOLDER            trainings of which one key changes after the half

This process imports torch and then only forks: each set of processes of a layout takes milliseconds to start,
joins a group of its own, and does one thing after the other. What is compared lies in the folders: losses,
checkpoints, gradients.
"""

import contextlib
import faulthandler
import functools
import itertools
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch._dynamo  # with the next one what a training imports: here, so that no fork has to
import torch.distributed as dist
import torch.distributed.fsdp
from torch.distributed.device_mesh import init_device_mesh

from puna.errors import Stopped
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.tensor_parallel import TensorParallelGroup, local
from puna.run.settings import ClusterSettings
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.parallel import ALONE, Parallel, init_weights, parallelize
from puna.train.pretraining import Pretraining, precision
from puna.train.trainer import StepEvent, train

from . import gradients
from .reshard import digest, whole
from .small import CONFIG, batches, execution, held_out, settings

STEPS, SAVED = 20, 15  # of a cell, and where it is killed
# replicate, shard, tensor
LAYOUTS = {
    "1": (1, 1, 1),
    "shard 2": (1, 2, 1),
    "shard 3": (1, 3, 1),
    "shard 4": (1, 4, 1),
    "replicate 2": (2, 1, 1),
    "tensor 2": (1, 1, 2),
    "tensor 2 x shard 2": (1, 2, 2),
}


class Cell(NamedTuple):
    """One training of the table. accumulation: micro-batches a step and process."""

    layout: str
    accumulation: int
    remat: str
    head: str
    optimizer: str
    precision: str

    @property
    def name(self) -> str:
        return " ".join(map(str, self))


# Every two values of two factors meet in some row.
CELLS = [
    Cell("1", 4, "none", "untied", "muon", "float32"),
    Cell("1", 4, "llama", "untied", "adamw", "bfloat16"),
    Cell("1", 1, "llama", "tied", "muon", "bfloat16"),
    Cell("1", 1, "full", "tied", "adamw", "float32"),
    Cell("shard 2", 1, "none", "tied", "muon", "float32"),
    Cell("shard 2", 4, "llama", "untied", "adamw", "float32"),
    Cell("shard 2", 1, "full", "tied", "adamw", "bfloat16"),
    Cell("shard 3", 1, "none", "tied", "muon", "bfloat16"),
    Cell("shard 3", 1, "llama", "tied", "muon", "float32"),
    Cell("shard 3", 4, "full", "untied", "adamw", "float32"),
    Cell("shard 4", 1, "none", "untied", "adamw", "float32"),
    Cell("shard 4", 4, "llama", "tied", "muon", "bfloat16"),
    Cell("shard 4", 4, "full", "untied", "muon", "float32"),
    Cell("replicate 2", 1, "none", "untied", "adamw", "float32"),
    Cell("replicate 2", 4, "llama", "untied", "muon", "bfloat16"),
    Cell("replicate 2", 4, "full", "tied", "adamw", "float32"),
    Cell("tensor 2", 4, "none", "tied", "adamw", "float32"),
    Cell("tensor 2", 1, "llama", "untied", "muon", "float32"),
    Cell("tensor 2", 4, "full", "untied", "muon", "bfloat16"),
    Cell("tensor 2 x shard 2", 4, "none", "tied", "muon", "float32"),
    Cell("tensor 2 x shard 2", 1, "llama", "untied", "adamw", "float32"),
    Cell("tensor 2 x shard 2", 1, "full", "untied", "adamw", "bfloat16"),
]
# What they are compared with: one process, the whole batch at once, in float32.
REFERENCES = [
    Cell("1", 1, "llama", head, optimizer, "float32")
    for head in ("tied", "untied")
    for optimizer in ("adamw", "muon")
]
ROWS = 28  # of a batch: with 1, 2, 3 and 4 data ranks a rank's share can be cut into four
# Of the weights whose making is measured: 79 MB.
LARGE = LlamaConfig(dim=512, n_layers=4, n_heads=8, ffn_dim=1376, vocab_size=8192, max_seq_len=16)
# What a training of a hundred steps changes after fifty, in a word for the folder.
CHANGES: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], tuple[int, int, int]]] = {
    "micro_batch_sequences": ({"micro_batch_sequences": 1}, {}, (1, 2, 1)),
    "remat": ({"remat": "full"}, {}, (1, 2, 1)),
    "checkpoint_steps": ({"checkpoint_steps": 7}, {}, (1, 2, 1)),
    "checkpoints_kept": ({"checkpoints_kept": 1}, {}, (1, 2, 1)),
    "checkpoints_every": ({"checkpoints_every": 50}, {}, (1, 2, 1)),
    "threads": ({"threads": 2}, {}, (1, 2, 1)),
    "checkpoint_seconds": ({}, {"checkpoint_seconds": 1e-3}, (1, 2, 1)),
    "time_out_seconds": ({}, {"time_out_seconds": 30}, (1, 2, 1)),
    "replica_check_steps": ({}, {"replica_check_steps": 3}, (1, 2, 1)),
    "mesh replicate": ({}, {}, (2, 1, 1)),
    "mesh tensor": ({}, {}, (1, 1, 2)),
    "mesh shard": ({}, {}, (1, 1, 1)),
}


@functools.cache
def mesh_of(sizes: tuple[int, int, int]) -> Any:
    return init_device_mesh("cpu", sizes, mesh_dim_names=("replicate", "shard", "tensor"))


def begin(
    sizes: tuple[int, int, int], config: LlamaConfig, dtype: torch.dtype | None = None, time_out: float = 60
) -> tuple[Llama, Parallel]:
    """A model before its first step, of which this process makes its part."""
    if dist.get_world_size() == 1:
        model = Llama.empty(config)
        model.init_weights(1)
        return model, ALONE
    model = Llama.empty(config, "meta")
    parallel = parallelize(model, mesh_of(sizes), dtype, time_out)
    init_weights(model, 1, "cpu")
    return model, parallel


def config_of(cell: Cell, config: LlamaConfig = CONFIG) -> LlamaConfig:
    return config.model_copy(update={"tie_embeddings": cell.head == "tied"})


def trained(cell: Cell, folder: Path, sizes: tuple[int, int, int], options: Mapping[str, Any]) -> None:
    """Train to the end, or to a step where it is stopped.

    options: rows a batch, steps, those between checkpoints ("saved"), the step where to stop, the first step
    that must be taken, changes of the execution and of the cluster.
    """
    rows, steps = options.get("rows", ROWS), options.get("steps", STEPS)
    training = settings(
        steps=steps,
        batch_sequences=rows,
        sequence_length=8,
        optimizer=cell.optimizer,
        precision=cell.precision,
        z_loss=1e-3,
        validation_steps=10,
    )
    cluster = ClusterSettings.model_validate({"time_out_seconds": 60, **options.get("cluster", {})})
    model, parallel = begin(sizes, config_of(cell), precision(training), cluster.time_out_seconds)
    own = -(-rows // parallel.world)
    how = {"remat": cell.remat, "micro_batch_sequences": -(-own // cell.accumulation)}
    how |= {"checkpoint_steps": options.get("saved", SAVED), "checkpoints_kept": 99}
    execute = execution(**{**how, **options.get("executed", {})})
    work = Pretraining(model, batches(length=8, rows=rows), held_out(8), training, execute, parallel)
    seen: list[int] = []

    def on_event(event: object) -> None:
        seen.extend([event.step] if isinstance(event, StepEvent) else [])

    with contextlib.suppress(Stopped):
        train(
            model,
            work,
            training,
            execute,
            cluster=cluster,
            parallel=parallel,
            checkpoints=folder,
            on_event=on_event,
            should_stop=lambda: seen[-1:] == [options.get("stop")],
        )
    if parallel.team.rank == 0 and "first" in options:
        assert seen[0] == options["first"], seen


def cells_of(layout: str, folder: Path) -> None:
    """Every training of a layout from its first step to its last, and again: the first one from its first
    step, the others from their checkpoint. In bfloat16 also the gradients of other tokens."""
    initial(layout, folder)
    cells = [cell for cell in CELLS if cell.layout == layout]
    for cell in cells + (REFERENCES if layout == "1" else []):
        trained(cell, folder / cell.name, LAYOUTS[layout], {})
        if cell.precision == "bfloat16":
            keep_gradients(cell, folder / cell.name / "gradients.pt")
    if dist.get_rank() == 0:
        for cell in cells:  # as if they had been killed
            own = folder / cell.name
            (own / f"step-{STEPS:08d}").rename(own / "whole")
            shutil.copy(own / "losses.jsonl", own / "whole")
        shutil.rmtree(folder / cells[0].name / f"step-{SAVED:08d}")
    dist.barrier()
    for cell in cells:
        first = 1 if cell == cells[0] else SAVED + 1
        trained(cell, folder / cell.name, LAYOUTS[layout], {"first": first})


def keep_gradients(cell: Cell, path: Path) -> None:
    """Write the gradients of all weights."""
    ours, parallel = gradients.model(cell.head == "tied"), ALONE
    if dist.get_world_size() > 1:
        parallel = parallelize(ours, mesh_of(LAYOUTS[cell.layout]), torch.bfloat16)
    rows = gradients.batch(parallel.rank, parallel.world)
    objective = NextToken(cell.remat, dtype=torch.bfloat16)
    loss_and_gradients(ours, rows, len(rows.tokens) // cell.accumulation, objective, parallel)
    found = {name: whole(parameter.grad) for name, parameter in ours.named_parameters()}  # type: ignore[arg-type]
    if dist.get_rank() == 0:
        torch.save(found, path)


def initial(layout: str, folder: Path) -> None:
    """Write the digests of the first weights, tied and not, and how much memory it took to make large
    ones."""
    digests = {}
    for head in ("tied", "untied"):
        model, _ = begin(LAYOUTS[layout], CONFIG.model_copy(update={"tie_embeddings": head == "tied"}))
        digests[head] = digest(dict(model.named_parameters()))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    model, _ = begin(LAYOUTS[layout], LARGE)
    peak = resident("VmHWM") - before
    part = sum(local(parameter).nbytes for parameter in model.parameters())
    found = {"digests": digests, "peak": peak, "part": part}
    (folder / f"initial-{dist.get_rank()}.json").write_text(json.dumps(found))


def resident(what: str) -> int:
    """Bytes in memory of this process, now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what + ":"))


def on(sizes: tuple[int, int, int], do: Callable[..., object], *arguments: object) -> None:
    """Do something in as many new processes as a mesh has. Raises what one of them raised."""
    world = sizes[0] * sizes[1] * sizes[2]
    with tempfile.TemporaryDirectory() as store:
        torch.multiprocessing.start_processes(
            _process, (world, store, do, arguments), world, start_method="fork"
        )


def _process(rank: int, world: int, store: str, do: Callable[..., object], arguments: Any) -> None:
    warnings.filterwarnings("error", message="FSDP2-wrapped module")
    faulthandler.dump_traceback_later(65)  # where a process is while another waits its 60 s for it
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}/store",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    do(*arguments)
    dist.destroy_process_group()
    # Gloo's threads outlive the group and may hold the last tensors: a thread that frees them while the
    # interpreter shuts down is stopped inside a destructor and aborts the process, one time in thirty. All
    # work is done, so exit without that shutdown.
    os._exit(0)


def exchanges() -> None:
    """Those of our own over gloo give what gloo's do, several under way at once, waited for in any order."""
    rank, world = dist.get_rank(), dist.get_world_size()
    ours, waiting = TensorParallelGroup(dist.group.WORLD), []
    chance = torch.Generator().manual_seed(rank)
    for dtype, size in itertools.product((torch.float32, torch.bfloat16), (1, 7, 100_000)):
        value = torch.randint(-9, 9, (world * size, 3), generator=chance).to(dtype)
        gathered, summed = value.new_empty(world * len(value), 3), value.new_empty(size, 3)
        dist.all_gather_into_tensor(gathered, value)
        dist.reduce_scatter_tensor(summed, value)
        waiting += [(ours.all_gather(value), gathered), (ours.reduce_scatter(value), summed)]
    for wait, expected in reversed(waiting):
        assert torch.equal(wait(), expected)


def layouts(folder: Path) -> None:
    """A training that goes on on other layouts, and batches smaller than the processes are many."""
    on((1, 3, 1), exchanges)
    cell, one = REFERENCES[-2], (1, 1, 1)
    on(one, trained, cell, folder / "uninterrupted", one, {"steps": 40})
    for stop, layout in ((10, "shard 2"), (20, "1"), (30, "shard 3"), (None, "tensor 2")):
        sizes = LAYOUTS[layout]
        on(sizes, trained, cell, folder / "on the way", sizes, {"steps": 40, "stop": stop})
    for sizes in (one, (1, 3, 1), (1, 5, 1)):
        on(sizes, trained, cell, folder / f"four rows on {sizes[1]}", sizes, {"rows": 4})


def keys(folder: Path) -> None:
    """A training of a hundred steps, and others that go on from its fiftieth with one key changed."""
    cell, begun = REFERENCES[-2], folder / "unchanged"
    on((1, 2, 1), trained, cell, begun, (1, 2, 1), {"steps": 100, "saved": 50})
    for name in CHANGES:
        shutil.copytree(begun, folder / name, ignore=shutil.ignore_patterns("step-00000100"))
    for sizes in dict.fromkeys(sizes for *_, sizes in CHANGES.values()):
        on(sizes, changed, cell, folder, sizes)


def changed(cell: Cell, folder: Path, sizes: tuple[int, int, int]) -> None:
    """The second half of the trainings of a mesh of which one thing changes."""
    for name, (executed, cluster, own) in CHANGES.items():
        if own == sizes:
            options = {"steps": 100, "executed": executed, "cluster": cluster, "first": 51}
            trained(cell, folder / name, sizes, options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "cells":
        on(LAYOUTS[sys.argv[2]], cells_of, sys.argv[2], Path(sys.argv[3]))
    else:
        {"layouts": layouts, "keys": keys}[sys.argv[1]](Path(sys.argv[2]))
