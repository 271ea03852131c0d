"""One model on several processes: tensor and sequence parallelism inside, data parallelism (FSDP2) outside,
over one mesh.

    mesh = init_device_mesh(device, (data, tensor), mesh_dim_names=("data", "tensor"))
    parallel = parallelize(model, mesh)

Either dimension may be left out, or be 1. The order is: split the weights (`puna.model.tensor_parallel`),
then FSDP2 over the parts that each process holds. Every parameter is a DTensor afterwards. Processes of one
tensor group read the same rows; each data rank reads its own, `batches.batch(step, parallel.rank,
parallel.world)`. Losses are divided by the number of targets of the whole batch before backward, so gradients
are summed over data ranks, not averaged.
"""

from dataclasses import dataclass
from typing import Any

import torch

from puna.model import tensor_parallel
from puna.model.llama import Llama


@dataclass(frozen=True)
class Parallel:
    """This process among the data ranks, which read different rows. group: None where there is one rank."""

    rank: int = 0
    world: int = 1
    group: Any = None

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Sum the values of all data ranks, in place."""
        if self.group is not None:
            import torch.distributed as dist

            dist.all_reduce(value, group=self.group)
        return value


def parallelize(model: Llama, mesh: Any, dtype: torch.dtype | None = None) -> Parallel:
    """Distribute the weights of a model, equal in every process, over a device mesh, in place.

    mesh: dimensions "data" and "tensor", or one of them. dtype: in which FSDP2 gathers the layers' weights
    and layers compute, to be given to the model's `loss` too; gradients are reduced, and the weights that the
    optimizer holds stay, in float32. Embedding, last norm and head are gathered in float32, so that theirs
    are summed in it: a gathered weight's gradient has its own precision. Raises ValueError when the shape
    does not divide or the mesh has other dimensions.
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
            'the dimensions of the mesh must be named "data" and "tensor", or one of them; '
            f"they are {names or 'not named'}"
        )
    if "tensor" in names and mesh["tensor"].size() > 1:
        tensor_parallel.distribute(model, mesh["tensor"])
        model.tensor_parallel = tensor_parallel.TensorParallelGroup(mesh["tensor"].get_group())
    if "data" not in names:
        return Parallel()
    data = mesh["data"]
    reduce_dtype = torch.float32 if dtype is not None else None
    for layer in model.layers:
        fully_shard(layer, mesh=data, mp_policy=MixedPrecisionPolicy(dtype, reduce_dtype))
    fully_shard(model, mesh=data, mp_policy=MixedPrecisionPolicy(None, reduce_dtype))
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no averages
    register_fsdp_forward_method(model, "summed_loss")
    return Parallel(data.get_local_rank(), data.size(), data.get_group())
