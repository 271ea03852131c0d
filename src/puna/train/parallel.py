"""One model on several processes: tensor and sequence parallelism inside, data parallelism (FSDP2) outside,
over one mesh.

    mesh = init_device_mesh(device, (data, tensor), mesh_dim_names=("data", "tensor"))      # either may be left out, or be 1
    parallel = parallelize(model, mesh)

The order is: split the weights (`model.placement`), then FSDP2 over what lies here. Every parameter is a
DTensor afterwards. Processes of one tensor group read the same rows; each data rank reads its own,
`batches.batch(step, parallel.rank, parallel.world)`. Losses are divided by the number of targets of the whole
batch before backward, so gradients are summed over data ranks, not averaged.
"""

from dataclasses import dataclass
from typing import Any

import torch

from puna.model import tensor_parallel
from puna.model.llama import Llama


@dataclass(frozen=True)
class Parallel:
    """What a process must know of the others that read other rows. group: None where there are none."""

    rank: int = 0
    world: int = 1
    group: Any = None

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of all data ranks' values, in place."""
        if self.group is not None:
            import torch.distributed as dist

            dist.all_reduce(value, group=self.group)
        return value


def parallelize(model: Llama, mesh: Any, dtype: torch.dtype | None = None) -> Parallel:
    """Lay the weights of a model, equal in every process, over a device mesh, in place.

    mesh: dimensions "data" and "tensor", or one of them. dtype: in which FSDP2 gathers weights and layers
    compute; gradients are reduced, and the weights that the optimizer holds stay, in float32. Raises
    ValueError when the shape does not divide or the mesh has other dimensions.
    """
    from torch.distributed.fsdp import (
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    names = mesh.mesh_dim_names or ()
    if not names or set(names) - {"data", "tensor"}:
        raise ValueError(
            f'the dimensions of the mesh must be named "data" and "tensor", or one of them; they are {names or "not named"}'
        )
    if "tensor" in names and mesh["tensor"].size() > 1:
        tensor_parallel.distribute(model, mesh["tensor"])
        model.split = tensor_parallel.Split(mesh["tensor"].get_group())
    if "data" not in names:
        return Parallel()
    data = mesh["data"]
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32 if dtype is not None else None
    )
    for layer in model.layers:
        fully_shard(layer, mesh=data, mp_policy=policy)
    fully_shard(model, mesh=data, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows sums alone
    register_fsdp_forward_method(model, "loss")
    return Parallel(data.get_local_rank(), data.size(), data.get_group())
