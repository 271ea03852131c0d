"""One model on several processes: tensor and sequence parallelism inside, data parallelism (FSDP2) outside,
over one mesh.

    names = ("replicate", "shard", "tensor")
    mesh = init_device_mesh(device, (1, 4, 2), mesh_dim_names=names)
    parallel = parallelize(model, mesh)

Any dimension may be left out, or be 1. The data ranks, which read different rows, are replicate x shard. The
order is: split the weights (`puna.model.tensor_parallel`),
then FSDP2 over the parts that each process holds. Every parameter is a DTensor afterwards. Processes of one
tensor group read the same rows; each data rank reads its own, `batches.batch(step, parallel.rank,
parallel.world)`. Losses are divided by the number of targets of the whole batch before backward, so gradients
are summed over data ranks, not averaged.
"""

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch

from puna.model import tensor_parallel
from puna.model.initial_weights import BLOCK_ROWS, initial_rows
from puna.model.llama import Llama

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """All processes of a training, for what they decide and tell each other. group: of gloo; None where there
    is one process."""

    rank: int = 0
    size: int = 1
    group: Any = None

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set in any process: the same answer in all."""
        if self.group is None:
            return list(flags)
        import torch.distributed as dist

        found = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return [bool(flag) for flag in found]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the first; [] in the others."""
        if self.group is None:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size if self.rank == 0 else []
        dist.gather_object(value, values or None, dst=0, group=self.group)
        return values

    def broadcast(self, value: T) -> T:
        """The first process's value."""
        if self.group is None:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def together(self, do: Callable[[], T]) -> T:
        """Do something in every process; what it returns here. Raises in all of them what it raised in any,
        of several the first one's."""
        value: T
        problem: Exception | None = None
        try:
            value = do()
        except Exception as error:
            problem = error
            if self.size > 1:
                error.add_note(f"process {self.rank}")  # where it was, for those that are told
        if any(self.any(problem is not None)):
            told = self.broadcast(next(filter(None, self.gather(problem)), None))
            raise problem or told or RuntimeError("another process has failed")
        return value

    def first(self, do: Callable[[], T]) -> T | None:
        """Do something in the first process alone; what it raises there is raised in all."""
        return self.together(lambda: do() if self.rank == 0 else None)


def _unwatched(name: str, step: int | None = None) -> AbstractContextManager[None]:
    """Nobody watches."""
    return nullcontext()


@dataclass(frozen=True)
class Parallel:
    """This process among the data ranks, which read different rows. group: None where there is one rank.
    team: all processes; saving: they again, for the thread that writes checkpoints. phase: a block for what
    this process does, by name, and from which step on (from 1), for who watches it."""

    rank: int = 0
    world: int = 1
    group: Any = None
    team: Team = Team()
    saving: Team = Team()
    phase: Callable[..., AbstractContextManager[None]] = _unwatched

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Sum the values of all data ranks, in place."""
        if self.group is not None:
            import torch.distributed as dist

            dist.all_reduce(value, group=self.group)
        return value

    def agreed(
        self, loss: torch.Tensor, norm: torch.Tensor, part: torch.Tensor, own: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A step's loss and gradient norm, the same in all processes, and the process that one not finite
        comes from; -1: none. part, own: of the loss and the norm, what is this process's.

        The largest of all, since sums over several groups may differ in the last bit, by which weights that
        should be equal would drift apart; a maximum over processes may lose a NaN, but no infinity. Losses
        come first: their gradients are summed before anybody looks at them.
        """
        if self.team.size == 1:
            return loss, norm, torch.full_like(loss, -1)
        import torch.distributed as dist

        size, rank = self.team.size, self.team.rank
        source = torch.where(part.isfinite(), torch.where(own.isfinite(), -1.0, rank), size + rank)
        values = torch.stack((loss, norm, source.to(loss.dtype))).nan_to_num_(math.inf, math.inf, math.inf)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return values[0], values[1], torch.where(values[2] < 0, -1, values[2] % size)


ALONE = Parallel()


class Box(NamedTuple):
    """The part of a tensor that a process holds. start, shape: in the whole. first: whether this process is
    the first of those that hold the same part."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    first: bool


def box_of(tensor: torch.Tensor, rank: int = 0) -> Box:
    """Where the part of a tensor that this process holds lies. rank: of the process.

    A plain tensor is the same in all processes. Of a DTensor, FSDP2 cuts (in chunks, as torch.chunk does)
    what tensor parallelism has cut, although its dimension of the mesh comes first.
    """
    from torch.distributed.tensor import DTensor

    start, shape, first = [0] * tensor.dim(), list(tensor.shape), True
    if not isinstance(tensor, DTensor):
        return Box(tuple(start), tuple(shape), rank == 0)
    mesh = tensor.device_mesh
    cuts = list(zip(tensor.placements, mesh.get_coordinate() or (), mesh.shape, strict=True))
    for strided in (False, True):
        for placement, coordinate, size in cuts:
            dimension = getattr(placement, "dim", None)
            if dimension is None:
                first = first and coordinate == 0
            elif hasattr(placement, "split_factor") is strided:
                chunk = -(-shape[dimension] // size)
                skipped = min(coordinate * chunk, shape[dimension])
                start[dimension] += skipped
                shape[dimension] = min(chunk, shape[dimension] - skipped)
    return Box(tuple(start), tuple(shape), first)


def parallelize(
    model: Llama, mesh: Any, dtype: torch.dtype | None = None, time_out_seconds: float = 600.0
) -> Parallel:
    """Distribute the weights of a model, equal in every process or on meta, over a device mesh, in place.

    mesh: dimensions "replicate", "shard" and "tensor", or some of them, over all processes. dtype: in which
    FSDP2 gathers the layers' weights and layers compute, to be given to the model's `loss` too; gradients are
    reduced, and the weights that the optimizer holds stay, in float32. Embedding, last norm and head are
    gathered in float32, so that theirs are summed in it: a gathered weight's gradient has its own precision.
    time_out_seconds: how long a process waits for another in what `Team` does.
    Raises ValueError when the shape does not divide or the mesh has other dimensions.
    """
    from torch.distributed import fsdp
    from torch.distributed.distributed_c10d import _set_pg_timeout

    names = mesh.mesh_dim_names or ()
    if not names or set(names) - {"replicate", "shard", "tensor"}:
        raise ValueError(
            'the dimensions of the mesh must be named "replicate", "shard" and "tensor", or some of them; '
            f"they are {names or 'not named'}"
        )
    sizes = dict(zip(names, mesh.shape, strict=True))
    if sizes.get("tensor", 1) > 1:
        tensor_parallel.distribute(model, mesh["tensor"])
        model.tensor_parallel = tensor_parallel.TensorParallelGroup(mesh["tensor"].get_group())
    replicas = sizes.get("replicate", 1)
    if "shard" not in sizes or (replicas * sizes["shard"] == 1 and sizes.get("tensor", 1) > 1):
        return Parallel(team=_team(time_out_seconds), saving=_team(time_out_seconds))
    data = mesh["replicate", "shard"] if replicas > 1 else mesh["shard"]
    reduce_dtype = torch.float32 if dtype is not None else None
    for layer in model.layers:
        fsdp.fully_shard(layer, mesh=data, mp_policy=fsdp.MixedPrecisionPolicy(dtype, reduce_dtype))
    fsdp.fully_shard(model, mesh=data, mp_policy=fsdp.MixedPrecisionPolicy(None, reduce_dtype))
    sharded = [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]
    gather: Any = _Exchange(tensor_parallel.gloo_all_gather)
    reduce_scatter: Any = _Exchange(tensor_parallel.gloo_reduce_scatter)
    for module in sharded:
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no averages
        if tensor_parallel.is_gloo(mesh["shard"].get_group(), mesh.device_type):
            module.set_custom_all_gather(gather)
            module.set_custom_reduce_scatter(reduce_scatter)
    for module, following in itertools.pairwise(sharded):
        # Its weights come while the one before computes; in the backward FSDP2 does so by itself.
        module.set_modules_to_forward_prefetch([following])
    fsdp.register_fsdp_forward_method(model, "summed_loss")
    if replicas > 1:
        data = data._flatten("data")
        _set_pg_timeout(timedelta(seconds=time_out_seconds), data.get_group())
    return Parallel(
        data.get_local_rank(), data.size(), data.get_group(), _team(time_out_seconds), _team(time_out_seconds)
    )


class _Exchange:
    """What FSDP2 calls for an exchange. start: see `puna.model.tensor_parallel`."""

    def __init__(self, start: Callable[..., Callable[[], torch.Tensor]]) -> None:
        self.start = start

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: torch.Tensor, input_tensor: torch.Tensor, group: Any, **options: Any
    ) -> None:
        self.start(output_tensor, input_tensor, group)()


@torch.no_grad()
def init_weights(model: Llama, seed: int, device: str) -> None:
    """Make the memory of a model that was distributed on meta, and fill it: `Llama.init_weights` of the parts
    that this process holds alone."""
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        box, part = box_of(parameter), tensor_parallel.local(parameter)
        columns = [
            slice(start, start + size) for start, size in zip(box.start[1:], box.shape[1:], strict=True)
        ]
        for first in range(0, box.shape[0], BLOCK_ROWS):
            rows = part[first : first + BLOCK_ROWS]
            start = box.start[0] + first
            made = initial_rows(model.config, seed, name, start, start + len(rows))
            rows.copy_(made[(slice(None), *columns)])


def _team(time_out_seconds: float) -> Team:
    """All processes, with a group of their own."""
    import torch.distributed as dist

    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=time_out_seconds))
    return Team(dist.get_rank(), dist.get_world_size(), group)
