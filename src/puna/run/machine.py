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

MEMINFO, CONTROL_GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Processor name, cores this process may use, memory in bytes."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        name = names[0] if names else name
    return {
        "cpu": name,
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
