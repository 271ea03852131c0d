"""The n-gram model against modified Kneser-Ney written out from the paper's formulas (Chen and Goodman 1998),
and against KenLM."""

import math
import struct
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.arpa import write as write_arpa
from puna.errors import UserError
from puna.text import ngram
from puna.text.ngram import Array, KneserNey

BEGIN, END, UNKNOWN = 1, 2, 0
VOCABULARY = 9
PIECES = ["<unk>", "<s>", "</s>", "a", "b", "\u2581c", "d", "e", "f"]
Gram = tuple[int, ...]


class Reference:
    """Direct recursion over dictionaries, in float64."""

    def __init__(
        self,
        documents: list[list[int]],
        order: int,
        outcomes: int = VOCABULARY - 1,
        prune: tuple[int, ...] = (0,) * 5,
    ) -> None:
        raw: list[Counter[Gram]] = [Counter() for _ in range(order + 2)]
        for document in documents:
            for n in range(1, order + 1):
                raw[n].update(tuple(document[at : at + n]) for at in range(len(document) - n + 1))
        before: dict[Gram, set[int]] = defaultdict(set)
        for n in range(2, order + 1):
            for gram in raw[n]:
                before[gram[1:]].add(gram[0])
        self.outcomes = outcomes
        self.counts: list[dict[Gram, int]] = [{} for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in raw[n].items():
                self.counts[n][gram] = len(before[gram]) if n < order and gram[0] != BEGIN else count
        self.counts[1][(BEGIN,)] = 0
        self.discounts = [(0.0, *self.estimate(Counter(self.counts[n].values()))) for n in range(order + 1)]
        self.followers: list[dict[Gram, list[int]]] = [defaultdict(list) for _ in range(order + 1)]
        self.lost: Counter[Gram] = Counter()  # counts of what is pruned after a context
        self.pruned: set[Gram] = {
            gram for n in range(2, order + 1) for gram in raw[n] if raw[n][gram] <= prune[n - 1]
        }
        for n in range(1, order + 1):
            for gram, count in self.counts[n].items():
                self.followers[n][gram[:-1]].append(0 if gram in self.pruned else count)
                self.lost[gram[:-1]] += count if gram in self.pruned else 0

    @staticmethod
    def estimate(n: Counter[int]) -> tuple[float, ...]:
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            found = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
            if min(found) > 0:
                return found
        return (0.5, 1.0, 1.5)

    def backoff(self, context: Gram) -> float:
        n = len(context) + 1
        counts = self.followers[n].get(context, []) if n < len(self.followers) else []
        kept = sum(self.discounts[n][min(c, 3)] for c in counts)
        return (kept + self.lost[context]) / (sum(counts) + self.lost[context]) if counts else 1.0

    def probability(self, context: Gram, token: int) -> float:
        n = len(context) + 1
        lower = self.probability(context[1:], token) if context else 1 / self.outcomes
        if not self.followers[n].get(context):
            return lower
        gram = (*context, token)
        count = 0 if gram in self.pruned else self.counts[n].get(gram, 0)
        total = sum(self.followers[n][context]) + self.lost[context]
        return (count - self.discounts[n][min(count, 3)]) / total + self.backoff(context) * lower


def estimate(
    documents: list[list[int]], order: int = 5, seen_only: bool = False, prune: tuple[int, ...] = ()
) -> KneserNey:
    return ngram.estimate(
        [flat(documents)], vocab_size=VOCABULARY, begin=BEGIN, order=order, seen_only=seen_only, prune=prune
    )


def flat(documents: list[list[int]]) -> Array:
    return np.array([token for document in documents for token in document])


def drawn(seed: int, vocab_size: int, size: int) -> Array:
    """Documents of random tokens, some far more frequent than others."""
    generator = np.random.default_rng(seed)
    tokens = (vocab_size * generator.random(size) ** 6).astype(np.int64)
    tokens[tokens == BEGIN] = END
    tokens[generator.random(size) < 0.03] = BEGIN
    tokens[0] = BEGIN
    return tokens


def arpa(path: Path) -> tuple[list[int], dict[Gram, tuple[float, float]]]:
    """Read the sizes that an ARPA file states, and its n-grams."""
    head, *parts = path.read_text(encoding="utf-8").removesuffix("\n\\end\\\n").split("\n\\")
    sizes = [int(line.split("=")[1]) for line in head.split("\n") if line.startswith("ngram")]
    grams = {}
    for n, part in enumerate(parts, 1):
        name, *lines = part.rstrip("\n").split("\n")
        assert name == f"{n}-grams:"
        for line in lines:
            probability, words, backoff = [*line.split("\t"), "0"][:3]
            ids = tuple(PIECES.index(word) for word in words.split(" "))
            grams[ids] = float(probability), float(backoff)
    return sizes, grams


IDS = st.sampled_from([0, 3, 4, 5, 6, 7, 8])
DOCUMENTS = st.lists(st.lists(IDS, max_size=25).map(lambda ids: [BEGIN, *ids, END]), min_size=1, max_size=8)
ORDERS = st.integers(1, 5)
PRUNE = st.sampled_from(
    [(0, 0, 0, 0, 0), (0, 0, 1, 1, 1), (0, 1, 1, 2, 2), (0, 0, 0, 0, 1), (0, 3, 3, 3, 90)]
)


@settings(max_examples=60)
@given(DOCUMENTS, ORDERS, st.booleans(), PRUNE)
def test_every_ngram_is_the_formulas(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    order: int,
    seen: bool,
    prune: tuple[int, ...],
) -> None:
    outcomes = len({token for document in documents for token in document}) if seen else VOCABULARY - 1
    reference = Reference(documents, order, outcomes, prune)
    path = tmp_path_factory.mktemp("arpa") / "model.arpa"
    write_arpa(estimate(documents, order, seen, prune), path, PIECES)
    sizes, grams = arpa(path)
    expected = {gram for counts in reference.counts for gram in counts}
    expected |= {(token,) for token in range(VOCABULARY)}
    assert grams.keys() == expected - reference.pruned
    assert sizes == [sum(len(gram) == n for gram in grams) for n in range(1, len(sizes) + 1)]
    assert sum(sizes) == len(grams)
    for gram, (probability, backoff) in grams.items():
        wanted = 0.0 if gram == (BEGIN,) else math.log10(reference.probability(gram[:-1], gram[-1]))
        assert probability == pytest.approx(wanted, rel=2e-7, abs=1e-7), gram
        wanted = math.log10(reference.backoff(gram)) if len(gram) < order else 0.0
        assert backoff == pytest.approx(wanted, rel=2e-7, abs=1e-7), gram


@settings(max_examples=60)
@given(DOCUMENTS, DOCUMENTS, ORDERS, PRUNE)
def test_scores_of_another_text_are_the_formulas(
    training: list[list[int]], text: list[list[int]], order: int, prune: tuple[int, ...]
) -> None:
    reference = Reference(training, order, prune=prune)
    expected = []
    for document in text:
        expected.append(0.0)  # the begin token
        for at in range(1, len(document)):
            context = tuple(document[max(0, at - order + 1) : at])
            expected.append(math.log10(reference.probability(context, document[at])))
    scores = estimate(training, order, prune=prune).scores(flat(text))
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=40)
@given(DOCUMENTS, st.lists(IDS, max_size=6), ORDERS, PRUNE)
def test_probabilities_add_up_to_one_after_any_context(
    training: list[list[int]], context: list[int], order: int, prune: tuple[int, ...]
) -> None:
    outcomes = [token for token in range(VOCABULARY) if token != BEGIN]
    text = flat([[BEGIN, *context, token] for token in outcomes])
    last = estimate(training, order, prune=prune).scores(text).reshape(len(outcomes), -1)[:, -1]
    assert (10.0**last).sum() == pytest.approx(1.0, rel=2e-6)


def test_seen_only_adds_up_to_one_over_the_tokens_of_the_text_and_one_unknown_token() -> None:
    model = estimate([[BEGIN, 3, 4, 3, END], [BEGIN, 5, 3, END]], 3, seen_only=True)
    last = model.scores(flat([[BEGIN, 3, token] for token in (3, 4, 5, END, UNKNOWN)])).reshape(5, 3)[:, -1]
    assert (10.0**last).sum() == pytest.approx(1.0, rel=2e-6)
    assert last[-1] == model.scores(np.array([BEGIN, 3, 8]))[-1]


def test_lmplz_gives_the_same_model(tmp_path: Path) -> None:
    # From `lmplz -o 3 --discount_fallback --vocab_pad 14` of KenLM (revision of March 2025) on this text,
    # token 3 as a, 4 as b...
    squares = np.arange(600) ** 2
    letters = 3 + (squares // 7 + squares % 9) % 11
    text = flat([[BEGIN, *letters[at : at + 15].tolist(), END] for at in range(0, 600, 15)])
    model = ngram.estimate([text], vocab_size=15, begin=BEGIN, order=3)
    assert model.discounts[0] == (0.5, 1.0, 1.5)
    assert model.discounts[1] == pytest.approx((0.0909091, 1.5, 2.78182), rel=1e-5)
    assert model.discounts[2] == pytest.approx((0.54262, 1.63003, 2.65272), rel=1e-5)
    assert len(model.discounts) == 3
    assert [len(order.last_tokens) for order in model.orders[1:]] == [140, 405]
    write_arpa(model, tmp_path / "model.arpa", ["<unk>", "<s>", "</s>", *"abcdefghijkl"])
    lines = [line.split("\t") for line in (tmp_path / "model.arpa").read_text().split("\n") if "\t" in line]
    found = {words: tuple(map(float, (probability, *rest))) for probability, words, *rest in lines}
    expected = {
        "<unk>": (-2.0369835, 0), "<s>": (0, -0.17821857), "</s>": (-1.1132791, 0),
        "a": (-1.0747721, -0.10836284), "e": (-1.1555356, -0.10124989), "h": (-1.1132791, -0.11264656),
        "d b": (-0.9619302, -0.35786155), "c b": (-1.1680145, -0.16824673),
        "g g": (-1.1003734, -0.09462013), "d i": (-1.2030795, -0.16824673), "k e c": (-0.90517974,),
        "c d i": (-0.8044518,), "g i k": (-0.8513757,), "h d d": (-0.93831915,), "f g a": (-0.8160392,),
    }  # fmt: skip
    for words, values in expected.items():
        assert found[words] == pytest.approx(values, abs=5e-7), words


def test_pruned_models_are_whole_and_smaller(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    text = drawn(8, 60, 20_000)
    whole = ngram.estimate([text], vocab_size=60, begin=BEGIN)
    pruned = ngram.estimate([text], vocab_size=60, begin=BEGIN, prune=(0, 0, 1))
    sizes = [[len(order.last_tokens) for order in model.orders] for model in (whole, pruned)]
    assert sizes[0][:2] == sizes[1][:2]
    assert all(less < more for more, less in zip(*sizes, strict=True) if more > sizes[0][1])
    pruned.save(tmp_path / "model")
    np.testing.assert_array_equal(ngram.load(tmp_path / "model").scores(text), pruned.scores(text))
    pieces = ["<unk>", "<s>", "</s>", *(f"p{number}" for number in range(3, 60))]
    write_arpa(pruned, tmp_path / "model.arpa", pieces)
    sentence = text[1 : np.flatnonzero(text == BEGIN)[1]]
    words = " ".join(pieces[token] for token in sentence)
    peer = kenlm.Model(str(tmp_path / "model.arpa"))
    theirs = [score for score, _, _ in peer.full_scores(words, eos=False)]
    np.testing.assert_allclose(pruned.scores(text)[1 : len(sentence) + 1], theirs, rtol=1e-5, atol=1e-6)
    for prune in ((1,), (0, 2, 1)):
        with pytest.raises(ValueError, match="prune"):
            ngram.estimate([text], vocab_size=60, begin=BEGIN, prune=prune)


def test_discounts_by_hand() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 5])
    y = 8 / (8 + 2 * 4)
    expected = 1 - 2 * y * 4 / 8, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2
    assert ngram._discounts(counts) == pytest.approx(expected)
    for without in (1, 2, 3):
        assert ngram._discounts(counts[counts != without]) == (0.5, 1.0, 1.5)
    assert ngram._discounts(np.repeat([1, 2, 3], [8, 1, 9])) == (0.5, 1.0, 1.5)  # 2 - 3 y 9 < 0


@pytest.mark.parametrize(("vocab_size", "size"), [(12, 3_000), (700, 40_000), (70_000, 20_000)])
def test_numpy_and_compiled_code_give_the_same_bits(
    vocab_size: int, size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text, other = drawn(1, vocab_size, size), drawn(2, vocab_size, 2_000)
    for switch in ("on", "off"):
        monkeypatch.setenv("PUNA_KERNELS", switch)
        ngram.library.cache_clear()
        model = ngram.estimate([text], vocab_size=vocab_size, begin=BEGIN)
        model.save(tmp_path / switch)
        np.save(tmp_path / f"{switch}.npy", model.scores(other))
    ngram.library.cache_clear()
    assert (tmp_path / "on").read_bytes() == (tmp_path / "off").read_bytes()
    assert (tmp_path / "on.npy").read_bytes() == (tmp_path / "off.npy").read_bytes()


def test_blocks_and_threads_change_nothing() -> None:
    text = drawn(3, 500, 30_000)
    cuts = np.flatnonzero(text == BEGIN)[[100, 101, 500]]
    whole = ngram.estimate([text], vocab_size=500, begin=BEGIN)
    cut = ngram.estimate(iter(np.split(text.astype(np.uint16), cuts)), vocab_size=500, begin=BEGIN)
    for one, other in zip(whole.orders, cut.orders, strict=True):
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(whole.scores(text, threads=1), whole.scores(text, threads=3))


def test_kenlm_gives_the_same_scores(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    vocab_size = 300
    pieces = ["<unk>", "<s>", "</s>", *(f"p{number}" for number in range(3, vocab_size))]
    text, other = drawn(4, 200, 20_000), drawn(5, vocab_size, 5_000)  # ids from 200 are not in the text
    model = ngram.estimate([text], vocab_size=vocab_size, begin=BEGIN)
    write_arpa(model, tmp_path / "model.arpa", pieces)
    peer = kenlm.Model(str(tmp_path / "model.arpa"))
    assert peer.order == 5
    sentences = np.split(other, np.flatnonzero(other == BEGIN)[1:])
    scores = np.split(model.scores(other), np.flatnonzero(other == BEGIN)[1:])
    for sentence, ours in zip(sentences, scores, strict=True):
        words = " ".join(pieces[token] for token in sentence[1:])
        theirs = [score for score, _, _ in peer.full_scores(words, bos=True, eos=False)]
        np.testing.assert_allclose(ours[1:], theirs, rtol=1e-5, atol=1e-6)
        if words:
            perplexity = 10.0 ** (-ours.sum() / (len(sentence) - 1))
            expected = 10.0 ** (-peer.score(words, bos=True, eos=False) / len(words.split()))
            assert perplexity == pytest.approx(expected, rel=1e-5)


def test_kenlm_reads_words_outside_of_the_vocabulary_as_the_unseen_token(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    model = estimate([[BEGIN, 3, 4, 3, END], [BEGIN, 5, 3, END]], 3)
    write_arpa(model, tmp_path / "model.arpa", ["?", *PIECES[1:]])
    peer = kenlm.Model(str(tmp_path / "model.arpa"))
    scores = [score for score, _, _ in peer.full_scores("a zebra", eos=False)]
    np.testing.assert_allclose(scores, model.scores(np.array([BEGIN, 3, 8]))[1:], rtol=1e-5)
    assert (tmp_path / "model.arpa").read_text().count("<unk>") == 1


def test_logarithm() -> None:
    drawn = 10.0 ** np.random.default_rng(0).uniform(-30, 0, 20_000)
    values = np.concatenate([drawn, [1.0, 0.5, 0.5**0.5, 5e-324]])
    expected = np.array([math.log10(value) for value in values])
    half_a_unit = np.spacing(np.abs(expected).astype(np.float32)) * 0.501 + 1e-13
    np.testing.assert_array_less(np.abs(ngram._log10(values) - expected), half_a_unit)


def test_saved_and_loaded_the_model_is_the_same(tmp_path: Path) -> None:
    text = drawn(6, 100, 4_000)
    model = ngram.estimate([text], vocab_size=100, begin=BEGIN, order=3)
    model.save(tmp_path / "model")
    loaded = ngram.load(tmp_path / "model")
    assert isinstance(loaded.orders[1].last_tokens.base, np.memmap)
    assert (loaded.vocab_size, loaded.begin) == (100, BEGIN)
    assert (loaded.log10_unseen, loaded.discounts) == (model.log10_unseen, model.discounts)
    np.testing.assert_array_equal(loaded.scores(text), model.scores(text))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "model"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    model = ngram.estimate([drawn(7, 50, 2_000)], vocab_size=50, begin=BEGIN, order=3)
    model.save(tmp_path / "model")
    whole = (tmp_path / "model").read_bytes()
    edges = whole.index(model.orders[1].first_child.tobytes())
    wrong_edges = whole[: edges + 8] + struct.pack("<I", 1 << 31) + whole[edges + 12 :]
    line = whole.index(b"\n", len(ngram.MAGIC)) + 1
    cut = [b"", whole[:40], whole[:line], whole[:-4]]
    changed = [b"text\n", whole + b"0000", wrong_edges, whole.replace(b"50, ", b"60, ", 1)]
    for content in cut + changed:
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(UserError, match="broken"):
            ngram.load(tmp_path / "broken")
    with pytest.raises(UserError, match="nowhere"):
        ngram.load(tmp_path / "nowhere")


def test_texts_and_pieces_that_cannot_be(tmp_path: Path) -> None:
    for blocks in ([], [np.array([], int)], [np.array([BEGIN, BEGIN])]):
        with pytest.raises(UserError, match="no tokens"):
            ngram.estimate(blocks, vocab_size=9, begin=BEGIN)
    model = estimate([[BEGIN, 3, 4, END]])
    for ids in ([3, 4], [BEGIN, 9], [BEGIN, -1]):
        with pytest.raises(ValueError, match="begin token"):
            model.scores(np.array(ids))
    assert model.scores(np.array([], int)).shape == (0,)
    for pieces in (PIECES[:-1], [*PIECES[:-1], "a"], [*PIECES[:-1], "a b"]):
        with pytest.raises(UserError, match="pieces"):
            write_arpa(model, tmp_path / "model.arpa", pieces)
