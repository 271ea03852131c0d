"""The engine against plain repeated forward passes, and the sampler against its own definition."""

import math

import pytest
import torch

from puna.errors import UserError
from puna.generate.engine import generate
from puna.generate.sampling import probabilities, sample
from puna.model.config import LlamaConfig
from puna.model.llama import Llama

PROMPTS = [[1, 5, 9], [1], [1, 7, 7, 2, 30, 11, 4]]


@pytest.fixture(scope="module")
def model() -> Llama:
    shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 64}
    built = Llama(LlamaConfig(**shape, vocab_size=50, max_seq_len=40)).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return built


def test_greedy_equals_reading_everything_again(model: Llama) -> None:
    results = generate(model, PROMPTS, max_new_tokens=20)
    for prompt, new in zip(PROMPTS, results, strict=True):
        line = list(prompt)
        for _ in range(20):
            line.append(int(model(torch.tensor([line]))[0, -1].argmax()))
        assert line[len(prompt) :] == new


def test_rows_do_not_depend_on_their_neighbours(model: Llama) -> None:
    options = {"max_new_tokens": 15, "temperature": 0.9, "top_p": 0.9, "top_k": 20}
    together = generate(model, PROMPTS, **options, seed=3)
    assert generate(model, PROMPTS[:1], **options, seed=3) == together[:1]
    assert generate(model, PROMPTS, **options, seed=4) != together


def test_a_row_ends_at_the_end_token(model: Llama) -> None:
    free = generate(model, PROMPTS, max_new_tokens=20)
    end = free[0][4]
    ended = generate(model, PROMPTS, max_new_tokens=20, eos_id=end)
    assert ended == [row[: row.index(end)] if end in row else row for row in free]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_rows_of_padding_are_never_drawn(model: Llama, temperature: float) -> None:
    free = generate(model, PROMPTS, max_new_tokens=30, temperature=temperature)
    assert max(map(max, free)) >= 30
    bounded = generate(model, PROMPTS, max_new_tokens=30, temperature=temperature, vocab_size=30)
    assert max(map(max, bounded)) < 30


def test_prompts_that_do_not_fit_are_refused(model: Llama) -> None:
    with pytest.raises(UserError, match="prompt 2 is empty"):
        generate(model, [[1], []], max_new_tokens=1)
    with pytest.raises(UserError, match="passes the model's 40"):
        generate(model, [[1] * 30], max_new_tokens=11)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    assert probabilities(logits, 1.0, 0.65, 0)[0].tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert probabilities(logits, 1.0, 0.71, 0)[0].tolist() == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9])
    assert probabilities(logits, 1.0, 1.0, 1)[0].tolist() == pytest.approx([0, 1, 0, 0])
    assert probabilities(logits, 0.5, 1.0, 0)[0].tolist() == pytest.approx([1 / 30, 16 / 30, 4 / 30, 9 / 30])
    assert probabilities(logits, 0.0, 1.0, 0)[0].tolist() == [0, 1, 0, 0]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(4000, 4)
    generators = [torch.Generator().manual_seed(row) for row in range(4000)]
    counts = sample(logits, 1.0, 1.0, 0, generators).bincount(minlength=4).double()
    expected = torch.tensor([400.0, 1600, 800, 1200], dtype=torch.double)
    assert ((counts - expected) ** 2 / expected).sum() < 16.27  # chi-square, 3 degrees of freedom, p = 0.001


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-300, 1e-306, 1e-307, 1e-308, 1e-320, 5e-324])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_coldest_temperatures_take_the_likeliest_token(temperature: float, dtype: torch.dtype) -> None:
    logits = (torch.randn(8, 500, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    logits[torch.arange(8), torch.arange(8) * 60] = 40.0
    logits[1, 60] = torch.finfo(dtype).max
    logits[2, 121:] = -math.inf
    for top_p, top_k in ((0.95, 0), (1.0, 0), (1.0, 7)):
        generators = [torch.Generator().manual_seed(row) for row in range(8)]
        assert sample(logits, temperature, top_p, top_k, generators).tolist() == list(range(0, 480, 60))
        assert probabilities(logits, temperature, top_p, top_k).max(-1).values.tolist() == [1.0] * 8


def test_top_p_of_one_keeps_every_token() -> None:
    logits = torch.randn(50, 500, generator=torch.Generator().manual_seed(0)) * 5
    assert (probabilities(logits, 1.0, 1.0, 0) > 0).all()


def test_logits_next_to_each_other_are_told_apart() -> None:
    logits = torch.tensor([[1.0, 1.0]])
    logits[0, 1] = logits[0, 1].nextafter(torch.tensor(2.0))
    assert probabilities(logits, 1e-320, 1.0, 0).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 0.8])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(temperature: float, value: float) -> None:
    logits = torch.zeros(2, 5)
    logits[1, 3] = value
    generators = [torch.Generator(), torch.Generator()]
    for wrong in (logits, torch.full((2, 5), -math.inf)):
        with pytest.raises(UserError, match="not finite numbers"):
            sample(wrong, temperature, 0.95, 0, generators)
        with pytest.raises(UserError, match="not finite numbers"):
            probabilities(wrong, temperature, 0.95, 0)


@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf])
def test_a_temperature_is_a_number_from_zero_on(temperature: float) -> None:
    with pytest.raises(UserError, match="a temperature is a number from 0 on"):
        sample(torch.zeros(1, 5), temperature, 1.0, 0, [torch.Generator()])
