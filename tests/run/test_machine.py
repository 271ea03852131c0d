"""What is known of the machine, also where the system does not tell."""

import contextlib
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


@pytest.mark.parametrize(
    ("vendor", "family", "model", "flags", "name", "multiplies"),
    [
        ("AuthenticAMD", 25, 1, "avx2", "EPYC (Zen 3, AVX2)", False),
        ("AuthenticAMD", 25, 17, "avx2 avx512f avx512_bf16", "EPYC (Zen 4, AVX-512, AVX512-BF16)", True),
        ("AuthenticAMD", 26, 2, "avx2 avx512f avx512_bf16", "EPYC (Zen 5, AVX-512, AVX512-BF16)", True),
        ("AuthenticAMD", 23, 49, "avx2", "EPYC (Zen 2, AVX2)", False),
        ("GenuineIntel", 6, 85, "avx2 avx512f", "EPYC (Skylake, AVX-512)", False),
        ("GenuineIntel", 6, 85, "avx2 avx512f avx512_vnni", "EPYC (Cascade Lake, AVX-512)", False),
        (
            "GenuineIntel",
            6,
            143,
            "avx2 avx512f avx512_bf16 amx_bf16",
            "EPYC (Sapphire Rapids, AVX-512, AVX512-BF16, AMX)",
            True,
        ),
        ("Another", 1, 1, "", "EPYC", False),
    ],
)
def test_the_processor_is_named_by_its_kind_and_units(
    vendor: str,
    family: int,
    model: int,
    flags: str,
    name: str,
    multiplies: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    lines = ("processor\t: 0", f"vendor_id\t: {vendor}", f"cpu family\t: {family}", f"model\t\t: {model}")
    one = "\n".join([*lines, "model name\t: EPYC", f"flags\t\t: fpu {flags}\n"])
    (tmp_path / "cpuinfo").write_text(f"{one}\n{one}\n")
    assert machine.processor() == name and machine.describe()["cpu"] == name
    assert machine.multiplies_bfloat16() == multiplies
    machine.check_precision("float32", "cpu")
    machine.check_precision("bfloat16", "cuda")
    refusal = (
        contextlib.nullcontext() if multiplies else pytest.raises(UserError, match=r"train\.precision is")
    )
    with refusal:
        machine.check_precision("bfloat16", "cpu")


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
