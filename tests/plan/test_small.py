"""Sections of a small model, by the text there is."""

import random
from pathlib import Path

import pytest

from puna import recipe
from tests.tiny import puna


def letters(folder: Path, count: int, words: int, alphabet: str = "abcdefghiklmnoprstuvw") -> Path:
    """So many letters of random words of a list of 400."""
    chance = random.Random(words)
    names = ["".join(chance.choices(alphabet, k=chance.randrange(2, 8))) for _ in range(400)]
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.txt").write_text(" ".join(chance.choices(names, k=words)) + ".")
    return folder


def test_fifty_kilobytes_train_a_small_model(tmp_path: Path) -> None:
    """As the recipe is written; only fewer of its steps."""
    raw = letters(tmp_path / "letters", 20, 450)
    puna("corpus", raw, "--out", tmp_path / "out")
    path = tmp_path / "out" / "letters" / "recipe.toml"
    made = recipe.load(path)
    assert made.model.size == "tiny" and made.tokenizer.vocab_size == 512
    assert 100 < made.train.steps < 600
    changes = ("-s", "train.steps=10", "-s", "train.warmup_steps=2")
    assert "report: " in puna("run", path, "--out", tmp_path / "out", *changes).stdout


@pytest.mark.parametrize(
    ("count", "words", "alphabet", "told"),
    [
        (1, 200, "abcdefghi", "no source has two documents"),
        (2, 60, "abcdefghi", "tokens to train on do not fill a sequence of 128"),
    ],
)
def test_too_little_text_is_said(tmp_path: Path, count: int, words: int, alphabet: str, told: str) -> None:
    raw = letters(tmp_path / "letters", count, words, alphabet)
    result = puna("corpus", raw, "--out", tmp_path / "out")
    head = (tmp_path / "out" / "letters" / "recipe.toml").read_text().partition("\n")[0]
    assert "too little text to train a model on" in head and told in head and told in result.stderr
    assert "exists already" in puna("corpus", raw, "--out", tmp_path / "out").stderr
