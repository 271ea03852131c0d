"""SentencePiece BPE as in the paper (section 2.1, "Tokenizer"): digits split, bytes for unknown characters,
nothing normalised away.

`decode(encode(text)) == text` for every text. SentencePiece alone misses one case: it writes a space as
U+2581, so a U+2581 of the text itself would come back as a space. Here that character is always written as
its three bytes.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from puna.errors import UserError
from puna.text.bpe import Encoder
from puna.tokens.settings import TokenizerSettings

SPACE = "\u2581"
LINE_CHARACTERS = 4_000  # SentencePiece leaves out training lines over 4,192 bytes; cut longer ones instead
THREADS = 4  # a constant, since SentencePiece writes it into the model
Array = np.ndarray[Any, Any]


class Tokenizer:
    """A SentencePiece model: LLaMA's own `tokenizer.model` or one trained by `train`."""

    def __init__(self, model: bytes) -> None:
        """Raises RuntimeError when the bytes are not a SentencePiece model; `load` names the file."""
        self._encoder = Encoder(model)
        self._processor = self._encoder.processor
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        self._space_bytes = np.array(
            [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()], np.int32
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without begin and end tokens."""
        return self.encode_flat([text])[0].tolist()

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


def load(path: Path) -> Tokenizer:
    """Read a SentencePiece model file. Raises UserError when the file is missing or not one."""
    if not path.is_file():
        raise UserError(f"no tokenizer at {path}")
    try:
        return Tokenizer(path.read_bytes())
    except RuntimeError as error:
        raise UserError(f"{path} is not a SentencePiece model") from error


def lines(texts: Iterable[str]) -> Iterator[str]:
    """Split texts into training lines: empty ones left out, long ones cut."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]


def train(texts: Iterable[str], settings: TokenizerSettings) -> bytes:
    """Train a tokenizer; return its model file as bytes, equal for equal texts on every machine.

    Raises UserError when the texts cannot fill the vocabulary.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=settings.vocab_size,
            character_coverage=settings.character_coverage,
            split_digits=True,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * LINE_CHARACTERS + 1,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        text = str(error)
        if "Vocabulary size" in text or "vocab_size" in text:
            hint = text[text.find("Vocabulary size") :].split("\n")[0]
            raise UserError(
                f"tokenizer.vocab_size={settings.vocab_size} does not suit this text: {hint}"
            ) from error
        raise UserError("the tokenizer could not be trained: the corpus holds no text to train on") from error
    return model.getvalue()
