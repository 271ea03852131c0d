"""What a run needs and costs, against the paper's own figures and measured memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from puna.errors import UserError
from puna.model.config import config
from puna.plan import energy, machine, memory
from puna.plan.settings import EnergySettings
from puna.train.settings import TrainSettings


def test_energy_of_the_papers_largest_model() -> None:
    """Table 15: LLaMA-65B, 1,022,362 GPU hours at 400 W with PUE 1.1 are 449 MWh and 173 t of CO2."""
    spent = energy.energy(1_022_362 * 3600, EnergySettings(watts=400))
    assert spent["kwh"] / 1000 == pytest.approx(449, abs=1)
    assert spent["kg_co2"] / 1000 == pytest.approx(173, abs=1)
    assert not spent["measured"]


def test_a_meter_counts_more_than_an_assumption() -> None:
    spent = energy.energy(100, EnergySettings(pue=1.0), joules=3.6e6)
    assert spent["measured"] and spent["kwh"] == pytest.approx(1) and spent["watts"] == pytest.approx(36_000)


def test_a_meter_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    assert energy.joules_counted() is None
    for package, value in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 500_000)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "energy_uj").write_text(f"{value}\n")
    assert energy.joules_counted() == 3.5


ONE_STEP = """
import sys, torch
from puna.model.config import config
from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.train.metrics import peak_memory_bytes
from puna.train.optimizer import build, update
from puna.train.settings import TrainSettings
from puna.train.step import loss_and_gradients

size, micro, policy = sys.argv[1], int(sys.argv[2]), sys.argv[3]
settings = TrainSettings(steps=2, batch_sequences=micro, sequence_length=256, warmup_steps=0)
tokens = torch.randint(0, 4096, (micro, 256)).numpy()
before = peak_memory_bytes()
model = Llama(config(size, 4096, max_seq_len=256))
optimizer = build(model, settings)
batch = Batch(tokens, tokens, tokens * 0 + (torch.arange(256) > 100).long().numpy(), tokens[:, 0])
for step in range(3):
    loss_and_gradients(model, batch, micro, remat=policy)
    update(model, optimizer, 0, settings)
print(peak_memory_bytes() - before)
"""


@pytest.mark.parametrize("policy", ["none", "llama", "full"])
@pytest.mark.parametrize(("size", "micro"), [("2m", 16), ("5m", 8), ("5m", 16)])
def test_the_formula_is_near_the_measured_peak(size: str, micro: int, policy: str) -> None:
    """Three steps in a process of their own."""
    command = [sys.executable, "-c", ONE_STEP, size, str(micro), policy]
    measured = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    settings = TrainSettings.model_validate(
        {"steps": 2, "batch_sequences": micro, "sequence_length": 256, "warmup_steps": 0, "remat": policy}
    )
    needed = memory.training_bytes(config(size, 4096, max_seq_len=256), settings)
    assert measured == pytest.approx(needed, rel=0.3 if policy == "full" else 0.2), policy


def test_a_batch_that_does_not_fit_is_refused_with_figures() -> None:
    settings = TrainSettings(steps=10, batch_sequences=512, sequence_length=2048, warmup_steps=1)
    with pytest.raises(UserError, match=r"training needs about [\d.]+ GB and 8\.0 GB are free: a micro-batch of 512 sequences"):
        memory.check(config("7b"), settings, 8_000_000_000)
    memory.check(config("2m"), settings.model_copy(update={"batch_sequences": 1}), 8_000_000_000)
    assert 0 < memory.available_bytes() <= machine.describe()["memory_bytes"]


def test_the_machine_is_named_and_measured() -> None:
    described = machine.describe()
    assert described["cores"] >= 1 and described["cpu"]
    assert machine.versions()["torch"].startswith("2.13")
    assert 1e9 < machine.matmul_peak(0.1, 256) < 1e14
