"""Which batches a training takes from its settings."""

import re
from pathlib import Path

import numpy as np
import pytest

from puna.errors import UserError
from puna.model.config import config
from puna.run.artifact import Artifact
from puna.tokens import shards
from puna.tokens.batches import Batches, Phases
from puna.tokens.settings import TokensSettings
from puna.train.settings import TrainSettings
from puna.train.stage import TrainStageSettings, batches_of, check_epochs

from .small import shard


def taken(monkeypatch: pytest.MonkeyPatch, maximum_epochs: float = 1e9, **train: int) -> Batches | Phases:
    monkeypatch.setattr(shards, "load", lambda folder, name, split, vocab_size: shard())
    sizes = {"steps": 10, "warmup_steps": 0, "batch_sequences": 4, "sequence_length": 16, **train}
    settings = TrainStageSettings(
        seed=1,
        sources=("s",),
        size="tiny",
        model=config("tiny", 512, max_seq_len=16),
        mixture=TokensSettings(maximum_epochs=maximum_epochs),
        train=TrainSettings.model_validate(sizes),
        kernels="torch",
    )
    return batches_of(settings, Artifact(Path(), "tokens", "", {}, {}, {"s": {}}))


def test_short_sequences_are_as_many_tokens_a_step_and_do_not_depend_on_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, cut, longer = (
        taken(monkeypatch, short_length=8, short_steps=6, steps=steps) for steps in (10, 4, 20)
    )
    shapes = [whole.batch(step).tokens.shape for step in range(10)]
    assert shapes == [(8, 8)] * 6 + [(4, 16)] * 4
    for step in range(10):
        expected = whole.batch(step).tokens
        assert np.array_equal(longer.batch(step).tokens, expected)
        assert step >= 4 or np.array_equal(cut.batch(step).tokens, expected)
    (of_whole,), (of_cut,) = whole.mixture, cut.mixture
    size = len(shard().tokens)
    assert of_whole.epochs == pytest.approx(10 * 64 / size, rel=0.1)
    assert of_cut.epochs == pytest.approx(4 * 64 / size, rel=0.1)


def test_epochs_of_both_lengths_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    most = taken(monkeypatch, short_length=8, short_steps=6).mixture[0].epochs
    taken(monkeypatch, most, short_length=8, short_steps=6)
    with pytest.raises(UserError, match=r"more than tokens\.maximum_epochs"):
        taken(monkeypatch, most * 0.999, short_length=8, short_steps=6)


def test_the_steps_that_the_message_names_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"or less, give") as refused:
        taken(monkeypatch, 2, steps=400)
    named = re.search(r"train\.steps=(\d+)", str(refused.value))
    assert named and taken(monkeypatch, 2, steps=int(named[1])).mixture[0].epochs > 1.8


def test_too_many_epochs_are_told_before_there_are_tokens() -> None:
    train = TrainSettings(steps=100, warmup_steps=0, batch_sequences=4, sequence_length=16)
    check_epochs(TokensSettings(maximum_epochs=4), train, 1600)
    with pytest.raises(
        UserError, match=r"at least 4\.1 times \(6,400 tokens from 1,550 bytes\).*=23 or less"
    ):
        check_epochs(TokensSettings(maximum_epochs=4), train, 1550)


def test_the_length_of_each_step() -> None:
    sizes = {"steps": 10, "warmup_steps": 0, "batch_sequences": 4, "sequence_length": 16}
    short = TrainSettings(**sizes, short_length=8, short_steps=6)
    assert [short.length_of(step) for step in (1, 6, 7, 10)] == [8, 8, 16, 16]
    assert TrainSettings(**sizes).length_of(1) == 16
    with pytest.raises(ValueError, match="a sequence has 2 tokens or more"):
        TrainSettings(**sizes, short_length=1, short_steps=6)
