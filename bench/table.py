"""What every benchmark shares: alternating repeats, medians and ratios, one table and one file of results."""

import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from puna.run import machine

RESULTS = Path(os.environ.get("PUNA_BENCH_RESULTS") or Path(__file__).parent / "results")


@dataclass(frozen=True)
class Row:
    """One measurement. name: what was measured; peer: of whom; ratio: value over Puna's value of the same
    name, None without one."""

    name: str
    peer: str
    value: float
    unit: str
    ratio: float | None = None


def alternate(cases: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median of each case's measurements, the cases taking turns, after one round that does not count.

    In another order each round, so that none always follows the same one.
    """
    found: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(repeats + 1):
        order = list(cases)
        random.Random(turn).shuffle(order)
        for name in order:
            value = cases[name]()
            if turn:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def rows(name: str, unit: str, medians: dict[str, float], ours: str = "puna") -> list[Row]:
    """Rows of one measurement with ratios to our own."""
    return [
        Row(name, peer, value, unit, value / medians[ours] if ours in medians else None)
        for peer, value in medians.items()
    ]


def seconds_of(command: Sequence[str]) -> float:
    """CPU seconds of a command and its children."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds that a call takes in this process, over all its threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def finish(script: str, found: list[Row], versions: dict[str, str] | None = None) -> None:
    """Print the table and write `bench/results/<script>.json`."""
    cells = [
        (row.name, row.peer, f"{row.value:,.4g}", row.unit, "" if row.ratio is None else f"{row.ratio:.2f}")
        for row in found
    ]
    head = ("what", "peer", "value", "unit", "ratio to puna")
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(5)]
    for line in [head, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{Path(script).stem}.json"
    # A result names no folder of one machine: of other paths than raw files the last part alone.
    raw = os.path.join(os.environ.get("PUNA_DATA") or "PUNA_DATA", "raw")
    words = [word.replace(raw, "RAW") for word in sys.argv[1:]]
    words = [Path(word).name if word.startswith("/") else word for word in words]
    result = {
        "command": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *words]),
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "versions": {**machine.versions(), **(versions or {})},
        "rows": [asdict(row) for row in found],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {path}")
