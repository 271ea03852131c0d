"""Energy and carbon, against the paper's own figures and made-up counters."""

from pathlib import Path

import pytest

from puna.run import meter
from puna.run.settings import EnergySettings


def test_energy_of_the_papers_largest_model() -> None:
    """Table 15: LLaMA-65B, 1,022,362 GPU hours at 400 W with PUE 1.1 are 449 MWh and 173 t of CO2."""
    spent = meter.energy(1_022_362 * 3600, EnergySettings(watts=400))
    assert spent["kwh"] / 1000 == pytest.approx(449, abs=1)
    assert spent["kg_co2"] / 1000 == pytest.approx(173, abs=1)
    assert not spent["measured"]


def test_a_meter_counts_more_than_an_assumption() -> None:
    spent = meter.energy(100, EnergySettings(pue=1.0), joules=3.6e6)
    assert spent["measured"] and spent["kwh"] == pytest.approx(1) and spent["watts"] == pytest.approx(36_000)


def set_counters(folder: Path, **microjoules: int) -> None:
    for package, value in microjoules.items():
        counter = folder / package.replace("_", ":")
        counter.mkdir(exist_ok=True)
        (counter / "energy_uj").write_text(f"{value}\n")
        (counter / "max_energy_range_uj").write_text("10000000\n")


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(meter, "RAPL", tmp_path)
    return tmp_path


def test_a_meter_counts_from_its_start_over_all_packages(counters: Path) -> None:
    assert meter.Meter().joules() is None
    set_counters(counters, **{"intel-rapl_0": 3_000_000, "intel-rapl_1": 500_000, "intel-rapl_10": 0})
    (counters / "intel-rapl:0:0").mkdir()  # a part of a package, which is counted there
    counting = meter.Meter()
    assert counting.joules() == 0
    set_counters(counters, **{"intel-rapl_0": 4_000_000, "intel-rapl_1": 700_000, "intel-rapl_10": 50_000})
    assert counting.joules() == pytest.approx(1.25)


def test_a_counter_that_starts_again_at_zero_goes_on_counting(counters: Path) -> None:
    set_counters(counters, **{"intel-rapl_0": 9_000_000})
    counting = meter.Meter()
    set_counters(counters, **{"intel-rapl_0": 2_000_000})
    assert counting.joules() == pytest.approx(3)
    set_counters(counters, **{"intel-rapl_0": 1_000_000})
    assert counting.joules() == pytest.approx(12)


def test_a_counter_that_fails_once_is_no_measurement(counters: Path) -> None:
    set_counters(counters, **{"intel-rapl_0": 1})
    counting = meter.Meter()
    (counters / "intel-rapl:0" / "energy_uj").unlink()
    assert counting.joules() is None
    set_counters(counters, **{"intel-rapl_0": 2})
    assert counting.joules() is None
