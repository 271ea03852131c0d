"""The head's loss: against plain torch, and no work where there is no target."""

import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from puna.model import kernels
from puna.model import loss as loss_module
from puna.model.llama import Llama

from .test_block import GroupOfOne, gradients_of, made

POLICIES = (None, "llama")


def batch(rows: int = 3, length: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, targets of which a third are missing, weights of which some are 0 and some negative."""
    chance = torch.Generator().manual_seed(length)
    tokens = torch.randint(0, 130, (rows, length), generator=chance)
    missing = torch.rand(rows, length, generator=chance) < 0.3
    weights = torch.randn(rows, length, generator=chance).clamp(min=-1).where(missing.roll(5, 1), 0.0)
    return tokens, tokens.roll(-1, 1).masked_fill(missing, -1), weights


def plain(
    model: Llama, tokens: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, z: float
) -> torch.Tensor:
    """The same loss of all logits at once."""
    logits = model(tokens).flatten(0, 1)
    losses = F.cross_entropy(logits, targets.flatten().clamp(min=0), reduction="none")
    losses = (losses + z * logits.logsumexp(-1).square()) * (targets.flatten() >= 0)
    return (losses if weights is None else losses * weights.flatten()).sum()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [130, 130 * 7, 1 << 24])
def test_loss_against_plain_torch(
    chunk: int, weighted: bool, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One position, seven, or all in a chunk."""
    monkeypatch.setattr(loss_module, "chunk_bytes", lambda device: 8 * chunk)
    tokens, targets, weights = batch()
    given = weights if weighted else None
    exact, ours = made(dtype=torch.float64), made(dtype=torch.float64)
    expected = plain(exact, tokens, targets, given, 1e-3)
    expected.backward()
    found = ours.loss(tokens, targets, weights=given, remat=policy, z=1e-3)
    assert found.dtype == torch.float64 and found.shape == ()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    with torch.no_grad():
        assert ours.loss(tokens, targets, weights=given, z=1e-3).item() == pytest.approx(found.item())
    found.backward()
    for name, gradient in gradients_of(ours).items():
        torch.testing.assert_close(gradient, gradients_of(exact)[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("policy", ["none", "llama", "full"])
def test_the_last_layer_computes_no_more_than_the_head_reads(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, targets, _ = batch()
    seen, swiglu = [], kernels.swiglu
    monkeypatch.setattr(kernels, "swiglu", lambda gate, up: seen.append(len(gate)) or swiglu(gate, up))
    model = made()
    model.loss(tokens, targets, remat=policy).backward()
    read = int((targets >= 0).sum())
    assert seen[: len(model.layers)] == [tokens.numel()] * (len(model.layers) - 1) + [read]


def test_a_loss_may_be_scaled_before_backward() -> None:
    tokens, targets, _ = batch()
    once, scaled = made(dtype=torch.float64), made(dtype=torch.float64)
    once.loss(tokens, targets, remat="llama").backward()
    (scaled.loss(tokens, targets, remat="llama") * 0.3).backward()
    for name, gradient in gradients_of(scaled).items():
        torch.testing.assert_close(gradient, 0.3 * gradients_of(once)[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_target_is_a_loss_of_zero(policy: str | None) -> None:
    tokens, targets, weights = batch()
    for options in ({"targets": targets.fill_(-1)}, {"targets": tokens, "weights": weights * 0}):
        model = made()
        loss = model.loss(tokens, **options, remat=policy)
        loss.backward()
        assert loss.item() == 0
        gradients = gradients_of(model)
        assert gradients.keys() == dict(model.named_parameters()).keys()
        assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about its allocator")
def test_logits_are_no_new_pages_each_time() -> None:
    """Also where a chunk of them is a power of two: a block of 32 MiB would be given back."""
    code = """if True:
        import resource, torch
        from puna.model.loss import HeadTargets, linear_cross_entropy
        from puna.train.trainer import keep_freed_memory
        keep_freed_memory()
        hidden, weight = torch.randn(1024, 16, requires_grad=True), torch.randn(32768, 16)
        selected = HeadTargets.select(torch.arange(1024), None, torch.device("cpu"))
        faults = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            linear_cross_entropy(hidden, weight, selected)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        print(min(faults))
    """
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(made.stdout) < 5000


class RowsOfProducts(TorchDispatchMode):
    """Rows of the matrix products whose result has as many columns as the vocabulary has tokens."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        products = (torch.ops.aten.mm, torch.ops.mkldnn._linear_pointwise)  # see `kernels.linear`
        if function.overloadpacket in products and result.shape[1] == self.vocabulary:
            self.rows += len(result)
        return result


def test_the_head_runs_only_where_there_is_a_target() -> None:
    """Products of as many rows as there are targets that count; unweighted, the same bits as with a weight of
    one everywhere."""
    tokens, targets, weights = batch()
    model = made()
    for given, expected in (
        (targets, int((targets >= 0).sum())),
        (tokens, tokens.numel()),
        (targets.clone().fill_(-1), 0),
    ):
        with torch.no_grad(), RowsOfProducts(130) as counted:
            model.loss(tokens, given)
        assert counted.rows == expected
    with torch.no_grad(), RowsOfProducts(130) as counted:
        model.loss(tokens, targets, weights=weights)
    assert counted.rows == int(((targets >= 0) & (weights != 0)).sum()) > 10
    one, other = made(), made()
    one.loss(tokens, targets, remat="llama").backward()
    other.loss(tokens, targets, weights=torch.ones(tokens.shape), remat="llama").backward()
    assert all(
        torch.equal(gradient, gradients_of(other)[name]) for name, gradient in gradients_of(one).items()
    )


def test_what_depends_on_values_is_decided_where_they_are() -> None:
    """A model on a device that has no values to look at takes a batch from the CPU: no wait for a device."""
    tokens, targets, weights = batch()
    document_ids = (torch.arange(40) // 13).expand(3, 40)
    with torch.device("meta"):
        model = Llama(made().config)
    for remat in ("llama", "none", None):
        options = {"weights": weights, "document_ids": document_ids, "remat": remat}
        loss = model.loss(tokens, targets, **options)
        assert loss.device.type == "meta" and loss.shape == ()
        assert model.hidden(tokens, document_ids=document_ids, remat=remat).device.type == "meta"


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_of_a_split_vocabulary(weighted: bool) -> None:
    """In the form that several processes take; see tests/train/test_parallel.py for several."""
    tokens, targets, weights = batch()
    options = {"weights": weights if weighted else None, "remat": "llama", "z": 1e-3}
    one, other = made(dtype=torch.float64), made(dtype=torch.float64)
    other.tensor_parallel = GroupOfOne()  # type: ignore[assignment]
    expected, found = one.loss(tokens, targets, **options), other.loss(tokens, targets, **options)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    expected.backward()
    found.backward()
    for name, gradient in gradients_of(other).items():
        torch.testing.assert_close(gradient, gradients_of(one)[name], rtol=1e-9, atol=1e-12)
