"""Any layout of processes, the same numbers: trainings of `matrix` against one process's."""

import functools
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.model.llama import Llama
from puna.run.settings import ClusterSettings, ExecutionSettings
from puna.train import checkpoint
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.parallel import box_of

from . import gradients
from .matrix import CELLS, CHANGES, LARGE, LAYOUTS, REFERENCES, STEPS, Cell, config_of

ROOT = Path(__file__).parents[2]
Made = Callable[..., Path]
pytestmark = pytest.mark.timeout(600)  # a layout's trainings are the first of its tests to ask for them


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of what `matrix` makes, which it is told by its arguments, once."""

    @functools.cache
    def make(*arguments: str) -> Path:
        folder = tmp_path_factory.mktemp("matrix")
        path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
        result = subprocess.run(
            [sys.executable, "-m", "tests.train.matrix", *arguments, folder],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=560,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return folder

    return make


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def column(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows]


def weights(cell: Cell, folder: Path) -> dict[str, torch.Tensor]:
    """After the last step."""
    path = folder / f"step-{STEPS:08d}"
    index = checkpoint.read_index(path)
    named = Llama(config_of(cell)).named_parameters()
    return checkpoint.read_tensors(path, index, {name: box_of(parameter) for name, parameter in named})


def reference(cell: Cell, made: Made) -> Path:
    """The training of one process in float32 that a cell is to equal."""
    (same,) = (other for other in REFERENCES if (other.head, other.optimizer) == (cell.head, cell.optimizer))
    return made("cells", "1") / same.name


SLOW = ("shard 3", "shard 4")  # what they may do wrong mostly shows on two as well


def each(cells: list[Cell]) -> pytest.MarkDecorator:
    """Of these cells, by their names."""
    marks = {True: [pytest.mark.slow], False: []}
    return pytest.mark.parametrize(
        "cell", [pytest.param(cell, id=cell.name, marks=marks[cell.layout in SLOW]) for cell in cells]
    )


def test_any_two_values_of_two_factors_meet_in_a_cell() -> None:
    values = [set(column) for column in zip(*CELLS, strict=True)]
    assert values == [
        set(LAYOUTS), {1, 4}, {"none", "llama", "full"}, {"tied", "untied"}, {"adamw", "muon"},
        {"float32", "bfloat16"},
    ]  # fmt: skip
    for one, two in itertools.combinations(range(len(values)), 2):
        met = {(cell[one], cell[two]) for cell in CELLS}
        assert met == set(itertools.product(values[one], values[two]))


@each([cell for cell in CELLS if cell.precision == "float32"])
def test_losses_and_weights_are_one_processs(cell: Cell, made: Made) -> None:
    folder, alone = made("cells", cell.layout) / cell.name, reference(cell, made)
    found, expected = lines(folder), lines(alone)
    bound = 1e-6 if "tensor" in cell.layout else 1e-7
    assert column(found, "loss") == pytest.approx(column(expected, "loss"), rel=bound)
    assert column(found, "gradient_norm") == pytest.approx(column(expected, "gradient_norm"), rel=1e-5)
    assert column(found, "tokens") == column(expected, "tokens")
    assert len(found) == STEPS and found[-1]["loss"] < 0.8 * found[0]["loss"]
    ours = weights(cell, folder)
    for name, weight in weights(cell, alone).items():
        assert (ours[name] - weight).norm() <= 1e-5 * weight.norm(), name


@each([cell for cell in CELLS if cell.precision == "bfloat16"])
def test_gradients_in_bfloat16_are_as_exact_as_one_processs(cell: Cell, made: Made) -> None:
    """Of the embedding, too, where a frequent token's gradient is the sum of a thousand."""
    tied = cell.head == "tied"
    alone = gradients.model(tied)
    micro_batch, objective = gradients.ROWS // cell.accumulation, NextToken(dtype=torch.bfloat16)
    loss_and_gradients(alone, gradients.batch(), micro_batch, objective)
    of_one = {name: parameter.grad for name, parameter in alone.named_parameters()}
    expected = gradients.errors(of_one, tied)  # type: ignore[arg-type]
    folder = made("cells", cell.layout) / cell.name
    found = gradients.errors(torch.load(folder / "gradients.pt"), tied)
    for name, error in found.items():
        assert error < 1e-2 and error <= 1.5 * expected[name], (name, error, expected[name])
    assert column(lines(folder), "loss") == pytest.approx(
        column(lines(reference(cell, made)), "loss"), rel=1e-2
    )


@each(CELLS)
def test_killed_in_the_middle_or_trained_again_to_the_same_bits(cell: Cell, made: Made) -> None:
    """Weights, moments and losses; the first cell of a layout begins again from its first step."""
    folder = made("cells", cell.layout) / cell.name
    assert (folder / "whole" / "losses.jsonl").read_bytes() == (folder / "losses.jsonl").read_bytes()
    once, again = (checkpoint.read_index(folder / name)["files"] for name in ("whole", f"step-{STEPS:08d}"))
    assert once == again and len(once) == math.prod(LAYOUTS[cell.layout])


@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LAYOUTS]
)
def test_first_weights_are_the_same_and_made_in_place(layout: str, made: Made) -> None:
    """Each process makes its part, in at most 1.2 times its memory."""
    expected = json.loads((made("cells", "1") / "initial-0.json").read_text())["digests"]
    folder = made("cells", layout)
    for rank in range(world := math.prod(LAYOUTS[layout])):
        found = json.loads((folder / f"initial-{rank}.json").read_text())
        assert found["digests"] == expected
        parts = 1 if layout == "replicate 2" else world
        assert found["part"] == pytest.approx(LARGE.parameters() * 4 / parts, rel=0.01)
        assert found["part"] <= found["peak"] <= 1.2 * found["part"]


def test_a_training_goes_on_on_other_layouts(made: Made) -> None:
    """On two processes, one, three, and two that share each layer."""
    folder = made("layouts")
    found, expected = lines(folder / "on the way"), lines(folder / "uninterrupted")
    assert column(found, "step") == list(range(1, 41))
    assert column(found, "tokens") == column(expected, "tokens")
    assert column(found, "loss") == pytest.approx(column(expected, "loss"), rel=1e-6)


@pytest.mark.parametrize("processes", [3, 5])
def test_four_rows_on_more_or_fewer_processes(processes: int, made: Made) -> None:
    """Some have a row of padding, or nothing else."""
    found, expected = (lines(made("layouts") / f"four rows on {number}") for number in (processes, 1))
    assert column(found, "tokens") == column(expected, "tokens") and len(found) == STEPS
    assert column(found, "loss") == pytest.approx(column(expected, "loss"), rel=1e-7)


# Of the execution: what has no part in a training on processors, or is refused.
APART = {"device", "compile", "workers", "ray", "group_bytes", "memory_bytes"}


def test_each_key_that_may_change_is_changed() -> None:
    keys = {key for executed, cluster, _ in CHANGES.values() for key in (*executed, *cluster)} | {"mesh"}
    assert keys | APART == ExecutionSettings.model_fields.keys() | ClusterSettings.model_fields.keys()


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_key_changed_at_half_of_the_steps(change: str, made: Made) -> None:
    found, expected = lines(made("keys") / change), lines(made("keys") / "unchanged")
    assert len(found) == len(expected) == 100
    assert column(found, "loss") == pytest.approx(column(expected, "loss"), rel=1e-6)
