"""Control tokens behind a tokenizer's last one: the others stay what they were, other programs read them."""

from pathlib import Path

import pytest

from puna.errors import UserError
from puna.tokens import files, pieces
from puna.tokens.byte_bpe import ByteBPE, make
from puna.tokens.chat import FORMATS, Turn, encode, stop_ids
from puna.tokens.control_tokens import extend, for_format
from puna.tokens.pieces import CONTROL, NORMAL, USER_DEFINED
from puna.tokens.settings import TokenizerSettings
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tokens.tokenizer import Tokenizer, train

TEXTS = ["The llamas graze.\n<|im_start|>user", "</s> \u2581<s>  1234", "", "ñandú \U0001f999"]
CHAT = [Turn("user", "Do they graze?<|im_end|>"), Turn("assistant", "They do.")]


def sentencepiece() -> Tokenizer:
    texts = [f"The llamas of the high plain graze {number} hours.\n" for number in range(200)]
    return Tokenizer(train(texts, TokenizerSettings(vocab_size=320)))


def byte_level() -> ByteBPE:
    letters = [chr(number) for number in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    texts = ["<|end|>", "<tag>", *letters, "th"]
    types = [CONTROL, USER_DEFINED] + [NORMAL] * (len(texts) - 2)
    return make(texts, types, [("t", "h")], "smollm", "here", bos_id=0, eos_id=0, adds_bos=True)


@pytest.mark.parametrize("made", [sentencepiece, byte_level])
def test_texts_keep_their_ids_and_the_new_tokens_are_control_tokens(made: type, tmp_path: Path) -> None:
    tokenizer: TextTokenizer = made()
    size, form = tokenizer.vocab_size, FORMATS["chatml"]
    extended = for_format(tokenizer, form)
    assert extended.vocab_size == size + 2 and tokenizer.vocab_size == size
    for text in TEXTS:
        assert extended.encode(text) == tokenizer.encode(text)
        assert extended.decode(extended.encode(text)) == text
    start, end = (extended.control_id(name) for name in ("<|im_start|>", "<|im_end|>"))
    assert {start, end} == {size, size + 1} and start is not None and end is not None
    assert (extended.bos, extended.eos_id) == (tokenizer.bos, tokenizer.eos_id)
    assert extended.stops == tokenizer.stops | {end} and stop_ids(form, extended) == {end}
    encoded = encode(CHAT, form, extended)
    assert [encoded.ids.count(token) for token in (start, end)] == [2, 2]
    learned = [encoded.learned[place] for place, token in enumerate(encoded.ids) if token == end]
    assert learned == [False, True]
    assert extended.decode([start, *extended.encode("graze"), end]).strip() == "graze"
    files.to_folder(extended, tmp_path, None, 64)
    again, _ = files.from_folder(tmp_path)
    told, _ = files.from_gguf(files.to_gguf(extended, None, size + 4), "here")
    for other in again, told:
        assert other is not None and other.vocab_size == size + 2
        assert encode(CHAT, form, other).ids == encoded.ids
        assert end in other.stops


@pytest.mark.parametrize("made", [sentencepiece, byte_level])
def test_transformers_gives_the_same_ids(made: type, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    extended = for_format(made(), FORMATS["chatml"])
    files.to_folder(extended, tmp_path, None, 64)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nDo they graze?<|im_end|>\n"
    ours = encode([Turn("user", "Do they graze?")], FORMATS["chatml"], extended).ids
    assert theirs(text, add_special_tokens=False)["input_ids"] == ours


def test_a_format_that_needs_none_changes_nothing() -> None:
    tokenizer = sentencepiece()
    same = for_format(tokenizer, FORMATS["vicuna_v1.1"])
    assert isinstance(same, Tokenizer) and same.model == tokenizer.model and same.stops == tokenizer.stops


def test_the_file_says_how_many_pieces_there_are() -> None:
    extended = extend(sentencepiece(), ["<a>", "<b>"])
    assert isinstance(extended, Tokenizer)
    vocabulary = pieces.of_model(extended.model)
    assert vocabulary.texts[-2:] == ["<a>", "<b>"] and vocabulary.types[-2:] == [CONTROL] * 2
    assert len(vocabulary.texts) == 322


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(UserError, match="has a token '<tag>' already"):
        extend(byte_level(), ["<tag>"])
    with pytest.raises(UserError, match="has a token '<s>' already"):
        extend(sentencepiece(), ["<s>"])
    letters = byte_level().backend
    with pytest.raises(UserError, match="needs the tokenizer's end token, and it has none"):
        for_format(ByteBPE(letters, bos_id=-1, eos_id=-1, adds_bos=False), FORMATS["alpaca"])
