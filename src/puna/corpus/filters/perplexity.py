"""CCNet's quality filter (Wenzek et al. 2020, section 3.4): perplexity under an n-gram model of good text.

A text is normalised, cut into pieces by SentencePiece and scored by a 5-gram model as one sentence:
perplexity = 10^(-log10 P / (pieces + 1)). Documents under the 30th percentile of perplexity are its "head",
those under the 60th its "middle".

Both models are trained on texts of the user's own. `ccnet=True` trains and scores as CCNet does in the four
points where the default differs: line ends and tabs are deleted, so that words stick together (default: white
space becomes one space); SentencePiece's unigram model with its NFKC normalisation (default: BPE, which
encodes faster, and no second normalisation); the uniform distribution under the single tokens is over the
pieces of the training text (default: over the vocabulary, so that probabilities add up to 1 over all pieces).
Not as in CCNet either way: all pieces that SentencePiece does not know are one token, <unk>, in training too.
"""

import functools
import io
import json
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from puna.corpus.funnel import TAIL
from puna.corpus.record import Record
from puna.corpus.tables import batches
from puna.errors import UserError
from puna.run.files import replacing, sync
from puna.text import ngram
from puna.text.bpe import Encoder
from puna.text.ngram import Array, KneserNey

# Punctuation that CCNet writes in ASCII. Its entry for the fullwidth digit one is left out: digits are zeros
# before it is looked up.
PUNCTUATION = {
    **dict.fromkeys("„”“«»「」《》", '"'), **dict.fromkeys("，、", ","), "。": ".", "´": "'", "’": "'",
    "∶": ":", "：": ":", "？": "?", "！": "!", "（": "(", "）": ")", "；": ";", "–": "-", "—": " - ",
    "．": ". ", "～": "~", "…": "...", "━": "-", "〈": "<", "〉": ">", "【": "[", "】": "]",
    "％": "%", "►": "-",
}  # fmt: skip
DIGIT = re.compile(r"\d")
CONTROL = frozenset(map(chr, (*range(32), *range(127, 160))))
# Different characters to be replaced in a text, from which one pass over it is faster than one for each.
MANY = 64
BATCH_CHARACTERS = 8_000_000
LINE_CHARACTERS = 4_000
TRAINER_THREADS = 4  # a constant, since SentencePiece's result depends on it
PIECES, NGRAMS, SETTINGS = "pieces.model", "ngrams.bin", "perplexity.json"


@dataclass(frozen=True)
class Perplexity:
    """Step: take the perplexity under the model in a folder."""

    folder: Path

    def apply(self, records: list[Record]) -> None:
        perplexities = model_in(self.folder).perplexities([record.text for record in records])
        for record, value in zip(records, perplexities.tolist(), strict=True):
            record.perplexity = value


@dataclass(frozen=True)
class Buckets:
    """Step: name the bucket by the source's bounds (see `thresholds`); drop what is in none of those kept."""

    bounds: tuple[float, float]
    kept: Sequence[str]

    def apply(self, records: list[Record]) -> None:
        limits = "head below {:.1f}, tail above {:.1f}".format(*self.bounds)
        for record in records:
            assert record.perplexity is not None
            record.bucket = bucket(record.perplexity, self.bounds)
            if record.bucket not in self.kept:
                record.drop(TAIL, f"{record.bucket}: {record.perplexity:.1f}, {limits}")


class _Replacements(dict[int, str]):
    """Replacement of each lower-case character, by code point, computed when it is first needed.

    No accents (category Mn after NFD), digits 0, ASCII punctuation; no control characters and no halves of
    surrogate pairs. With `spaces` all white space is a space, also where it is a control character.
    """

    def __init__(self, spaces: bool) -> None:
        super().__init__()
        self.spaces = spaces

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if 0xD800 <= code <= 0xDFFF:
            new = ""
        elif self.spaces and character.isspace():
            new = " "
        else:
            decomposed = unicodedata.normalize("NFD", character)
            plain = "".join(part for part in decomposed if unicodedata.category(part) != "Mn")
            zeros = DIGIT.sub("0", plain)
            new = "".join(PUNCTUATION.get(part, part) for part in zeros if part not in CONTROL)
        self[code] = new
        return new


_REPLACEMENTS = {ccnet: _Replacements(spaces=not ccnet) for ccnet in (False, True)}


def normalise(text: str, ccnet: bool = False) -> str:
    """Normalise a text: lower case, no accents, digits 0, punctuation in ASCII, no control characters.

    White space becomes single spaces; with `ccnet` line ends and tabs are deleted like other control
    characters, and other white space stays.
    """
    text = text.strip().lower()
    replacements = _REPLACEMENTS[ccnet]
    characters = set(text)
    changed = [character for character in characters if replacements[ord(character)] != character]
    if any(map(_moves, characters)):
        # Rare: NFD sorts marks, which single characters do not show.
        text = unicodedata.normalize("NFD", text).translate(replacements)
    elif len(changed) > MANY:
        text = text.translate(replacements)
    else:
        for character in changed:  # no replacement is itself replaced, so their order does not matter
            text = text.replace(character, replacements[ord(character)])
    return text if ccnet else " ".join(text.split())


def _moves(character: str) -> bool:
    """Whether NFD may move a character that is kept: the few spacing marks with a combining class."""
    if character <= "\u0300":
        return False
    return unicodedata.combining(character) != 0 and unicodedata.category(character) != "Mn"


def _encoded(encoder: Encoder, texts: list[str], threads: int) -> tuple[Array, Array]:
    """Encode texts: ids of all, each text's between a begin and an end token; and where each text starts."""
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
    """A SentencePiece model (file and encoder), an n-gram model, and how texts are normalised for them."""

    pieces: bytes
    encoder: Encoder
    ngrams: KneserNey
    ccnet: bool

    def perplexities(self, texts: Iterable[str], threads: int = 1) -> Array:
        """Compute the perplexity of each text as one sentence, float64."""
        perplexities = [np.empty(0)]
        for batch in batches((normalise(text, self.ccnet) for text in texts), len, BATCH_CHARACTERS):
            framed, starts = _encoded(self.encoder, batch, threads)
            tokens = np.diff(np.append(starts, len(framed))) - 1
            log10 = np.add.reduceat(self.ngrams.scores(framed, threads), starts)
            perplexities.append(10.0 ** (-log10 / tokens))
        return np.concatenate(perplexities)

    def save(self, folder: Path) -> None:
        """Write both models; the folder appears when it is complete, in place of an older one."""
        with replacing(folder) as partial:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            (partial / PIECES).write_bytes(self.pieces)
            (partial / SETTINGS).write_text(json.dumps({"ccnet": self.ccnet}) + "\n")
            self.ngrams.save(partial / NGRAMS)
            for path in (partial / PIECES, partial / SETTINGS):
                sync(path)
            shutil.rmtree(folder, ignore_errors=True)


def load(folder: Path) -> PerplexityModel:
    """Read what `PerplexityModel.save` wrote. Raises UserError where it is missing or damaged."""
    ngrams = ngram.load(folder / NGRAMS)
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        pieces = (folder / PIECES).read_bytes()
        model = PerplexityModel(pieces, Encoder(pieces), ngrams, settings["ccnet"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{folder} has no perplexity model, or a damaged one ({error}); train it again"
        ) from error
    processor = model.encoder.processor
    if (processor.vocab_size(), processor.bos_id()) != (ngrams.vocab_size, ngrams.begin):
        raise UserError(f"{folder} is damaged: {PIECES} and {NGRAMS} are not of one model; train it again")
    return model


@functools.cache
def model_in(folder: Path) -> PerplexityModel:
    """Load the model in a folder, once a process."""
    return load(folder)


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

    texts: read twice, so a list or the like and no iterator. vocab_size: pieces at most; a small text gets
    fewer. model_type: "bpe" or "unigram"; with `ccnet` always unigram. order, prune: as in `ngram.estimate`.
    pieces_characters: the SentencePiece model is trained on the first texts, up to this size. Raises
    UserError where there is no text to train on, ValueError for an iterator.
    """
    if iter(texts) is texts:
        raise ValueError(
            "texts are read twice: give a list or another iterable that starts again, no iterator"
        )
    lines = _lines(texts, ccnet, pieces_characters)
    pieces = _train_pieces(lines, vocab_size, "unigram" if ccnet else model_type, ccnet)
    encoder = Encoder(pieces)
    normal = (normalise(text, ccnet) for text in texts)
    blocks = (_encoded(encoder, batch, threads)[0] for batch in batches(normal, len, BATCH_CHARACTERS))
    size, begin = encoder.processor.vocab_size(), encoder.processor.bos_id()
    ngrams = ngram.estimate(blocks, vocab_size=size, begin=begin, order=order, prune=prune, seen_only=ccnet)
    return PerplexityModel(pieces, encoder, ngrams, ccnet)


def _train_pieces(lines: Iterator[str], vocab_size: int, model_type: str, ccnet: bool) -> bytes:
    """Train a SentencePiece model; characters beyond the most frequent 99.95% are unknown, as in CCNet."""
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
    """Yield normalised texts up to a size, long ones cut: SentencePiece leaves out long lines."""
    for text in texts:
        text = normalise(text, ccnet)[: max(0, characters)]
        characters -= len(text)
        for start in range(0, len(text), LINE_CHARACTERS):
            yield text[start : start + LINE_CHARACTERS]


def thresholds(perplexities: Array, percentiles: tuple[float, float] = (30, 60)) -> tuple[float, float]:
    """Compute the upper bounds of head and middle: percentiles of perplexity over documents of one language,
    of which there is one or more."""
    head, middle = np.percentile(perplexities, percentiles)
    return float(head), float(middle)


def bucket(perplexity: float, bounds: tuple[float, float]) -> str:
    """Name the bucket of a document, "head", "middle" or "tail", by the bounds of `thresholds`."""
    if perplexity < bounds[0]:
        return "head"
    return "middle" if perplexity < bounds[1] else "tail"
