"""SentencePiece models as lists of pieces: from and to the library's files, and tokenizers' JSON.

A model file is a protocol buffer, `sentencepiece_model.proto`; of its fields those that BPE needs are written
here by hand: no more of the format is needed, and the library for it is a large one.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from puna.errors import UserError
from puna.text.bpe import BPE, fields, parts_of

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces; GGUF's, too
SPACE = "\u2581"


class Pieces(NamedTuple):
    """A vocabulary of the kind BPE: of each piece its text with U+2581 for spaces, score and type.

    bos_id, eos_id: -1 where there is none. space_prefix: a space goes before every text.
    """

    texts: list[str]
    scores: list[float]
    types: list[int]
    bos_id: int
    eos_id: int
    space_prefix: bool = True


def _varint(number: int) -> bytes:
    out = b""
    number &= (1 << 64) - 1  # -1 has 64 bits there
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def to_model(pieces: Pieces) -> bytes:
    """A model file of these pieces, which normalises nothing; equal pieces give equal bytes."""
    parts = []
    for text, score, kind in zip(pieces.texts, pieces.scores, pieces.types, strict=True):
        described = _bytes(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        parts.append(_bytes(1, described if kind == NORMAL else described + _number(3, kind)))
    unknown = pieces.types.index(UNKNOWN)
    trainer = _number(3, BPE) + _number(4, len(pieces.texts)) + _number(35, BYTE in pieces.types)
    trainer += _number(40, unknown) + _number(41, pieces.bos_id) + _number(42, pieces.eos_id)
    trainer += _number(43, -1) + _bytes(45, pieces.texts[unknown].encode())
    for field, token in ((46, pieces.bos_id), (47, pieces.eos_id)):
        trainer += _bytes(field, pieces.texts[token].encode()) if token >= 0 else b""
    normalizer = _bytes(1, b"identity") + _number(3, pieces.space_prefix) + _number(4, 0) + _number(5, 1)
    return b"".join(parts) + _bytes(2, trainer) + _bytes(3, normalizer)


def with_controls(model: bytes, names: Sequence[str]) -> bytes:
    """A model file with control pieces behind its last one: fields of a message come in any order, and a
    message may come in parts."""
    for name in names:
        model += _bytes(1, _bytes(1, name.encode()) + b"\x15" + struct.pack("<f", 0.0) + _number(3, CONTROL))
    size = sum(number == 1 for number, _ in fields(model))
    return model + _bytes(2, _number(4, size)) if names else model


def of_model(model: bytes) -> Pieces:
    """The pieces of a model file. Raises UserError for one of another kind than BPE, or that normalises text:
    its pieces alone do not say how a text is encoded."""
    raw, scores, types, trainer, normalizer = parts_of(model)
    texts = [piece.decode() for piece in raw]
    if trainer.get(3, 1) != BPE or normalizer.get(2) or normalizer.get(4, 1):
        raise UserError(
            "this tokenizer is no plain BPE of SentencePiece; only such ones are written elsewhere"
        )
    ids = [trainer.get(field, default) for field, default in ((41, 1), (42, 2))]
    bos_id, eos_id = (number if number < len(texts) else -1 for number in ids)
    return Pieces(texts, scores, types, bos_id, eos_id, bool(normalizer.get(3, 1)))


def to_json(pieces: Pieces, adds_bos: bool) -> str:
    """A tokenizer.json that transformers reads: as its own conversion of such a model does."""
    vocabulary = {text: number for number, text in enumerate(pieces.texts)}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if pieces.space_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if pieces.space_prefix else []
    decoders: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    decoders += [{"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return tokenizer_json(
        vocabulary,
        _merges(pieces),
        added_tokens(pieces.texts, pieces.types, {CONTROL, UNKNOWN}),
        unknown=pieces.texts[pieces.types.index(UNKNOWN)],
        normalizer={"type": "Sequence", "normalizers": [*prepend, replace]},
        post_processor=begin_with(pieces.texts[pieces.bos_id], pieces.bos_id) if adds_bos else None,
        decoder={"type": "Sequence", "decoders": decoders},
    )


def added_tokens(texts: Sequence[str], types: Sequence[int], special: set[int]) -> list[dict[str, Any]]:
    """Tokens of a tokenizer.json that stand beside its model's. special: types of those that no text has."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
        {"id": number, "content": text, **flags, "special": kind in special}
        for number, (text, kind) in enumerate(zip(texts, types, strict=True))
        if kind in (*special, USER_DEFINED)
    ]


def tokenizer_json(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    added: list[dict[str, Any]],
    *,
    unknown: str | None = None,
    ignore_merges: bool = False,
    **steps: Any,
) -> str:
    """A tokenizer.json of the kind BPE. unknown: the token of what has none, where bytes are tokens. steps:
    those around the model, by their names there."""
    named = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder")) | steps
    empty = dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"))
    by_bytes = dict.fromkeys(("fuse_unk", "byte_fallback"), unknown is not None)
    model = {"type": "BPE", "dropout": None, "unk_token": unknown, **empty, **by_bytes}
    model |= {"ignore_merges": ignore_merges, "vocab": vocabulary, "merges": merges}
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return json.dumps({**head, **named, "model": model}, ensure_ascii=False)


def begin_with(text: str, token: int) -> dict[str, Any]:
    """The post-processor of a tokenizer.json that puts a begin token before every text."""
    special = {"SpecialToken": {"id": text, "type_id": 0}}
    one, two = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    known = {text: {"id": text, "ids": [token], "tokens": [text]}}
    other = {"SpecialToken": {"id": text, "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [special, one],
        "pair": [special, one, other, two],
        "special_tokens": known,
    }


def _merges(pieces: Pieces) -> list[tuple[str, str]]:
    """Pairs of pieces that make another, those that SentencePiece makes first before others."""
    zipped = zip(pieces.texts, pieces.scores, pieces.types, strict=True)
    scores = {text: score for text, score, kind in zipped if kind in (NORMAL, USER_DEFINED)}
    found = [
        (-score, text, cut)
        for text, score in scores.items()
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    found.sort(key=lambda merge: merge[0])
    return [(text[:cut], text[cut:]) for _, text, cut in found]


def of_json(described: dict[str, Any], bos_id: int, eos_id: int) -> Pieces:
    """The pieces of a tokenizer.json that was made of a SentencePiece model.

    A piece's score is minus the rank of its first merge. Raises UserError where ids have gaps.
    """
    model, steps = described["model"], str(described.get("normalizer"))
    texts = [""] * len(model["vocab"])
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        ranks.setdefault(left + right, rank)
    special = {token["id"]: token for token in described.get("added_tokens", [])}
    numbered = {number: text for text, number in model["vocab"].items()}
    numbered |= {number: token["content"] for number, token in special.items()}
    if sorted(numbered) != list(range(len(numbered))):
        raise UserError("the tokenizer's ids have gaps")
    texts = [numbered[number] for number in range(len(numbered))]
    types = []
    for number, text in enumerate(texts):
        if text == model.get("unk_token"):
            types.append(UNKNOWN)
        elif number in special:
            types.append(CONTROL if special[number]["special"] else USER_DEFINED)
        else:
            types.append(BYTE if len(text) == 6 and text.startswith("<0x") else NORMAL)
    if UNKNOWN not in types:
        raise UserError("the tokenizer has no unknown token")
    last = len(ranks)
    scores = [float(-ranks.get(text, last)) if kind == NORMAL else 0.0
              for text, kind in zip(texts, types, strict=True)]  # fmt: skip
    prefix = "Prepend" in steps or "add_prefix_space" in str(described.get("pre_tokenizer"))
    return Pieces(texts, scores, types, bos_id, eos_id, prefix)
