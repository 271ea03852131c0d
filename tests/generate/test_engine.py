"""The engine against plain forward passes over whole sequences, and against itself in other company."""

import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import UserError
from puna.generate import decoder
from puna.generate.blocks import Blocks
from puna.generate.decoder import BLOCK, Batch, CompiledDecoder, block_bytes
from puna.generate.engine import Engine, OptionScore, Piece, Request, Sampling, Tree
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.run import compiled, machine
from tests.generate.letters import Letters

VOCABULARY, CONTEXT = 50, 120
PROMPTS = [[1, 5, 9], [1], [1, 7, 7, 2, 30, 11, 4], [3] * 40, list(range(33))]
needs_compiler = pytest.mark.skipif(
    compiled.load(decoder.SOURCE, decoder.SIGNATURES) is None, reason="there is no C++ compiler"
)


def built(dtype: torch.dtype = torch.float32, **changes: object) -> Llama:
    shape = {"dim": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 76, "vocab_size": VOCABULARY}
    model = Llama(LlamaConfig(**{**shape, "max_seq_len": CONTEXT, **changes})).to(dtype)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.4)
    return model


@pytest.fixture(params=["compiled", "torch"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Llama]:
    if request.param == "torch":
        monkeypatch.setenv(compiled.SWITCH, "off")
    elif compiled.load(decoder.SOURCE, decoder.SIGNATURES) is None:
        pytest.skip("there is no C++ compiler")
    yield built(torch.float32 if request.param == "compiled" else torch.float64)


def engine(model: Llama, eos_id: int = -1, vocab_size: int = VOCABULARY, **options: object) -> Engine:
    return Engine(model, Letters(vocab_size, eos_id), **{"memory_bytes": 1 << 22, **options})


def samples(one: Engine, prompts: list[list[int]], **options: object) -> list[list[int]]:
    found = {place: result.tokens for place, _, result in one.sample(prompts, **options)}
    return [found[place] for place in range(len(prompts))]


def some_trees(count: int, seed: int = 0) -> list[Tree]:
    """Trees with common beginnings of contexts and of options, options inside options, and equal ones."""
    chance = random.Random(seed)
    shots = [chance.randrange(VOCABULARY) for _ in range(37)]
    trees = []
    for number in range(count):
        own = [chance.randrange(VOCABULARY) for _ in range(chance.randrange(1, 30))]
        context = shots[: 37 if number % 2 else 16] + own
        options = [[chance.randrange(VOCABULARY) for _ in range(chance.randrange(1, 20))] for _ in range(3)]
        options += [options[0][:1] + options[1], options[0][:2], list(options[0])]
        trees.append(Tree(context, options))
    return trees


def plain_scores(model: Llama, tree: Tree) -> list[OptionScore]:
    results = []
    for option in tree.options:
        with torch.no_grad():
            logits = model(torch.tensor([tree.context + option]))[0].double()
        rows = logits.log_softmax(-1)[len(tree.context) - 1 : -1]
        values = [float(row[token]) for row, token in zip(rows, option, strict=True)]
        results.append(OptionScore(values, rows.argmax(-1).tolist() == option))
    return results


def test_greedy_equals_reading_everything_again(model: Llama) -> None:
    with torch.no_grad():
        for prompt, new in zip(PROMPTS, samples(engine(model), PROMPTS, max_new_tokens=20), strict=True):
            line = list(prompt)
            for _ in range(20):
                line.append(int(model(torch.tensor([line]))[0, -1].argmax()))
            assert line[len(prompt) :] == new


@pytest.mark.parametrize("rows", [1, 5, 256])
def test_scores_equal_those_of_whole_sequences(model: Llama, rows: int) -> None:
    one, trees = engine(model, rows=rows), some_trees(9)
    found = dict(one.score(trees))
    assert len(found) == len(trees)
    for number, tree in enumerate(trees):
        for score, plain in zip(found[number], plain_scores(model, tree), strict=True):
            assert score.log_probs == pytest.approx(plain.log_probs, abs=2e-4)
            assert score.is_greedy == plain.is_greedy
    assert one.blocks.available == one.blocks.count and one._reserved == 0 and not one.running


@pytest.mark.parametrize("heads", [(4, 4, None), (6, 1, None), (3, 3, 20), (32, 2, 6)])
@needs_compiler
def test_shapes_of_heads(heads: tuple[int, int, int | None]) -> None:
    count, kv_heads, width = heads
    shape = {"dim": count * 4 if width else count * 8, "n_heads": count, "n_kv_heads": kv_heads}
    model = built(**shape, explicit_head_dim=width, tie_embeddings=True)
    one = engine(model)
    assert isinstance(one.decoder, CompiledDecoder)
    (tree,) = some_trees(1)
    (_, found), plain = next(one.score([tree])), plain_scores(model, tree)
    for score, expected in zip(found, plain, strict=True):
        assert score.log_probs == pytest.approx(expected.log_probs, abs=2e-4)


@needs_compiler
def test_log_probabilities_are_bitwise_equal_in_any_company() -> None:
    model, trees = built(), some_trees(32)
    alone = [next(engine(model, rows=11).score([tree]))[1] for tree in trees]
    for size, rows in ((3, 64), (8, 256), (32, 7), (32, 256)):
        one = engine(model, rows=rows)
        for start in range(0, len(trees), size):
            part = trees[start : start + size]
            for _ in range(2):  # cold, then warm
                for number, scores in one.score(reversed(part)):
                    assert scores == alone[start + len(part) - 1 - number]


@needs_compiler
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.permutations(range(6)), st.integers(0, 5), st.integers(0, 20))
def test_texts_do_not_depend_on_company(rows: int, order: list[int], late: int, cut: int) -> None:
    """Whatever the order and moment of arrival, beside a text that is cancelled on the way."""
    model, how = built(), Sampling(temperature=0.9, top_p=0.95, top_k=20)
    prompts = [tree.context for tree in some_trees(6, seed=2)]

    def request(number: int) -> Request:
        return Request(prompts[number], 12, how, seed=5, sample=number)

    alone = []
    for number in range(6):
        one = engine(model)
        alone.append(one.submit(request(number)))
        while one.step():
            pass
    one = engine(model, rows=rows)
    texts = {number: one.submit(request(number)) for number in order[late:]}
    disturbing = one.submit(Request(prompts[0], 30, how))
    for _ in range(cut):
        one.step()
    one.cancel(disturbing)
    texts |= {number: one.submit(request(number)) for number in order[:late]}
    while one.step():
        pass
    for number, text in texts.items():
        assert text.sample() == alone[number].sample()
    assert one.blocks.available == one.blocks.count and one._reserved == 0


def test_common_beginnings_are_read_once(model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    one, read = engine(model), list[int]()
    inner = one.decoder.read

    def counted(batch: Batch) -> torch.Tensor:
        read.append(len(batch.tokens))
        return inner(batch)

    monkeypatch.setattr(one.decoder, "read", counted)
    shots = [7] * 64
    list(one.score([Tree([*shots, 1], [[2, 3], [2, 4], [9]]), Tree([*shots, 5], [[2]])]))
    assert sum(read) == 64 + 1 + 1 + 1  # the shots, two last tokens of contexts, the 2 that two options share


def test_rows_of_padding_are_never_drawn(model: Llama) -> None:
    for temperature in (0.0, 2.0):
        how = Sampling(temperature=temperature)
        free = samples(engine(model), PROMPTS, max_new_tokens=30, sampling=how)
        assert max(map(max, free)) >= 30
        bounded = samples(engine(model, vocab_size=30), PROMPTS, max_new_tokens=30, sampling=how)
        assert max(map(max, bounded)) < 30


def test_a_text_ends_at_the_end_token_or_at_a_stop(model: Llama) -> None:
    free = samples(engine(model), PROMPTS, max_new_tokens=20)
    end = free[0][4]
    ended = samples(engine(model, eos_id=end), PROMPTS, max_new_tokens=20)
    assert ended == [row[: row.index(end)] if end in row else row for row in free]
    text = Letters(VOCABULARY).decode(free[0])
    shown: list[Piece] = []
    one = engine(model)
    writing = one.submit(Request(PROMPTS[0], 20, stops=(text[3:6], "no such"), on_piece=shown.append))
    while one.step():
        pass
    assert writing.text == text[: text.find(text[3:6])] == "".join(piece.text for piece in shown)
    assert writing.sample().finish == "stop" and one.blocks.available == one.blocks.count


def test_log_probs_are_the_models_own(model: Llama) -> None:
    how = Sampling(temperature=1.3, top_k=10, repetition_penalty=1.2)
    ((_, _, sample),) = engine(model).sample([PROMPTS[0]], max_new_tokens=8, sampling=how)
    plain = plain_scores(model, Tree(PROMPTS[0], [sample.tokens]))[0]
    assert sample.log_probs == pytest.approx(plain.log_probs, abs=2e-4)


def test_samples_are_numbered_and_each_is_its_own(model: Llama) -> None:
    options = {"max_new_tokens": 10, "sampling": Sampling(temperature=1.0), "seed": 4}
    four = {number: result for _, number, result in engine(model).sample([PROMPTS[0]], n=4, **options)}
    assert sorted(four) == [0, 1, 2, 3] and len({tuple(result.tokens) for result in four.values()}) > 1
    rest = {n: result for _, n, result in engine(model).sample([PROMPTS[0]], n=2, first_sample=2, **options)}
    assert rest == {2: four[2], 3: four[3]}


def test_memory_is_bounded_and_what_waits_is_done_later(model: Llama) -> None:
    room = 6 * block_bytes(model, model.tok_embeddings.weight.element_size())
    one = engine(model, memory_bytes=room)
    assert one.blocks.count == 6
    roomy = samples(engine(model), PROMPTS, max_new_tokens=20)
    assert samples(one, PROMPTS, max_new_tokens=20) == roomy
    with pytest.raises(UserError, match="raise memory_bytes"):
        one.submit(Request([1] * 90, 20))
    tree = some_trees(3)[1]
    assert len(list(engine(model, memory_bytes=3 * room).score([tree] * 5))) == 5


def test_what_cannot_be_read_is_refused(model: Llama) -> None:
    one = engine(model)
    with pytest.raises(UserError, match="a prompt is empty"):
        one.submit(Request([], 1))
    with pytest.raises(UserError, match="passes the model's 120"):
        one.submit(Request([1] * 101, 20))
    with pytest.raises(UserError, match="tokens are 0 to 49"):
        one.submit(Request([50], 1))
    with pytest.raises(UserError, match="max_new_tokens is 1 or more"):
        one.submit(Request([1], 0))
    with pytest.raises(UserError, match="an option is empty"):
        list(one.score([Tree([1], [[2], []])]))
    with pytest.raises(UserError, match="pass the model's 120"):
        list(one.score([Tree([1] * 100, [[2] * 22])]))
    with pytest.raises(UserError, match="no mode of generation is called int4"):
        engine(model, mode="int4")
    assert not one.waiting


def test_a_damaged_model_is_told(model: Llama) -> None:
    with torch.no_grad():
        model.norm.weight[3] = float("nan")
    with pytest.raises(UserError, match="not finite numbers"):
        samples(engine(model), PROMPTS, max_new_tokens=2)


def test_new_weights_are_taken_in_the_middle_of_texts(model: Llama) -> None:
    other = built(model.tok_embeddings.weight.dtype)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter *= -1.1
    one = engine(model)
    early, long = one.submit(Request(PROMPTS[0], 3)), one.submit(Request(PROMPTS[3], 9))
    for _ in range(5):
        one.step()
    written = long.new_tokens
    one.update(other)
    while one.step():
        pass
    fresh = samples(engine(other), [PROMPTS[3] + written], max_new_tokens=9 - len(written))[0]
    assert long.new_tokens == written + fresh
    assert (early.sample().version, long.sample().version) == (0, 1)
    scores = one.score(some_trees(3))
    next(scores)
    with pytest.raises(ValueError, match="same shape"):
        one.update(built(ffn_dim=80))


@needs_compiler
@pytest.mark.parametrize("mode", ["int8", "bfloat16"])
def test_modes_are_near_float32(mode: str) -> None:
    if mode == "bfloat16" and not machine.multiplies_bfloat16():
        with pytest.raises(UserError, match="no units for bfloat16"):
            engine(built(), mode=mode)
        return
    model, trees = built(ffn_dim=77), some_trees(4)
    exact, near = dict(engine(model).score(trees)), dict(engine(model, mode=mode).score(trees))
    pairs = [
        (a, b)
        for number in exact
        for one, other in zip(exact[number], near[number], strict=True)
        for a, b in zip(one.log_probs, other.log_probs, strict=True)
    ]
    gaps = torch.tensor(pairs).diff(dim=-1).abs()
    assert 0 < gaps.mean() < 0.2 * torch.tensor(pairs).std()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60))
def test_blocks_are_never_lost_nor_given_twice(moves: list[tuple[int, int]]) -> None:
    blocks, held = Blocks(5), list[list[int]]()
    for move, which in moves:
        if move < 2 and blocks.available:
            taken = blocks.take()
            assert all(taken not in one for one in held)
            held.append([taken])
            if move == 1:
                blocks.name(0, (which,), taken)
        elif move == 2 and held:
            blocks.release(held.pop(which % len(held)))
        elif move == 3 and (found := blocks.find(0, (which,))):
            blocks.share(found[0])
            held.append([found[0]])
        assert blocks.available == 5 - len({block for one in held for block in one})
    with pytest.raises(IndexError):
        for _ in range(6):
            blocks.take()


def test_a_block_holds_sixteen_tokens() -> None:
    assert BLOCK == 16 and block_bytes(built()) == 2 * 2 * (12 + 16) * 16 * 4
