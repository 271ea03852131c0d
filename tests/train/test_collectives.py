"""What a process of 256 x 8 exchanges in a step of LLaMA-65B, on a process group that does nothing: calls and
bytes against closed forms, and in which order."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puna.model.block import POLICIES
from puna.model.loss import chunk_bytes

ROOT = Path(__file__).parents[2]
ROWS, LENGTH, DIM, FFN, VOCABULARY, LAYERS = 8, 2048, 8192, 22016, 32000, 80
SHARD, TENSOR = 256, 8
GATHERS = {"none": 4, "llama": 6, "full": 6}  # a layer and micro-batch
REDUCE_SCATTERS = {"none": 4, "llama": 4, "full": 5}


@pytest.fixture(scope="module")
def found() -> Any:
    """What fake_cluster counts, in a process of its own: a process group is the whole process's."""
    command = [sys.executable, "-m", "tests.train.fake_cluster", "65b", str(ROWS), str(LENGTH)]
    path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def gathered(rows: int, columns: int) -> int:
    """Numbers of a matrix in FSDP2's exchanges: each process's rows are as many as the first one's."""
    return math.ceil(rows / SHARD) * SHARD * columns


def exchanged(layers: int, policy: str, micro_batches: int = 1) -> dict[str, list[int]]:
    """[calls, bytes] of a step: activations and layers' weights have 2 bytes a number, all else has 4."""
    tokens, heads, columns, words = ROWS * LENGTH, DIM // TENSOR, FFN // TENSOR, VOCABULARY // TENSOR
    gathers, reductions = GATHERS[policy] * layers + 2, REDUCE_SCATTERS[policy] * layers + 2
    chunks = math.ceil(tokens / (chunk_bytes("cpu") // (2 * words)))
    layer = 3 * gathered(heads, DIM) + gathered(DIM, heads)  # wq, wk, wv; wo
    layer += 2 * gathered(columns, DIM) + gathered(DIM, columns)  # w1, w3; w2
    layer += 2 * gathered(DIM, 1)  # norms
    ends = 2 * gathered(words, DIM) + gathered(DIM, 1)  # embedding, head; the last norm
    each = {
        "tensor all-gather": [gathers, gathers * 2 * tokens * DIM],
        "tensor reduce-scatter": [reductions, reductions * 2 * tokens * DIM],
        # Gradients of norms; of each chunk's logits the largest, and log-sums and the target's.
        "tensor all-reduce": [2 * layers + 1 + 2 * chunks, 4 * (2 * layers + 1) * DIM + 3 * 4 * tokens],
        "data all-gather": [2 * layers + 1, 2 * 2 * layers * layer + 4 * ends],
    }
    a_step = {
        "data reduce-scatter": [layers + 1, 4 * (layers * layer + ends)],
        "data all-reduce": [2, 2 * 8],  # the number of targets, the loss
    }
    return {name: [micro_batches * x for x in pair] for name, pair in each.items()} | a_step


def test_counts_of_known_exchanges(found: Any) -> None:
    """One of each kind in each group, of 3 x 5 floats a process."""
    for name, size in (("data", SHARD), ("tensor", TENSOR)):
        for kind in ("all-gather", "reduce-scatter"):
            assert found["known"].pop(f"{name} {kind}") == [1, 60 * size]
        assert found["known"].pop(f"{name} all-reduce") == [1, 60]
    assert not found["known"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_exchanges_what_it_must(found: Any, policy: str) -> None:
    """Of two and three layers; what the third adds, 77 times more, is that of all 80."""
    two, three = (result["exchanged"] for result in found[policy])
    assert two == exchanged(2, policy)
    assert three == exchanged(3, policy)
    whole = {name: [a + 78 * (b - a) for a, b in zip(two[name], three[name], strict=True)] for name in two}
    assert whole == exchanged(LAYERS, policy)


def test_gradients_are_reduced_once_a_step(found: Any) -> None:
    assert found["accumulated"]["exchanged"] == exchanged(2, "llama", micro_batches=2)


def test_an_update_takes_one_reduction_a_dimension_of_the_mesh(found: Any) -> None:
    """Of the norms of 9 gradients a layer and 3 at the ends."""
    for layers, result in zip((2, 3), found["llama"], strict=True):
        once = [1, 4 * (9 * layers + 3)]
        assert result["update"] == {"data all-reduce": once, "tensor all-reduce": once}


def test_each_process_holds_its_part(found: Any) -> None:
    two, three = (result["held"] for result in found["none"])
    whole = [a + 78 * (b - a) for a, b in zip(two, three, strict=True)]
    assert whole == [65_285_660_672, 32_216_096]


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_are_gathered_while_the_layer_before_computes(found: Any, policy: str) -> None:
    """(p) products of a layer, (g) a gather of weights, (s) a reduce-scatter of gradients.

    Forward, the ends' and the first layer's weights come first, and each layer's before the products of the
    layer below it. So it is in the backward; a layer's gradients go out before the products of the next. The
    ends' weights stay from the forward on.
    """
    forward, backward = "gg" + "gp" + "gp" + "p", "g" + "gps" + "gps" + "ps" + "s"
    assert found[policy][1]["order"] == (forward + backward).replace("pp", "p")


def test_counting_is_cheap(found: Any) -> None:
    assert found["seconds"] < 30 and found["bytes"] < 1e9
