"""Boundaries, normalisations, standard errors, McNemar's test."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.evaluate.scoring import Scored, ask, choose, gather, mcnemar, mean_and_error, split, values
from puna.evaluate.task import Choice
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import Tokenizer, load, train
from tests.tokens.test_files import smollm, smollm2  # noqa: F401  (a fixture, and what it needs)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    texts = [f"The llamas of the high plain graze {number} hours, = == ===\n" for number in range(200)]
    return Tokenizer(train(texts, TokenizerSettings(vocab_size=330)))


@pytest.fixture(scope="module")
def llama(data: Path) -> Tokenizer:
    return load(data / "models" / "llama-tokenizer" / "tokenizer.model")


def test_boundaries_with_llamas_tokenizer(llama: Tokenizer) -> None:
    assert split(llama, "hello wor", "ld") == ([1, 22172], [3186])
    assert split(llama, "Ans", "wer") == ([1], [673])
    given_ids, scored = split(llama, "Is water wet?\nAnswer: ", "yes")
    assert scored == [4874] and given_ids.count(1) == 1
    request = ask(llama, [("hello wor", "ld"), ("Ans", "wer"), ("hello wor", "th")])
    contexts = [list(request.branches[branch].context) for branch, _ in request.places]
    assert contexts == [[1, 22172], [1], [1, 22172]] and len(request.branches) == 2


def test_boundaries_with_smollm2s_tokenizer(smollm: Any) -> None:  # noqa: F811
    assert split(smollm, "hello wor", "ld") == ([28120], [905])
    assert smollm.bos == [] and smollm.bos_id == 1
    given_ids, scored = split(smollm, "", "Water is wet")  # nothing comes before: its begin token is given
    assert given_ids == [1] and scored == smollm.encode("Water is wet")


@given(
    context=st.text("ab .\n", max_size=6),
    options=st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1),
)
def test_branches_hold_every_option_once_behind_what_is_given(
    small: Tokenizer, context: str, options: list[str]
) -> None:
    request = ask(small, [(context, option) for option in options])
    assert sum(len(branch.options) for branch in request.branches) == len(options) == len(request.places)
    assert len({branch.context.tobytes() for branch in request.branches}) == len(request.branches)
    for option, (branch, place) in zip(options, request.places, strict=True):
        held = request.branches[branch]
        assert (list(held.context), list(held.options[place])) == split(small, context, option)
        assert held.context[0] == 1 and list(held.context).count(1) == 1  # one begin token
    assert request.longest() == max(len(b.context) + len(o) for b in request.branches for o in b.options) - 1


def test_scores_come_from_the_ids_of_the_option_alone(small: Tokenizer) -> None:
    item = Choice(id="0", question="The llamas", options=(" graze", " of"), right=(0,), unconditional="The")
    request = ask(small, item.pairs())
    assert len(request.places) == 4
    log_probs = [
        [[-float(token) for token in option] for option in branch.options] for branch in request.branches
    ]
    first, second = gather(request, 2, log_probs)
    for scored, option in ((first, " graze"), (second, " of")):
        ids = split(small, "The llamas", option)[1]
        alone = split(small, "The", option)[1]
        assert scored == Scored(-float(sum(ids)), len(ids), -float(sum(alone)))


def test_characters_are_those_of_the_option_as_printed() -> None:
    """By characters of Unicode the first, by bytes the second; the space in front counts for none."""
    for options in (("aaaa", "ééé"), (" aaaa", " ééé")):
        scores = [Scored(-4.0, 1), Scored(-3.3, 6)]
        assert values(options, scores)["characters"] == [-1.0, -3.3 / 3]
        assert values(options, scores)["bytes"] == [-1.0, -3.3 / 6]
        assert choose(options, scores) == {"none": 1, "characters": 0, "bytes": 1, "tokens": 1}


def test_the_answer_normalisation_takes_what_an_option_has_without_the_question() -> None:
    scores = [Scored(-5.0, 1, -9.0), Scored(-4.0, 1, -2.0)]
    assert values(("no", "yes"), scores)["answer"] == [4.0, -2.0]
    assert choose(("no", "yes"), scores)["answer"] == 0 and choose(("no", "yes"), scores)["none"] == 1


def test_of_equal_options_the_first_is_chosen() -> None:
    assert choose((" same", " same"), [Scored(-1.0, 2), Scored(-1.0, 2)])["none"] == 0


def test_standard_errors_are_those_of_a_mean() -> None:
    mean, error = mean_and_error([1.0] * 30 + [0.0] * 70)
    assert mean == 0.3 and error == pytest.approx(math.sqrt(0.3 * 0.7 / 99))
    assert mean_and_error([0.25]) == (0.25, None)


def test_mcnemar_is_the_binomial_test_of_the_flips() -> None:
    """1 of 6: 2 (1 + 6) / 2^6; none, and as many either way: no evidence at all."""
    assert mcnemar(1, 5) == mcnemar(5, 1) == pytest.approx(14 / 64)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(0, 10) == pytest.approx(2 / 1024)
