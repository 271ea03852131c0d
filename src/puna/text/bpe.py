"""Text -> token ids with SentencePiece models: SentencePiece's ids, much faster for most BPE models.

`bpe.cpp` encodes with BPE models that do not normalise the text. SentencePiece itself encodes with every
other model, and where there is no C++ compiler.
"""

import functools
import struct
import weakref
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from puna.errors import UserError
from puna.run import compiled

SOURCE = Path(__file__).with_name("bpe.cpp")
SIGNATURES = {
    "pieces_open": "ppppnpnn->p",
    "pieces_close": "p",
    "pieces_room": "pnn->n",
    "pieces_encode": "pppnnpp->n",
}
SPACE_MARK = "\u2581".encode()
NORMAL, UNKNOWN, USER_DEFINED, UNUSED, BYTE = 1, 2, 4, 5, 6  # types of pieces in sentencepiece_model.proto
KINDS = {NORMAL: 1, USER_DEFINED: 2}  # the same in bpe.cpp; no text becomes a piece of another type
BPE = 2  # a type of model in sentencepiece_model.proto
# SentencePiece trains 16 at most. Building the tables takes time by the square of a piece's length.
PIECE_CHARACTERS = 1_000
Array = np.ndarray[Any, Any]


@functools.cache
def library() -> Any:
    """Load the compiled encoder; None where it cannot be built or is switched off."""
    return compiled.load(SOURCE, SIGNATURES)


class Encoder:
    """A SentencePiece model that encodes. processor: the library's own, for everything else."""

    def __init__(self, model_proto: bytes) -> None:
        """Read a model. Raises RuntimeError when the bytes are not a SentencePiece model."""
        import sentencepiece

        self.processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model_proto)

    def encode_flat(self, texts: list[str], threads: int = 1) -> tuple[Array, Array]:
        """Encode texts: all ids one after the other, int32 [ids]; where each text's begin, int64 [texts + 1].

        `threads` work on different texts. Raises UserError for a text that UTF-8 cannot represent.
        """
        encoded = [_utf8(text) for text in texts]
        offsets = np.zeros(len(texts) + 1, np.int64)
        if self._compiled is None:
            lists = self.processor.encode(encoded, num_threads=threads)
            np.cumsum([len(ids) for ids in lists], out=offsets[1:])
            return np.fromiter(chain.from_iterable(lists), np.int32, int(offsets[-1])), offsets
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=starts[1:])
        functions, model = self._compiled
        room = np.empty(functions.pieces_room(model, int(starts[-1]), len(texts)), np.int32)
        joined = b"".join(encoded)
        count = functions.pieces_encode(
            model, joined, starts.ctypes.data, len(texts), threads, room.ctypes.data, offsets.ctypes.data
        )
        if count < 0:
            raise MemoryError
        return room[:count].copy(), offsets

    @functools.cached_property
    def _compiled(self) -> tuple[Any, int] | None:
        """The compiled encoder and the address of its copy of the model; None where SentencePiece encodes."""
        functions, plain = library(), _plain_bpe(self.processor.serialized_model_proto())
        if functions is None or plain is None:
            return None
        pieces, scores, types, prefix = plain
        starts = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=starts[1:])
        kinds = np.array([KINDS.get(kind, 0) for kind in types], np.uint8)
        arrays = starts, kinds, np.array(scores, np.float32)
        byte_ids = None
        if BYTE in types:
            names = [f"<0x{byte:02X}>" for byte in range(256)]
            byte_ids = np.array([self.processor.piece_to_id(name) for name in names], np.int32)
        address = functions.pieces_open(
            b"".join(pieces),
            *(array.ctypes.data for array in arrays),
            len(pieces),
            None if byte_ids is None else byte_ids.ctypes.data,
            self.processor.unk_id(),
            prefix,
        )
        if address is None:
            raise MemoryError
        weakref.finalize(self, functions.pieces_close, address)
        return functions, address


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        surrogate = f"the surrogate U+{ord(text[error.start]):04X} at character {error.start}"
        raise UserError(
            f"a text cannot be encoded: {surrogate} is half of a character; text must hold whole ones"
        ) from error


def _plain_bpe(model_proto: bytes) -> tuple[list[bytes], list[float], list[int], bool] | None:
    """Read pieces with spaces for space marks, scores and types, and whether a space goes before a text.

    None for models that the compiled encoder does not support: not BPE, normalised text, parts of texts that
    are declared as unused.
    """
    pieces, scores, types, trainer, normalizer = parts_of(model_proto)
    model_type, suffix = trainer.get(3, 1), trainer.get(24, 0)
    charsmap, prefix = normalizer.get(2, b""), normalizer.get(3, 1)
    trimmed, escaped = normalizer.get(4, 1), normalizer.get(5, 1)
    if model_type != BPE or suffix or charsmap or trimmed or not escaped or UNUSED in types:
        return None
    if not all(map(_is_plain, pieces)) or any(score != score for score in scores):
        return None
    texts = {piece for piece, kind in zip(pieces, types, strict=True) if kind in KINDS}
    for piece, kind in zip(pieces, types, strict=True):
        if kind not in KINDS and (piece in texts or len(piece.decode()) == 1):
            return None  # SentencePiece would find it before, or without, a piece that texts may become
        if kind == USER_DEFINED and (b" " in piece or SPACE_MARK in piece):
            return None  # it is looked for in the text as it was and again with space marks
    # Texts have no spaces left when pieces are looked for, so a piece with one is never found.
    types = [kind if b" " not in piece else UNKNOWN for piece, kind in zip(pieces, types, strict=True)]
    return [piece.replace(SPACE_MARK, b" ") for piece in pieces], scores, types, bool(prefix)


def _is_plain(piece: bytes) -> bool:
    """Whether a piece is short UTF-8 without NUL: versions of SentencePiece differ in what a NUL does."""
    try:
        return b"\0" not in piece and len(piece.decode()) <= PIECE_CHARACTERS
    except UnicodeDecodeError:
        return False


def parts_of(
    model_proto: bytes,
) -> tuple[list[bytes], list[float], list[int], dict[int, Any], dict[int, Any]]:
    """Texts, scores and types of a model's pieces; fields of how it was trained, and of how it normalises."""
    pieces: list[dict[int, Any]] = []
    settings: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    for number, value in fields(model_proto):
        if number == 1:
            pieces.append({2: 0.0, 3: NORMAL, **dict(fields(value))})
        elif number in settings:
            settings[number].update(fields(value))
    texts, scores, types = ([piece[field] for piece in pieces] for field in (1, 2, 3))
    return texts, scores, types, settings[2], settings[3]


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value (int, float or bytes) of each field of a protobuf message known to be valid."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
        elif kind == 5:
            yield tag >> 3, struct.unpack_from("<f", message, at)[0]
            at += 4
        elif kind == 1:
            at += 8
        elif kind == 2:
            size = varint()
            yield tag >> 3, message[at : at + size]
            at += size
