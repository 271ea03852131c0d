"""One process of a cluster that does not exist: what it holds of a model, and what it exchanges in a step.

python -m tests.train.fake_cluster SIZE ROWS LENGTH

prints JSON. Collectives do nothing here and tensors have no memory, so a step of any shape takes a second.
All that torch keeps private stands in this file.
"""

import json
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from unittest import mock

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import _resolve_process_group
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from puna.model.block import POLICIES
from puna.model.config import LlamaConfig
from puna.model.config import config as config_of
from puna.model.llama import Llama
from puna.model.loss import HeadTargets
from puna.model.tensor_parallel import local
from puna.train.metrics import peak_memory_bytes
from puna.train.objective import loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.parallel import Team, parallelize
from tests.train.small import settings

SHARD, TENSOR = 256, 8
NAMES = {SHARD: "data", TENSOR: "tensor"}
KINDS = {
    # name of an operation: what it is called here, and where its whole tensor stands
    "_allgather_base_": ("all-gather", lambda args: args[0]),
    "_reduce_scatter_base_": ("reduce-scatter", lambda args: args[1]),
    "allreduce_": ("all-reduce", lambda args: args[0][0]),
    "all_reduce": ("all-reduce", lambda args: args[0]),
}


class Exchanged(TorchDispatchMode):
    """Counts collectives, as found["group kind"] = [calls, bytes].

    Bytes are those of the whole: what a gather returns, what is given to a reduction. order: a letter for
    each run of matrix products (p), each gather (g) and each reduce-scatter (s) of the data group.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[int]] = {}
        self.order = ""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does with its parts comes here
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm") and not self.order.endswith("p"):
            self.order += "p"
        if function.namespace in ("c10d", "_c10d_functional") and name != "wait_tensor":
            self._count(name, args)
        return function(*args, **(kwargs or {}))

    def _count(self, operation: str, args: Any) -> None:
        kind, whole_of = KINDS[operation]
        if operation == "all_reduce":
            group = _resolve_process_group(args[2])
        else:
            group = dist.ProcessGroup.unbox(next(x for x in args if isinstance(x, torch.ScriptObject)))
        if group.size() == SHARD:
            self.order += {"all-gather": "g", "reduce-scatter": "s"}.get(kind, "")
        entry, whole = self.found.setdefault(f"{NAMES[group.size()]} {kind}", [0, 0]), whole_of(args)
        entry[0] += 1
        entry[1] += whole.numel() * whole.element_size()


@dataclass(frozen=True)
class Rows:
    """Micro-batches of equal rows."""

    tokens: torch.Tensor
    count: int
    weight: float = 1.0

    def micro_batches(self, size: int) -> Iterator[Self]:
        for _ in range(self.count):
            yield self


def step(config: LlamaConfig, policy: str, tokens: tuple[int, int], micro_batches: int = 1) -> dict[str, Any]:
    """A step, in bfloat16 beside float32. A host that asked for a number of it would raise: none is there."""

    def objective(model: Llama, rows: Rows) -> tuple[torch.Tensor, float]:
        layout = model._layout(rows.tokens, None, None, policy, torch.bfloat16)
        return model.summed_loss(rows.tokens, HeadTargets(rows.tokens.flatten()), layout, policy, 0.0), 1.0

    with torch.device("meta"):
        model = Llama(config)
    mesh = init_device_mesh("cpu", (SHARD, TENSOR), mesh_dim_names=("shard", "tensor"))
    with mock.patch("puna.train.parallel._team", return_value=Team()):  # it is of gloo
        parallel = parallelize(model, mesh, torch.bfloat16)
    parameters = list(model.parameters())
    held = [sum(x.numel() for x in parameters), sum(local(x).numel() for x in parameters)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        options = settings()
        optimizer = build(model, options)
        rows = Rows(torch.zeros(tokens, dtype=torch.long), micro_batches)
        with Exchanged() as exchanged:
            loss = parallel.total(loss_and_gradients(model, rows, 1, objective, parallel))
        with Exchanged() as updating:
            update(model, optimizer, 0, options, loss)
    return {"held": held, "exchanged": exchanged.found, "update": updating.found, "order": exchanged.order}


def known() -> dict[str, list[int]]:
    """What is counted of one exchange of each kind in each group: 3 x 5 floats a process."""
    mesh = init_device_mesh("cpu", (SHARD, TENSOR), mesh_dim_names=("shard", "tensor"))
    with Exchanged() as exchanged:
        for name in mesh.mesh_dim_names:
            group, part = mesh[name].get_group(), torch.zeros(3, 5)
            whole = torch.zeros(3 * group.size(), 5)
            dist.all_gather_into_tensor(whole, part, group=group)
            dist.reduce_scatter_tensor(part, whole, group=group)
            dist.all_reduce(part, group=group)
    return exchanged.found


def main() -> None:
    config, tokens = config_of(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=SHARD * TENSOR)
    results: dict[str, Any] = {"known": known()}
    two, three = (config.model_copy(update={"n_layers": layers}) for layers in (2, 3))
    for policy in POLICIES:
        results[policy] = [step(two, policy, tokens), step(three, policy, tokens)]
    results["accumulated"] = step(two, "llama", tokens, micro_batches=2)
    used = resource.getrusage(resource.RUSAGE_SELF)
    results["seconds"], results["bytes"] = used.ru_utime + used.ru_stime, peak_memory_bytes()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
