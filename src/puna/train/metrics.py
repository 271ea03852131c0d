"""metrics.jsonl: one line a step with what differs between machines, and the figures of the whole run made
from it."""

import contextlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from puna.run.files import write_atomically
from puna.train.losses import append_line
from puna.train.trainer import Event, Notice, SamplesEvent, SkippedStepEvent, StepEvent, ValidationEvent

KINDS: dict[type, str] = {ValidationEvent: "validation", SamplesEvent: "samples", Notice: "notice"}


def peak_memory_bytes() -> int:
    """The most memory this process has held so far, its own pages alone (getrusage would count its parent's
    before exec); where it uses a GPU, there."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        told = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
        return int(told["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Metrics:
    """Writes a run's lines. flops_per_token: of a step, which counts from 1; with peak_flops for the share of
    the matrix-product peak."""

    def __init__(self, path: Path, flops_per_token: Callable[[int], float], peak_flops: float) -> None:
        self.path, self.flops_per_token, self.peak_flops = path, flops_per_token, peak_flops
        self._begun = False

    def write(self, event: Event) -> None:
        """Append an event; lines of steps that are done again after a resume are dropped first."""
        if isinstance(event, StepEvent | SkippedStepEvent) and not self._begun:
            self._drop_from(event.step)
            self._begun = True
        if isinstance(event, StepEvent):
            speed = event.tokens / event.step / event.seconds
            line = {
                **event.line(),
                "seconds": event.seconds,
                "tokens_per_second": speed,
                "peak_flops": self.peak_flops,
                "matmul_peak_share": speed * self.flops_per_token(event.step) / self.peak_flops,
                "peak_memory_bytes": peak_memory_bytes(),
            }
        elif isinstance(event, SkippedStepEvent):
            line = {**event.line(), "seconds": event.seconds, "kind": "skipped"}
        else:
            line = {**vars(event), "kind": KINDS[type(event)]}
        append_line(self.path, line)

    def _drop_from(self, step: int) -> None:
        if self.path.exists():
            kept = [line for line in _lines(self.path) if line.get("step", 0) < step]
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def inherit(path: Path, source: Path) -> None:
    """Begin a log with the lines of an earlier training that this one goes on from, marked as such."""
    if source.is_file() and not path.exists():
        lines = [{**line, "inherited": True} for line in _lines(source)]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))


def copy_until(path: Path, step: int, target: Path) -> None:
    """Copy the lines of steps up to `step`, for trainings that go on from there."""
    lines = [line for line in _lines(path) if 0 < line.get("step", 0) <= step]
    write_atomically(target, "".join(json.dumps(line) + "\n" for line in lines))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines: a full disk or a power cut may leave half a one."""
    lines = []
    for text in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict)]


def read(path: Path) -> dict[str, Any]:
    """Figures of a whole run; {} where it left no lines. Speed and share are medians over steps.

    inherited_seconds: of the steps of an earlier training, where this one went on from it.
    """
    if not path.is_file():
        return {}
    lines = _lines(path)
    steps = [line for line in lines if "tokens_per_second" in line]
    if not steps:
        return {}
    middle = sorted(steps, key=lambda line: line["tokens_per_second"])[len(steps) // 2]
    return {
        "tokens_per_second": middle["tokens_per_second"],
        "matmul_peak_share": middle["matmul_peak_share"],
        "matmul_peak_flops": steps[-1]["peak_flops"],
        "peak_memory_bytes": max(line["peak_memory_bytes"] for line in steps),
        "training_seconds": sum(line.get("seconds", 0.0) for line in lines),
        "inherited_seconds": sum(line.get("seconds", 0.0) for line in lines if line.get("inherited")),
    }


def validation(path: Path) -> list[dict[str, Any]]:
    """Held-out losses of a run, in order: step, tokens, and the losses by source."""
    lines = _lines(path) if path.is_file() else []
    return [line for line in lines if line.get("kind") == "validation"]


def samples(path: Path) -> list[dict[str, Any]]:
    """What the model wrote while it was trained, in order: step, and samples."""
    lines = _lines(path) if path.is_file() else []
    return [line for line in lines if line.get("kind") == "samples"]
