"""What a GPU computes, against the CPU: losses, gradients, packed attention, resuming, FSDP2, generation.

PUNA_TEST_DEVICE=cpu runs the same lines on a machine without a GPU, but for flash attention.
"""

import itertools
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from puna.errors import Stopped
from puna.generate.engine import Engine, Sampling
from puna.model import kernels
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.parallel import parallelize
from puna.train.pretraining import Pretraining
from puna.train.trainer import train
from tests.generate.letters import Letters

from . import gradients
from .small import batches, execution, held_out, settings

DEVICE = os.environ.get("PUNA_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no GPU here"),
]
SHAPE = LlamaConfig(dim=64, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=176, vocab_size=40, max_seq_len=16)


def model(dtype: torch.dtype = torch.float32, device: str = DEVICE, shape: LlamaConfig = SHAPE) -> Llama:
    built = Llama(shape)
    built.init_weights(1)
    return built.to(device=device, dtype=dtype)


def relative(ours: Llama, exact: Llama) -> float:
    """The largest relative error of a weight's gradient."""
    errors = []
    for own, reference in zip(ours.parameters(), exact.parameters(), strict=True):
        assert own.grad is not None and reference.grad is not None
        difference = own.grad.double().cpu() - reference.grad
        errors.append((difference.norm() / reference.grad.norm()).item())
    return max(errors)


@pytest.mark.parametrize("policy", ["none", "llama", "full"])
def test_losses_and_gradients_of_packed_rows_in_float32(policy: str) -> None:
    ours, exact, batch = model(), model(torch.float64, "cpu"), batches().batch(0)
    assert any(len(set(row)) > 1 for row in batch.document_ids.tolist())
    loss = loss_and_gradients(ours, batch, 2, NextToken(policy, 1e-3)).item()
    assert loss == pytest.approx(
        loss_and_gradients(exact, batch, 4, NextToken("none", 1e-3)).item(), rel=1e-5
    )
    assert relative(ours, exact) < 1e-4


@pytest.mark.parametrize("policy", ["none", "llama", "full"])
def test_losses_and_gradients_in_bfloat16(policy: str) -> None:
    """Of 4,096 tokens as frequent as words are."""
    ours, exact = gradients.model(False).to(DEVICE), gradients.model(False).double()
    loss = loss_and_gradients(
        ours, gradients.batch(), gradients.ROWS, NextToken(policy, dtype=torch.bfloat16)
    )
    expected = loss_and_gradients(exact, gradients.batch(), gradients.ROWS).item()
    assert loss == pytest.approx(expected, rel=3e-3) and relative(ours, exact) < 1.5e-2


@pytest.mark.skipif(DEVICE == "cpu", reason="flash attention is a GPU's")
@pytest.mark.parametrize("heads", [4, 2], ids=["all heads", "grouped heads"])
def test_packed_attention_by_varlen(heads: int) -> None:
    torch.manual_seed(3)
    shapes = ((2, 300, 4, 64), (2, 300, heads, 64), (2, 300, heads, 64))
    exact = [torch.randn(shape).bfloat16().double().requires_grad_() for shape in shapes]
    ours = [x.detach().bfloat16().to(DEVICE).requires_grad_() for x in exact]
    starts = torch.zeros(2, 300, dtype=torch.int32)
    for row, cut in ((0, 1), (0, 130), (1, 299)):
        starts[row, cut:] = cut
    slope = torch.randn(shapes[0])
    expected = kernels.attention(*exact, starts)
    expected.backward(slope.double())
    on_device = starts.to(DEVICE)
    found = kernels.attention(*ours, on_device, kernels.cu_seqlens_of(on_device))
    found.backward(slope.to(DEVICE, torch.bfloat16))
    pairs = [(found, expected), *((x.grad, y.grad) for x, y in zip(ours, exact, strict=True))]
    for own, reference in pairs:
        assert own is not None and reference is not None
        error = (own.double().cpu() - reference).norm() / reference.norm()
        assert error < 1e-2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path, precision: str) -> None:
    if DEVICE == "cpu" and precision == "bfloat16":
        pytest.skip("refused on processors without units for it")

    def run(folder: Path, stop_at: int = 0) -> dict[str, torch.Tensor]:
        trained, calls = model(), itertools.count(1)
        options = settings(precision=precision)
        work = Pretraining(trained, batches(), held_out(), options, execution())
        arguments: dict[str, Any] = {"checkpoints": folder, "on_event": lambda event: None}
        stop = (lambda: next(calls) >= stop_at) if stop_at else (lambda: False)
        train(trained, work, options, execution(), should_stop=stop, **arguments)
        return trained.state_dict()

    expected = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "cut", stop_at=7)
    torch.testing.assert_close(run(tmp_path / "cut"), expected, rtol=1e-5, atol=1e-7)


def steps(trained: Llama, dtype: torch.dtype | None, parallel: Any = None) -> list[float]:
    options = settings(learning_rate=1e-2, warmup_steps=0)
    optimizer = build(trained, options)
    losses = []
    for step in range(5):
        rest = () if parallel is None else (parallel,)
        objective = NextToken("llama", dtype=dtype)
        losses.append(loss_and_gradients(trained, batches().batch(step), 4, objective, *rest).item())
        update(trained, optimizer, step, options, losses[-1])
    return losses


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_fsdp2_on_one_device_equals_no_fsdp(
    dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    for name, value in {**address, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    expected = steps(model(), dtype)
    dist.init_process_group("nccl" if DEVICE == "cuda" else "gloo")
    try:
        mesh = dist.device_mesh.init_device_mesh(DEVICE, (1,), mesh_dim_names=("shard",))
        sharded = model()
        found = steps(sharded, dtype, parallelize(sharded, mesh, dtype))
    finally:
        dist.destroy_process_group()
    assert found == pytest.approx(expected, rel=1e-5 if dtype is None else 3e-3)


def test_generation_is_the_cpus() -> None:
    prompts = [[1, 2, 3], [5], [7, 8]]
    for how in (Sampling(), Sampling(temperature=0.8, top_p=0.95)):
        found = []
        for where in ("cpu", DEVICE):
            built = model(torch.float64, where)
            engine = Engine(built, Letters(built.config.vocab_size), memory_bytes=1 << 24)
            samples = engine.sample(prompts, max_new_tokens=8, sampling=how, seed=3)
            found.append({place: sample.tokens for place, _, sample in samples})
        assert found[0] == found[1] and len(found[0]) == 3
