"""The tokenizer: lossless on every text, digits split, equal to SentencePiece and to LLaMA's own."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import LINE_CHARACTERS, Tokenizer, lines, load, train

TEXTS = [
    f"def graze_{number}(plain, llama={number * 37}):\n"
    "    return plain + llama  # the high plain of the llamas\n"
    for number in range(300)
]
TEXTS += [
    "The llamas of the high plain graze 1234 hours.\n\n"
    "\tQuechua: ñan, ch'aki, wayra. Größe, élan, “quoted” – dash."
] * 5


@pytest.fixture(scope="module")
def model() -> bytes:
    return train(TEXTS, TokenizerSettings(vocab_size=420))


@pytest.fixture(scope="module")
def trained(model: bytes) -> Tokenizer:
    return Tokenizer(model)


@pytest.fixture(scope="module")
def reference(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def test_special_pieces(trained: Tokenizer) -> None:
    assert trained.vocab_size == 420
    assert (trained.bos_id, trained.eos_id) == (1, 2)
    pieces = [trained.piece(token) for token in (0, 1, 2, 3, 258)]
    assert pieces == ["<unk>", "<s>", "</s>", "<0x00>", "<0xFF>"]


@given(st.text())
@example("\u2581")
@example("  \u2581\u2581 a\u2581 ")
@example("\n\n \t\r\n\x00\x85\u2028")
@example(" leading and trailing  ")
@example("e\u0301 \ufb01 \uff21 \U0001f999 \ufeff")
def test_every_text_comes_back(trained: Tokenizer, text: str) -> None:
    assert trained.decode(trained.encode(text)) == text


def encode_many(tokenizer: Tokenizer, texts: list[str], threads: int = 1) -> list[list[int]]:
    ids, offsets = tokenizer.encode_flat(texts, threads)
    return [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]


@given(st.lists(st.text(max_size=30), max_size=6), st.integers(1, 3))
def test_many_texts_equal_one_at_a_time(trained: Tokenizer, texts: list[str], threads: int) -> None:
    assert encode_many(trained, texts, threads) == [trained.encode(text) for text in texts]


@given(st.lists(st.text("a \u2581\n", max_size=9), max_size=6))
@example(["", "\u2581", "\u2581\u2581a", " \u2581\n\u2581", ""])
def test_the_space_mark_of_a_text_is_its_three_bytes(
    trained: Tokenizer, reference: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> None:
    mark = [3 + byte for byte in "\u2581".encode()]
    for text, ids in zip(texts, encode_many(trained, texts), strict=True):
        first, *others = text.split("\u2581")
        expected = reference.encode(first)
        for part in others:
            expected += mark + reference.encode("\n" + part)[2:]
        assert ids == expected


@given(st.lists(st.text(max_size=12), max_size=6))
def test_whole_documents_begin_and_end(trained: Tokenizer, texts: list[str]) -> None:
    ids, offsets = trained.documents_flat(texts, 2)
    assert ids.dtype == np.int32
    assert len(offsets) == len(texts) + 1 and offsets[-1] == len(ids)
    for number, text in enumerate(texts):
        assert ids[offsets[number] : offsets[number + 1]].tolist() == [1, *trained.encode(text), 2]


def test_half_a_character_is_refused(trained: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"surrogate U\+D800 at character 2"):
        trained.encode_flat(["whole", "no\ud800"])


def test_digits_are_split(trained: Tokenizer) -> None:
    pieces = [trained.piece(token) for token in range(259, trained.vocab_size)]
    assert not any(sum(character.isdigit() for character in piece) > 1 for piece in pieces)
    assert [trained.piece(token) for token in trained.encode("12345")][-5:] == list("12345")


def test_ids_are_sentencepieces_own(
    trained: Tokenizer, reference: sentencepiece.SentencePieceProcessor
) -> None:
    for text in TEXTS[::40]:
        assert trained.encode(text) == reference.encode(text)


def test_training_twice_gives_equal_bytes() -> None:
    settings = TokenizerSettings(vocab_size=400)
    assert train(TEXTS, settings) == train(iter(TEXTS), settings)


def test_a_vocabulary_larger_than_the_text_allows_is_refused() -> None:
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size=5000 does not suit this text"):
        train(["only a few words"] * 3, TokenizerSettings(vocab_size=5000))
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size=260 does not suit this text"):
        train(TEXTS, TokenizerSettings(vocab_size=260))
    with pytest.raises(UserError, match="no text to train on"):
        train([], TokenizerSettings(vocab_size=400))


def test_long_lines_are_cut_not_lost() -> None:
    long = "ab " * 5000
    assert "".join(lines([long])) == long
    assert max(map(len, lines([long]))) <= LINE_CHARACTERS


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer at"):
        load(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"no model")
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        load(tmp_path / "x")


def test_llamas_own_tokenizer(data: Path) -> None:
    folder = data / "models" / "llama-tokenizer"
    llama = load(folder / "tokenizer.model")
    assert llama.vocab_size == 32_000
    texts = (folder / "ggml-vocab-llama-spm.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    expected = (folder / "ggml-vocab-llama-spm.gguf.out").read_text().split("\n")
    assert 46 <= len(texts) <= len(expected)
    for text, line in zip(texts, expected, strict=False):
        ids = [int(token) for token in line.split()]
        assert llama.encode(text) == ids, text
        assert llama.decode(ids) == text
