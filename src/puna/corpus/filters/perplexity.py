"""The quality filter of CCNet (Wenzek et al. 2020, section 3.4): how surprising a document is to an n-gram
model of good text.

A text is normalised, cut into pieces by SentencePiece and scored by a 5-gram model as one sentence:
perplexity = 10^(-log10 P / (pieces + 1)). Documents under the 30th percentile of perplexity are its "head",
those under the 60th its "middle".

Both models are trained on texts of the user's own. `ccnet=True` trains and scores as CCNet does in the four
places where the default differs: line ends and tabs are deleted, so that words stick together (default: white
space becomes one space); SentencePiece's unigram model with its NFKC normalisation (default: BPE, which is
cut faster, and no second normalisation); the uniform distribution under the single tokens is over the pieces
of the training text (default: over the vocabulary, so that probabilities add up to 1 over all pieces). Not as
in CCNet either way: all pieces that SentencePiece does not know are one token, <unk>, in training too.
"""

import io
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.errors import UserError
from puna.run.artifact import sync
from puna.text import ngram
from puna.text.bpe import Encoder
from puna.text.ngram import Array, KneserNey

# Punctuation that CCNet writes in ASCII. Its entry for the fullwidth digit one is left out: digits are zeros
# before it is looked at.
PUNCTUATION = {
    **dict.fromkeys("„”“«»」「《》", '"'), **dict.fromkeys("，、", ","), "。": ".", "´": "'", "’": "'", "∶": ":", "：": ":", "？": "?",
    "！": "!", "（": "(", "）": ")", "；": ";", "–": "-", "—": " - ", "．": ". ", "～": "~", "…": "...", "━": "-", "〈": "<", "〉": ">",
    "【": "[", "】": "]", "％": "%", "►": "-",
}  # fmt: skip
DIGIT = re.compile(r"\d")
CONTROL = frozenset(map(chr, (*range(32), *range(127, 160))))
# different characters to be replaced in a text, from which one pass over it is faster than one for each
MANY = 64
LOT_CHARACTERS = 8_000_000
LINE_CHARACTERS = 4_000
TRAINER_THREADS = 4  # a constant, since SentencePiece's result depends on it
PIECES, NGRAMS, SETTINGS = "pieces.model", "ngrams.bin", "perplexity.json"


class _Replacements(dict[int, str]):
    """What becomes of one lower-case character, by code point, worked out when it is first met: no accents
    (category Mn after NFD), digits 0, ASCII punctuation; no control characters and no halves of surrogate
    pairs. With `spaces` all white space is a space, also where it is a control character."""

    def __init__(self, spaces: bool) -> None:
        super().__init__()
        self.spaces = spaces

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if 0xD800 <= code <= 0xDFFF:
            found = ""
        elif self.spaces and character.isspace():
            found = " "
        else:
            kept = (
                part for part in unicodedata.normalize("NFD", character) if unicodedata.category(part) != "Mn"
            )
            digits = DIGIT.sub("0", "".join(kept))
            found = "".join(PUNCTUATION.get(part, part) for part in digits if part not in CONTROL)
        self[code] = found
        return found


_REPLACEMENTS = {ccnet: _Replacements(spaces=not ccnet) for ccnet in (False, True)}


def normalise(text: str, ccnet: bool = False) -> str:
    """Lower case, accents stripped, digits to 0, CCNet's punctuation in ASCII, no control characters. White
    space becomes single spaces; with `ccnet` line ends and tabs go like other control characters, and other
    white space stays."""
    text = text.strip().lower()
    replacements = _REPLACEMENTS[ccnet]
    characters = set(text)
    changes = [
        (character, new) for character in characters if (new := replacements[ord(character)]) != character
    ]
    if any(map(_moves, characters)):
        # Rare: NFD puts marks in an order of their own, which single characters do not show.
        text = unicodedata.normalize("NFD", text).translate(replacements)
    elif len(changes) > MANY:
        text = text.translate(replacements)
    else:
        for character, new in changes:  # no replacement is itself replaced, so their order does not matter
            text = text.replace(character, new)
    return text if ccnet else " ".join(text.split())


def _moves(character: str) -> bool:
    """Whether NFD may put a character that is kept behind its neighbour: the few spacing marks with a
    combining class."""
    return (
        character > "\u0300"
        and unicodedata.combining(character) != 0
        and unicodedata.category(character) != "Mn"
    )


def _encoded(encoder: Encoder, texts: list[str], threads: int) -> tuple[Array, Array]:
    """Ids of the pieces of all texts, a begin and an end token around those of each, and where each text
    starts."""
    ids, offsets = encoder.encode_flat(texts, threads)
    starts = offsets[:-1] + 2 * np.arange(len(texts))
    ends = offsets[1:] + 2 * np.arange(len(texts)) + 1
    framed = np.empty(len(ids) + 2 * len(texts), np.uint32)
    inside = np.ones(len(framed), bool)
    inside[starts] = inside[ends] = False
    framed[inside], framed[starts], framed[ends] = ids, encoder.processor.bos_id(), encoder.processor.eos_id()
    return framed, starts


@dataclass(frozen=True)
class PerplexityModel:
    """A SentencePiece model (its file and its encoder) and an n-gram model, and how texts are normalised for
    them."""

    pieces: bytes
    encoder: Encoder
    ngrams: KneserNey
    ccnet: bool

    def perplexities(self, texts: Iterable[str], threads: int = 1) -> Array:
        """Perplexity of each text, float64, of the whole text as one sentence."""
        found = [np.empty(0)]
        for lot in _lots(normalise(text, self.ccnet) for text in texts):
            framed, starts = _encoded(self.encoder, lot, threads)
            tokens = np.diff(np.append(starts, len(framed))) - 1
            found.append(10.0 ** (-np.add.reduceat(self.ngrams.scores(framed, threads), starts) / tokens))
        return np.concatenate(found)

    def save(self, folder: Path) -> None:
        """Write both models; the folder appears when it is whole, in place of an older one."""
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / PIECES).write_bytes(self.pieces)
        (part / SETTINGS).write_text(json.dumps({"ccnet": self.ccnet}) + "\n")
        self.ngrams.save(part / NGRAMS)
        for path in (part / PIECES, part / SETTINGS, part):
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)


def load(folder: Path) -> PerplexityModel:
    """Read what `PerplexityModel.save` wrote. Raises UserError when it is not there or damaged."""
    ngrams = ngram.load(folder / NGRAMS)
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        pieces = (folder / PIECES).read_bytes()
        model = PerplexityModel(pieces, Encoder(pieces), ngrams, settings["ccnet"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{folder} holds no perplexity model, or is damaged ({error}); train it again"
        ) from error
    processor = model.encoder.processor
    if (processor.vocab_size(), processor.bos_id()) != (ngrams.vocab_size, ngrams.begin):
        raise UserError(f"{folder} is damaged: {PIECES} and {NGRAMS} are not of one model; train it again")
    return model


def train(
    texts: Iterable[str],
    *,
    vocab_size: int = 65_536,
    model_type: str = "bpe",
    order: int = 5,
    prune: Sequence[int] = (),
    pieces_characters: int = 100_000_000,
    threads: int = 1,
    ccnet: bool = False,
) -> PerplexityModel:
    """Train both models on good text.

    texts: gone through twice, so a list or the like and no iterator. vocab_size: pieces at most; a small text
    gets fewer.
    model_type: "bpe" or "unigram"; with `ccnet` always unigram. order, prune: as in `ngram.estimate`.
    pieces_characters: the SentencePiece model is trained on the first texts, up to this size. Raises
    UserError where there is no text to train on, ValueError for an iterator.
    """
    if iter(texts) is texts:
        raise ValueError(
            "texts are gone through twice: give a list or another iterable that starts again, no iterator"
        )
    pieces = _train_pieces(
        _lines(texts, ccnet, pieces_characters), vocab_size, "unigram" if ccnet else model_type, ccnet
    )
    encoder = Encoder(pieces)
    blocks = (_encoded(encoder, lot, threads)[0] for lot in _lots(normalise(text, ccnet) for text in texts))
    size, begin = encoder.processor.vocab_size(), encoder.processor.bos_id()
    ngrams = ngram.estimate(blocks, vocab_size=size, begin=begin, order=order, prune=prune, seen_only=ccnet)
    return PerplexityModel(pieces, encoder, ngrams, ccnet)


def _train_pieces(lines: Iterator[str], vocab_size: int, model_type: str, ccnet: bool) -> bytes:
    """A SentencePiece model. Characters outside of the most frequent 99.95% are unknown, as in CCNet."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=0.9995,
            normalization_rule_name="nmt_nfkc" if ccnet else "identity",
            remove_extra_whitespaces=ccnet,
            max_sentence_length=4 * LINE_CHARACTERS + 1,
            num_threads=TRAINER_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"the pieces of the perplexity model could not be trained, vocab_size={vocab_size}: {error}"
        ) from error
    return model.getvalue()


def _lines(texts: Iterable[str], ccnet: bool, characters: int) -> Iterator[str]:
    """Normalised texts up to a size, long ones cut: SentencePiece leaves out long lines."""
    for text in texts:
        text = normalise(text, ccnet)[: max(0, characters)]
        characters -= len(text)
        for start in range(0, len(text), LINE_CHARACTERS):
            yield text[start : start + LINE_CHARACTERS]


def _lots(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lots of at least LOT_CHARACTERS."""
    lot: list[str] = []
    size = 0
    for text in texts:
        lot.append(text)
        size += len(text)
        if size >= LOT_CHARACTERS:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def thresholds(perplexities: Array, percentiles: tuple[float, float] = (30, 60)) -> tuple[float, float]:
    """Perplexities that bound the head and the middle: percentiles over the documents of one language. Raises
    UserError without any."""
    if not len(perplexities):
        raise UserError("percentiles of perplexity need at least one document")
    head, middle = np.percentile(perplexities, percentiles)
    return float(head), float(middle)


def bucket(perplexity: float, bounds: tuple[float, float]) -> str:
    """ "head", "middle" or "tail" of a document, given `thresholds`."""
    return "head" if perplexity < bounds[0] else "middle" if perplexity < bounds[1] else "tail"
