"""Adapters: gradients against autograd's, what they cost, merging, several on one base."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from puna.errors import UserError
from puna.model import lora
from puna.model.block import POLICIES
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.lora import Adapter

from .test_block import GroupOfOne, random_document_ids

EVERYTHING = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


def made(adapter: Adapter | None = None, tied: bool = False, dtype: torch.dtype = torch.float64) -> Llama:
    """A small model; with an adapter its B is not zero, as after some steps."""
    config = LlamaConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=48, vocab_size=130, tie_embeddings=tied
    )
    model = Llama(config).to(dtype)
    model.init_weights(1)
    if adapter is not None:
        lora.apply(model, adapter, seed=3)
        stir(model, "default", 4)
    return model


@torch.no_grad()
def stir(model: Llama, name: str, seed: int) -> None:
    """Fill an adapter's B."""
    chance = torch.Generator().manual_seed(seed)
    for layer in lora.changed_modules(model).values():
        if isinstance(layer, lora.Adapted) and name in layer.scales:
            layer.b[name].copy_(torch.randn(layer.b[name].shape, generator=chance) / 10)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, targets, some positions without one, documents."""
    tokens = torch.randint(0, 130, (2, 40), generator=torch.Generator().manual_seed(1))
    tokens[:, 7] = 129
    targets = tokens.roll(-1, 1)
    targets[:, ::3] = -1
    return tokens, targets, random_document_ids(2, 40, 1)


def gradients(model: Llama, policy: str | None) -> dict[str, torch.Tensor]:
    """By a policy, or by autograd on the plain form."""
    tokens, targets, documents = batch()
    model.zero_grad(set_to_none=True)
    if policy is None:
        logits = model(tokens, document_ids=documents).flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="sum")
    else:
        loss = model.loss(tokens, targets, document_ids=documents, remat=policy)
    loss.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_those_of_autograd_on_the_plain_form(policy: str, tied: bool) -> None:
    model = made(Adapter(rank=4, targets=EVERYTHING, rs=True), tied)
    exact, found = gradients(model, None), gradients(model, policy)
    adapted = lora.changed_modules(model)
    assert len(adapted) == 2 * 7 + 1 and len(exact) == 2 * len(adapted)
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
    assert not any(layer.pending for layer in adapted.values())


def test_gradients_are_those_of_the_formula() -> None:
    """Of the weights W + s B A of a plain model, whose gradients dW give s B' dW and s dW A'."""
    model = made(Adapter(rank=4, alpha=6))
    plain = lora.merge(model)
    whole = gradients(plain, "llama")
    for name, layer in lora.changed_modules(model).items():
        a, b, scale = layer.a["default"], layer.b["default"], layer.scales["default"]
        assert scale == 1.5
        gradient, found = whole[f"{name}.weight"], gradients(model, "llama")
        torch.testing.assert_close(
            found[f"{name}.a.default"], scale * b.t() @ gradient, rtol=1e-9, atol=1e-12
        )
        torch.testing.assert_close(
            found[f"{name}.b.default"], scale * gradient @ a.t(), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("policy", POLICIES)
def test_no_gradient_as_large_as_a_weight_is_made(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a frozen weight nor of a merged one: none is multiplied, none comes to `Merged`."""
    model, shapes = made(Adapter(rank=4)), []
    plain = lora.weight_gradient

    def counted(gradient: torch.Tensor, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        shapes.append((gradient.shape[1], x.shape[1]))
        return plain(gradient, x, dtype)

    monkeypatch.setattr(lora, "weight_gradient", counted)
    monkeypatch.setattr("puna.model.block.weight_gradient", counted)
    monkeypatch.setattr("puna.model.loss.add_weight_gradient", None)
    monkeypatch.setattr(lora.Adapted, "keep", kept := Counting(lora.Adapted.keep))
    gradients(model, policy)
    assert len(shapes) == 2 * 7 * 2 and all(min(shape) == 4 for shape in shapes)
    assert kept.calls == 2 * 7  # each adapter's, once


class Counting:
    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        self.function, self.calls = function, 0

    def __get__(self, layer, kind=None):  # type: ignore[no-untyped-def]
        def call(*arguments):  # type: ignore[no-untyped-def]
            self.calls += 1
            return self.function(layer, *arguments)

        return call


@pytest.mark.parametrize("policy", POLICIES)
def test_no_merged_weight_waits_for_the_backward(policy: str) -> None:
    """Storages that carry a change are gone when the forward has ended."""
    model, alive = made(Adapter(rank=4)), []
    plain = lora.Change.make

    def noted(change: lora.Change) -> torch.Tensor:
        merged = plain(change)
        alive.append(torch.multiprocessing.reductions.StorageWeakRef(merged.untyped_storage()))
        return merged

    lora.Change.make = noted  # type: ignore[method-assign]
    try:
        tokens, targets, _ = batch()
        loss = model.loss(tokens, targets, remat=policy)
        assert len(alive) == 14 and all(storage.expired() for storage in alive)
        loss.backward()
        assert len(alive) == 28
    finally:
        lora.Change.make = plain  # type: ignore[method-assign]


def test_two_losses_before_one_backward_and_several_backwards_add_up() -> None:
    model = made(Adapter(rank=4))
    tokens, targets, _ = batch()
    single = {name: 2 * gradient for name, gradient in gradients(model, "none").items()}
    for together in (True, False):
        model.zero_grad(set_to_none=True)
        losses = [model.loss(tokens, targets, document_ids=batch()[2], remat="none") for _ in range(2)]
        for loss in [sum(losses)] if together else losses:
            loss.backward()  # type: ignore[union-attr]
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(parameter.grad, single[name], rtol=1e-9, atol=1e-12)


def test_bfloat16_activations_beside_float32_weights() -> None:
    """Gradients are in float32, and as near to the exact ones as those of plain weights in bfloat16."""
    model = made(Adapter(rank=4), dtype=torch.float32)
    tokens, targets, documents = batch()
    plain, exact = lora.merge(model), gradients(made(Adapter(rank=4)), "llama")
    for one in model, plain:
        one.zero_grad(set_to_none=True)
        loss = one.loss(tokens, targets, document_ids=documents, remat="llama", dtype=torch.bfloat16)
        loss.backward()
    whole = {name: one.grad for name, one in plain.named_parameters()}
    for name, layer in lora.changed_modules(model).items():
        a, b, gradient = layer.a["default"], layer.b["default"], whole[f"{name}.weight"]
        products = ("a", a, 2 * 4 * b.t() @ gradient), ("b", b, 2 * 4 * gradient @ a.t())
        for kind, parameter, expected in products:
            wanted = exact[f"{name}.{kind}.default"]
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32
            error = (parameter.grad - wanted).norm()
            assert error < 1.3 * (expected - wanted).norm() < 0.3 * wanted.norm(), name


@pytest.mark.parametrize("tied", [False, True])
def test_merged_equals_unmerged(tied: bool) -> None:
    model = made(Adapter(rank=4, targets=EVERYTHING), tied)
    plain, tokens = lora.merge(model), batch()[0]
    assert not lora.changed_modules(plain) and not plain.config.tie_embeddings
    torch.testing.assert_close(plain(tokens), model(tokens), rtol=1e-12, atol=1e-12)
    assert (plain(tokens) - made(tied=tied)(tokens)).abs().max() > 0.1


def test_an_adapter_changes_nothing_before_it_is_trained() -> None:
    model, tokens = made(), batch()[0]
    before = model(tokens)
    lora.apply(model, Adapter(rank=4), seed=1)
    torch.testing.assert_close(model(tokens), before, rtol=0, atol=0)


def test_initial_values_come_from_seed_and_layer() -> None:
    one, other = made(), made()
    lora.apply(one, Adapter(rank=300), seed=1)  # two blocks of rows
    lora.apply(other, Adapter(rank=300, targets=["v_proj"]), seed=1)
    name = "layers.1.attention.wv"
    a = lora.changed_modules(one)[name].a["default"]
    assert torch.equal(a, lora.changed_modules(other)[name].a["default"])
    lora.apply(other, Adapter(rank=300, targets=["v_proj"]), name="second", seed=2)
    assert not torch.equal(a, lora.changed_modules(other)[name].a["second"])
    assert a.std().item() == pytest.approx(1 / math.sqrt(3 * 32), rel=0.03)
    assert not torch.equal(a[:44], a[256:])


def test_several_adapters_on_one_base() -> None:
    """One active, the other, the sum; those that are not active are not trained."""
    model = made(Adapter(rank=4))
    lora.apply(model, Adapter(rank=2, targets=["v_proj"]), name="second", seed=5)
    stir(model, "second", 6)
    base = made()
    name = "layers.0.attention.wv"
    layer = lora.changed_modules(model)[name]
    first, second = (layer.scales[n] * layer.b[n] @ layer.a[n] for n in ("default", "second"))
    for active, change in (
        (("default",), first),
        (("second",), second),
        (("default", "second"), first + second),
    ):
        lora.activate(model, *active)
        weight = dict(lora.merge(model).named_parameters())[f"{name}.weight"]
        torch.testing.assert_close(weight, base.get_submodule(name).weight + change)
        trained = {n for n, one in model.named_parameters() if one.requires_grad}
        assert {n.rpartition(".")[2] for n in trained} == set(active)
        exact, found = gradients(model, None), gradients(model, "llama")
        assert exact.keys() == trained
        for n, gradient in exact.items():
            torch.testing.assert_close(found[n], gradient, rtol=1e-9, atol=1e-12)
    lora.activate(model)
    assert torch.equal(model(batch()[0]), base(batch()[0]))
    with pytest.raises(UserError, match="no adapter is called third; there are default, second"):
        lora.activate(model, "third")


def test_patterns_are_pefts() -> None:
    """The first pattern that fits the end of a name counts, as a regular expression."""
    adapter = Adapter(
        8, 16, rank_pattern={"q_proj": 4, r"layers\.1\..*": 2}, alpha_pattern={r"layers\.0.+v_proj": 4}
    )
    assert adapter.size_of("model.layers.1.self_attn.q_proj") == (4, 4.0)
    assert adapter.size_of("model.layers.1.mlp.up_proj") == (2, 8.0)
    assert adapter.size_of("model.layers.10.mlp.up_proj") == (8, 2.0)
    assert adapter.size_of("model.layers.0.self_attn.v_proj") == (8, 0.5)
    assert Adapter(16, 8, rs=True).size_of("lm_head") == (16, 2.0)


def test_targets() -> None:
    """Ends of names in either words; a regular expression is of Hugging Face's whole names, as PEFT's is."""
    config = made().config

    def taken(targets: str | tuple[str, ...]) -> set[str]:
        return set(Adapter(targets=targets).layers(config))

    assert len(taken("all-linear")) == 14 and "output" not in taken("all-linear")
    assert taken(EVERYTHING) == {*taken("all-linear"), "output"}
    assert taken(("wq", "w2")) == taken(("q_proj", "mlp.down_proj"))
    assert taken(r"model\.layers\.1\..*(v|o)_proj") == {f"layers.1.attention.{name}" for name in ("wv", "wo")}
    with pytest.raises(UserError, match="no layer is called layers"):
        taken(r"layers\.1\..*")
    with pytest.raises(UserError, match="no layer is called c_attn, x; there are down_proj, gate_proj"):
        taken(("wq", "c_attn", "x"))
    with pytest.raises(UserError, match="no layer is called"):
        taken(())


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(UserError, match="no layer is called dense; there are down_proj, gate_proj"):
        lora.apply(made(), Adapter(targets=["q_proj", "dense"]))
    model = made()
    model.tensor_parallel = GroupOfOne()  # type: ignore[assignment]
    with pytest.raises(UserError, match="adapters go with data parallelism alone"):
        lora.apply(model, Adapter())


@pytest.mark.parametrize("tied", [False, True])
def test_rows_of_new_tokens_are_trained(tied: bool) -> None:
    """Two are padding of the model, two are put behind; each begins as the mean of those before them, and
    their gradients are those rows of a plain model's."""
    model, ids = made(tied=tied), (128, 129, 130, 131)
    before = model.tok_embeddings.weight.detach().clone()
    lora.grow(model, ids)
    lora.apply(model, Adapter(rank=4, rows=ids), seed=3)
    stir(model, "default", 4)
    table = model.tok_embeddings.weight
    assert model.config.vocab_size == 132 and torch.equal(table[:128], before[:128])
    torch.testing.assert_close(table[128:], before[:128].mean(0).expand(4, -1))
    with torch.no_grad():
        for module in {model.tok_embeddings, model.output}:
            module.rows += torch.randn(4, 32, dtype=torch.float64)  # type: ignore[operator]
    plain = lora.merge(model)
    for policy in (None, *POLICIES):
        whole, found = gradients(plain, policy), gradients(model, policy)
        rows = {name: one for name, one in found.items() if name.endswith(".rows")}
        assert len(rows) == (1 if tied else 2)
        for name, gradient in rows.items():
            expected = whole[name.replace(".rows", ".weight")][list(ids)]
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    assert found.keys() == {name for name, one in model.named_parameters() if one.requires_grad}
    tokens = torch.tensor([[5, 131, 128, 7]])
    torch.testing.assert_close(plain(tokens), model(tokens), rtol=1e-12, atol=1e-12)
    with pytest.raises(UserError, match="rows of new tokens go with one adapter"):
        lora.apply(model, Adapter(rows=(130,)), name="second")


def test_a_weight_that_tensor_parallelism_has_split_is_refused() -> None:
    layer = lora.changed_modules(made(Adapter(rank=4)))["layers.0.attention.wq"]
    del layer.base
    layer.__dict__["base"] = SimpleNamespace(full_tensor=None)  # as a DTensor has
    with pytest.raises(UserError, match="set the size of tensor parallelism to 1"):
        _ = layer.weight
