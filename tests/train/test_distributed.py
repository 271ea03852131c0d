"""Two gloo processes give the single process's losses."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from puna.model.llama import Llama
from puna.train.step import loss_and_gradients

from .small import CONFIG, batches

ROOT = Path(__file__).parents[2]


def test_fsdp_on_two_processes_equals_one() -> None:
    model = Llama(CONFIG)
    model.init_weights(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    expected = []
    for step in range(5):
        expected.append(loss_and_gradients(model, batches().batch(step), 4, remat="llama"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.train.two_processes"]
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**_environment(), **common, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert all(process.returncode == 0 for process in running), outputs
    assert json.loads(outputs[0][0].splitlines()[-1]) == pytest.approx(expected, rel=1e-6)


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)
