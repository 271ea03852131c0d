"""What is known of the machine, also where the system does not tell."""

import os
from pathlib import Path

import pytest
import torch

from puna.errors import UserError
from puna.run import machine


def test_the_machine_is_named_and_measured() -> None:
    described = machine.describe()
    assert described["cores"] >= 1 and described["cpu"]
    assert machine.versions()["torch"] == torch.__version__
    assert 1e9 < machine.matmul_peak(seconds=0.1, size=256) < 1e14


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"execution\.device is cuda, and torch finds no GPU here"):
        machine.available_bytes("cuda")


def group(folder: Path, limit: str, used: int, **statistics: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in statistics.items()))
    return folder


def test_files_that_a_control_group_caches_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that read large files has used little of its memory."""
    whole = machine.available_bytes()
    group(
        tmp_path, "100000000", 90_000_000, anon=20_000_000, active_file=30_000_000, inactive_file=40_000_000
    )
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    assert machine.available_bytes() == 80_000_000
    group(tmp_path, "100000000", 95_000_000, anon=95_000_000)
    assert machine.available_bytes() == 5_000_000
    group(tmp_path, "max", 95_000_000)
    assert machine.available_bytes() == pytest.approx(whole, rel=0.3)


def test_without_what_linux_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.available_bytes() > 1_000_000 and machine.cores() >= 1
    (tmp_path / "none").write_text("MemTotal: 5 kB\n")
    assert machine.available_bytes() > 1_000_000
