"""Several gloo processes decide as one; what cannot be split is refused. Their numbers: test_matrix."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.tensor_parallel import distribute
from puna.model.weights import peft, safetensors_file
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.parallel import parallelize

from .adapted import train
from .small import CONFIG, batches, settings

ROOT = Path(__file__).parents[2]


def alone(skipped: int | None = None) -> list[float]:
    """Losses of five steps of one process, which leaves out one of them."""
    model = Llama(CONFIG)
    model.init_weights(1)
    options = settings(learning_rate=1e-2, warmup_steps=0)
    built = build(model, options)
    results = []
    for step in range(5):
        loss = loss_and_gradients(model, batches().batch(step), 4, NextToken("llama", 1e-3))
        update(model, built, step, options, math.nan if step == skipped else loss)
        results.append(loss.item())
    return results


def together(processes: int, *arguments: object, module: str = "processes") -> Any:
    """What a module of these tests prints, the same in every process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": "1",
    }
    environment = {**os.environ, **common, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    command = [sys.executable, "-m", f"tests.train.{module}", *map(str, arguments)]
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**environment, "RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=200) for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), outputs
    results = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    assert all(other == results[0] for other in results)
    return results[0]


def test_all_processes_skip_a_step_whose_gradient_is_not_finite_in_one() -> None:
    """A NaN in the first one's part of a gradient, or in the loss of the last one's rows; both are named."""
    for found, source in ((together(4, "skip"), 0), (together(4, "skip loss"), 3)):
        assert [norm for _, norm in found][2] == source
        losses = [loss for step, (loss, _) in enumerate(found) if step != 2]
        assert losses == pytest.approx([loss for step, loss in enumerate(alone(2)) if step != 2], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["llama", "full"])
def test_compiled_blocks_under_fsdp_equal_eager_ones(policy: str) -> None:
    """As whole graphs: FSDP2's hooks break none."""
    found = together(2, policy)
    assert [loss for loss, _ in found] == pytest.approx(alone(), rel=1e-6)


def test_adapters_under_fsdp_are_those_of_one_process(tmp_path: Path) -> None:
    """Losses, micro-batches and all, and the adapter that is written of the parts."""
    expected = train("llama", tmp_path / "alone")
    assert expected[4] < expected[0]
    one = safetensors_file.entries(tmp_path / "alone" / peft.WEIGHTS)
    assert len(one) == 2 * 7 * 2 + 2
    for policy, found in zip(("llama", "full"), together(2, tmp_path, module="adapted"), strict=True):
        assert found == pytest.approx(expected, rel=1e-7)
        other = safetensors_file.entries(tmp_path / policy / peft.WEIGHTS)
        assert one.keys() == other.keys()
        for name, entry in one.items():
            torch.testing.assert_close(other[name].read(), entry.read(), rtol=1e-4, atol=1e-5)


def test_a_mesh_without_names_is_refused() -> None:
    for names in (None, ("shard", "pipeline")):
        with pytest.raises(ValueError, match='must be named "replicate", "shard" and "tensor"'):
            parallelize(Llama(CONFIG), SimpleNamespace(mesh_dim_names=names))


def test_what_a_split_model_cannot_do_is_refused() -> None:
    model = Llama(CONFIG)
    model.tensor_parallel = SimpleNamespace(size=3)
    tokens = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="needs a policy and no cache"):
        model(tokens)
    with pytest.raises(ValueError, match="8 tokens do not divide by 3 processes"):
        model.loss(tokens, tokens, remat="llama")


class MeshOfThree:
    def size(self) -> int:
        return 3


def test_a_shape_that_does_not_divide_is_refused() -> None:
    config = LlamaConfig(dim=24, n_layers=1, n_heads=6, n_kv_heads=2, ffn_dim=30, vocab_size=30)
    with pytest.raises(ValueError, match="over 3 processes: n_kv_heads 2 does not divide by 3"):
        distribute(Llama(config), MeshOfThree())
