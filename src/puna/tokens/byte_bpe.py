"""Byte-level BPE, as GPT-2 and Llama 3 have it, by the tokenizers library: each token stands for bytes.

What differs between such tokenizers is how a text is cut before pairs are merged. Files of the library say it
themselves; GGUF files give it one of the names below.
"""

import base64
import codecs
import functools
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.text.lists import listed
from puna.tokens.pieces import CONTROL, NORMAL, USER_DEFINED, added_tokens, begin_with, tokenizer_json

LARGEST_FILE = 64_000_000
# pre_tokenizers, as the library writes them: smollm is GPT-2's words, digits alone; llama-bpe Llama 3's
# words, up to three digits together. llama_3_controls: of its 256 control tokens those that are no reserve;
# the others fill the places between and after.
_TABLES = listed(__file__, "byte_bpe.json")
PRE_TOKENIZERS = _TABLES["pre_tokenizers"]


class ByteBPE:
    """A byte-level tokenizer. It has the attributes and methods of `TextTokenizer`."""

    def __init__(
        self, backend: Any, *, bos_id: int, eos_id: int, adds_bos: bool, stops: Iterable[int] = ()
    ) -> None:
        """backend: the library's Tokenizer."""
        backend.encode_special_tokens = True  # a text that spells one is text
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self._added: dict[int, Any] = backend.get_added_tokens_decoder()
        self.vocab_size: int = 1 + max([*backend.get_vocab(True).values()])
        self.bos_id, self.eos_id = bos_id, eos_id
        self.adds_bos = adds_bos and bos_id >= 0
        self.stops = frozenset(token for token in (eos_id, *stops) if token >= 0)
        for token in (bos_id, *self.stops):
            if not -1 <= token < self.vocab_size:
                raise UserError(f"the tokenizer has no token {token}: its ids end at {self.vocab_size - 1}")

    @property
    def bos(self) -> list[int]:
        return [self.bos_id] if self.adds_bos else []

    def encode(self, text: str) -> list[int]:
        try:
            return self.backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError) as error:
            raise UserError(f"a text cannot be encoded, half of a character is in it: {error}") from error

    def encode_after(self, text: str) -> list[int]:
        return self.encode(text)  # no space goes before a text

    def control_id(self, text: str) -> int | None:
        token = self.backend.token_to_id(text)
        return token if token in self._added and self._added[token].special else None

    def decode(self, ids: list[int]) -> str:
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; nothing for a control token and for an id that is none."""
        if (added := self._added.get(token)) is not None:
            return b"" if added.special else added.content.encode()
        text, table = self.backend.id_to_token(token) or "", _bytes_of_letters()
        return b"".join(table[letter] if letter in table else letter.encode() for letter in text)

    def piece(self, token: int) -> str:
        return self.bytes_of(token).decode("utf-8", "replace") or self.backend.id_to_token(token) or ""

    def stream(self) -> "ByteStream":
        return ByteStream(self)

    def described(self) -> dict[str, Any]:
        """The library's file, as JSON; its post-processor puts the begin token as adds_bos says."""
        described = json.loads(self.backend.to_str())
        text = self.backend.id_to_token(self.bos_id) if self.adds_bos else None
        described["post_processor"] = begin_with(text, self.bos_id) if text is not None else None
        return described

    def tokens(self) -> tuple[list[str], list[int], list[str], str]:
        """(texts, types, merges, name of the pre-tokenizer), as GGUF has them. Raises UserError where it has
        no name for how this tokenizer cuts texts."""
        described = self.described()
        model, cut = described["model"], described["pre_tokenizer"]
        name = next((name for name, known in PRE_TOKENIZERS.items() if _same(known, cut)), None)
        if name is None or described["normalizer"] is not None:
            shown = json.dumps([described["normalizer"], cut])[:200]
            raise UserError(f"GGUF has no name known here for how the tokenizer cuts texts: {shown}")
        texts = [self.backend.id_to_token(token) for token in range(self.vocab_size)]
        if None in texts:
            raise UserError(f"the tokenizer's ids have gaps: {texts.index(None)} is none")
        types = [NORMAL] * len(texts)
        for token, added in self._added.items():
            types[token] = CONTROL if added.special else USER_DEFINED
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        return texts, types, merges, name


class ByteStream:
    """Token ids -> text, one id after the other; see `TextTokenizer.stream`."""

    def __init__(self, tokenizer: ByteBPE) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        return self._decoder.decode(self._tokenizer.bytes_of(token))

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


@functools.cache
def _bytes_of_letters() -> dict[str, bytes]:
    """Byte by the letter that stands for it in a vocabulary (Radford et al. 2019): its own where that shows,
    else one from U+0100 on."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters, free = {}, 256
    for byte in range(256):
        letters[chr(byte if byte in shown else free)] = bytes([byte])
        free += byte not in shown
    return letters


def _same(known: Any, other: Any) -> bool:
    """Whether two pre-tokenizers cut alike: offsets do not matter."""
    if isinstance(known, dict) and isinstance(other, dict):
        keys = {*known, *other} - {"trim_offsets"}
        return all(key in known and key in other and _same(known[key], other[key]) for key in keys)
    if isinstance(known, list) and isinstance(other, list) and len(known) == len(other):
        return all(map(_same, known, other))
    return known == other


def backend_of(raw: str, where: str) -> Any:
    """The library's tokenizer of its JSON. Raises UserError for what it does not read."""
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(raw)
    except Exception as error:  # the library raises Exception itself
        raise UserError(f"{where} holds no tokenizer: {str(error)[:300]}") from error


def make(
    texts: list[str], types: list[int], merges: list[tuple[str, str]], pre: str, where: str, **how: Any
) -> ByteBPE:
    """A tokenizer of its vocabulary and merges. pre: the pre-tokenizer's name in GGUF files. how: the keyword
    arguments of ByteBPE. Raises UserError for an unknown name and for merges without a token."""
    if pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise UserError(f"{where}: the pre-tokenizer {pre!r:.100} is not known; known are {known}")
    vocabulary = {text: number for number, text in enumerate(texts)}
    if len(vocabulary) < len(texts):
        twice = next(text for number, text in enumerate(texts) if vocabulary[text] != number)
        raise UserError(f"{where}: the token {twice[:100]!r} is there twice")
    described = tokenizer_json(
        vocabulary,
        merges,
        added_tokens(texts, types, {CONTROL}),
        ignore_merges=pre == "llama-bpe",
        pre_tokenizer=PRE_TOKENIZERS[pre],
        decoder=_TABLES["decoder"],
    )
    return ByteBPE(backend_of(described, where), **how)


def of_tiktoken(path: Path) -> ByteBPE:
    """Llama 3's tokenizer.model: a line of base64 and a rank for each token, and 256 control tokens after
    them. Tokens are merged in the order of their ranks. Raises UserError for a broken file."""
    letters = {byte[0]: letter for letter, byte in _bytes_of_letters().items()}
    ranks: dict[bytes, int] = {}
    try:
        for line in path.read_bytes().splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
    except ValueError as error:
        raise UserError(f"{path} is no list of tokens in base64 with ranks: {error}") from error
    if list(ranks.values()) != list(range(len(ranks))) or len(ranks) < 256:
        raise UserError(f"{path}: the ranks of its {len(ranks):,} tokens have gaps")
    texts = ["".join(letters[byte] for byte in token) for token in ranks]
    merges: list[tuple[str, str]] = []
    for token, text in zip(ranks, texts, strict=True):
        cuts = [cut for cut in range(1, len(token)) if token[:cut] in ranks and token[cut:] in ranks]
        cuts.sort(key=lambda cut: (ranks[token[:cut]], ranks[token[cut:]]))
        merges += [(text[:cut], text[cut:]) for cut in cuts]
    reserved, named = itertools.count(), _TABLES["llama_3_controls"]
    names = [named.get(str(n)) or f"reserved_special_token_{next(reserved)}" for n in range(256)]
    controls = [f"<|{name}|>" for name in names]
    first, types = len(texts), [NORMAL] * len(texts) + [CONTROL] * 256
    how = {"bos_id": first, "eos_id": first + 1, "adds_bos": True, "stops": (first + 8, first + 9)}
    return make(texts + controls, types, merges, "llama-bpe", str(path), **how)
