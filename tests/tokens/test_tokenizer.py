"""The tokenizer: lossless on every text, digits split, equal to SentencePiece and to LLaMA's own."""

import io
import itertools
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import LINE_CHARACTERS, TextStream, Tokenizer, lines, load, train

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


SCRIPTS = ("\u0660", "\u06f0", "\u0966", "\u0e50", "\uff10", "\U0001d7d8")  # where ten digits begin


def pieces_of(model: bytes) -> list[tuple[str, float]]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(processor.id_to_piece(token), processor.get_score(token)) for token in range(len(processor))]


@pytest.mark.parametrize("zero", SCRIPTS)
def test_digits_of_every_script_are_split_as_those_of_ascii_are(zero: str) -> None:
    digits = str.maketrans({str(number): chr(ord(zero) + number) for number in range(10)})
    settings = TokenizerSettings(vocab_size=420, character_coverage=1)
    texts = [f"{text} in {number} men, {number * 7}km" for number, text in enumerate(TEXTS)]
    translated = [text.translate(digits) for text in texts]
    model = train(translated, settings)
    assert pieces_of(model) == [
        (piece if piece.startswith("<0x") else piece.translate(digits), score)
        for piece, score in pieces_of(train(texts, settings))
    ]
    trained = Tokenizer(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in (*translated[::30], "x12345 67,8".translate(digits), "1" * 5000):
        ids = trained.encode(text)
        assert ids == processor.encode(text) and trained.decode(ids) == text


def test_mixed_scripts_share_no_piece_with_a_digit() -> None:
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Nd"]
    texts = [f"{a}{b} x{a}{a}{b}y {b} llamas graze on the plain" * 3 for a, b in itertools.pairwise(every)]
    model = train(texts, TokenizerSettings(vocab_size=970, character_coverage=1))
    found = [piece for piece, _ in pieces_of(model)[259:] if any(map(str.isdecimal, piece))]
    assert len(found) > 600 and set(map(len, found)) == {1}


def test_without_other_digits_the_tokenizer_is_sentencepieces_own() -> None:
    texts = [*TEXTS, "\ta\t\tb\t1\t22\n" * 50]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        character_coverage=0.9995,
        split_digits=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        max_sentence_length=4 * LINE_CHARACTERS + 1,
        num_threads=4,
        minloglevel=2,
    )
    assert pieces_of(train(texts, TokenizerSettings(vocab_size=420))) == pieces_of(model.getvalue())


@given(st.lists(st.integers(0, 419), max_size=40))
@example([1, 2, 1, 259, 2])
@example([3 + byte for byte in b"\xe2\x96\x81\xf0\x9f\xa6\x99\xe2A\xed\xa0\x80\xc0\xaf\xff\xf4\x90\x80"])
def test_a_stream_is_the_whole_text_in_parts(trained: Tokenizer, ids: list[int]) -> None:
    stream = TextStream(trained)
    assert "".join([*map(stream.add, ids), stream.end()]) == trained.decode(ids)


def test_a_stream_of_llamas_own_tokenizer(data: Path) -> None:
    llama = load(data / "models" / "llama-tokenizer" / "tokenizer.model")
    spaces = [token for token in range(259, llama.vocab_size) if not llama.piece(token).strip(" ")]
    chance = np.random.default_rng(0)
    for _ in range(3000):
        low, high = chance.choice([(0, 4), (3, 259), (259, 32_000)], 12).T
        ids = np.where(
            chance.random(12) < 0.2, chance.choice(spaces, 12), chance.integers(low, high)
        ).tolist()
        stream = TextStream(llama)
        assert "".join([*map(stream.add, ids), stream.end()]) == llama.decode(ids)


@given(st.text())
@example("\u2581 llama \U0001f999")
def test_a_stream_returns_whole_characters_only(trained: Tokenizer, text: str) -> None:
    stream, ids = TextStream(trained), trained.encode(text)
    parts = list(map(stream.add, ids))
    assert "".join(parts) == text and not stream.end()
    waiting = 0
    for token, part in zip(ids, parts, strict=True):
        waiting = 0 if part else waiting + len(trained.byte(token))
        assert waiting < 4


def test_a_stream_decodes_each_token_a_bounded_number_of_times(
    trained: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [*trained.encode("The llamas of the high plain. " * 300), *[3 + 0x80] * 3000, *[1] * 3000]
    decoded = 0
    decode = Tokenizer.decode

    def counted(tokenizer: Tokenizer, some: list[int]) -> str:
        nonlocal decoded
        decoded += len(some)
        return decode(tokenizer, some)

    monkeypatch.setattr(Tokenizer, "decode", counted)
    stream = TextStream(trained)
    for token in ids:
        stream.add(token)
    assert decoded <= 3 * len(ids)


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
