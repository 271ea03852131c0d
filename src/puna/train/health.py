"""Whether a step may be taken, and whether processes that should hold the same still do.

A step whose loss or gradient norm is not finite is never taken. One far above the steps before it, a spike,
is told, passed over, or undone (`settings.OptimizerSettings.spikes`). Verdicts are made where the model is,
of sums over all processes, so that all make the same and no device is waited for.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puna.errors import UserError
from puna.model.tensor_parallel import local
from puna.train.parallel import Parallel

WINDOW = 128  # steps that were taken, with which a new one is compared
LEAST = 32  # before a step can be a spike
DEVIATIONS = 6.0
# The least deviation of the loss (nats) and of the logarithm of the norm: a training that stands still would
# take noise for a spike.
FLOOR = 0.01
SOUND, NOT_FINITE, SPIKE = 0, 1, 2
WHY = {NOT_FINITE: "not finite", SPIKE: "a spike"}


def newest(lines: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """What a judge compares with, of the lines of a file of losses (`losses`)."""
    taken = [(line["loss"], line["gradient_norm"]) for line in lines if not line.get("skipped")]
    return taken[-WINDOW:]


class Judged(NamedTuple):
    """What became of a step, on the model's device. norm: of the gradients of all processes, before clipping;
    verdict: one of `SOUND`, `NOT_FINITE`, `SPIKE`; left_out: float32, 1 where the step was not taken; source:
    the process that what is not finite comes from, -1: none that is known."""

    norm: Tensor
    verdict: Tensor
    left_out: Tensor
    source: Tensor


class Judge:
    """Compares each step with those taken before it. keeps_spikes: these are taken, too."""

    def __init__(self, keeps_spikes: bool = True) -> None:
        self.keeps_spikes = keeps_spikes
        self._count = torch.zeros((), dtype=torch.int64)
        self._seen = torch.zeros(WINDOW, 2, dtype=torch.float64)  # loss and log norm of a step, newest last

    def remember(self, taken: Iterable[tuple[float, float]]) -> None:
        """Go on behind steps: loss and gradient norm of each (`newest`)."""
        for found in taken:
            self._add(_figures(*(torch.tensor(value, dtype=torch.float64) for value in found)))

    def judge(self, loss: Tensor, norm: Tensor, source: Tensor, dtype: torch.dtype) -> Judged:
        """The verdict on a step: loss in nats, norm of its gradients, `Judged.source`; all the same in all
        processes. dtype: of the norm that is returned."""
        if self._seen.device != norm.device:
            self._seen, self._count = self._seen.to(norm.device), self._count.to(norm.device)
        new = _figures(loss, norm)
        known = torch.arange(WINDOW, 0, -1, device=norm.device)[:, None] <= self._count
        count = self._count.clamp(min=1)
        mean = self._seen.sum(0) / count
        deviation = ((self._seen - mean).square() * known).sum(0).div(count).sqrt()
        far = (new > mean + DEVIATIONS * deviation.clamp(min=FLOOR)).any() & (self._count >= LEAST)
        finite = new.isfinite().all()
        taken = finite if self.keeps_spikes else finite & ~far
        self._add(new, taken)
        verdict = torch.where(finite, far * SPIKE, NOT_FINITE)
        return Judged(norm.to(dtype), verdict, (~taken).float(), source)

    def _add(self, new: Tensor, taken: Tensor | bool = True) -> None:
        self._seen = torch.where(torch.as_tensor(taken), torch.cat((self._seen[1:], new[None])), self._seen)
        self._count = (self._count + taken).clamp(max=WINDOW)


def _figures(loss: Tensor, norm: Tensor) -> Tensor:
    return torch.stack((loss.double(), norm.double().clamp(min=1e-30).log()))


def check_replicas(state: Mapping[str, Tensor], parallel: Parallel) -> None:
    """Raises UserError, in all processes, where some that hold the same part of a tensor hold other bits.

    state: weights and moments by name. Replicas are those of a mesh's "replicate"; under tensor parallelism
    the processes of a group hold the same norms.
    """
    team = parallel.team
    told = [different for different in team.gather(_different(state)) if different]
    if different := team.broadcast(told[0] if told else ""):
        error = UserError(different)
        error.add_note("all processes")
        raise error


def _different(state: Mapping[str, Tensor]) -> str:
    """What to say of a process that holds other bits than this one; "" where none does. Asked of all groups,
    since in them other processes wait."""
    import torch.distributed as dist

    groups: dict[Any, list[str]] = {}
    for name, tensor in state.items():
        for dimension, placement in enumerate(getattr(tensor, "placements", ())):
            if placement.is_replicate() and tensor.device_mesh.size(dimension) > 1:  # type: ignore[attr-defined]
                group = tensor.device_mesh.get_group(dimension)  # type: ignore[attr-defined]
                groups.setdefault(group, []).append(name)
    different = ""
    for group, names in groups.items():
        sums = torch.stack([_bits(local(state[name].detach())) for name in names])
        every = [torch.empty_like(sums) for _ in range(dist.get_world_size(group))]
        dist.all_gather(every, sums, group=group)
        gathered = torch.stack(every)
        common = gathered.mode(0).values
        ranks = dist.get_process_group_ranks(group)
        odd = [rank for rank, found in zip(ranks, gathered, strict=True) if not found.equal(common)]
        if odd:
            name = names[int((gathered != common).any(0).nonzero()[0])]
            who = f"process {odd[0]}" if len(ranks) > 2 else f"process {ranks[0]} or {ranks[1]}"
            different = different or (
                f"{who} holds other bits of {name} than those that should hold the same: a bit has flipped "
                "in its memory, or its kernels are others; the same command goes on from the last checkpoint"
            )
    return different


def _bits(tensor: Tensor) -> Tensor:
    """A sum of all bits, int64 []: one that flips changes it."""
    whole = tensor.contiguous().view(-1)
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[whole.element_size()]
    return whole.view(kind).sum(dtype=torch.int64)
