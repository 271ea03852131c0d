"""Files that lie: one clear error that names the file, in a second and 100 MB, and no code of theirs runs."""

import json
import math
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import gguf, gguf_file, hf, meta, native

CASES: dict[str, tuple[Callable[[Path], Path], str]] = {}  # name -> (writes a file or folder, error)


def case(message: str) -> Callable[[Any], Any]:
    def add(write: Callable[[Path], Path | None]) -> Any:
        CASES[write.__name__] = (lambda path: write(path) or path), message
        return write

    return add


def model() -> Llama:
    built = Llama(LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=48, vocab_size=60))
    built.init_weights(3)
    return built


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_of(path: Path, values: bytes = b"", count: int = 1, tensors: bytes = b"", number: int = 0) -> None:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, number, count) + values + tensors)


def array(item: int, count: int, rest: bytes = b"") -> bytes:
    return string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, item, count) + rest


def tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@case("has 1,099,511,627,776 strings")
def an_array_of_2_to_the_40_strings(path: Path) -> None:
    gguf_of(path, array(8, 1 << 40) + bytes(8 << 20))


@case("has 1,099,511,627,776 numbers")
def an_array_of_2_to_the_40_numbers(path: Path) -> None:
    gguf_of(path, array(4, 1 << 40) + bytes(8 << 20))


@case("has 67,108,864 strings")
def an_array_of_2_to_the_26_empty_strings(path: Path) -> None:
    gguf_of(path, array(8, 1 << 26))
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # all there: holes are zeros


@case("general.architecture = None; only 'llama'")
def as_many_strings_as_are_read(path: Path) -> None:
    gguf_of(path, array(8, 890_000) + bytes(8 * 890_000))


@case("arrays hold numbers or strings")
def arrays_in_arrays(path: Path) -> None:
    gguf_of(path, array(9, 1, struct.pack("<IQ", 9, 1) * 100_000))


@case("a string of 9,223,372,036,854,775,808 bytes")
def a_name_of_2_to_the_63_bytes(path: Path) -> None:
    gguf_of(path, struct.pack("<Q", 1 << 63))


@case("9,223,372,036,854,775,808 tensors")
def tensors_2_to_the_63(path: Path) -> None:
    gguf_of(path, number=1 << 63)


@case("begins at 64, inside another")
def tensors_that_overlap(path: Path) -> None:
    infos = tensor("a", [32], 0, 0) + tensor("b", [32], 0, 64)
    gguf_of(path, count=0, tensors=infos + bytes(500), number=2)


@case("the tensor a is there twice")
def a_tensor_twice(path: Path) -> None:
    gguf_of(path, count=0, tensors=tensor("a", [8], 0, 0) * 2 + bytes(500), number=2)


@case("x is there twice")
def a_value_twice(path: Path) -> None:
    gguf_of(path, (string("x") + struct.pack("<II", 4, 1)) * 2, count=2)


@case("ends behind the file")
def a_tensor_of_2_to_the_124_numbers(path: Path) -> None:
    gguf_of(path, count=0, tensors=tensor("a", [1 << 62, 1 << 62], 0, 0), number=1)


@case("of type 77")
def a_tensor_of_an_unknown_type(path: Path) -> None:
    gguf_of(path, count=0, tensors=tensor("a", [32], 77, 0), number=1)


@case("rows of 31 numbers in Q4_1")
def rows_that_blocks_do_not_divide(path: Path) -> None:
    gguf_of(path, count=0, tensors=tensor("a", [31], 3, 0), number=1)


@case("version 1")
def an_early_version(path: Path) -> None:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))


@case("is missing|ends behind the file|ends early")
def a_gguf_that_is_cut(path: Path) -> None:
    gguf.save(model(), path)
    path.write_bytes(path.read_bytes()[:-2000])


@case("general.architecture = 'mamba'")
def another_architecture(path: Path) -> None:
    metadata = {"general.architecture": "mamba"}
    gguf_file.write(path, metadata, [], lambda name: b"")


@case("llama.expert_count = 8 is not known")
def a_mixture_of_experts(path: Path) -> None:
    gguf.save(model(), path, metadata={"llama.expert_count": 8})


@case("the tensor blk.0.attn_q.bias is not known")
def a_gguf_with_a_bias(path: Path) -> None:
    gguf.save(model(), path)
    metadata, _ = gguf_file.read(path)
    listed = [("token_embd.weight", (60, 32), "F32"), ("blk.0.attn_q.bias", (60, 32), "F32")]
    gguf_file.write(path, metadata, listed, lambda name: bytes(4 * 60 * 32))


@case("tensors cannot hold 400000000 layers")
def layers_without_tensors(path: Path) -> None:
    gguf.save(model(), path, metadata={"llama.block_count": 400_000_000})


def folder_of(path: Path, header: bytes, data: int = 0, length: int | None = None) -> None:
    hf.save(model(), path)
    raw = struct.pack("<Q", len(header) if length is None else length) + header + bytes(data)
    (path / "model.safetensors").write_bytes(raw)


def part(start: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape or [(end - start) // 4], "data_offsets": [start, end]}


@case("its header would have 9,223,372,036,854,775,808 of")
def a_header_of_2_to_the_63(path: Path) -> None:
    folder_of(path, b"{}", length=1 << 63)


@case("a header of 17,000,002 bytes")
def a_header_over_16_million(path: Path) -> None:
    folder_of(path, b"{" + b" " * 17_000_000 + b"}")


@case("begins at byte 8 of the data, where the tensor before it ends at 16")
def safetensors_that_overlap(path: Path) -> None:
    folder_of(path, json.dumps({"a": part(0, 16), "b": part(8, 24)}).encode(), 24)


@case("'a' is there twice")
def a_safetensors_name_twice(path: Path) -> None:
    one = json.dumps(part(0, 16))
    folder_of(path, f'{{"a": {one}, "a": {one}}}'.encode(), 16)


@case("nested too deeply|is no JSON")
def a_header_nested_100_000_deep(path: Path) -> None:
    folder_of(path, b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@case("has shape .* of F32 in bytes 0 to 16")
def a_shape_that_does_not_fit_its_bytes(path: Path) -> None:
    folder_of(path, json.dumps({"a": part(0, 16, [1 << 40, 1 << 40])}).encode(), 16)


@case("is of type I4")
def a_type_that_is_not_known(path: Path) -> None:
    folder_of(path, json.dumps({"a": part(0, 16, dtype="I4")}).encode(), 16)


@case("bytes of data instead of")
def a_safetensors_that_is_cut(path: Path) -> None:
    hf.save(model(), path)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@case("is larger than 4,000,000 bytes")
def a_config_of_many_bytes(path: Path) -> None:
    hf.save(model(), path)
    (path / "config.json").write_bytes(b"{" + b" " * 30_000_000 + b"}")


@case("config.json is no JSON: nested too deeply")
def a_config_nested_100_000_deep(path: Path) -> None:
    hf.save(model(), path)
    (path / "config.json").write_bytes(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@case("config.json is no JSON: Expecting")
def a_config_that_is_broken(path: Path) -> None:
    hf.save(model(), path)
    (path / "config.json").write_text("{")


def index_of(path: Path, place: str) -> None:
    hf.save(model(), path)
    (path / "model.safetensors").rename(path / "one.safetensors")
    places = {"weight_map": {"model.norm.weight": place}}
    (path / "model.safetensors.index.json").write_text(json.dumps(places))


@case("is no file of this folder")
def an_index_that_leaves_the_folder(path: Path) -> None:
    index_of(path, "../../etc/passwd")


@case("is no file of this folder")
def an_index_with_an_absolute_place(path: Path) -> None:
    index_of(path, "/etc/passwd")


@case("two.safetensors is missing, which model.safetensors.index.json names")
def an_index_without_its_file(path: Path) -> None:
    index_of(path, "two.safetensors")


@case("is missing, which model.safetensors.index.json says is there")
def an_index_without_its_tensor(path: Path) -> None:
    index_of(path, "one.safetensors")
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')


def meta_of(path: Path, ranks: int = 1) -> Path:
    meta.save(model(), path, ranks)
    (path / "puna.json").unlink()
    return path / "consolidated.00.pth"


@case("is packed; torch.save stores tensors as they are")
def a_pth_that_is_packed(path: Path) -> None:
    file = meta_of(path)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
        archive.writestr("archive/data/99", bytes(300_000_000))


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("code-has-run"),)


@case("cannot be read as tensors")
def a_pickle_with_code(path: Path) -> None:
    torch.save({"norm.weight": Code()}, meta_of(path))


@case("holds a list, not tensors")
def a_list_in_a_pth(path: Path) -> None:
    torch.save([1, 2], meta_of(path))


@case("norm.weight is a int, not a tensor")
def a_number_in_a_pth(path: Path) -> None:
    torch.save({"norm.weight": 1}, meta_of(path))


@case("is no plain tensor of floats")
def a_small_tensor_shown_as_a_large_one(path: Path) -> None:
    torch.save({"tok_embeddings.weight": torch.zeros(1, 1).expand(1 << 20, 1 << 20)}, meta_of(path))


@case("cannot be read as tensors")
def a_pth_that_is_cut(path: Path) -> None:
    file = meta_of(path)
    file.write_bytes(file.read_bytes()[:20_000])


@case("consolidated.00.pth is missing, and there is consolidated.01.pth")
def the_first_rank_missing(path: Path) -> None:
    meta_of(path, 2).unlink()


@case("30 of 60 tokens|does not fit the model's shape|is missing")
def the_last_rank_missing(path: Path) -> None:
    meta_of(path, 2)
    (path / "consolidated.01.pth").unlink()


@case("is not in every rank's file in one shape")
def ranks_of_different_shapes(path: Path) -> None:
    file = meta_of(path, 2)
    tensors = torch.load(file)
    torch.save({**tensors, "layers.0.attention.wq.weight": torch.zeros(3, 32)}, file)


@case("wo.weight has shape")
def a_weight_of_a_wrong_shape(path: Path) -> None:
    file = meta_of(path)
    torch.save({**torch.load(file), "layers.1.attention.wo.weight": torch.zeros(32, 30)}, file)


@case("use_fancy_rope = True is not known")
def parameters_that_are_not_known(path: Path) -> None:
    meta_of(path)
    params = json.loads((path / "params.json").read_text())
    (path / "params.json").write_text(json.dumps({**params, "use_fancy_rope": True}))


@case("dim, n_layers, n_heads missing")
def parameters_that_are_missing(path: Path) -> None:
    meta_of(path)
    (path / "params.json").write_text("{}")


@case("norm_eps is .* but .* by puna.json")
def a_config_of_another_model_beside(path: Path) -> None:
    meta.save(model(), path)
    exact = json.loads((path / "puna.json").read_text())
    (path / "puna.json").write_text(json.dumps({**exact, "norm_eps": 0.1}))


@case("describes no model: colour")
def a_native_config_that_is_not_known(path: Path) -> None:
    native.save(model(), path)
    exact = json.loads((path / "params.json").read_text())
    (path / "params.json").write_text(json.dumps({**exact, "colour": 1}))


@case("extra.weight is not known")
def a_native_tensor_too_many(path: Path) -> None:
    before = model()
    native.save(before, path)
    save_file({**before.state_dict(), "extra.weight": torch.ones(1)}, path / "model.safetensors")


@case("is no model's shape|its header asks for")
def a_llama2c_header_of_large_numbers(path: Path) -> Path:
    file = path.with_suffix(".bin")
    file.write_bytes(struct.pack("<7i", *[2**30] * 7) + bytes(100))
    return file


RUN = """
import json, re, sys, time
from pathlib import Path
import torch
from puna.errors import UserError
from puna.generate.load import open_source

def status(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

torch.save({}, "warm.pth")
torch.load("warm.pth", weights_only=True, mmap=True)
results = {}
for name, path in json.load(open("cases.json")).items():
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before, start = status("VmRSS"), time.process_time()
    try:
        open_source(Path(path)).build()
        told = "no error"
    except UserError as error:
        told = str(error)
    results[name] = told, time.process_time() - start, status("VmHWM") - before
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hostile")
    paths = {name: str(write(folder / name)) for name, (write, _) in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(paths))
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=200)
    assert done.returncode == 0, done.stderr
    assert not (folder / "code-has-run").exists()
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_one_error_in_a_second_and_100_mb(name: str, results: dict[str, Any]) -> None:
    import re

    told, seconds, grown = results[name]
    assert re.search(CASES[name][1], told), told
    assert name in told and len(told) < 2000
    assert seconds < 1 and grown < 100e6, (seconds, grown)


def test_a_sound_file_is_no_hostile_one(tmp_path: Path) -> None:
    """What the cases change is sound before."""
    for form, write, read in (("a.gguf", gguf.save, gguf.read), ("hf", hf.save, hf.read)):
        write(model(), tmp_path / form)
        assert read(tmp_path / form).build().config == model().config
    assert meta.read(meta_of(tmp_path / "meta").parent).build().config.dim == 32
    assert math.prod(model().tok_embeddings.weight.shape) == 1920
