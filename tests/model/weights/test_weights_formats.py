"""Weights that go out and come back, and the errors of folders that do not fit."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from puna.errors import UserError
from puna.generate.engine import generate
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import hf, llama2c, meta, native

PUBLISHED = (  # what llama2.c's own test expects of stories260K at temperature 0
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high."
)


def model(seed: int = 3, **changes: Any) -> Llama:
    shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "ffn_dim": 48, "vocab_size": 60, "max_seq_len": 64}
    built = Llama(LlamaConfig(**{**shape, **changes}))
    built.init_weights(seed)
    return built


def equal(one: Llama, other: Llama) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return one.config == other.config and all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("tied", [False, True])
def test_native_round_trip_is_exact_and_writes_equal_bytes(tmp_path: Path, tied: bool) -> None:
    before = model(tie_embeddings=tied)
    native.save(before, tmp_path / "a")
    native.save(before, tmp_path / "b")
    assert equal(before, native.load(tmp_path / "a"))
    assert (tmp_path / "a" / native.WEIGHTS).read_bytes() == (tmp_path / "b" / native.WEIGHTS).read_bytes()


def test_native_errors_name_the_tensor(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        native.load(tmp_path)
    native.save(model(), tmp_path)
    tensors = load_file(tmp_path / native.WEIGHTS)
    tensors["norm.weight"] = torch.ones(33)
    save_file(tensors, tmp_path / native.WEIGHTS)
    with pytest.raises(UserError, match=r"norm\.weight has shape \(33,\) instead of \(32,\)"):
        native.load(tmp_path)
    (tmp_path / native.WEIGHTS).write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="damaged"):
        native.load(tmp_path)


@pytest.mark.parametrize("changes", [{}, {"n_kv_heads": 2}, {"tie_embeddings": True}])
def test_transformers_reads_what_we_write_and_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    before = model(**changes)
    hf.save(before, tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    read = torch.arange(40)[None]
    assert (theirs(read).logits - before(read)).abs().max() < 1e-5
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="30kB")
    assert equal(before, hf.load(tmp_path / "theirs"))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_meta_shards_are_joined(tmp_path: Path, ranks: int) -> None:
    before = model()
    meta.save(before, tmp_path, ranks)
    assert equal(before, meta.load(tmp_path, max_seq_len=64))


def test_meta_never_unpickles_code(tmp_path: Path) -> None:
    meta.save(model(), tmp_path)
    torch.save({"norm.weight": Path("code")}, tmp_path / "consolidated.00.pth")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        meta.load(tmp_path)


def test_llama2c_layout(tmp_path: Path) -> None:
    before = model(n_kv_heads=2, norm_eps=1e-5)
    names = ["attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm"]
    names += ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]
    state = before.state_dict()
    arrays = [
        state["tok_embeddings.weight"],
        *(state[f"layers.{i}.{name}.weight"] for name in names for i in range(2)),
    ]
    arrays += [state["norm.weight"], torch.zeros(64 * 8), state["output.weight"]]
    body = np.concatenate([array.numpy().ravel() for array in arrays]).astype("<f4").tobytes()
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<7i", 32, 48, 2, 4, 2, -60, 64) + body)
    assert equal(before, llama2c.load(path))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="its header asks for"):
        llama2c.load(path)


def test_stories260k_goes_on_as_published(data: Path) -> None:
    folder = data / "models" / "stories260K"
    stories = llama2c.load(folder / "checkpoint_legacy.bin")
    words = llama2c.Tokenizer(folder / "tokenizer.bin", stories.config.vocab_size)
    for prompt in ("", "Once upon a time"):
        ids = words.encode(prompt)
        (new,) = generate(stories, [ids], max_new_tokens=200 - len(ids), eos_id=1)
        assert words.decode(ids + new).startswith(PUBLISHED)
