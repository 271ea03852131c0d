"""Weights that go out and come back, and the errors of folders that do not fit."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from puna.errors import UserError
from puna.model.block import rotary_divisors, rotary_frequencies
from puna.model.config import LlamaConfig, RopeScaling
from puna.model.llama import Llama
from puna.model.weights import gguf, gguf_file, hf, llama2c, meta, native


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


ROPE = RopeScaling(factor=8, original_max_position_embeddings=32)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": 2},
        {"tie_embeddings": True},
        {"explicit_head_dim": 12, "n_kv_heads": 1},
        {"rope_scaling": ROPE, "rope_theta": 5e5},
    ],
)
def test_transformers_reads_what_we_write_and_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    before = model(**changes)
    hf.save(before, tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    read = torch.arange(40)[None]
    assert (theirs(read).logits - before(read)).abs().max() < 1e-5
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="30kB")
    assert equal(before, hf.read(tmp_path / "theirs").build())


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_meta_shards_are_joined(tmp_path: Path, ranks: int) -> None:
    before = model()
    meta.save(before, tmp_path, ranks)
    assert equal(before, meta.read(tmp_path).build())


def test_meta_never_unpickles_code(tmp_path: Path) -> None:
    meta.save(model(), tmp_path)
    torch.save({"norm.weight": Path("code")}, tmp_path / "consolidated.00.pth")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        meta.read(tmp_path).build()


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
    assert equal(before, llama2c.read(path).build())
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="its header asks for"):
        llama2c.read(path).build()


def test_rows_of_two_heads_of_four_in_hugging_faces_order() -> None:
    rows = torch.arange(8.0)[:, None]
    theirs = hf.reorder_rows(rows, 2, True)
    assert theirs[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(hf.reorder_rows(theirs, 2, False), rows)
    wider = torch.arange(12.0)[:, None]
    assert hf.reorder_rows(wider, 2, True)[:, 0].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert torch.equal(hf.reorder_rows(hf.reorder_rows(wider, 2, True), 2, False), wider)


def test_divisors_of_rotary_frequencies_are_those_of_the_publication() -> None:
    """Llama 3.1's, head of 128, theta 500,000: 29 frequencies stay, from the 36th on they go to an eighth."""
    divisors = rotary_divisors(rotary_frequencies(128, 5e5), RopeScaling())
    assert (divisors[:29] == 1).all() and torch.allclose(divisors[35:], torch.full((29,), 8.0).double())
    between = divisors[29:35]
    assert (between.diff() > 0).all() and 1 < between[0] < between[-1] < 8


def test_another_rope_or_head_computes_something_else() -> None:
    read, plain = torch.arange(60)[None], model(rope_theta=5e5)
    scaled = model(rope_theta=5e5, rope_scaling=ROPE)
    with torch.no_grad():
        for one in (plain, scaled):
            for parameter in one.parameters():
                parameter.mul_(8)
    assert (plain(read) - scaled(read)).abs().max() > 0.01


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("dimension", [0, 1])
def test_both_splits_of_metas_embedding_are_joined(tmp_path: Path, ranks: int, dimension: int) -> None:
    before = model(n_kv_heads=4, rope_theta=5e5)
    meta.save(before, tmp_path, ranks)
    for rank in range(ranks):
        file = tmp_path / f"consolidated.{rank:02d}.pth"
        tensors = torch.load(file)
        part = before.tok_embeddings.weight.detach().chunk(ranks, dimension)[rank]
        tensors["tok_embeddings.weight"] = part.clone()
        torch.save(tensors, file)
    assert equal(before, meta.read(tmp_path).build())


def test_metas_own_parameters_give_metas_own_model(tmp_path: Path) -> None:
    """What Meta's code makes of params.json, and what is assumed of a release that has no more than that."""
    for changes in ({}, {"ffn_dim": 256}, {"rope_scaling": RopeScaling(), "rope_theta": 5e5}):
        before = model(**changes)
        meta.save(before, tmp_path)
        params = json.loads((tmp_path / "params.json").read_text())
        hidden = int(2 * (4 * params["dim"]) / 3)
        hidden = int(params.get("ffn_dim_multiplier", 1) * hidden)
        multiple = params["multiple_of"]
        assert multiple * ((hidden + multiple - 1) // multiple) == before.config.ffn_dim
        assert params.get("use_scaled_rope", False) == (before.config.rope_scaling is not None)
        (tmp_path / "puna.json").unlink()
        context = 131_072 if before.config.rope_scaling else 2048
        expected = before.config.model_copy(update={"max_seq_len": context})
        assert meta.read(tmp_path).build().config == expected


def test_a_gguf_names_llama_3s_divisors_alone(tmp_path: Path) -> None:
    """As llama.cpp's converter writes them: no word of the four numbers they come from."""
    before = model(rope_theta=5e5, rope_scaling=RopeScaling(factor=32), dim=64, n_heads=2)
    gguf.save(before, tmp_path / "a.gguf")
    metadata, _ = gguf_file.read(tmp_path / "a.gguf")
    types = gguf.read(tmp_path / "a.gguf").types
    del metadata["puna.rope_scaling"]
    gguf.save(before, tmp_path / "b.gguf", metadata=metadata, types=types)
    assert gguf.read(tmp_path / "b.gguf").config == before.config
    other = before.config.model_copy(update={"rope_scaling": RopeScaling(factor=32, low_freq_factor=2)})
    before.config = other
    gguf.save(before, tmp_path / "c.gguf", metadata=metadata, types=types)
    with pytest.raises(UserError, match="are not those of Llama 3's rope scaling"):
        gguf.read(tmp_path / "c.gguf")


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def test_the_gguf_library_reads_what_is_written(tmp_path: Path, kind: str) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    before = model(n_kv_heads=2, tie_embeddings=True)
    told = {"general.name": "small", "words": ["a", "ü"], "numbers": [1, -2], "shares": [0.5], "flag": True}
    gguf.save(before, tmp_path / "a.gguf", kind, told)
    theirs = GGUFReader(tmp_path / "a.gguf")
    assert {name: theirs.fields[name].contents() for name in told} == told
    assert theirs.fields["llama.attention.head_count_kv"].contents() == 2
    read = gguf.read(tmp_path / "a.gguf")
    assert read.config == before.config
    found = {gguf.NAMES.theirs(name): entry for name, entry in read.weights.items()}
    assert [tensor.name for tensor in theirs.tensors] == list(found)
    for tensor in theirs.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(found[tensor.name].read().numpy(), values.reshape(tensor.shape[::-1]))
    types = {tensor.name: tensor.tensor_type.name for tensor in theirs.tensors}
    # ffn_down's rows have 48 numbers, which blocks of 32 do not divide
    assert types["blk.0.attn_norm.weight"] == "F32" and types["blk.0.attn_q.weight"] == kind
    assert types["blk.0.ffn_down.weight"] == ("F16" if kind.startswith("Q") else kind)


def test_what_an_adapter_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    hf.save(model(), tmp_path)
    file, tensors = tmp_path / "config.json", load_file(tmp_path / "model.safetensors")
    good = json.loads(file.read_text())
    for changes, message in (
        ({"hidden_act": "relu"}, "hidden_act = 'relu'; only 'silu'"),
        ({"attention_bias": True}, "attention_bias = True; only False"),
        ({"model_type": "gemma"}, "model_type = 'gemma'"),
        ({"head_dim": 16}, r"wq\.weight has shape \(32, 32\) instead of \(64, 32\)"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = .* is not known"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling|factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks low_freq_factor"),
        ({"hidden_size": None}, "hidden_size missing"),
        ({"hidden_size": "wide"}, "describes no model: dim"),
        ({"num_hidden_layers": 1}, r"layers\.1\..* is not known"),
        ({"num_hidden_layers": 3}, "tensors cannot hold 3 layers"),
        ({"num_hidden_layers": 10**30}, "n_layers is 1000"),
    ):
        file.write_text(json.dumps({**good, **changes}))
        with pytest.raises(UserError, match=message):
            hf.read(tmp_path).build()
    file.write_text(json.dumps({**good, "sliding_window": None, "logit_scale": 0, "use_cache": True}))
    hf.read(tmp_path).build()
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}
    save_file(tensors | bias, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"q_proj\.bias is not known"):
        hf.read(tmp_path).build()
    computed = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(tensors | computed, tmp_path / "model.safetensors")
    assert equal(model(), hf.read(tmp_path).build())


def test_a_tied_folder_with_another_head_is_refused(tmp_path: Path) -> None:
    before = model(tie_embeddings=True)
    hf.save(before, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for head, fits in ((before.tok_embeddings.weight.detach(), True), (torch.ones(60, 32), False)):
        save_file({**tensors, "lm_head.weight": head.clone()}, tmp_path / "model.safetensors")
        if fits:
            assert equal(before, hf.read(tmp_path).build())
            continue
        with pytest.raises(UserError, match=r"lm_head\.weight is another than model\.embed_tokens\.weight"):
            hf.read(tmp_path).build()
