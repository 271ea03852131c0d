"""The perplexity filter: CCNet's normalisation written out, perplexities from the definition, and what a
model must tell apart."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.arpa import write as write_arpa
from puna.corpus.filters import perplexity
from puna.corpus.filters.perplexity import PerplexityModel
from puna.errors import UserError

WORDS = ["llama", "alpaca", "puna", "grass", "valley", "herd", "night", "cold", "stone", "water"]
VERBS = ["grazes", "crosses", "finds"]


def sentences(seed: int, count: int) -> list[str]:
    """Texts of a few lines from a small grammar."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(3 * count):
        subject = f"{generator.choice(['The', 'A', 'An old'])} {generator.choice(WORDS[:8])}"
        verb, article = generator.choice(VERBS), generator.choice(["the", "a"])
        words = [subject, verb, article, generator.choice(WORDS), f"{generator.integers(1, 900)} times."]
        lines.append(" ".join(words))
    return ["\n".join(lines[3 * at : 3 * at + 3]) for at in range(count)]


@pytest.fixture(scope="module")
def model() -> PerplexityModel:
    return perplexity.train(sentences(1, 800), vocab_size=200)


def as_in_ccnet(text: str) -> str:
    """CCNet's steps one after the other."""
    text = text.strip().lower()
    text = "".join(
        character
        for character in unicodedata.normalize("NFD", text)
        if unicodedata.category(character) != "Mn"
    )
    text = re.sub(r"\d", "0", text)
    text = "".join(perplexity.PUNCTUATION.get(character, character) for character in text)
    return "".join(
        character for character in text if not (ord(character) < 32 or 127 <= ord(character) < 160)
    )


ODD = st.text(
    "aZ\u00c9\u0130\u03a3 \n\t\u00a0\u3000\x1c\x85\x0019\uff11\u0663\u2014\u2026\uff0e\u201c"
    "\uac00\u0301\u0323\U0001d165\U0001d16d\u302e\U00016ff0"
)
ANY = st.text() | ODD | st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xADFF), min_size=60)


@given(ANY)
def test_normalised_as_in_ccnet(text: str) -> None:
    assert perplexity.normalise(text, ccnet=True) == as_in_ccnet(text)


@given(ANY)
def test_by_default_only_white_space_differs(text: str) -> None:
    found = perplexity.normalise(text)
    apart = "".join(" " if character.isspace() else character for character in text)
    assert found == " ".join(as_in_ccnet(apart).split())


def test_normalised_by_hand() -> None:
    text = " «Été»\t1999 — “Größe”…\r\nNaïve（x）\x07 \u0419 "
    assert perplexity.normalise(text) == '"ete" 0000 - "große"... naive(x) и'
    assert perplexity.normalise(text, ccnet=True) == '"ete"0000  -  "große"...naive(x) и'
    assert perplexity.normalise("half \ud83d a pair") == "half a pair"


def test_perplexity_is_its_definition(model: PerplexityModel) -> None:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model.pieces)
    texts = [*sentences(2, 5), "Ωmega never seen", "", " \n "]
    expected = []
    for text in texts:
        pieces = processor.encode(perplexity.normalise(text))
        logarithm = model.ngrams.scores(np.array([processor.bos_id(), *pieces, processor.eos_id()])).sum()
        expected.append(10 ** (-logarithm / (len(pieces) + 1)))
    np.testing.assert_allclose(model.perplexities(texts), expected, rtol=1e-12)
    np.testing.assert_array_equal(model.perplexities(texts, threads=3), model.perplexities(texts))
    assert model.perplexities([]).shape == (0,)


@given(texts=st.lists(ANY | st.text(st.characters(codec=None)), max_size=4))
def test_any_text_has_a_perplexity_of_its_own(model: PerplexityModel, texts: list[str]) -> None:
    found = model.perplexities(texts)
    assert np.isfinite(found).all() and (found > 1).all()
    assert found.tolist() == [model.perplexities([text])[0] for text in texts]


def test_lots_change_nothing(model: PerplexityModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(3, 20)
    whole = model.perplexities(texts)
    monkeypatch.setattr(perplexity, "BATCH_CHARACTERS", 150)
    np.testing.assert_array_equal(model.perplexities(iter(texts)), whole)


@pytest.mark.parametrize("ccnet", [False, True])
def test_kenlm_gives_the_same_perplexities(ccnet: bool, tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    import sentencepiece

    model = perplexity.train(sentences(1, 400), vocab_size=120, ccnet=ccnet)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.pieces)
    write_arpa(
        model.ngrams,
        tmp_path / "model.arpa",
        [processor.id_to_piece(number) for number in range(processor.vocab_size())],
    )
    peer = kenlm.Model(str(tmp_path / "model.arpa"))
    texts = [*sentences(4, 20), "Completely other text, ŋ%§", ""]
    expected = []
    for text in texts:
        pieces = " ".join(processor.encode(perplexity.normalise(text, ccnet), out_type=str))
        expected.append(10 ** (-peer.score(pieces) / (len(pieces.split()) + 1)))
    np.testing.assert_allclose(model.perplexities(texts), expected, rtol=1e-5)


def test_good_text_is_less_surprising(model: PerplexityModel) -> None:
    good = sentences(5, 50)
    generator = np.random.default_rng(6)
    shuffled = [" ".join(generator.permutation(text.split())) for text in good]
    assert (model.perplexities(good) < model.perplexities(shuffled) / 2).all()


def test_books_come_before_markup_and_shuffled_books(data: Path) -> None:
    books = sorted((data / "raw/gutenberg").glob("*.txt"))
    text = [book.read_text(encoding="utf-8", errors="replace")[20_000:220_000] for book in books[:4]]
    model = perplexity.train(
        [book[at : at + 2_000] for book in text[1:] for at in range(0, 200_000, 2_000)], vocab_size=4_000
    )
    good = [text[0][at : at + 2_000] for at in range(0, 40_000, 2_000)]
    generator = np.random.default_rng(1)
    shuffled = [" ".join(generator.permutation(part.split())) for part in good]
    markup = [
        f'<td class="c{at}"><a href="?p={at * 7}&q=x{at}">||| >> {{x_{at}}} </a></td>' * 20
        for at in range(20)
    ]
    perplexities = model.perplexities([*good, *shuffled, *markup])
    assert perplexities[:20].max() < min(perplexities[20:40].min(), perplexities[40:].min())


def test_saved_and_loaded_the_model_is_the_same(model: PerplexityModel, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("left from before")
    model.save(tmp_path / "model")
    loaded = perplexity.load(tmp_path / "model")
    texts = sentences(7, 10)
    np.testing.assert_array_equal(loaded.perplexities(texts), model.perplexities(texts))
    perplexity.train(sentences(1, 800), vocab_size=200).save(tmp_path / "again")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["ngrams.bin", "perplexity.json", "pieces.model"]
    assert all(
        (tmp_path / "model" / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names
    )


def test_damaged_folders_are_refused(model: PerplexityModel, tmp_path: Path) -> None:
    for name, content in (
        ("pieces.model", b"no model"),
        ("pieces.model", None),
        ("perplexity.json", b"{}"),
        ("perplexity.json", b"["),
    ):
        model.save(tmp_path / "model")
        (tmp_path / "model" / name).unlink()
        if content is not None:
            (tmp_path / "model" / name).write_bytes(content)
        with pytest.raises(UserError, match="model"):
            perplexity.load(tmp_path / "model")
    model.save(tmp_path / "model")
    perplexity.train(sentences(1, 800), vocab_size=150).save(tmp_path / "other")
    (tmp_path / "other" / "pieces.model").replace(tmp_path / "model" / "pieces.model")
    with pytest.raises(UserError, match="not of one model"):
        perplexity.load(tmp_path / "model")


def test_texts_that_cannot_be_trained_on() -> None:
    with pytest.raises(UserError, match="pieces"):
        perplexity.train([], vocab_size=100)
    with pytest.raises(UserError, match="pieces"):
        perplexity.train(["\x00", "  "], vocab_size=100)
    with pytest.raises(ValueError, match="twice"):
        perplexity.train(iter(["a text"]))


def test_buckets() -> None:
    perplexities = np.arange(1, 101, dtype=float)
    bounds = perplexity.thresholds(perplexities, (30, 60))
    found = [perplexity.bucket(value, bounds) for value in perplexities]
    assert [found.count(name) for name in ("head", "middle", "tail")] == [30, 30, 40] and found == sorted(
        found
    )
    assert perplexity.bucket(bounds[0], bounds) == "middle" and perplexity.bucket(bounds[1], bounds) == "tail"
