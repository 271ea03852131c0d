"""How much a step computes: matrix products, counted, where some weights are frozen; nothing twice."""

import re
from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from puna.model.block import POLICIES
from puna.model.llama import Llama

from .test_block import GroupOfOne, gradients_of, made, random_document_ids

PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "_linear_pointwise", "linear", "matmul")
LAYERS, FORWARD = 3, 3 * 7 + 1
TRAINED = {
    # pattern of the trained weights' names: products of the backward, layers that have one
    "everything": (".*", LAYERS * 14 + 2, 3),
    "nothing below the head": ("output", 1, 0),
    "the last norm": ("norm", 1, 0),
    "the embedding": ("tok_embeddings", 1 + LAYERS * 7, 3),
    "the last layer": ("layers.2.*", 1 + 14, 1),
    "the norms": (".*norm", 1 + LAYERS * 7, 3),
    "wq and wv": (".*(wq|wv)", 1 + (4 + 2) + 2 * (7 + 2), 3),
    "w2 of the last layer": ("layers.2.feed_forward.w2", 1 + 1, 1),
    "ffn_norm of the last layer": ("layers.2.ffn_norm", 1 + 3, 1),
    "w1 of the second layer": ("layers.1.feed_forward.w1", 1 + 7 + 1 + 1, 2),
    "wo of the last layer": ("layers.2.attention.wo", 1 + 3 + 1, 1),
}


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function.overloadpacket.__name__ in PRODUCTS
        return function(*args, **(kwargs or {}))


def freeze(model: Llama, pattern: str) -> Llama:
    """Freeze all weights but those whose names a pattern matches."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(re.fullmatch(pattern, name.removesuffix(".weight")) is not None)
    return model


def counted_step(model: Llama, policy: str) -> int:
    tokens = torch.randint(0, 130, (2, 40), generator=torch.Generator().manual_seed(1))
    with Products() as products:
        loss = model.loss(
            tokens, tokens.roll(-1, 1), document_ids=random_document_ids(2, 40, 1), remat=policy
        )
        if loss.requires_grad:
            loss.backward()
    return products.count


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("what", TRAINED)
def test_a_frozen_weight_costs_no_product(what: str, policy: str) -> None:
    """And the others' gradients are the bits they were. `full` runs six products of a layer again."""
    pattern, backward, layers = TRAINED[what]
    whole, frozen = made(), freeze(made(), pattern)
    counted_step(whole, policy)
    assert counted_step(frozen, policy) == FORWARD + backward + (6 * layers if policy == "full" else 0)
    gradients = gradients_of(whole)
    trained = {name for name, parameter in frozen.named_parameters() if parameter.requires_grad}
    assert gradients_of(frozen).keys() == trained
    for name, gradient in gradients_of(frozen).items():
        assert torch.equal(gradient, gradients[name]), name


@pytest.mark.parametrize("policy", POLICIES)
def test_a_frozen_model_has_a_loss(policy: str) -> None:
    assert counted_step(freeze(made(), "none"), policy) == FORWARD


class CountingGroup(GroupOfOne):
    """Counts what several processes would exchange."""

    def __init__(self) -> None:
        self.gathered = self.reduced = 0

    def all_gather(self, shard: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.gathered += 1
        return lambda: shard

    def reduce_scatter(self, value: torch.Tensor) -> Callable[[], torch.Tensor]:
        self.reduced += 1
        return lambda: value


@pytest.mark.parametrize(("policy", "gathers"), [("none", 4), ("llama", 6), ("full", 6)])
def test_processes_exchange_nothing_twice(policy: str, gathers: int) -> None:
    """A layer gathers n1 and n2 forward, dy and dh backward, and what its policy did not keep again; it
    reduces h and y, dn1 and dn2; embedding and head do each once. `full` reduces h again, not y."""
    model, group = made(), CountingGroup()
    model.tensor_parallel = group  # type: ignore[assignment]
    counted_step(model, policy)
    assert group.gathered == LAYERS * gathers + 2
    assert group.reduced == LAYERS * (5 if policy == "full" else 4) + 2


@pytest.mark.parametrize("policy", POLICIES)
def test_a_block_returns_no_view(policy: str) -> None:
    """FSDP2 hangs its hooks on what a block returns; an operation in place on a view would drop them."""
    model, outputs = made(), []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, given, output: outputs.append(output))
    counted_step(model, policy)
    assert len(outputs) == LAYERS and not any(output._is_view() for output in outputs)
