"""Several gloo processes give the single process's losses and gradient norms."""

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
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.parallel import parallelize

from . import gradients, reshard
from .small import CONFIG, batches, settings

ROOT = Path(__file__).parents[2]


def alone(tied: bool, skipped: int | None = None, optimizer: str = "adamw") -> list[list[float]]:
    model = Llama(CONFIG.model_copy(update={"tie_embeddings": tied}))
    model.init_weights(1)
    options = settings(learning_rate=1e-2, warmup_steps=0, optimizer=optimizer)
    built = build(model, options)
    results = []
    for step in range(5):
        loss = loss_and_gradients(model, batches().batch(step), 4, NextToken("llama", 1e-3))
        judged = update(model, built, step, options, math.nan if step == skipped else loss)
        results.append([loss.item(), judged.norm.item()])
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


@pytest.mark.parametrize(
    ("data", "tensor", "policy", "tied"),
    [
        (2, 1, "full", "untied"),
        (3, 1, "llama", "untied"),
        (1, 2, "llama", "untied"),
        (1, 2, "full", "tied"),
        (2, 2, "llama", "tied"),
    ],
)
def test_several_processes_equal_one(data: int, tensor: int, policy: str, tied: str) -> None:
    """FSDP2, also with fewer rows on some ranks; tensor + sequence parallelism with the vocabulary split;
    both."""
    expected = alone(tied == "tied")
    found = together(data * tensor, data, tensor, policy, tied)
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-6)
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=1e-5)


def test_all_processes_skip_a_step_whose_gradient_is_not_finite_in_one() -> None:
    expected, found = alone(False, skipped=2), together(4, 2, 2, "llama", "untied", "skip")
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-6)
    assert [step for step, (_, norm) in enumerate(found) if norm is None] == [2]


@pytest.mark.parametrize(
    ("data", "tensor", "kind"), [(2, 2, "muon"), (3, 1, "muon"), (2, 2, "replicate"), (2, 1, "replicate")]
)
def test_muon_and_replicas_equal_one_process(data: int, tensor: int, kind: str) -> None:
    expected = alone(False, optimizer="muon" if kind == "muon" else "adamw")
    found = together(data * tensor, data, tensor, "llama", "untied", kind)
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-6)
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=1e-5)


def test_bfloat16_under_fsdp_and_tensor_parallelism() -> None:
    """Five steps, near those in float32."""
    expected, found = alone(False), together(4, 2, 2, "llama", "untied", "bfloat16")
    assert found != expected
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=3e-3)
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=3e-2)


@pytest.mark.parametrize(("data", "tensor", "tied"), [(2, 1, "untied"), (2, 2, "tied")])
def test_gradients_in_bfloat16_are_as_exact_as_one_process_makes_them(
    data: int, tensor: int, tied: str
) -> None:
    """Of the embedding, too, where a frequent token's gradient is the sum of a thousand."""
    ours = gradients.model(tied == "tied")
    loss_and_gradients(ours, gradients.batch(), gradients.ROWS, NextToken("llama", dtype=torch.bfloat16))
    alone = gradients.errors(ours, tied == "tied")
    found = together(data * tensor, data, tensor, tied, module="gradients")
    assert max(alone.values()) < 1e-2 and found.keys() == alone.keys()
    assert max(found.values()) < 1e-2
    assert found["tok_embeddings.weight"] == pytest.approx(alone["tok_embeddings.weight"], rel=0.2)


@pytest.mark.parametrize(
    ("layout", "processes", "tied"), [("3x1", 3, "untied"), ("2x2", 4, "tied"), ("replicate", 4, "untied")]
)
def test_each_process_makes_its_part_of_the_first_weights(layout: str, processes: int, tied: str) -> None:
    model = Llama(CONFIG.model_copy(update={"tie_embeddings": tied == "tied"}))
    model.init_weights(1)
    expected = reshard.digest(dict(model.named_parameters()))
    assert together(processes, "begin", layout, tied, module="reshard") == expected


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
