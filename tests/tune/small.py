"""A tiny base and a recipe that tunes it in seconds, for tests that run the whole way."""

import json
import random
from pathlib import Path

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.weights import native
from puna.tokens import files
from puna.tokens import tokenizer as sentencepiece
from puna.tokens.settings import TokenizerSettings
from tests import tiny

RECIPE = """
seed = 2
[base]
weights = "base"
[chat]
max_tokens = 256
format = "koala"
[data.shop]
files = ["shop.jsonl"]
licence = "CC0-1.0"
[replay]
prompts = 8
answer_tokens = 8
[execution]
checkpoint_steps = 3
[[stages]]
name = "sft"
epochs = 2
batch_conversations = 16
learning_rate = 3e-3
"""
WHO = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn")
WHAT = ("bread", "milk", "rice", "tea", "salt")


def rows(count: int = 100) -> list[dict[str, list[dict[str, str]]]]:
    """Conversations in which the answer repeats a part of the question."""
    chance = random.Random(4)
    made = []
    for number in range(count):
        who, what = chance.choice(WHO), chance.choice(WHAT)
        turns = (("user", f"{who} buys {number} bags of {what}. Of what?"), ("assistant", f"Of {what}."))
        made.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    return made


def write(folder: Path, base: bool = True, padding: int = 0) -> Path:
    """Base, conversations and recipe; the recipe's path. padding: rows of the base that no token has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    if base:
        write_base(folder / "base", padding)
    path = folder / "shop.toml"
    path.write_text(RECIPE)
    return path


def write_base(folder: Path, padding: int = 0) -> None:
    """A model of random weights with a tokenizer of its own, and rows behind its last token."""
    told = [" ".join(turn["content"] for turn in row["messages"]) for row in rows()]
    texts = [*told, " ".join((*tiny.WHO, *tiny.DOES, *tiny.WHAT, *tiny.WHEN))]
    texts += ["A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT:"] * 5
    trained = sentencepiece.Tokenizer(sentencepiece.train(texts, TokenizerSettings(vocab_size=360)))
    shape = LlamaConfig(dim=32, n_layers=2, n_heads=2, ffn_dim=64, vocab_size=360 + padding, max_seq_len=512)
    model = Llama(shape)
    model.init_weights(1)
    native.save(model, folder)
    files.to_folder(trained, folder, None, shape.max_seq_len)
