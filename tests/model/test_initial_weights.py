"""Weights before the first step: any part of any weight alone, in the memory of the model."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.model.config import SIZES, LlamaConfig, config
from puna.model.initial_weights import BLOCK_ROWS, initial_rows, weight_shape
from puna.model.llama import Llama

# Rows above and below BLOCK_ROWS, multiples of it and not.
CONFIG = LlamaConfig(
    dim=64, n_layers=3, n_heads=4, n_kv_heads=2, ffn_dim=2 * BLOCK_ROWS, vocab_size=700, max_seq_len=8
)


def built(shape: LlamaConfig, seed: int = 5) -> Llama:
    model = Llama.empty(shape)
    model.init_weights(seed)
    return model


MODEL = built(CONFIG)
WEIGHTS = dict(MODEL.named_parameters())


@given(st.sampled_from(sorted(WEIGHTS)), st.data())
def test_any_rows_and_columns_equal_the_whole_weights(name: str, data: st.DataObject) -> None:
    whole = WEIGHTS[name]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    rows = initial_rows(CONFIG, 5, name, start, end)
    assert rows.dtype == torch.float32 and torch.equal(rows, whole[start:end])
    if whole.dim() == 2:
        assert torch.equal(rows[:, 3:20], whole[start:end, 3:20])


@pytest.mark.parametrize("size", SIZES)
def test_shapes_are_those_of_the_model(size: str) -> None:
    shape = config(size)
    with torch.device("meta"):
        parameters = dict(Llama(shape).named_parameters())
    assert {name: weight_shape(shape, name) for name in parameters} == {
        name: tuple(parameter.shape) for name, parameter in parameters.items()
    }


def test_weights_are_normal_of_their_deviations() -> None:
    expected = {"wo": 0.02 / math.sqrt(6), "w2": 0.02 / math.sqrt(6)}
    for name, weight in WEIGHTS.items():
        if weight.dim() == 1:
            assert (weight == 1).all()
            continue
        scaled = weight.double() / expected.get(name.split(".")[-2], 0.02)
        error = 5 / math.sqrt(weight.numel())
        assert abs(scaled.mean()) < error and abs(scaled.square().mean() - 1) < 1.5 * error
        assert abs((scaled.abs() < 0.6744898).double().mean() - 0.5) < error  # the quartiles
        assert abs(scaled.square().square().mean() - 3) < 15 * error


def test_every_block_of_every_weight_and_seed_is_another() -> None:
    first_rows = [weight[start] for weight in WEIGHTS.values() if weight.dim() > 1
                  for start in range(0, len(weight), BLOCK_ROWS)]  # fmt: skip
    first_rows += [initial_rows(CONFIG, seed, "output.weight", 0, 1)[0] for seed in (0, 1 << 40, 1 << 62)]
    signs = {tuple((row[:64] > 0).tolist()) for row in first_rows}
    assert len(signs) == len(first_rows) > 30


def test_the_numbers_are_what_they_were() -> None:
    """numpy promises to keep Philox' bits, but not what it makes of them; this would tell."""
    row = initial_rows(CONFIG, 1, "layers.2.feed_forward.w2.weight", 63, 64)[0, -3:]
    assert row.tolist() == [-0.007239908911287785, -0.001631168881431222, -0.022129129618406296]


def test_a_tied_model_stays_tied_and_its_head_is_the_embedding() -> None:
    tied = built(CONFIG.model_copy(update={"tie_embeddings": True}))
    assert tied.output.weight is tied.tok_embeddings.weight
    assert torch.equal(tied.tok_embeddings.weight, MODEL.tok_embeddings.weight)
    assert torch.equal(initial_rows(tied.config, 5, "output.weight", 7, 300), tied.output.weight[7:300])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_rounded_from_float32(dtype: torch.dtype) -> None:
    other = Llama.empty(CONFIG, dtype=dtype)
    other.init_weights(5)
    for name, parameter in other.named_parameters():
        assert parameter.dtype == dtype and torch.equal(parameter, WEIGHTS[name].to(dtype))


def test_what_does_not_exist_is_refused() -> None:
    for name in ("layers.3.attention.wq.weight", "layers.0.attention.wq", "layers.00.ffn_norm.weight",
                 "layers.0.output.weight", "output.bias", "output"):  # fmt: skip
        with pytest.raises(ValueError, match=f"no weight is named {name}"):
            initial_rows(CONFIG, 1, name)
    with pytest.raises(ValueError, match=r"output.weight has 700 rows, not 0 to 701"):
        initial_rows(CONFIG, 1, "output.weight", 0, 701)


PEAK = """
import re
from puna.model.config import LlamaConfig
from puna.model.llama import Llama

def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])

small = LlamaConfig(dim=64, n_layers=1, n_heads=2, ffn_dim=96, vocab_size=300)
large = LlamaConfig(dim=1024, n_layers=8, n_heads=8, ffn_dim=2816, vocab_size=12000)
Llama.empty(small).init_weights(1)
before = status("VmRSS")
model = Llama.empty(large)
model.init_weights(1)
print(status("VmHWM") - before, 4 * large.parameters())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_building_takes_the_memory_of_the_model() -> None:
    printed = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    peak, model_bytes = map(int, printed.split())
    assert model_bytes > 500e6 and peak < 1.2 * model_bytes
