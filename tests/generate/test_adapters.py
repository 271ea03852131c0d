"""An adapter with new control tokens, from training to other programs: trained, saved, opened, exported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from puna.generate import load
from puna.generate.engine import Engine, Request, Sampling
from puna.generate.load import Loaded
from puna.model import lora
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import peft
from puna.tokens import files
from puna.tokens.chat import FORMATS, Format, encode, jinja, messages
from puna.tokens.control_tokens import for_format
from puna.tokens.conversations import Turn
from puna.tokens.settings import TokenizerSettings
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tokens.tokenizer import Tokenizer, train
from tests.generate.test_load import smollm2
from tests.tiny import puna

HELPER, FORM = Path(__file__).with_name("with_transformers.py"), FORMATS["chatml"]
ASKED = ["Where do llamas graze?", "Who herds them?", "When does it snow?", "How many are there?", "Why?"]
ANSWERS = ["On the high plain.", "My grandmother.", "In winter.", "1234 llamas.", "Nobody knows."]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Loaded]:
    """A folder with base and adapter; the model in memory as it was trained."""
    folder = tmp_path_factory.mktemp("tuned")
    tokenizer = Tokenizer(train([*ASKED * 9, *ANSWERS * 9], TokenizerSettings(vocab_size=300)))
    config = LlamaConfig(  # a row of padding
        dim=48,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        ffn_dim=96,
        vocab_size=301,
        max_seq_len=128,
        tie_embeddings=True,
    )
    base = Llama(config)
    base.init_weights(1)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter *= 6 if parameter.dim() > 1 else 1  # else a frozen head can say nothing for sure
    origin = load.Origin("native", folder, {}, {})
    load.save(Loaded(base, tokenizer, None, tokenizer.stops, origin), folder / "base", "native")

    opened = load.open_model(load.open_source(folder / "base"))
    extended = for_format(opened.tokenizer, FORM)
    new = range(opened.tokenizer.vocab_size, extended.vocab_size)
    model, of = opened.source.build(), peft.Base.of(opened.source)
    lora.grow(model, new)
    lora.apply(model, lora.Adapter(rank=8, alpha=8, rows=tuple(new)), seed=1)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(70):
        for asked, answer in zip(ASKED, ANSWERS, strict=True):
            ids, learned = encode([Turn("user", asked), Turn("assistant", answer)], FORM, extended)
            tokens, targets = torch.tensor([ids[:-1]]), torch.tensor([ids[1:]])
            targets = targets.where(torch.tensor([learned[1:]]), -1)
            (model.loss(tokens, targets, remat="llama") / sum(learned) / len(ASKED)).backward()
        optimizer.step()
        optimizer.zero_grad()
    save(model, folder / "adapter", of, extended, FORM)
    return folder, Loaded(model, extended, None, extended.stops, origin)


def save(model: Llama, folder: Path, base: peft.Base, tokenizer: TextTokenizer, form: Format) -> None:
    """An adapter with its tokenizer and the template of its format."""
    peft.save(model, folder, base)
    files.to_folder(tokenizer, folder, jinja(form, tokenizer.adds_bos), model.config.max_seq_len)


def outside(helper: Path, *arguments: str) -> str:
    """The last line that a program prints in a process of its own."""
    command = [sys.executable, str(helper), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return (run.stdout.splitlines() or [""])[-1]


def prompt(asked: str, loaded: Loaded) -> list[int]:
    return encode([Turn("user", asked)], FORM, loaded.tokenizer, open=True).ids


def answers(loaded: Loaded) -> list[list[int]]:
    """Greedy ones of the engine, with the token that ended each."""
    engine = Engine(loaded.model, loaded.tokenizer)
    given = [Request(prompt(asked, loaded), 40, Sampling(temperature=0)) for asked in ASKED]
    writing = [engine.submit(request) for request in given]
    while engine.step():
        pass
    return [one.new_tokens for one in writing]


def test_an_adapter_opens_as_a_model(tuned: tuple[Path, Loaded]) -> None:
    """New tokens and all, to 1e-5; saving it again gives the same files."""
    folder, trained = tuned
    assert trained.model.config.vocab_size == 302 and trained.tokenizer.vocab_size == 302
    again = load.load(folder / "adapter")
    assert again.origin.format == "peft" and again.chat_template is not None
    assert again.stop_ids == trained.stop_ids and len(again.stop_ids) == 2
    for asked in ASKED:
        ids = torch.tensor([prompt(asked, trained)])
        assert ids.max() == 301
        torch.testing.assert_close(again.model(ids), trained.model(ids).detach(), rtol=0, atol=1e-5)
    rows = again.model.tok_embeddings.weight[300:]
    assert (rows[0] - rows[1]).abs().max() > 0.01  # they were trained
    save(
        trained.model,
        folder / "again",
        peft.Base.of(load.open_source(folder / "base")),
        trained.tokenizer,
        FORM,
    )
    names = sorted(path.name for path in (folder / "adapter").iterdir())
    assert len(names) == 7 and names == sorted(path.name for path in (folder / "again").iterdir())
    for name in names:
        assert (folder / "again" / name).read_bytes() == (folder / "adapter" / name).read_bytes()


def test_it_answers_and_stops(tuned: tuple[Path, Loaded]) -> None:
    again = load.load(tuned[0] / "adapter")
    told = answers(again)
    assert [again.tokenizer.decode(ids).strip() for ids in told] == ANSWERS


@pytest.mark.parametrize("form", ["hf", "meta", "gguf", "native"])
def test_merged_it_is_the_same_model(form: str, tuned: tuple[Path, Loaded], tmp_path: Path) -> None:
    folder, trained = tuned
    out = tmp_path / ("out.gguf" if form == "gguf" else "out")
    if form == "gguf":
        puna("export", form, folder / "adapter", out)
    else:
        load.save(load.open_model(load.open_source(folder / "adapter")), out, form)
    merged = load.load(out)
    ids = torch.tensor([prompt(ASKED[0], trained)])
    torch.testing.assert_close(merged.model(ids), trained.model(ids).detach(), rtol=0, atol=1e-5)
    assert merged.chat_template == load.load(folder / "adapter").chat_template
    assert prompt(ASKED[0], merged) == prompt(ASKED[0], trained)
    assert merged.stop_ids == trained.stop_ids
    assert answers(merged) == answers(load.load(folder / "adapter"))


def test_transformers_continues_the_same(tuned: tuple[Path, Loaded], tmp_path: Path) -> None:
    """By the template and the generation config that are exported, ends and all."""
    pytest.importorskip("transformers")
    folder, trained = tuned
    load.save(load.open_model(load.open_source(folder / "adapter")), tmp_path / "hf", "hf")
    told = json.dumps([messages([Turn("user", asked)]) for asked in ASKED])
    theirs = json.loads(outside(HELPER, str(tmp_path / "hf"), told))
    assert [ids for ids, _ in theirs] == [prompt(asked, trained) for asked in ASKED]
    ours = answers(load.load(folder / "adapter"))
    assert [new for _, new in theirs] == [[*new, trained.tokenizer.control_id("<|im_end|>")] for new in ours]


@pytest.mark.slow
def test_of_smollm2_peft_and_transformers_compute_the_same(tmp_path: Path) -> None:
    """An adapter on a GGUF file: PEFT on the exported base has its logits within 1e-4, and the merged export
    goes on from five prompts as it does."""
    pytest.importorskip("peft")
    opened = load.open_model(load.open_source(smollm2()))
    base, form = opened.source, FORMATS["chatml"]
    extended, model = for_format(opened.tokenizer, form), base.build()
    assert extended.vocab_size == opened.tokenizer.vocab_size
    lora.apply(model, lora.Adapter(rank=16), seed=1)
    chance = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".b." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.02)
    save(model, tmp_path / "adapter", peft.Base.of(base), extended, form)
    load.save(opened, tmp_path / "base", "hf")
    puna("export", "hf", tmp_path / "adapter", tmp_path / "hf")

    chats = [[Turn("user", asked)] for asked in ASKED]
    ids = [encode(turns, form, extended, open=True).ids for turns in chats]
    job = ("load", tmp_path / "base", tmp_path / "adapter", ids[:1], tmp_path / "theirs")
    helper = Path(__file__).parents[1] / "model" / "weights" / "with_peft.py"
    outside(helper, json.dumps([job], default=str))
    logits = torch.load(tmp_path / "theirs" / "logits.pt", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(torch.tensor(ids[:1])), rtol=0, atol=1e-4)
        plain = base.build()(torch.tensor(ids[:1]))
    assert (logits - plain).abs().max() > 1

    merged = load.load(tmp_path / "adapter")
    engine = Engine(merged.model, merged.tokenizer)
    writing = [engine.submit(Request(prompt, 40, Sampling(temperature=0))) for prompt in ids]
    while engine.step():
        pass
    told = outside(HELPER, str(tmp_path / "hf"), json.dumps([messages(turns) for turns in chats]))
    for (prompt, new), ours, given in zip(json.loads(told), writing, ids, strict=True):
        assert prompt == given
        assert [token for token in new if token not in merged.stop_ids] == ours.new_tokens
