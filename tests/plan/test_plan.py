"""What a run needs and costs, against the paper's own figures and measured memory."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.errors import UserError
from puna.model import kernels
from puna.model.config import LlamaConfig, config
from puna.model.llama import Llama
from puna.plan import memory
from puna.run import machine, meter
from puna.run.settings import EnergySettings
from puna.tokens.batches import Batch
from puna.train.optimizer import build, update
from puna.train.settings import TrainSettings
from puna.train.step import loss_and_gradients


def test_energy_of_the_papers_largest_model() -> None:
    """Table 15: LLaMA-65B, 1,022,362 GPU hours at 400 W with PUE 1.1 are 449 MWh and 173 t of CO2."""
    spent = meter.energy(1_022_362 * 3600, EnergySettings(watts=400))
    assert spent["kwh"] / 1000 == pytest.approx(449, abs=1)
    assert spent["kg_co2"] / 1000 == pytest.approx(173, abs=1)
    assert not spent["measured"]


def test_a_meter_counts_more_than_an_assumption() -> None:
    spent = meter.energy(100, EnergySettings(pue=1.0), joules=3.6e6)
    assert spent["measured"] and spent["kwh"] == pytest.approx(1) and spent["watts"] == pytest.approx(36_000)


def test_a_meter_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "RAPL", tmp_path)
    assert meter.joules_counted() is None
    for package, value in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 500_000)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "energy_uj").write_text(f"{value}\n")
    assert meter.joules_counted() == 3.5


def one_step(
    size: dict[str, int], micro: int, **options: Any
) -> tuple[LlamaConfig, TrainSettings, Callable[[], None]]:
    """A step on packed rows of 256 random tokens, after one that fills the optimizer's state."""
    config = LlamaConfig(**size, max_seq_len=256)
    settings = TrainSettings.model_validate(
        {"steps": 2, "batch_sequences": micro, "sequence_length": 256, "warmup_steps": 0, **options}
    )
    model = Llama(config)
    model.init_weights(1)
    optimizer = build(model, settings)
    tokens = torch.randint(0, config.vocab_size, (micro, 256)).numpy()
    batch = Batch(tokens, tokens, tokens * 0 + (torch.arange(256) > 100).long().numpy(), tokens[:, 0])

    def step() -> None:
        loss_and_gradients(model, batch, micro, remat=settings.remat)
        update(model, optimizer, 0, settings)

    step()
    return config, settings, step


SHAPES = [
    ({"dim": 288, "n_layers": 6, "n_heads": 6, "ffn_dim": 768, "vocab_size": 4096}, 16),
    ({"dim": 512, "n_layers": 2, "n_heads": 8, "ffn_dim": 1376, "vocab_size": 32000}, 2),
    ({"dim": 256, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 704, "vocab_size": 300}, 8),
    ({"dim": 256, "n_layers": 1, "n_heads": 4, "ffn_dim": 1024, "vocab_size": 2000}, 1),
    (
        {
            "dim": 256,
            "n_layers": 1,
            "n_heads": 4,
            "ffn_dim": 1024,
            "vocab_size": 2000,
            "tie_embeddings": True,
        },
        1,
    ),
]


@pytest.mark.skipif(
    kernels.library() is None, reason="no C++ compiler here: torch's operations hold more for a moment"
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("policy", ["llama", "full"])
@pytest.mark.parametrize(("size", "micro"), SHAPES)
def test_the_formula_counts_every_tensor(
    size: dict[str, int], micro: int, policy: str, optimizer: str
) -> None:
    """Against what torch's profiler sees allocated and freed within a step, beside weights, gradients and the
    optimizer's state."""
    config, settings, step = one_step(size, micro, remat=policy, optimizer=optimizer)
    matrices = config.matrix_parameters() - config.dim * config.vocab_size
    always = 16 * config.parameters() - (4 * matrices if optimizer == "muon" else 0)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [
        event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    measured = always + max(itertools.accumulate(events))
    assert measured == pytest.approx(memory.tensor_bytes(config, settings), rel=0.02)


@pytest.mark.parametrize("policy", ["none", "llama", "full"])
@pytest.mark.parametrize(("size", "micro"), SHAPES[:2])
def test_the_formula_is_near_the_peak_of_the_process(size: dict[str, int], micro: int, policy: str) -> None:
    """Pages of a process of its own. Equal runs differ by up to 7% among themselves."""
    code = (
        "from puna.train.trainer import keep_freed_memory\nfrom puna.train.metrics import peak_memory_bytes as peak\n"
        "from tests.plan.test_plan import one_step, memory\nkeep_freed_memory(); before = peak()\n"
        f"config, settings, step = one_step({size}, {micro}, remat={policy!r}); step(); step()\n"
        "print(peak() - before, memory.training_bytes(config, settings))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, cwd=Path(__file__).parents[2]
    )
    measured, formula = map(int, result.stdout.split())
    assert measured == pytest.approx(formula, rel=0.25 if policy == "full" else 0.12)


def test_a_batch_that_does_not_fit_is_refused_with_figures() -> None:
    settings = TrainSettings(steps=10, batch_sequences=512, sequence_length=2048, warmup_steps=1)
    with pytest.raises(
        UserError,
        match=r"training needs about [\d.]+ GB and 8\.0 GB are free: a micro-batch of 512 sequences",
    ):
        memory.check(config("7b"), settings, 8_000_000_000)
    memory.check(config("2m"), settings.model_copy(update={"batch_sequences": 1}), 8_000_000_000)
    assert 0 < machine.available_bytes() <= machine.describe()["memory_bytes"]


def test_the_machine_is_named_and_measured() -> None:
    described = machine.describe()
    assert described["cores"] >= 1 and described["cpu"]
    assert machine.versions()["torch"].startswith("2.13")
    assert 1e9 < machine.matmul_peak(seconds=0.1, size=256) < 1e14


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics processor here")
def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"train\.device is cuda, and torch finds no graphics processor here"):
        machine.available_bytes("cuda")
