"""What the stage of the tokenizer trains on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from puna.tokens import splits, stage, tokenizer
from puna.tokens.settings import TokenizerSettings, TokensSettings


def test_the_tokenizer_reads_training_documents_from_all_over_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a budget for a quarter of 2,000 documents: as many from each tenth, up to chance (p = 0.001)."""
    texts = [f"ü {number:06} a llama\n" for number in range(2000)]
    names = [f"id{number}" for number in range(2000)]
    pq.write_table(pa.table({"id": names, "text": texts}), tmp_path / "s.parquet", row_group_size=300)
    size = len(texts[0].encode())
    read: list[str] = []

    def trained(given: Any, settings: TokenizerSettings, train: Any = tokenizer.train) -> bytes:
        read.extend(given)
        return train(iter(read), settings)

    monkeypatch.setattr(tokenizer, "train", trained)
    kept = {"documents": len(texts), "bytes": size * len(texts)}
    documents = SimpleNamespace(
        metrics={"sources": {"s": {"kept": kept}}}, path=lambda name: tmp_path / str(name)
    )
    quiet = SimpleNamespace(note=lambda text: None, progress=lambda *counts: None)
    settings = stage.TokenizerStageSettings(
        split=stage.split_settings(("s",), TokensSettings()),
        tokenizer=TokenizerSettings(vocab_size=280, training_bytes=500 * size),
    )
    told = stage.train_tokenizer(
        settings, {"documents": documents}, SimpleNamespace(work=tmp_path, reporter=quiet)
    )
    numbers = np.array([texts.index(text) for text in read])
    assert told["training_bytes"] == {"s": 500 * size} and len(set(numbers)) == 500
    held_out = splits.choose_held_out(
        splits.hashes_of(names), np.array([500] * len(names)), settings.split.held_out_fraction
    )
    assert not held_out[numbers].any()
    tenths = np.bincount(numbers // 200, minlength=10)
    assert ((tenths - 50) ** 2 / 50).sum() < 27.9
