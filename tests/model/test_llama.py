"""The decoder against transformers in float64, and against itself: packed, one by one."""

from typing import Any

import pytest
import torch

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import hf

SHAPES = {
    "plain": {},
    "grouped": {"n_kv_heads": 2},
    "one head of keys": {"n_kv_heads": 1},
    "tied": {"tie_embeddings": True},
    "other theta": {"rope_theta": 500_000.0, "norm_eps": 1e-5},
}


def random_model(seed: int = 0, **changes: Any) -> Llama:
    shape = {"dim": 48, "n_layers": 3, "n_heads": 4, "ffn_dim": 80, "vocab_size": 97, "max_seq_len": 160}
    torch.manual_seed(seed)
    model = Llama(LlamaConfig(**{**shape, **changes})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 1.0))
    return model


def their_model(described: dict[str, Any]) -> Any:
    """transformers' model in float64 throughout.

    Its norms and rotary angles, which are rounded to float32 for weights of any precision, are replaced.
    """
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    theirs: Any = LlamaForCausalLM(TheirConfig(**described)).double()
    half = described["head_dim"] // 2

    def rotations(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = described["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(position_ids[0].double(), frequencies).repeat(1, 2)[None]
        return angles.cos(), angles.sin()

    def norm(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt()

    for module in theirs.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = norm.__get__(module)
        if type(module).__name__ == "LlamaRotaryEmbedding":
            rounded = module(torch.zeros(1), torch.arange(128)[None])
            exact = rotations(torch.zeros(1), torch.arange(128)[None])
            for ours, theirs_rounded in zip(exact, rounded, strict=True):
                assert (ours - theirs_rounded).abs().max() < 2e-5  # the same angles, but for rounding
            module.forward = rotations
    return theirs


def tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_gradients_equal_transformers(name: str) -> None:
    model = random_model(**SHAPES[name])
    described, weights = hf.export(model)
    theirs, tensors = their_model(described), {name: entry.read() for name, entry in weights.items()}
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected and all(key == "lm_head.weight" and model.config.tie_embeddings for key in missing)
    theirs.tie_weights()
    read = tokens(2, 128)
    ours_out, theirs_out = model(read), theirs(read).logits
    assert (ours_out - theirs_out).abs().max() < 1e-10
    ours_out.square().mean().backward()
    theirs_out.square().mean().backward()
    gradient = dict(theirs.named_parameters())["model.layers.0.mlp.down_proj.weight"].grad
    assert gradient is not None and model.layers[0].feed_forward.w2.weight.grad is not None
    assert torch.allclose(model.layers[0].feed_forward.w2.weight.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "grouped"])
def test_packed_documents_give_what_each_gives_alone(name: str) -> None:
    model = random_model(**SHAPES[name])
    documents = [tokens(1, length, length) for length in (5, 1, 17, 9)]
    ids = [torch.full((1, document.shape[1]), number) for number, document in enumerate(documents)]
    packed = model(torch.cat(documents, 1), document_ids=torch.cat(ids, 1))
    alone = torch.cat([model(document) for document in documents], 1)
    assert (packed - alone).abs().max() < 1e-12


def test_documents_differ_between_rows() -> None:
    model = random_model()
    read = tokens(2, 12)
    document_ids = torch.tensor([[0] * 12, [0] * 5 + [1] * 7])
    both = model(read, document_ids=document_ids)
    assert (both[0] - model(read[:1])[0]).abs().max() < 1e-12
    assert (both[1, 5:] - model(read[1:, 5:])[0]).abs().max() < 1e-12


def test_weights_depend_on_the_seed_alone() -> None:
    config = random_model().config
    drawn = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        model = Llama(config)
        model.init_weights(5)
        drawn.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    other = Llama(config)
    other.init_weights(6)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], torch.cat([parameter.flatten() for parameter in other.parameters()]))
    residual = model.layers[0].feed_forward.w2.weight.std().item()
    assert residual == pytest.approx(0.02 / 6**0.5, rel=0.1)
    assert model.tok_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.1)
