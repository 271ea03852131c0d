"""What the processes that share a model exchange while they compute: in which order, not in which time."""

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from puna.model.block import POLICIES

from .test_block import GroupOfOne, made
from .test_frozen import PRODUCTS

SHAPE = {"dim": 48, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "explicit_head_dim": 10, "ffn_dim": 80}
WEIGHTS = {(40, 48): "dwq", (20, 48): "dwk|v", (48, 40): "dwo", (80, 48): "dw1|3", (48, 80): "dw2"}

# What `full` runs again: up to W3 n2.
AGAIN = "gather gathered product product product product scatter scattered gather gathered product product"
# From the gradient of a layer's output to that of the attention's; n2 in the place of a second gather.
FFN = "gather gathered product dw2 {n2} product product scatter {has_n2} dw1|3 scattered gather sum dw1|3 "
FFN += "gathered product dwo summed"
# From the gradients of queries, keys and values to that of the layer's input.
QKV = "{n1} product product product scatter {has_n1} dwq dwk|v dwk|v scattered sum summed"
ENDS = "sum summed", "gather gathered"  # the last norm; the embedding


class Order(TorchDispatchMode, GroupOfOne):
    """A group, and a list of what is started, computed and waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def _start(self, name: str, done: str, value: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.seen.append(name)

        def wait() -> torch.Tensor:
            self.seen.append(done)
            return value

        return wait

    def all_gather(self, shard: torch.Tensor) -> Callable[[], torch.Tensor]:
        return self._start("gather", "gathered", shard)

    def reduce_scatter(self, value: torch.Tensor) -> Callable[[], torch.Tensor]:
        return self._start("scatter", "scattered", value)

    def all_reduce(self, value: torch.Tensor, largest: bool = False) -> Callable[[], torch.Tensor]:
        return self._start("sum", "summed", value)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ in PRODUCTS:
            self.seen.append(WEIGHTS.get(tuple(result.shape), "product"))
        return result


@pytest.mark.parametrize("policy", POLICIES)
def test_what_the_backward_exchanges_is_waited_for_after_other_work(policy: str) -> None:
    """A reduce-scatter before gradients of weights, and a gather, too, where its result is needed later.

    Only dy and, in what is run again, h and the norms have no other work beside them.
    """
    model, order = made(**SHAPE), Order()
    model.tensor_parallel = order  # type: ignore[assignment]
    tokens = torch.randint(0, 130, (2, 45), generator=torch.Generator().manual_seed(1))
    loss = model.loss(tokens, tokens.roll(-1, 1), remat=policy)
    order.seen.clear()
    with order:
        loss.backward()
    again = {"n1": "gather", "has_n1": "gathered", "n2": "gather", "has_n2": "gathered"}
    kept = again if policy == "llama" else dict.fromkeys(again, "")
    parts = [ENDS[0], AGAIN if policy == "full" else "", FFN, QKV, ENDS[1]]
    assert order.seen == " ".join(parts).format(**kept).split()
