"""Number formats of GGUF against the gguf library: any bytes one way, any numbers the other."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.model.weights.gguf_blocks import FORMATS, TOGETHER, WRITTEN, dequantise, quantise


@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_sizes_are_those_of_the_library(name: str) -> None:
    from gguf.constants import GGML_QUANT_SIZES

    kind = GGMLQuantizationType[name]
    assert (FORMATS[name].code, GGML_QUANT_SIZES[kind]) == (kind, (FORMATS[name].numbers, FORMATS[name].size))


@pytest.mark.parametrize("name", FORMATS)
def test_random_blocks_hold_the_numbers_that_the_library_finds(name: str) -> None:
    form = FORMATS[name]
    raw = np.random.default_rng(form.code).integers(0, 256, (300, form.size), np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(raw, GGMLQuantizationType[name]).reshape(-1)
    found = dequantise(raw.tobytes(), name)
    assert found.dtype == np.float32 and found.shape == (300 * form.numbers,)
    np.testing.assert_array_equal(found, expected)


SPECIAL = np.array([0.0, -0.0, 0.5, -0.5, 127.0, -127.0, 63.5, 1e-20, 60_000.0], np.float32)


@pytest.mark.parametrize("name", WRITTEN)
@given(st.integers(0, 1 << 32), st.sampled_from([1e4, 1.0, 0.02, 1e-3, 1e-7]), st.floats(0, 1))
def test_quantising_gives_the_librarys_bytes(name: str, seed: int, scale: float, special: float) -> None:
    chance = np.random.default_rng(seed)
    drawn = (chance.normal(0, 1, (3, 64)) * scale).astype(np.float32)
    drawn = np.where(chance.random((3, 64)) < special, chance.choice(SPECIAL, (3, 64)), drawn)
    with np.errstate(all="ignore"):
        expected = quants.quantize(drawn, GGMLQuantizationType[name]).view(np.uint8).reshape(-1)
    np.testing.assert_array_equal(quantise(drawn, name), expected)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_read_is_written_with_the_same_bytes(name: str) -> None:
    values = np.random.default_rng(1).normal(0, 0.02, (TOGETHER // 64 + 3, 96)).astype(np.float32)
    raw = quantise(values, name)
    again = dequantise(raw, name)
    np.testing.assert_array_equal(quantise(again.reshape(values.shape), name), raw)
    error = {"F32": 0.0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 0.01, "Q4_1": 0.3}[name]
    assert np.abs(again - values.reshape(-1)).max() <= error * 0.1


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(UserError, match="no weights are written as Q4_K; there are F32, F16, BF16"):
        quantise(np.zeros(256, np.float32), "Q4_K")
    for value in (np.nan, np.inf):
        with pytest.raises(UserError, match="not finite cannot be written as Q8_0"):
            quantise(np.full(32, value, np.float32), "Q8_0")
    with pytest.raises(UserError, match="too large for F16; write F32 or BF16"):
        quantise(np.full(32, 70_000, np.float32), "F16")
    assert (dequantise(quantise(np.full(32, 1e-42, np.float32), "Q8_0"), "Q8_0") == 0).all()
    assert np.isnan(dequantise(quantise(np.full(1, np.nan, np.float32), "F32"), "F32")).all()
