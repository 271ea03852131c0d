"""What this machine is and how fast it multiplies matrices."""

import ctypes
import functools
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from puna.errors import UserError

CPUINFO, MEMINFO, CONTROL_GROUP = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# Flags of Linux for instructions that multiply bfloat16, on x86 and ARM.
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
AMD = {0x17: "Zen 2", 0x19: "Zen 3", 0x1A: "Zen 5"}  # generations by family
INTEL = {  # and by model, of family 6
    0x4F: "Broadwell", 0x55: "Skylake", 0x6A: "Ice Lake", 0x8F: "Sapphire Rapids", 0xCF: "Emerald Rapids",
    0xAD: "Granite Rapids",
}  # fmt: skip


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """What Linux tells of the first processor; {} where it tells nothing."""
    try:
        first = CPUINFO.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def generation() -> str:
    """The processor's generation, as in Zen 4; "" where family and model are not in the tables above.

    The same family is Zen 1 to 2, and 3 to 4: those are told apart by what the later one has.
    """
    told = _cpuinfo()
    family, model = (int(told.get(name) or 0) for name in ("cpu family", "model"))
    flags = told.get("flags", "").split()
    if told.get("vendor_id") == "GenuineIntel" and family == 6:
        found = INTEL.get(model, "")
        return "Cascade Lake" if found == "Skylake" and "avx512_vnni" in flags else found
    if told.get("vendor_id") != "AuthenticAMD":
        return ""
    if family == 0x19 and "avx512f" in flags:
        return "Zen 4"
    return "Zen" if family == 0x17 and model < 0x30 else AMD.get(family, "")


def processor() -> str:
    """The processor's name, its generation and the widest units that it has for vectors and bfloat16."""
    told = _cpuinfo()
    name = told.get("model name") or platform.processor() or platform.machine()
    flags = (told.get("flags") or told.get("Features") or "").split()
    wide = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
    units = [unit for flag, unit in wide.items() if flag in flags]
    if "avx512f" in flags:
        units.remove("AVX2")
    details = ", ".join([part for part in [generation()] if part] + units[::-1])
    return f"{name} ({details})" if details else name


def multiplies_bfloat16() -> bool:
    """Whether the processor has units for products in bfloat16."""
    told = _cpuinfo()
    flags = (told.get("flags") or told.get("Features") or "").split()
    return any(flag in flags for flag in BFLOAT16_FLAGS)


def check_precision(precision: str, device: str) -> None:
    """Raises UserError where products in this precision have no units on a processor."""
    if precision == "bfloat16" and device == "cpu" and not multiplies_bfloat16():
        raise UserError(
            f"train.precision is bfloat16, and this processor, {processor()}, has no units for it (AMX-BF16 "
            "or AVX512-BF16), so it would be slower than float32; leave it out or set it to float32"
        )


def describe() -> dict[str, Any]:
    """Processor name, cores this process may use, memory in bytes."""
    return {
        "cpu": processor(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    from importlib.metadata import version

    names = ("torch", "numpy", "sentencepiece", "daft", "pyarrow", "resiliparse")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def matmul_peak(
    device: str = "cpu", dtype: Any = None, seconds: float = 0.5, size: int | None = None
) -> float:
    """The most floating-point operations per second that a product of two square matrices reaches on a
    device.

    dtype: default float32. size: of the matrices, default 1024 on a processor, 8192 on a GPU.
    """
    import torch

    size = size or (1024 if device == "cpu" else 8192)
    left, right = (torch.rand(size, size, device=device).to(dtype or torch.float32) for _ in range(2))
    torch.mm(left, right).sum().item()  # libraries start, and what was asked for before is done
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        begin = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best


def resident_bytes(trimmed: bool = True) -> int:
    """Memory that this process holds now, without what its allocator keeps unused (not trimmed: with it); 0
    where Linux does not tell."""
    if trimmed:
        release_memory()
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


def available_bytes(device: str = "cpu") -> int:
    """Memory this process may still take: the machine's, or less where a control group limits it; or a GPU's.

    Raises UserError where there is no GPU.
    """
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                "execution.device is cuda, and torch finds no GPU here; leave it out or set it to cpu"
            )
        return torch.cuda.mem_get_info()[0]
    return min(_machine_bytes(), _control_group_bytes())


def _machine_bytes() -> int:
    try:
        lines = MEMINFO.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        # What is free now: less than could be taken, since the system would give up what it caches.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _control_group_bytes() -> int:
    """What the control group still allows. Files that it caches count as used there, and are given up
    first."""
    try:
        limit = int((CONTROL_GROUP / "memory.max").read_text())
        used = int((CONTROL_GROUP / "memory.current").read_text())
        statistics = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
        cached = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
    except (OSError, ValueError):  # no control group, none of this version, or "max"
        return sys.maxsize
    return max(0, limit - used + cached)


def release_memory() -> None:
    """Release freed memory to the system, so that a process does not grow with the jobs it has done."""
    if trim := _malloc_trim():
        trim(0)


@functools.cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim  # only glibc has it
    except (OSError, AttributeError):
        return None
