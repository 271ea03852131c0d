"""SentencePiece BPE as in the paper (section 2.1, "Tokenizer"): digits split, bytes for unknown characters,
nothing normalised away.

Digits are those of every script (Unicode's category Nd). SentencePiece's own `split_digits` knows ASCII's and
the full-width ones; the others are set apart in the training text, so that no piece holds one beside anything
else. Encoding needs no rule of its own: where no piece joins digits, none is found.

`decode(encode(text)) == text` for every text. SentencePiece alone misses one case: it writes a space as
U+2581, so a U+2581 of the text itself would come back as a space. Here that character is always written as
its three bytes.
"""

import functools
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from puna.errors import UserError
from puna.text.bpe import Encoder
from puna.tokens.settings import TokenizerSettings

SPACE = "\u2581"
LINE_CHARACTERS = 4_000  # SentencePiece leaves out training lines over 4,192 bytes; cut longer ones instead
OTHER_DIGITS = re.compile(r"[^\D0-9\uff10-\uff19]")  # those that SentencePiece does not split
BOUNDARY = "\uffff"  # in training text: no piece crosses it. Unicode has no such character, and it gets none
# What SentencePiece says of a vocabulary that does not suit a text, with the bound.
TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
TOO_LARGE = re.compile(r"value <= (\d+)")
NO_SPACE_BEFORE = b"\x1a\x02\x18\x00"  # normalizer_spec.add_dummy_prefix = false, as a model file says it
THREADS = 4  # a constant, since SentencePiece writes it into the model
Array = np.ndarray[Any, Any]


class Tokenizer:
    """A SentencePiece model: LLaMA's own `tokenizer.model` or one trained by `train`.

    It has the attributes and methods of `puna.tokens.text_tokenizer.TextTokenizer`.
    """

    def __init__(self, model: bytes, *, adds_bos: bool = True, stops: Iterable[int] = ()) -> None:
        """Raises RuntimeError when the bytes are not a SentencePiece model; `load` names the file.

        adds_bos: whether a text begins with the begin token. stops: what ends a text beside the end token.
        """
        self._encoder = Encoder(model)
        self.model = model
        self._processor = self._encoder.processor
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        self.adds_bos = adds_bos and self.bos_id >= 0
        self.stops = frozenset(token for token in (self.eos_id, *stops) if 0 <= token < self.vocab_size)
        self._space_bytes = np.array(
            [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()], np.int32
        )

    @property
    def bos(self) -> list[int]:
        """The ids before every text: the begin token, or none."""
        return [self.bos_id] if self.adds_bos else []

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without begin and end tokens."""
        return self.encode_flat([text])[0].tolist()

    def encode_after(self, text: str) -> list[int]:
        """Token ids of a text that goes on after another: no space mark is put before it."""
        ids, offsets = self._continuing.encode_flat(text.split(SPACE))
        parts = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]
        mark = self._space_bytes.tolist()
        return parts[0] + [token for part in parts[1:] for token in mark + part]

    @functools.cached_property
    def _continuing(self) -> Encoder:
        """The same model without a space before a text: of a field that comes twice the last one holds."""
        return Encoder(self.model + NO_SPACE_BEFORE)

    def control_id(self, text: str) -> int | None:
        """The id of the control token of this name; None where there is none."""
        token = self._processor.piece_to_id(text)
        return token if self._processor.is_control(token) else None

    def encode_flat(self, texts: list[str], threads: int = 1) -> tuple[Array, Array]:
        """Token ids of all texts one after the other, int32 [ids], and their offsets, int64 [texts + 1].

        `threads` work on different texts. Raises UserError for a text that UTF-8 cannot hold.
        """
        if not any(SPACE in text for text in texts):
            return self._encoder.encode_flat(texts, threads)
        # Parts after a U+2581 are encoded behind a line feed, which never merges with its neighbours. The two
        # ids that stand for "begin of text" and for the line feed then make room for the three bytes.
        split = [text.split(SPACE) for text in texts]
        parts = ["\n" + part if number else part for text in split for number, part in enumerate(text)]
        ids, offsets = self._encoder.encode_flat(parts, threads)
        firsts = np.cumsum([0, *map(len, split)])  # number of each text's first part
        later = np.ones(len(parts) + 1, np.int64)
        later[firsts] = 0
        marks = offsets[later == 1]
        ids[marks], ids[marks + 1] = self._space_bytes[:2]
        ids = np.insert(ids, marks + 2, self._space_bytes[2])
        return ids, (offsets + np.cumsum(later))[firsts]

    def documents_flat(self, texts: list[str], threads: int = 1) -> tuple[Array, Array]:
        """`encode_flat` of whole documents for training: each with its begin and end token."""
        ids, offsets = self.encode_flat(texts, threads)
        ends = np.stack([offsets[:-1], offsets[1:]], axis=1).ravel()
        controls = np.tile(np.array([self.bos_id, self.eos_id], np.int32), len(texts))
        return np.insert(ids, ends, controls), offsets + 2 * np.arange(len(offsets))

    def decode(self, ids: list[int]) -> str:
        """Text of token ids; begin and end tokens are dropped, bytes that are not UTF-8 become U+FFFD."""
        return self._processor.decode(ids)

    def piece(self, token: int) -> str:
        """Piece of a token, with SentencePiece's space mark as a space."""
        return self._processor.id_to_piece(token).replace(SPACE, " ")

    def byte(self, token: int) -> bytes:
        """The byte that a token stands for; empty for a token that stands for text."""
        if not self._processor.is_byte(token):
            return b""
        return bytes([int(self._processor.id_to_piece(token)[3:5], 16)])

    def stream(self) -> "TextStream":
        """A new stream of ids to text."""
        return TextStream(self)


class TextStream:
    """Token ids -> text, one id after the other: what the calls return, joined, is `Tokenizer.decode` of all.

    Only whole characters are returned; the bytes of one wait, three at most, for those that complete it. A
    call decodes two ids at most, however many came before it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = b""
        # The id with which the text begins: only there is a space dropped, which SentencePiece puts before
        # every text. What comes later is decoded behind this id.
        self._first: list[int] = []
        self._first_characters = 0

    def add(self, token: int) -> str:
        """Return the text that a token completes; it may be empty."""
        if byte := self._tokenizer.byte(token):
            if not self._first:
                self._first, self._first_characters = [token], len(self._tokenizer.decode([token]))
            self._bytes += byte
            return self._characters(end=False)
        text = self._tokenizer.decode([*self._first, token])[self._first_characters :]
        if not self._first and (text or self._tokenizer.decode([token, token])):
            self._first, self._first_characters = [token], len(text)
        return self.end() + text

    def end(self) -> str:
        """Return the text of the bytes that still wait, U+FFFD for those that are no character."""
        return self._characters(end=True)

    def _characters(self, end: bool) -> str:
        """Take characters from the bytes, and U+FFFD for each byte that begins none.

        end: no more bytes come, so that what waits for them is none.
        """
        text = ""
        while self._bytes and (end or len(self._bytes) >= _character_bytes(self._bytes[0])):
            size = _character_bytes(self._bytes[0])
            try:
                text += self._bytes[:size].decode()
            except UnicodeDecodeError:
                text, size = text + "\ufffd", 1
            self._bytes = self._bytes[size:]
        return text


def _character_bytes(first: int) -> int:
    """Bytes of a character in UTF-8 by the first of them; 1 where no character begins so."""
    if first < 0xC0 or first >= 0xF8:
        return 1
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def load(path: Path) -> Tokenizer:
    """Read a SentencePiece model file. Raises UserError when the file is missing or not one."""
    if not path.is_file():
        raise UserError(f"no tokenizer at {path}")
    return of_bytes(path.read_bytes(), str(path))


def of_bytes(model: bytes, where: str, **how: Any) -> Tokenizer:
    """A tokenizer of a model file's bytes. Raises UserError where they are none."""
    try:
        return Tokenizer(model, **how)
    except RuntimeError as error:
        raise UserError(f"{where} is not a SentencePiece model") from error


def lines(texts: Iterable[str]) -> Iterator[str]:
    """Split texts into training lines: empty ones left out, long ones cut."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]


def set_digits_apart(text: str) -> str:
    """Put a boundary on both sides of each digit that SentencePiece does not split by itself."""
    return OTHER_DIGITS.sub(rf"{BOUNDARY}\g<0>{BOUNDARY}", text)


def train(texts: Iterable[str], settings: TokenizerSettings) -> bytes:
    """Train a tokenizer; return its model file as bytes, equal for equal texts on every machine.

    Raises UserError when the texts cannot fill the vocabulary.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(map(set_digits_apart, texts)),
            model_writer=model,
            model_type="bpe",
            vocab_size=settings.vocab_size,
            character_coverage=settings.character_coverage,
            split_digits=True,
            pretokenization_delimiter=BOUNDARY,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * LINE_CHARACTERS + 1,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if not (bound := TOO_SMALL.search(str(error)) or TOO_LARGE.search(str(error))):
            raise UserError(
                "the tokenizer could not be trained: the corpus holds no text to train on"
            ) from error
        fits = "more than the text's characters and bytes, so" if bound.re is TOO_SMALL else "this text fills"
        side = "least" if bound.re is TOO_SMALL else "most"
        raise UserError(
            f"tokenizer.vocab_size={settings.vocab_size} does not suit this text: {fits} {int(bound[1]):,} "
            f"at {side}"
        ) from error
    return model.getvalue()


def vocabulary_bounds(texts: list[str], wanted: int) -> tuple[int, int]:
    """(least, most) that `vocab_size` may be on these texts, where they are nearer than `wanted`; most is
    less than least where no tokenizer can be trained on them."""
    least, most = 260, max(wanted, 260)
    for _ in range(2):
        try:
            train(texts, TokenizerSettings(vocab_size=max(least, most)))
        except UserError as error:
            if bound := TOO_SMALL.search(str(error.__cause__)):
                least = int(bound[1])
                most = max(most, least + 256)
                continue
            bound = TOO_LARGE.search(str(error.__cause__))
            return least, int(bound[1]) if bound else 0
        break
    return least, most
