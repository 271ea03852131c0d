"""Energy and carbon of a run, as the paper counts them (section 6): Wh = power x hours x PUE; CO2 = kWh x
intensity of the grid.
"""

import re
from pathlib import Path
from typing import Any

from puna.run.settings import EnergySettings

RAPL = Path("/sys/class/powercap")
PACKAGE = re.compile(r"intel-rapl:\d+")


class Meter:
    """Energy that the processor packages use from now on, by the machine's own counters (RAPL).

    A counter starts again at zero when it is full, about every hour at full load, so `joules` has to be read
    more often than that.
    """

    def __init__(self) -> None:
        self._last = _counters()
        self._microjoules = 0

    def joules(self) -> float | None:
        """Energy used so far; None where there is no counter or one could not be read."""
        now = _counters()
        if self._last is None or now is None or now.keys() != self._last.keys():
            self._last = None
            return None
        for package, (count, largest) in now.items():
            used = count - self._last[package][0]
            self._microjoules += used if used >= 0 else used + largest
        self._last = now
        return self._microjoules / 1e6


def _counters() -> dict[str, tuple[int, int]] | None:
    """For each package (microjoules counted, the count at which it starts again); None where one fails."""
    counters = {}
    try:
        for package in sorted(RAPL.iterdir()):
            if PACKAGE.fullmatch(package.name):
                count = int((package / "energy_uj").read_text())
                counters[package.name] = count, int((package / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        return None
    return counters or None


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
