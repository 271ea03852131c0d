"""Several gloo processes give the single process's losses and gradient norms."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.placement import distribute
from puna.train.optimizer import build, update
from puna.train.step import loss_and_gradients

from .small import CONFIG, batches, settings

ROOT = Path(__file__).parents[2]


def alone(tied: bool) -> list[list[float]]:
    model = Llama(CONFIG.model_copy(update={"tie_embeddings": tied}))
    model.init_weights(1)
    options = settings(learning_rate=1e-2, warmup_steps=0)
    optimizer = build(model, options)
    found = []
    for step in range(5):
        loss = loss_and_gradients(model, batches().batch(step), 4, remat="llama", z_loss=1e-3)
        found.append([loss, update(model, optimizer, step, options)])
    return found


def together(processes: int, *arguments: object) -> list[list[float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **common, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.train.processes", *map(str, arguments)]
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**environment, "RANK": str(rank)}
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=200) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    return json.loads(outputs[0][0].splitlines()[-1])


@pytest.mark.parametrize(
    ("data", "tensor", "policy", "tied"),
    [(2, 1, "llama", "untied"), (1, 2, "llama", "untied"), (1, 2, "full", "tied"), (2, 2, "llama", "tied")],
)
def test_several_processes_equal_one(data: int, tensor: int, policy: str, tied: str) -> None:
    """FSDP2, tensor + sequence parallelism with the vocabulary split, and both."""
    expected = alone(tied == "tied")
    found = together(data * tensor, data, tensor, policy, tied)
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-6)
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=1e-5)


class Three:
    def size(self) -> int:
        return 3


def test_a_shape_that_does_not_divide_is_told() -> None:
    config = LlamaConfig(dim=24, n_layers=1, n_heads=6, n_kv_heads=2, ffn_dim=30, vocab_size=30)
    with pytest.raises(ValueError, match="over 3 processes: n_kv_heads 2 does not divide by 3"):
        distribute(Llama(config), Three())
