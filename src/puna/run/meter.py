"""Energy and carbon of a run, as the paper counts them (section 6): Wh = power x hours x PUE; CO2 = kWh x
intensity of the grid."""

from pathlib import Path
from typing import Any

from puna.run.settings import EnergySettings

RAPL = Path("/sys/class/powercap")


def joules_counted() -> float | None:
    """Energy that the processor packages have counted since some start, in joules; None where no meter can be
    read."""
    total = 0
    try:
        meters = sorted(RAPL.glob("intel-rapl:?/energy_uj"))
        for meter in meters:
            total += int(meter.read_text())
    except (OSError, ValueError):
        return None
    return total / 1e6 if meters else None


def energy(seconds: float, settings: EnergySettings, joules: float | None = None) -> dict[str, Any]:
    """kWh and kg of CO2 of `seconds` of work. joules: what the meter counted meanwhile; else the assumed
    power is taken."""
    measured = joules is not None and joules > 0
    used = joules if joules is not None and measured else settings.watts * seconds
    kwh = used / 3.6e6 * settings.pue
    return {
        "kwh": kwh,
        "kg_co2": kwh * settings.kg_co2_per_kwh,
        "watts": used / seconds if seconds > 0 else settings.watts,
        "measured": measured,
        "pue": settings.pue,
        "kg_co2_per_kwh": settings.kg_co2_per_kwh,
    }
