"""Policies: the same loss and gradients, and exactly the bytes that the formula says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.model import block, kernels
from puna.model.config import LlamaConfig
from puna.model.llama import Llama


def made(seed: int = 1, dtype: torch.dtype = torch.float32, **changes: Any) -> Llama:
    shape = {"dim": 48, "n_layers": 3, "n_heads": 4, "ffn_dim": 80, "vocab_size": 130, "max_seq_len": 128}
    model = Llama(LlamaConfig(**{**shape, **changes})).to(dtype)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.06 + (parameter.dim() == 1))
    return model


class GroupOfOne:
    """A tensor-parallel group of one process: what it exchanges is what it has."""

    rank, size = 0, 1

    def all_gather(self, shard: torch.Tensor) -> Callable[[], torch.Tensor]:
        return lambda: shard

    def reduce_scatter(self, value: torch.Tensor) -> Callable[[], torch.Tensor]:
        return lambda: value

    def all_reduce(self, value: torch.Tensor, largest: bool = False) -> Callable[[], torch.Tensor]:
        return lambda: value


def result(
    model: Llama, tokens: torch.Tensor, document_ids: torch.Tensor | None, policy: str | None, z: float = 0.0
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    ignored = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(3)) < 0.1
    targets = tokens.roll(-1, 1).masked_fill(ignored, -1)
    loss = model.loss(tokens, targets, document_ids=document_ids, remat=policy, z=z)
    loss = loss / max(1, int((targets >= 0).sum()))
    loss.backward()
    return loss.item(), gradients_of(model)


def gradients_of(model: Llama) -> dict[str, torch.Tensor]:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}


def random_document_ids(rows: int, length: int, seed: int) -> torch.Tensor:
    return (torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) < 0.1).long().cumsum(1)


@settings(max_examples=25)
@given(
    st.integers(1, 3),
    st.integers(1, 70),
    st.sampled_from([(4, 4, 48), (4, 2, 48), (4, 1, 64), (2, 2, 32), (1, 1, 128)]),
    st.integers(1, 90),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 1e-3]),
)
def test_every_policy_against_float64(
    rows: int, length: int, heads: tuple[int, int, int], ffn: int, packed: bool, tied: bool, z: float
) -> None:
    """In float32 with kernels, relative to plain autograd in float64.

    Every parameter's gradient is within 1e-5 (or 5e-8 of the whole gradient's norm where it nearly cancels
    out), the whole one within 1e-6, and the policies within 1e-6 of each other.
    """
    n_heads, n_kv_heads, dim = heads
    shape = {"n_heads": n_heads, "n_kv_heads": n_kv_heads, "dim": dim, "ffn_dim": ffn, "tie_embeddings": tied}
    tokens = torch.randint(0, 130, (rows, length), generator=torch.Generator().manual_seed(length))
    document_ids = random_document_ids(rows, length, length) if packed else None
    exact_loss, exact = result(made(dtype=torch.float64, **shape), tokens, document_ids, None, z)
    total, norm = joined(exact), joined(exact).norm()
    found = {policy: result(made(**shape), tokens, document_ids, policy, z) for policy in block.POLICIES}
    for loss, gradients in found.values():
        assert loss == pytest.approx(exact_loss, rel=1e-6)
        assert gradients.keys() == exact.keys()
        assert (joined(gradients) - total).norm() <= 1e-6 * norm + 1e-12
        for name, gradient in gradients.items():
            tolerance = 1e-5 * exact[name].norm() + 5e-8 * norm + 1e-12
            assert (gradient - exact[name]).norm() <= tolerance, name
        assert (joined(gradients) - joined(found["none"][1])).norm() <= 1e-6 * norm + 1e-12


def joined(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten().double() for gradient in gradients.values()])


def test_policies_agree_in_float64_to_its_last_digits() -> None:
    tokens, document_ids = torch.randint(0, 130, (2, 60)), random_document_ids(2, 60, 1)
    loss, exact = result(made(dtype=torch.float64, n_kv_heads=2), tokens, document_ids, None)
    for policy in block.POLICIES:
        ours, gradients = result(made(dtype=torch.float64, n_kv_heads=2), tokens, document_ids, policy)
        assert ours == pytest.approx(loss, rel=1e-13)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, exact[name], rtol=1e-9, atol=1e-13)


def test_all_policies_give_the_same_bits() -> None:
    """The same operations in the same order."""
    tokens, document_ids = torch.randint(0, 130, (3, 50)), random_document_ids(3, 50, 4)
    loss, gradients = result(made(), tokens, document_ids, "llama")
    for policy in ("none", "full"):
        other_loss, others = result(made(), tokens, document_ids, policy)
        assert other_loss == loss
        assert all(torch.equal(others[name], gradient) for name, gradient in gradients.items())


def held_bytes(forward: Callable[[], Any], model: Llama) -> int:
    """Bytes of all storages that autograd holds after a forward pass, each once, parameters not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.dtype == torch.float32:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(held.values())


@pytest.mark.parametrize("kv_heads", [6, 2])
def test_bytes_held_are_the_formulas(kv_heads: int) -> None:
    """Two depths of a model of shape S, so that embedding, norm and rotary angles cancel out."""
    if kv_heads < 6 and kernels.library() is None:
        pytest.skip("torch's attention holds shared heads of keys and values once for each query head")
    heads = {"n_heads": 6, "n_kv_heads": kv_heads}
    shape = {**heads, "dim": 288, "ffn_dim": 768, "vocab_size": 512, "max_seq_len": 256}
    tokens = torch.randint(0, 512, (4, 256))
    shallow, deep = made(n_layers=1, **shape), made(n_layers=3, **shape)
    a_layer = {}
    for policy in (None, *block.POLICIES):
        one = held_bytes(lambda p=policy: shallow.hidden(tokens, remat=p), shallow)
        three = held_bytes(lambda p=policy: deep.hidden(tokens, remat=p), deep)
        a_layer[policy] = (three - one) / 2
    for policy in block.POLICIES:
        expected = 4 * tokens.numel() * block.saved_floats(deep.config, policy)
        assert a_layer[policy] == pytest.approx(expected, rel=0.01)
    if kv_heads == 6:
        assert block.saved_floats(deep.config) == 6 * 288 + 2 * 768 + 6
    assert a_layer["full"] <= 0.15 * a_layer["none"]
    assert a_layer["llama"] <= 0.56 * a_layer[None]


@pytest.mark.parametrize("policy", block.POLICIES)
def test_bfloat16_beside_weights_in_float32(policy: str) -> None:
    """Activations and products in bfloat16 (8 bits): near the exact gradient, in the weights' precision."""
    tokens, document_ids = torch.randint(0, 130, (3, 64)), random_document_ids(3, 64, 2)
    targets = tokens.roll(-1, 1)
    exact, model = made(dtype=torch.float64, n_kv_heads=2), made(n_kv_heads=2)
    expected = exact.loss(tokens, targets, document_ids=document_ids) / 192
    expected.backward()
    options = {"remat": policy, "dtype": torch.bfloat16}
    loss = model.loss(tokens, targets, document_ids=document_ids, **options) / 192
    loss.backward()
    assert loss.item() != expected.item() and loss.item() == pytest.approx(expected.item(), rel=2e-3)
    gradients, exact_gradients = gradients_of(model), gradients_of(exact)
    assert gradients.keys() == exact_gradients.keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32, name
        assert (gradient - exact_gradients[name]).norm() < 0.03 * exact_gradients[name].norm(), name


def test_weights_rounded_once_give_the_same_bits_and_no_stale_ones() -> None:
    tokens = torch.randint(0, 130, (2, 40))
    once, each = made(), made()
    each.load_state_dict(once.state_dict())
    for _ in range(2):
        with block.rounded_once():
            for half in tokens.split(1):
                once.loss(half, half.roll(-1, 1), remat="full", dtype=torch.bfloat16).backward()
        for half in tokens.split(1):
            each.loss(half, half.roll(-1, 1), remat="full", dtype=torch.bfloat16).backward()
        for model in (once, each):
            torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()  # raises no version of a tensor
    for name, weight in once.state_dict().items():
        assert torch.equal(weight, each.state_dict()[name]), name


def test_gradients_accumulate_and_frozen_weights_get_none() -> None:
    """A second backward doubles every gradient; a frozen weight keeps what it has."""
    tokens = torch.randint(0, 130, (2, 40))
    model = made(dtype=torch.float64)
    model.loss(tokens, tokens.roll(-1, 1), remat="llama").backward()
    once = {name: gradient.clone() for name, gradient in gradients_of(model).items()}
    model.loss(tokens, tokens.roll(-1, 1), remat="llama").backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name], rtol=1e-12, atol=1e-13)
    frozen = model.layers[0].attention.wq.weight.requires_grad_(False)
    model.loss(tokens, tokens.roll(-1, 1), remat="llama").backward()
    torch.testing.assert_close(frozen.grad, 2 * once["layers.0.attention.wq.weight"], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float32),
        (torch.float32, torch.float16),
    ],
)
def test_other_pairs_of_precisions_are_refused(weights: torch.dtype, activations: torch.dtype) -> None:
    tokens = torch.randint(0, 130, (1, 8))
    with pytest.raises(ValueError, match="bfloat16 beside float32, no other two"):
        made(dtype=weights).loss(tokens, tokens, remat="llama", dtype=activations)
