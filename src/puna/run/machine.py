"""What this machine is and how fast it multiplies matrices."""

import os
import platform
import time
from pathlib import Path
from typing import Any

from puna.errors import UserError


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
        "cores": len(os.sched_getaffinity(0)),
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

    dtype: default float32. size: of the matrices, default 1024 on a processor, 8192 on a graphics processor.
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
    """Memory this process may still take: the machine's, or less where a control group limits it; or a
    graphics processor's.

    Raises UserError where there is none.
    """
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                "train.device is cuda, and torch finds no graphics processor here; leave it out or set it to cpu"
            )
        return torch.cuda.mem_get_info()[0]
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    available = values["MemAvailable"]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available
