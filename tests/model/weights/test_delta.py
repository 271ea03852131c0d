"""Differences of weights: whole again bit by bit, from one base alone."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.cli.model import export, import_model
from puna.errors import UserError
from puna.generate import load
from puna.generate.load import Loaded, Origin
from puna.model import lora
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import delta, native
from puna.model.weights.source import Source
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import Tokenizer, train
from tests.tiny import puna

BITS = st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=32, max_size=32)


def model(seed: int, vocab_size: int = 300, tied: bool = False, dtype: torch.dtype = torch.float32) -> Llama:
    config = LlamaConfig(
        dim=32, n_layers=1, n_heads=4, ffn_dim=48, vocab_size=vocab_size, tie_embeddings=tied, max_seq_len=32
    )
    made = Llama(config).to(dtype)
    made.init_weights(seed)
    return made


def source(one: Llama, folder: Path) -> Source:
    """As of a file: with a place."""
    native.save(one, folder)
    return native.read(folder)


@settings(max_examples=20)
@given(one=BITS, other=BITS)
def test_any_bits_come_back(
    one: list[int], other: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Numbers that are none and infinities, too."""
    folder = tmp_path_factory.mktemp("delta")
    whole, base = model(1), model(2)
    with torch.no_grad():
        for each, bits in (whole, one), (base, other):
            each.norm.weight.copy_(torch.tensor(bits, dtype=torch.int32).view(torch.float32))
    of = source(base, folder / "base")
    delta.save(whole, of, folder / "delta")
    found = delta.read(folder / "delta", of).weights["norm.weight"].read()
    assert torch.equal(found.view(torch.int32), whole.norm.weight.detach().view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_model_comes_back(tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    """In each precision, with rows that the base has not, and a head where its is tied."""
    whole, base = model(1, 303, False, dtype), source(model(2, 300, tied), tmp_path / "base")
    delta.save(whole, base, tmp_path / "delta")
    again = delta.read(tmp_path / "delta", base)
    assert again.config == whole.config
    for name, parameter in whole.named_parameters():
        found = again.weights[name].read()
        assert found.dtype == dtype and torch.equal(found, parameter)
        stored = native.entries(tmp_path / "delta" / delta.WEIGHTS)[name].read()
        assert (
            "norm" in name or not torch.equal(stored[0], parameter[0]) or (tied and name == "output.weight")
        )
    assert delta.WEIGHTS in {path.name for path in (tmp_path / "delta").iterdir()}


def test_another_base_is_refused(tmp_path: Path) -> None:
    base = source(model(2), tmp_path / "base")
    delta.save(model(1), base, tmp_path / "delta")
    with pytest.raises(UserError, match=r"other is not the model that .*delta belongs to: tok_embeddings"):
        delta.read(tmp_path / "delta", source(model(3), tmp_path / "other")).build()
    larger = model(2)
    lora.grow(larger, [300])
    with pytest.raises(UserError, match=r"delta belongs to a model of 300 tokens; .*larger has 301"):
        delta.read(tmp_path / "delta", source(larger, tmp_path / "larger"))
    with pytest.raises(
        UserError, match=r"tok_embeddings.weight has shape \(299, 32\), in .*base \(300, 32\)"
    ):
        delta.save(model(1, 299), base, tmp_path / "small")
    half = source(model(1).half(), tmp_path / "half")
    assert not (tmp_path / "small").exists() and half.config == base.config
    with pytest.raises(UserError, match=r"is no torch.float16: write the difference as F32"):
        delta.save(model(1), base, tmp_path / "rounded", torch.float16)


def test_by_command(tmp_path: Path) -> None:
    """Exported as a delta, imported again, its base where it was and elsewhere, with its tokenizer."""
    tokenizer = Tokenizer(
        train([f"They graze {n} hours. " * 3 for n in range(99)], TokenizerSettings(vocab_size=290))
    )
    for seed, name in (1, "whole"), (2, "base"):
        origin = Origin("native", tmp_path, {}, {})
        given = Loaded(model(seed), tokenizer, "{{ template }}", tokenizer.stops, origin)
        load.save(given, tmp_path / name, "native")
    base, out = tmp_path / "base", tmp_path / "delta"
    puna("export", "delta", tmp_path / "whole", out, "--base", base)
    base.rename(tmp_path / "moved")
    puna("import", out, tmp_path / "again", "--base", tmp_path / "moved")
    for file in (native.WEIGHTS, native.PARAMS, "tokenizer.model", "tokenizer_config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    for said, command in {
        "name it with --base": lambda: export("delta", tmp_path / "whole", tmp_path / "no"),
        "name the model with --base": lambda: import_model(out, tmp_path / "no"),
        "leave --base away": lambda: import_model(tmp_path / "whole", tmp_path / "no", base=base),
    }.items():
        with pytest.raises(UserError, match=said):
            command()
    assert not (tmp_path / "no").exists()
