"""The compiled encoder against SentencePiece: trained models of many kinds, made-up models, LLaMA's own on
real text."""

import bz2
import io
import random
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import UserError
from puna.run import compiled
from puna.text import bpe
from puna.text.bpe import Encoder
from tests.timing import cpu_seconds, within

TRAINING = [
    "The llamas of the high plain graze 1234 hours, and the herder sings of the long road.",
    "    def graze(plain, llama=37):\n        return plain[llama] + 10000  # the high plain\n",
    "Die Größe der Hochebene überrascht; les élèves écrivent où l'été dure.",
    "Ламы пасутся на высокой равнине, и пастух поёт о длинной дороге.",
    "高原上的羊驼在吃草，牧人唱着长路的歌。高原上的风很大。羊驼不怕风。",
    "高い平原でリャマが草を食べている。 لاما ترعى في السهل العالي   ",
    "aaaaaaaa bbbbbb abababab <sep> ((((((( ======= ....... \t\t\t",
] * 4
LINES = [line for text in TRAINING for line in text.split("\n") if line]
OURS = {
    "byte_fallback": True,
    "split_digits": True,
    "allow_whitespace_only_pieces": True,
    "remove_extra_whitespaces": False,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as Puna trains": OURS,
    "unknown characters": {**OURS, "byte_fallback": False, "character_coverage": 0.98},
    "no dummy prefix": {**OURS, "add_dummy_prefix": False},
    "digits together, no pieces of spaces": {"byte_fallback": True, "remove_extra_whitespaces": False},
    "pieces over spaces and scripts": {
        **OURS,
        "split_by_whitespace": False,
        "split_by_unicode_script": False,
        "split_digits": False,
        "split_by_number": False,
    },
    "symbols of the user": {
        **OURS,
        "user_defined_symbols": ["<sep>", "ab", "abb", "é", "\n", "=====", "羊驼"],
    },
    "symbols of the user, unknown characters": {
        **OURS,
        "byte_fallback": False,
        "user_defined_symbols": ["<sep>", "aba", "a", "驼"],
    },
}
OTHERS: dict[str, dict[str, Any]] = {
    "unigram": {**OURS, "model_type": "unigram", "hard_vocab_limit": False},
    "char": {**OURS, "model_type": "char", "hard_vocab_limit": False},
    "normalised": {**OURS, "normalization_rule_name": "nmt_nfkc"},
    "fewer spaces": {**OURS, "remove_extra_whitespaces": True},
    "suffix": {**OURS, "treat_whitespace_as_suffix": True},
    "symbol with a space": {**OURS, "user_defined_symbols": ["<a b>"]},
}
AWKWARD = [
    "", " ", "  ", "   a", "a   ", "\t", "\n", "\r\n", "a\r\n\r\nb", "\0", "a\0\0b", "\u2581",
    " \u2581 \u2581\u2581a", "a\u2581b", "e\u0301a\u0308\u0327", "\U0001f999\U0001f999",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\ufeffa", "\ufffd\ufffe\uffff\U0010ffff",
    "\x7f\x80\x9f\xa0\xad", "\u2028\u2029\x85", "<s></s><unk><0x41><0x0A>", "<sep><sep>a<sep> <sep",
    "abbabab", "羊驼羊驼羊", "12 345 6789", "a" * 5000, " " * 5000, "ab" * 3000, "高原" * 2000,
    "é" * 100 + "x", "\u2580\u2581\u2582", "\xe2\x96\x81", "1" * 999, "\u2581" * 700,
    "the" * 10 + " " + "the" * 11, "a" * 30 + " " + "a" * 31 + " " + "a" * 32, "🦙" * 8 + " " + "🦙" * 9,
]  # fmt: skip


def trained(options: dict[str, Any]) -> bytes:
    model = io.BytesIO()
    defaults = {"model_type": "bpe", "vocab_size": 500, "normalization_rule_name": "identity"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        minloglevel=2,
        num_threads=1,
        **{**defaults, **options},
    )
    return model.getvalue()


def lists(encoder: Encoder, texts: list[str], threads: int = 1) -> list[list[int]]:
    ids, offsets = encoder.encode_flat(texts, threads)
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)
    assert (len(offsets), offsets[0], offsets[-1]) == (len(texts) + 1, 0, len(ids))
    return [ids[start:end].tolist() for start, end in pairwise(offsets)]


needs_compiler = pytest.mark.skipif(not compiled.compiler(), reason="no C++ compiler")


@pytest.fixture(scope="module", params=OPTIONS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(trained(OPTIONS[request.param]))


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(compiled.SWITCH, "off")
    bpe.library.cache_clear()
    yield
    bpe.library.cache_clear()


@needs_compiler
def test_these_models_are_encoded_by_compiled_code(encoder: Encoder) -> None:
    assert encoder._compiled is not None


def test_awkward_texts(encoder: Encoder) -> None:
    texts = [*AWKWARD, *TRAINING, "".join(AWKWARD)]
    expected = encoder.processor.encode(texts)
    for text, ids, correct in zip(texts, lists(encoder, texts), expected, strict=True):
        assert ids == correct, text[:40]
    assert lists(encoder, texts, 2) == lists(encoder, texts, 7) == expected
    assert lists(encoder, []) == []


WORDS = ["羊驼", "the ", " of", "Größe", "ama", "==", "\u2581"]
fragments = st.sampled_from([*AWKWARD[:30], *"ab e1 \n<>=驼", *WORDS])


@settings(max_examples=150)
@given(st.lists(st.text(max_size=40) | st.lists(fragments, max_size=12).map("".join), max_size=5))
def test_any_texts(encoder: Encoder, texts: list[str]) -> None:
    assert lists(encoder, texts) == encoder.processor.encode(texts)


@pytest.mark.parametrize("options", OTHERS)
def test_other_models_are_encoded_by_sentencepiece(options: str) -> None:
    encoder = Encoder(trained(OTHERS[options]))
    assert encoder._compiled is None
    texts = [*AWKWARD, *TRAINING, "<a b>"]
    assert lists(encoder, texts, 2) == encoder.processor.encode(texts)


def test_without_a_compiler_the_ids_are_the_same(encoder: Encoder, without_compiler: None) -> None:
    texts = [*AWKWARD, *TRAINING]
    plain = Encoder(encoder.processor.serialized_model_proto())
    assert plain._compiled is None
    assert lists(plain, texts, 2) == lists(encoder, texts, 2)
    with pytest.raises(UserError, match=r"U\+DFFF at character 1"):
        plain.encode_flat(["a\udfff"])


def test_half_a_character_is_refused(encoder: Encoder) -> None:
    with pytest.raises(UserError, match=r"U\+D83E at character 3"):
        encoder.encode_flat(["fine", "abc\ud83e"])


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def model_proto(
    listed: list[tuple[str, float, int]], byte_fallback: bool = False, prefix: bool = True
) -> bytes:
    """Make a BPE model of an unknown piece, if asked for all bytes, and (piece, score, type) of others."""
    first = [("<unk>", 0.0, bpe.UNKNOWN)]
    if byte_fallback:
        first += [(f"<0x{byte:02X}>", 0.0, bpe.BYTE) for byte in range(256)]
    body = b""
    for piece, score, kind in first + listed:
        body += field(1, field(1, piece.encode()) + field(2, score) + field(3, kind))
    trainer = field(2, field(3, bpe.BPE) + field(35, int(byte_fallback)))
    return body + trainer + field(3, field(3, int(prefix)) + field(4, 0))


letters = st.text("ab\u2581é ", min_size=1, max_size=5)
kinds = st.sampled_from([bpe.NORMAL] * 8 + [bpe.USER_DEFINED, 3])


def made_up(listed: list[tuple[str, int, int]], single: set[str], byte_fallback: bool, prefix: bool) -> bytes:
    pieces = [(character, -9.0, bpe.NORMAL) for character in single]
    pieces += [(piece, float(score), kind) for piece, score, kind in listed if piece not in single]
    return model_proto(pieces, byte_fallback, prefix)


models = st.builds(
    made_up,
    st.lists(st.tuples(letters, st.integers(-3, 0), kinds), max_size=25, unique_by=lambda piece: piece[0]),
    st.sets(st.sampled_from("ab\u2581é ")),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=400)
@given(models, st.lists(st.text("ab\u2581é c", max_size=30), min_size=1, max_size=4))
def test_made_up_models_with_equal_scores(model: bytes, texts: list[str]) -> None:
    encoder = Encoder(model)
    try:
        expected = encoder.processor.encode(texts)
    except RuntimeError:  # a control piece of one character: SentencePiece itself cannot encode it
        return
    assert lists(encoder, texts) == expected


@needs_compiler
@pytest.mark.parametrize("number", range(40))
def test_large_made_up_models(number: int) -> None:
    chance = random.Random(number)
    alphabet = chance.choice(["ab", "ab\u2581", "abcdé驼\u2581", "01\u2581🦙"])
    words = {"".join(chance.choices(alphabet, k=chance.randint(2, 7))) for _ in range(300)}
    known = alphabet if number % 2 else alphabet[:-1]
    listed = []
    for piece in sorted({*words, *known}):
        listed.append((piece, float(-chance.randrange(5 + 10 * number)), bpe.NORMAL))
    encoder = Encoder(model_proto(listed, byte_fallback=number % 3 == 0, prefix=number % 5 > 0))
    assert encoder._compiled is not None
    letters = alphabet.replace("\u2581", " ") + "x"
    texts = ["".join(chance.choices(letters, k=chance.randrange(400))) for _ in range(50)]
    assert lists(encoder, texts, 2) == encoder.processor.encode(texts)


def test_pieces_that_are_set_aside_are_left_to_sentencepiece() -> None:
    pieces = [("a", -1.0, bpe.NORMAL), ("b", -1.0, bpe.NORMAL), ("ab", 0.0, bpe.UNUSED)]
    encoder = Encoder(model_proto(pieces))
    assert encoder._compiled is None
    assert lists(encoder, ["abab"]) == encoder.processor.encode(["abab"]) == [[0, 1, 2, 1, 2]]


@needs_compiler
def test_long_words_take_time_in_proportion() -> None:
    encoder = Encoder(trained(OURS))

    def words(size: int) -> list[str]:
        chinese = "".join(random.Random(1).choices("高原上的羊驼在吃草", k=size // 3))
        return ["a" * size, "ab" * (size // 2), chinese, " " * size]

    def encode(words: list[str]) -> None:
        for word in words:
            encoder.encode_flat([word])

    short, long = words(200_000), words(2_000_000)
    within(30 * max(cpu_seconds(lambda: encode(short)), 0.05), lambda: encode(long))


@pytest.fixture(scope="module")
def llama(data: Path) -> Encoder:
    return Encoder((data / "models" / "llama-tokenizer" / "tokenizer.model").read_bytes())


def test_llamas_own_model_on_real_text(llama: Encoder, data: Path) -> None:
    raw = data / "raw"
    plain = [
        *sorted((raw / "gutenberg").glob("*.txt")),
        *sorted((raw / "arxiv").rglob("*.tex")),
        *sorted(Path(bpe.__file__).parents[1].glob("*/*.py")),
    ]
    texts = [path.read_bytes()[:100_000].decode("utf-8", "replace") for path in plain]
    for path in sorted((raw / "wikipedia").glob("minidump-*.bz2")):  # some are cut off
        texts.append(bz2.BZ2Decompressor().decompress(path.read_bytes(), 40_000).decode("utf-8", "replace"))
    assert sum(map(len, texts)) > 1_000_000
    expected = llama.processor.encode(texts, num_threads=2)
    assert lists(llama, texts) == lists(llama, texts, 2) == expected


@settings(max_examples=200)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_llamas_own_model_on_any_text(llama: Encoder, texts: list[str]) -> None:
    texts = [*texts, *AWKWARD[:34]]
    assert lists(llama, texts) == llama.processor.encode(texts)
