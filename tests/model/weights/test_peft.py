"""Adapters into PEFT and back; another base and what is not supported refused by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from puna.errors import UserError
from puna.generate import load
from puna.model import lora
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.lora import Adapter
from puna.model.weights import hf, native, peft
from puna.model.weights.peft import Base

HELPER = Path(__file__).with_name("with_peft.py")
TOKENS = [[5, 17, 3, 60, 64, 2, 9], [66, 1, 2, 65, 8, 30, 67]]


def base(folder: Path, tied: bool = False, seed: int = 1) -> Path:
    """A Hugging Face folder; 68 rows."""
    config = LlamaConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=48, vocab_size=68, tie_embeddings=tied
    )
    model = Llama(config)
    model.init_weights(seed)
    hf.save(model, folder)
    return folder


def adapted(path: Path, adapter: Adapter, name: str = "default") -> tuple[Llama, Base]:
    """A model of a folder with an adapter that is trained; what it is of."""
    source = load.open_source(path)
    model = source.build()
    if adapter.rows:
        lora.grow(model, adapter.rows)
    lora.apply(model, adapter, name=name, seed=3)
    chance = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad and ".a." not in key:
                parameter.add_(torch.randn(parameter.shape, generator=chance) / 10)
    return model, Base.of(source)


ADAPTERS = {
    "all": (Adapter(rank=4, alpha=8), False),
    "rslora, patterns, a head": (
        Adapter(
            rank=4,
            alpha=8,
            targets=("q_proj", "k_proj", "down_proj", "lm_head"),
            rs=True,
            rank_pattern={"k_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
            alpha_pattern={"q_proj": 3},
        ),
        False,
    ),
    "new tokens": (Adapter(rank=4, rows=(67, 68, 69)), False),
    "new tokens of a tied head": (Adapter(rank=4, targets=r".*\.v_proj", rows=(67, 68, 69)), True),
}


PEFTS: dict[str, dict[str, Any]] = {
    "all": {"r": 3, "lora_alpha": 7, "target_modules": "all-linear", "lora_dropout": 0.1},
    "tokens, rslora": {
        "r": 4,
        "target_modules": ["k_proj", "o_proj"],
        "use_rslora": True,
        "trainable_token_indices": {"embed_tokens": [4, 67, 3]},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases, our adapters, and what PEFT makes of them and of its own."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("peft")
    jobs: list[tuple[Any, ...]] = []
    for case, (adapter, tied) in ADAPTERS.items():
        path = base(folder / case / "base", tied)
        model, of = adapted(path, adapter)
        peft.save(model, folder / case / "ours", of)
        torch.save(model(torch.tensor(rows(adapter))).detach(), folder / case / "logits.pt")
        jobs.append(("load", path, folder / case / "ours", rows(adapter), folder / case / "theirs"))
    for case, keys in PEFTS.items():
        path = base(folder / f"made {case}" / "base", tied=True)
        jobs.append(("make", path, keys, TOKENS, folder / f"made {case}" / "theirs"))
    command = [sys.executable, str(HELPER), json.dumps(jobs, default=str)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


def rows(adapter: Adapter) -> list[list[int]]:
    return [*TOKENS, [69, 68, 3, 67, 69, 1, 2]] if adapter.rows else TOKENS


def logits(path: Path) -> torch.Tensor:
    found: torch.Tensor = torch.load(path / "logits.pt", weights_only=True)
    return found


@pytest.mark.parametrize("case", ADAPTERS)
def test_into_peft_and_back(case: str, folder: Path) -> None:
    """Logits of PEFT are ours; so are those of what PEFT saves again, merged as it is read."""
    adapter, _ = ADAPTERS[case]
    ours, tokens = logits(folder / case), torch.tensor(rows(adapter))
    plain = load.open_source(folder / case / "base").build()
    assert (ours[:2, :, :68] - plain(torch.tensor(TOKENS))).abs().max() > 0.1
    torch.testing.assert_close(logits(folder / case / "theirs"), ours, rtol=0, atol=1e-4)
    for one in ("ours", "theirs"):
        merged = load.open_source(folder / case / one).build()
        torch.testing.assert_close(merged(tokens), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ADAPTERS)
def test_loaded_and_saved_again_gives_equal_files(case: str, folder: Path, tmp_path: Path) -> None:
    source = load.open_source(folder / case / "base")
    model, of = source.build(), Base.of(source)
    peft.load(model, folder / case / "ours", "other")
    tokens = torch.tensor(rows(ADAPTERS[case][0]))
    torch.testing.assert_close(model(tokens), logits(folder / case), rtol=0, atol=1e-5)
    peft.save(model, tmp_path, of, "other")
    for file in (peft.WEIGHTS, peft.CONFIG, peft.BASE):
        written = (tmp_path / file).read_bytes()
        assert len(written) > 400
        if file != peft.CONFIG or isinstance(ADAPTERS[case][0].targets, tuple):
            assert written == (folder / case / "ours" / file).read_bytes()


@pytest.mark.parametrize("case", PEFTS)
def test_what_peft_has_made(case: str, folder: Path, tmp_path: Path) -> None:
    """It goes with any base of its shape, and has none of its digests."""
    folder = folder / f"made {case}"
    merged = load.open_source(folder / "theirs").build()
    torch.testing.assert_close(merged(torch.tensor(TOKENS)), logits(folder / "theirs"), rtol=0, atol=1e-4)
    assert (merged(torch.tensor(TOKENS)) - logits(folder / "theirs").roll(1, 0)).abs().max() > 0.1
    model = load.open_source(folder / "base").build()
    peft.load(model, folder / "theirs")
    torch.testing.assert_close(model(torch.tensor(TOKENS)), logits(folder / "theirs"), rtol=0, atol=1e-4)


def written(folder: Path) -> Path:
    """An adapter's folder beside its base."""
    model, of = adapted(base(folder / "base"), Adapter(rank=4))
    peft.save(model, folder / "adapter", of)
    return folder / "adapter"


def test_another_base_is_refused(tmp_path: Path) -> None:
    """One with another weight, by its name, and one with another vocabulary; in memory too."""
    path = written(tmp_path)
    config = json.loads((path / peft.CONFIG).read_text())
    other = base(tmp_path / "other", seed=2)
    (path / peft.CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    source = load.open_source(path)  # headers alone
    with pytest.raises(UserError, match=r"other is not the model that .*adapter belongs to: tok_emb"):
        source.build()
    model = hf.read(other).build()
    with pytest.raises(UserError, match=r"is not the model that .* is another"):
        peft.load(model, path)
    assert not lora.changed_modules(model)
    grown = hf.read(other).build()
    lora.grow(grown, [68])
    hf.save(grown, tmp_path / "grown")
    (path / peft.CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "../grown"}))
    with pytest.raises(UserError, match=r"to a model of 68 tokens; .*grown has 69"):
        load.open_source(path)
    (path / peft.CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "gone/away"}))
    with pytest.raises(UserError, match="base_model_name_or_path = 'gone/away' is no folder or file here"):
        load.open_source(path)


def test_the_same_base_in_another_format_is_the_same(tmp_path: Path) -> None:
    path = written(tmp_path)
    native.save(hf.read(tmp_path / "base").build(), tmp_path / "native")
    merged = load.open_source(path).build()
    shutil.rmtree(tmp_path / "base")
    (tmp_path / "native").rename(tmp_path / "base")
    again = load.open_source(path).build()
    assert all(map(torch.equal, again.parameters(), merged.parameters()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "use_dora = True is not known"),
        ({"bias": "all"}, "bias = 'all'; only 'none' is supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = ['lm_head'] is not known"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'; only 'LORA'"),
        ({"target_modules": ["q_proj", "c_attn"]}, "no layer is called c_attn; there are down_proj"),
        ({"target_modules": ["q_proj"]}, "is not known: it is of no layer that is adapted"),
        ({"layers_to_transform": [1]}, "layers_to_transform = [1] is not known"),
        ({"init_lora_weights": "pissa"}, "describes no adapter: init_lora_weights: Input should be"),
        ({"r": 5}, "q_proj.lora_A.weight has shape (4, 32) instead of (5, 32)"),
        ({"r": 0}, "describes no adapter"),
        ({"lora_alpha": float("nan")}, "describes no adapter: lora_alpha"),
        ({"rank_pattern": {"(": 4}}, "'(.*\\\\.)?(()$' is no regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, "describes no adapter: rank_pattern.q_proj"),
        ({"trainable_token_indices": [1]}, "embed_tokens.token_adapter.trainable_tokens_delta is missing"),
        ({"trainable_token_indices": ["1"]}, "describes no adapter: trainable_token_indices"),
        (
            {"trainable_token_indices": [67, 69]},
            "indices [67, 69] leave some out, or name one twice",
        ),
        ({"trainable_token_indices": {"wte": [67]}}, "trainable_token_indices names 'wte'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes: Any, said: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    config = json.loads((path / peft.CONFIG).read_text())
    (path / peft.CONFIG).write_text(json.dumps(config | changes))
    with pytest.raises(UserError) as error:
        load.open_source(path)
    assert said in str(error.value)


def test_a_missing_or_cut_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    raw = (path / peft.WEIGHTS).read_bytes()
    (path / peft.WEIGHTS).write_bytes(raw[:-4])
    with pytest.raises(UserError, match="is damaged"):
        load.open_source(path)
    (path / peft.WEIGHTS).unlink()
    with pytest.raises(UserError, match="holds no model"):
        load.open_source(path)
