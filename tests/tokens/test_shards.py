"""Shards against the lists they were written from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens import shards
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import Tokenizer, train

TEXTS = [f"document {number}: " + "the llamas graze " * (number % 7) for number in range(60)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train(TEXTS, TokenizerSettings(vocab_size=300)))


def test_every_document_is_in_exactly_one_split(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = ((f"id{n}", text) for n, text in enumerate(TEXTS))
    counts = shards.write("s", documents, tokenizer, 0.2, 2, tmp_path)
    opened = {split: shards.load(tmp_path, "s", split, 300) for split in shards.SPLITS}
    rows = sorted(row for shard in opened.values() for row in shard.rows.tolist())
    assert rows == list(range(60))
    for split, shard in opened.items():
        assert shard.tokens.dtype == np.uint16
        for number, row in enumerate(shard.rows):
            assert shard.document(number).tolist() == [1, *tokenizer.encode(TEXTS[row]), 2]
        assert counts[split] == {
            "documents": shard.documents,
            "tokens": len(shard.tokens),
            "bytes": sum(len(TEXTS[row].encode()) for row in shard.rows),
        }
    chosen = shards.choose_held_out([f"id{n}" for n in range(60)], 0.2)
    assert opened["held_out"].rows.tolist() == np.flatnonzero(chosen).tolist()


def test_where_a_token_is_and_the_first_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = ((f"id{n}", text) for n, text in enumerate(TEXTS))
    shards.write("s", documents, tokenizer, 0.1, 1, tmp_path)
    shard = shards.load(tmp_path, "s", "train", 300)
    for number in range(shard.documents):
        start, end = shard.offsets[number], shard.offsets[number + 1]
        assert shard.document_at(np.array([start, end - 1])).tolist() == [number, number]
    for maximum in (1, 40, 200, 10**9):
        first = shard.first(maximum)
        count = first.documents
        assert count == 1 or len(first.tokens) <= maximum
        assert count == shard.documents or shard.offsets[count + 1] > maximum
        assert first.tokens.tolist() == shard.tokens[: shard.offsets[count]].tolist()
        assert first.rows.tolist() == shard.rows[:count].tolist()


def test_one_document_is_too_few(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source s has 1 document: at least two"):
        shards.write("s", iter([("id", "text")]), tokenizer, 0.1, 1, tmp_path)


@given(st.lists(st.uuids().map(str), min_size=2, max_size=50, unique=True), st.floats(0.01, 0.49))
def test_being_held_out_depends_on_the_document_alone(names: list[str], share: float) -> None:
    chosen = shards.choose_held_out(names, share)
    assert 1 <= chosen.sum() < len(names)
    again = shards.choose_held_out(names[::-1], share)
    assert again.tolist() == chosen[::-1].tolist()


def test_the_share_is_kept_on_many_documents() -> None:
    names = [str(number) for number in range(20_000)]
    assert shards.choose_held_out(names, 0.05).mean() == pytest.approx(0.05, abs=0.005)
    few = shards.choose_held_out(names[:10_000], 0.05)
    assert few.tolist() == shards.choose_held_out(names, 0.05)[:10_000].tolist()
