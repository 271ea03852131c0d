"""Policies: the same loss and gradients, and exactly the bytes that the formula says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.model import kernels, remat
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.loss import linear_cross_entropy


def made(seed: int = 1, dtype: torch.dtype = torch.float32, **changes: Any) -> Llama:
    shape = {
        "dim": 48,
        "n_layers": 3,
        "n_heads": 4,
        "ffn_dim": 80,
        "vocab_size": 130,
        "max_seq_len": 128,
        **changes,
    }
    model = Llama(LlamaConfig(**shape)).to(dtype)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.06 + (parameter.dim() == 1))
    return model


def result(
    model: Llama, tokens: torch.Tensor, segments: torch.Tensor | None, policy: str | None, z: float = 0.0
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    targets = tokens.roll(-1, 1).masked_fill(
        torch.rand(tokens.shape, generator=torch.Generator().manual_seed(3)) < 0.1, -1
    )
    hidden = model.hidden(tokens, segments=segments, remat=policy)
    loss = linear_cross_entropy(
        hidden.flatten(0, 1), model.output.weight, targets.flatten(), 1 / max(1, int((targets >= 0).sum())), z
    )
    loss.backward()
    return loss.item(), {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def segments_of(rows: int, length: int, seed: int) -> torch.Tensor:
    return (torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) < 0.1).long().cumsum(1)


@settings(max_examples=25)
@given(
    st.integers(1, 3), st.integers(1, 70), st.sampled_from([(4, 4, 48), (4, 2, 48), (4, 1, 64), (2, 2, 32), (1, 1, 128)]),
    st.integers(1, 90), st.booleans(), st.booleans(), st.sampled_from([0.0, 1e-3]),
)  # fmt: skip
def test_every_policy_against_float64(
    rows: int, length: int, heads: tuple[int, int, int], ffn: int, packed: bool, tied: bool, z: float
) -> None:
    """In float32 with kernels: every parameter's gradient within 1e-5 of plain autograd's in float64 (or 5e-8
    of the whole gradient's norm where it nearly cancels out), the whole one within 1e-6, and the policies
    within 1e-6 of each other."""
    shape = {
        "n_heads": heads[0],
        "n_kv_heads": heads[1],
        "dim": heads[2],
        "ffn_dim": ffn,
        "tie_embeddings": tied,
    }
    tokens = torch.randint(0, 130, (rows, length), generator=torch.Generator().manual_seed(length))
    segments = segments_of(rows, length, length) if packed else None
    exact_loss, exact = result(made(dtype=torch.float64, **shape), tokens, segments, None, z)
    whole = joined(exact)
    found = {policy: result(made(**shape), tokens, segments, policy, z) for policy in remat.POLICIES}
    for loss, gradients in found.values():
        assert loss == pytest.approx(exact_loss, rel=1e-6)
        assert gradients.keys() == exact.keys()
        assert (joined(gradients) - whole).norm() <= 1e-6 * whole.norm() + 1e-12
        for name, gradient in gradients.items():
            assert (gradient - exact[name]).norm() <= 1e-5 * exact[
                name
            ].norm() + 5e-8 * whole.norm() + 1e-12, name
        assert (joined(gradients) - joined(found["none"][1])).norm() <= 1e-6 * whole.norm() + 1e-12


def joined(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten().double() for gradient in gradients.values()])


def test_policies_agree_in_float64_to_its_last_digits() -> None:
    tokens, segments = torch.randint(0, 130, (2, 60)), segments_of(2, 60, 1)
    loss, exact = result(made(dtype=torch.float64, n_kv_heads=2), tokens, segments, None)
    for policy in remat.POLICIES:
        ours, gradients = result(made(dtype=torch.float64, n_kv_heads=2), tokens, segments, policy)
        assert ours == pytest.approx(loss, rel=1e-13)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, exact[name], rtol=1e-9, atol=1e-13)


def test_all_policies_give_the_same_bits() -> None:
    """The same operations in the same order."""
    tokens, segments = torch.randint(0, 130, (3, 50)), segments_of(3, 50, 4)
    loss, gradients = result(made(), tokens, segments, "llama")
    for policy in ("none", "full"):
        other = result(made(), tokens, segments, policy)
        assert other[0] == loss and all(
            torch.equal(other[1][name], gradient) for name, gradient in gradients.items()
        )


def held_bytes(work: Callable[[], Any], model: Llama) -> int:
    """Bytes of all storages that autograd holds after a forward pass, parameters not counted, each once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.dtype == torch.float32:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    del result
    return sum(held.values())


@pytest.mark.parametrize("kv_heads", [6, 2])
def test_bytes_held_are_the_formulas(kv_heads: int) -> None:
    """Two depths of a model of shape S, so that embedding, norm and rotations cancel out."""
    if kv_heads < 6 and kernels.library() is None:
        pytest.skip(
            "torch's attention holds shared heads of keys and values once for each head that reads them"
        )
    shape = {
        "dim": 288,
        "n_heads": 6,
        "n_kv_heads": kv_heads,
        "ffn_dim": 768,
        "vocab_size": 512,
        "max_seq_len": 256,
    }
    tokens = torch.randint(0, 512, (4, 256))
    held = {}
    for layers in (1, 3):
        model = made(n_layers=layers, **shape)
        ways = (None, *remat.POLICIES)
        held[layers] = {
            policy: held_bytes(lambda m=model, p=policy: m.hidden(tokens, remat=p), model) for policy in ways
        }
    a_layer = {policy: (held[3][policy] - held[1][policy]) / 2 for policy in ways}
    for policy in remat.POLICIES:
        assert a_layer[policy] == pytest.approx(
            4 * tokens.numel() * remat.saved_floats(model.config, policy), rel=0.01
        )
    if kv_heads == 6:
        assert remat.saved_floats(model.config) == 6 * 288 + 2 * 768 + 6
    assert a_layer["full"] <= 0.15 * a_layer["none"]
    assert a_layer["llama"] <= 0.56 * a_layer[None]


@pytest.mark.parametrize("policy", remat.POLICIES)
def test_bfloat16_beside_weights_in_float32(policy: str) -> None:
    """Activations and products in bfloat16 (8 bits): near the exact gradient, which comes out in the weights'
    own precision."""
    tokens, segments = torch.randint(0, 130, (3, 64)), segments_of(3, 64, 2)
    targets = tokens.roll(-1, 1)
    exact, model = made(dtype=torch.float64, n_kv_heads=2), made(n_kv_heads=2)
    expected = exact.loss(tokens, targets, segments=segments, scale=1 / 192)
    expected.backward()
    loss = model.loss(tokens, targets, segments=segments, scale=1 / 192, remat=policy, dtype=torch.bfloat16)
    loss.backward()
    assert loss.item() != expected.item() and loss.item() == pytest.approx(expected.item(), rel=2e-3)
    for (name, parameter), other in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert (
            parameter.grad is not None and other.grad is not None and parameter.grad.dtype == torch.float32
        ), name
        assert (parameter.grad - other.grad).norm() < 0.03 * other.grad.norm(), name


def test_gradients_are_added_to_those_there_and_to_none_that_is_not_wanted() -> None:
    """A second backward doubles every gradient; a frozen weight keeps what it has."""
    tokens = torch.randint(0, 130, (2, 40))
    model = made(dtype=torch.float64)
    model.loss(tokens, tokens.roll(-1, 1), scale=1 / 80, remat="llama").backward()
    once = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.loss(tokens, tokens.roll(-1, 1), scale=1 / 80, remat="llama").backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name], rtol=1e-12, atol=1e-15)
    frozen = model.layers[0].attention.wq.weight.requires_grad_(False)
    model.loss(tokens, tokens.roll(-1, 1), scale=1 / 80, remat="llama").backward()
    torch.testing.assert_close(frozen.grad, 2 * once["layers.0.attention.wq.weight"], rtol=1e-12, atol=1e-15)


def test_precisions_that_were_not_made_for_each_other_are_refused() -> None:
    tokens = torch.randint(0, 130, (1, 8))
    for weights, activations in (
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float32),
        (torch.float32, torch.float16),
    ):
        with pytest.raises(ValueError, match="bfloat16 beside float32, no other two"):
            made(dtype=weights).loss(tokens, tokens, remat="llama", dtype=activations)
