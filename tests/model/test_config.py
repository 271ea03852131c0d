"""The table of sizes, against the paper and against models built of it."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from puna.errors import UserError
from puna.model.config import SIZES, LlamaConfig, config
from puna.model.llama import Llama
from puna.run.artifact import fingerprint

PAPER = {"7b": 6_738_415_616, "13b": 13_015_864_320, "33b": 32_528_943_616, "65b": 65_285_660_672}


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_the_built_model(size: str) -> None:
    shape = config(size)
    with torch.device("meta"):
        built = sum(parameter.numel() for parameter in Llama(shape).parameters())
    assert shape.parameters() == built == PAPER.get(size, built)


@pytest.mark.parametrize(
    ("size", "dim", "heads", "layers", "ffn_dim"),
    [
        ("7b", 4096, 32, 32, 11008),
        ("13b", 5120, 40, 40, 13824),
        ("33b", 6656, 52, 60, 17920),
        ("65b", 8192, 64, 80, 22016),
    ],
)
def test_shapes_of_the_paper(size: str, dim: int, heads: int, layers: int, ffn_dim: int) -> None:
    shape = config(size)
    assert (shape.dim, shape.n_heads, shape.n_layers, shape.ffn_dim) == (dim, heads, layers, ffn_dim)


@pytest.mark.parametrize(
    ("size", "dim", "layers", "heads", "kv_heads", "context", "parameters"),
    [
        ("260k", 64, 5, 8, 4, 512, 260_032),
        ("15m", 288, 6, 6, 6, 256, 15_191_712),
        ("42m", 512, 8, 8, 8, 1024, 41_689_600),
        ("110m", 768, 12, 12, 12, 1024, 109_529_856),
    ],
)
def test_shapes_of_llama2c(
    size: str, dim: int, layers: int, heads: int, kv_heads: int, context: int, parameters: int
) -> None:
    """Its table of checkpoints; the numbers of weights are those of its model.py, which ties the head."""
    shape = config(size)
    assert (shape.dim, shape.n_layers, shape.n_heads, shape.n_kv_heads) == (dim, layers, heads, kv_heads)
    assert (shape.max_seq_len, shape.norm_eps, shape.tie_embeddings) == (context, 1e-5, True)
    assert shape.parameters() == parameters


def test_flops_are_six_a_weight_and_the_causal_half_of_attention() -> None:
    shape = config("tiny", 512)
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 176) + 64 * 512
    # Scores and weighted sum, forward once and backward twice, two operations each: 12 a pair of positions,
    # layer and width.
    pairs = sum(position + 1 for position in range(128)) / 128
    assert shape.flops_per_token(128) == pytest.approx(6 * matrices + 12 * 2 * 64 * pairs)


def test_an_unknown_size_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no model size 7bb \(did you mean 7b\?\); sizes are 7b, 13b"):
        config("7bb")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 63}, "not a multiple"),
        ({"n_kv_heads": 3}, "not a multiple"),
        ({"dim": 60, "n_heads": 4}, "odd"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config("tiny", 512, **change)


def test_fields_that_came_later_change_no_fingerprint_where_they_are_not_set() -> None:
    """Trainings of before are found again."""
    assert fingerprint(config("tiny")) == "c127068f1d7e"
    shape = config("tiny").model_dump()
    assert fingerprint(LlamaConfig(**{**shape, "explicit_head_dim": 16})) == "c127068f1d7e"  # 64 / 4
    changed = [{"explicit_head_dim": 8}, {"rope_scaling": {}}, {"rope_scaling": {"factor": 32.0}}]
    prints = {fingerprint(LlamaConfig(**{**shape, **change})) for change in changed}
    assert len(prints | {"c127068f1d7e"}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"explicit_head_dim": 7}, "explicit_head_dim = 7 is odd"),
        (
            {"rope_scaling": {"low_freq_factor": 4}},
            "high_freq_factor .* is not above",
        ),
        ({"rope_scaling": {"kind": "yarn"}}, "kind"),
    ],
)
def test_heads_and_scalings_that_are_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LlamaConfig(**{**config("tiny").model_dump(), **change})


def test_parameters_with_heads_of_their_own_width_are_those_of_the_built_model() -> None:
    shape = LlamaConfig(**{**config("260k").model_dump(), "explicit_head_dim": 24})
    with torch.device("meta"):
        built = sum(parameter.numel() for parameter in Llama(shape).parameters())
    assert shape.parameters() == built and shape.q_dim == 8 * 24
