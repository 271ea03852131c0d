"""The weights of checkpoints for other programs: one at a time, whatever wrote them."""

import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import gguf, hf, native, safetensors_file
from puna.model.weights.source import Entry
from puna.train import checkpoint, weights
from puna.train.checkpoint import Progress, Saver
from puna.train.losses import Losses

from .test_parallel import together

# In a process that looks at its own memory: the most that an export takes beside what was there before.
MEASURE = """
import sys
from pathlib import Path
from puna.model.weights import gguf, hf, native
from puna.train import checkpoint, weights

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

form, place, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
checkpoint.BLOCK = 1 << 20  # that of weights and files is 16 times as large
source = weights.read(place)
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
before = status("VmRSS")
{"hf": hf, "gguf": gguf, "native": native}[form].save(source, out)
print(status("VmHWM") - before)
"""


def saved(folder: Path, config: LlamaConfig) -> tuple[Llama, Path]:
    """A model after one step, and its checkpoint."""
    model = Llama.empty(config)
    model.init_weights(1)
    optimizer, losses = torch.optim.AdamW(model.parameters(), fused=True), Losses(folder / "losses.jsonl")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    losses.begin()
    with Saver(model, optimizer, losses) as saver:
        saver.save(folder, Progress(1))
    native.describe(config, folder)
    return model, folder / "step-00000001"


SMALL = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=48, vocab_size=70, max_seq_len=32)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_an_export_is_that_of_the_model(tmp_path: Path, kind: torch.dtype) -> None:
    """Byte by byte, and as the library of safetensors would have written it."""
    model, place = saved(tmp_path, SMALL)
    hf.save(model, tmp_path / "model", kind)
    hf.save(weights.read(place), tmp_path / "checkpoint", kind)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "checkpoint" / name).read_bytes()
    theirs = {name: entry.read().to(kind).contiguous() for name, entry in hf.export(model)[1].items()}
    save_file(theirs, tmp_path / "library", metadata={"format": "pt"})
    assert (tmp_path / "library").read_bytes() == (tmp_path / "model" / "model.safetensors").read_bytes()
    exported = load_file(tmp_path / "model" / "model.safetensors")
    query = exported["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(query[1], model.layers[0].attention.wq.weight[2].to(kind))  # halves, not neighbours
    for form, write in (("native", native.save), ("a.gguf", gguf.save)):
        write(model, tmp_path / "m" / form)
        write(weights.read(place), tmp_path / "c" / form)
    one, other = (gguf.read(tmp_path / which / "a.gguf").weights for which in "mc")
    assert one.keys() == other.keys()
    assert all(torch.equal(entry.read(), other[name].read()) for name, entry in one.items())
    written = [tmp_path / which / "native" / native.WEIGHTS for which in "mc"]
    assert written[0].read_bytes() == written[1].read_bytes()


def test_a_file_of_weights_is_written_one_by_one(tmp_path: Path) -> None:
    """None is read before the one before it is let go."""
    alive: list[str] = []

    def entry(name: str) -> Entry:
        def read() -> torch.Tensor:
            assert not alive
            alive.append(name)
            values = torch.full((3, 5), float(len(name)))
            weakref.finalize(values, alive.remove, name)
            return values

        return Entry((3, 5), read)

    safetensors_file.write(tmp_path / "file", {name: entry(name) for name in ("b", "aa")}, torch.float32)
    assert {name: float(value[0, 0]) for name, value in load_file(tmp_path / "file").items()} == {
        "b": 1.0,
        "aa": 2.0,
    }


LARGE = LlamaConfig(dim=512, n_layers=6, n_heads=8, ffn_dim=1408, vocab_size=8192, max_seq_len=64)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of 111 MB of weights, the largest of 17 MB, in a file of 333 MB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "BLOCK", 1 << 20)
        return saved(tmp_path_factory.mktemp("large"), LARGE)[1]


@pytest.mark.parametrize("form", ["hf", "gguf", "native"])
def test_an_export_takes_the_memory_of_little_more_than_a_weight(
    large: Path, tmp_path: Path, form: str
) -> None:
    command = [sys.executable, "-c", MEASURE, form, str(large), str(tmp_path / "out")]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout)
    largest = 4 * LARGE.vocab_size * LARGE.dim
    assert 4 * LARGE.parameters() > 6 * largest and peak < 3 * largest, peak


@pytest.mark.parametrize("layout", ["2x1", "1x2", "2x2", "replicate"])
def test_any_layout_is_exported_by_one_process(tmp_path: Path, layout: str) -> None:
    from .small import CONFIG

    count = 4 if layout == "replicate" else int(layout[0]) * int(layout[2])
    together(count, "write", layout, tmp_path, module="reshard")
    source = weights.read(tmp_path / "step-00000004", CONFIG)
    model = Llama.empty(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters())
    progress, passed = checkpoint.resume(tmp_path, model, optimizer, Losses(tmp_path / "losses.jsonl"), 9)
    assert progress.step == 4 and not passed
    hf.save(source, tmp_path / "of the checkpoint")
    hf.save(model, tmp_path / "of the model")
    one, other = ((tmp_path / f"of the {name}" / "model.safetensors") for name in ("checkpoint", "model"))
    assert one.read_bytes() == other.read_bytes() and len(one.read_bytes()) > 4 * CONFIG.parameters()


def test_a_damaged_checkpoint_or_one_that_nothing_describes_is_not_exported(tmp_path: Path) -> None:
    _, place = saved(tmp_path, SMALL)
    (file,) = place.glob("*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 3] ^= 4
    file.write_bytes(raw)
    with pytest.raises(UserError, match="is damaged: block 0 does not match its digest"):
        hf.save(weights.read(place), tmp_path / "out")
    file.write_bytes(raw[:-1])
    with pytest.raises(UserError, match="bytes instead of"):
        hf.save(weights.read(place), tmp_path / "out")
    (tmp_path / native.PARAMS).unlink()
    with pytest.raises(UserError, match=r"params\.json is missing, which says of what shape"):
        weights.read(place)
    index = json.loads((place / "index.json").read_bytes())
    assert index["tensors"]["norm.weight"]["shape"] == [32]
