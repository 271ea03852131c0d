"""Classifier of pages that Wikipedia cites against random ones: the linear one of the paper's section 2.1.

Logistic regression over hashed words, marks and pairs of them, rare ones weighing more, trained on pages
whose addresses articles cite (readers/wiki/references.py) against randomly sampled pages of the same crawl.
All metrics are measured on sites that the measured model has not seen; bench/cited.py has real citations.
"""

import functools
import hashlib
import heapq
import io
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.filters import binary, language, words
from puna.corpus.funnel import UNLIKE
from puna.corpus.record import Record
from puna.errors import UserError
from puna.run.files import write_atomically
from puna.text.urls import normalise_url

VERSION = 2
KINDS = ("random pages", "references")  # by label
SHARES = {"training": 0.8, "calibration": 0.1, "held out": 0.1}
FEWEST = 10  # documents of each class in the calibration and held-out parts
SHOWN, FEWEST_SHOWN = 30, 5  # words of the card for each class, and the documents one must be in
SHOWN_TEXTS, SHOWN_CHARACTERS = 500, 5_000  # of each class, in which they are looked for
FIRST_SQUARE = 0.01  # AdaGrad's sums start here, so that a word that came once has not the largest weight
BATCH = 512
SECOND_LEVEL = {
    "ac", "co", "com", "edu", "go", "gob", "gov", "govt",
    "ltd", "mil", "ne", "net", "nom", "or", "org", "sch",
}  # fmt: skip
VALUES = np.sqrt(np.arange(256))  # of a count in a document's vector: the square root dampens repeated words


@dataclass(frozen=True)
class ReferenceScore:
    """Step: take the score of likeness to cited pages by the model in a folder."""

    folder: Path

    def apply(self, records: list[Record]) -> None:
        scores = model_in(self.folder).score([record.text for record in records])
        for record, score in zip(records, scores.tolist(), strict=True):
            record.reference_score = score


@dataclass(frozen=True)
class LikeCitedPages:
    """Step: drop what scores below the threshold."""

    threshold: float

    def apply(self, records: list[Record]) -> None:
        for record in records:
            assert record.reference_score is not None
            if record.reference_score < self.threshold:
                score = f"score {record.reference_score:.3f} of at least {self.threshold:.3f}"
                record.drop(UNLIKE, score)


@dataclass(frozen=True)
class ReferenceModel:
    """A trained classifier.

    weights: float32[2, 2^bits], of each bucket its weight and how rare it is (`_rarity`); slope, intercept:
    of the calibration; facts: its training data and metrics, in plain types.
    """

    weights: np.ndarray
    slope: float
    intercept: float
    threshold: float
    facts: dict[str, Any]

    def score(self, texts: list[str]) -> np.ndarray:
        """Score texts, float32 [texts] in 0..1: the chance of a reference, were both classes as frequent."""
        scores = [np.empty(0, np.float32)]
        for first in range(0, len(texts), BATCH):
            features = words.features(texts[first : first + BATCH], _bits(self.weights))
            margins = _margins(self.weights, *features)
            scores.append(binary.sigmoid(self.slope * margins + self.intercept).astype(np.float32))
        return np.concatenate(scores)

    def keep(self, texts: list[str]) -> np.ndarray:
        """Classify texts: whether each is like a reference, bool [texts]."""
        return self.score(texts) >= np.float32(self.threshold)

    def save(self, folder: Path) -> None:
        """Write the model: a new folder appears complete; an old one keeps its model until the last step."""
        target = folder if folder.exists() else folder.with_name(f"{folder.name}.part")
        target.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.save(file, self.weights, allow_pickle=False)
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        name = f"weights-{digest[:12]}.npy"
        write_atomically(target / name, file.getvalue())
        record = {
            "version": VERSION,
            "weights": name,
            "sha256": digest,
            "slope": self.slope,
            "intercept": self.intercept,
            "threshold": self.threshold,
            "facts": self.facts,
        }
        write_atomically(target / "model.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        for other in sorted(target.glob("weights-*")):  # of an older model, or of an interrupted attempt
            if other.name != name:
                other.unlink()
        if target != folder:
            os.replace(target, folder)

    def card(self) -> str:
        """Write the model card, in Markdown."""
        from puna.corpus.filters.model_card import model_card

        return model_card(self.facts, self.threshold)


def load(folder: Path) -> ReferenceModel:
    """Read what `ReferenceModel.save` wrote. Raises UserError where it is missing or damaged."""
    try:
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if record["version"] != VERSION:
            raise UserError(
                f"{folder}: a reference model of version {record['version']}, this is version {VERSION}; "
                "train it again"
            )
        content = (folder / record["weights"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            raise UserError(f"{folder}: {record['weights']} does not match its digest; train the model again")
        weights = np.load(io.BytesIO(content), allow_pickle=False)
        calibration = record["slope"], record["intercept"]
        return ReferenceModel(weights, *calibration, record["threshold"], record["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} has no reference model that can be read ({type(error).__name__}: {error}); "
            "train it again"
        ) from error


@functools.cache
def model_in(folder: Path) -> ReferenceModel:
    """Load the model in a folder, once a process."""
    return load(folder)


def site(url: str) -> str:
    """Return the site of an address: "bbc.co.uk" for "news.bbc.co.uk", by a list of second-level domains."""
    host = re.match(r"\[[^\]]*\]|[^/?:]+", normalise_url(url))
    if host is None:
        return url
    labels = host[0].split(".")
    if host[0].startswith("[") or labels[-1].isdigit():
        return host[0]
    second_level = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in SECOND_LEVEL
    return ".".join(labels[-3:] if second_level else labels[-2:])


def train(
    positives: Iterable[tuple[str, str]],
    negatives: Iterable[tuple[str, str]],
    *,
    recall: float | None = 0.9,
    precision: float | None = None,
    bits: int = 21,
    epochs: int = 3,
    learning_rate: float = 0.5,
    regularisation: float = 1e-4,
    most_positives: int = 100_000,
    most_negatives: int = 100_000,
    fewest_documents: int = 100,
    notes: dict[str, str] | None = None,
) -> ReferenceModel:
    """Train on (address, text) of pages that are cited and of random pages.

    The threshold is the largest with this recall on the calibration part, or, with recall=None, the smallest
    with this precision. Of more pages than most_positives and most_negatives a sample is kept, by the digest
    of the address, whatever the order, each address once; 6 to 12 kB of memory for a document of 5 kB. A
    random page that is also among the cited ones of the sample is left out. notes: more lines for the card,
    such as dates. Raises UserError for too few documents or sites of a class, and for settings out of range.
    """
    binary.check_rule(recall, precision)
    if not 10 <= bits <= 24 or epochs < 1:
        raise UserError(f"bits must be 10 to 24, and epochs 1 or more, not {bits} and {epochs}")
    samples = _Sample(most_negatives, bits, negatives), _Sample(most_positives, bits, positives)
    for key in samples[1].pages.values.keys() & samples[0].pages.values.keys():
        del samples[0].pages.values[key]
        samples[0].texts.values.pop(key, None)
    counts = {kind: len(sample.pages.values) for kind, sample in zip(KINDS, samples, strict=True)}
    if min(counts.values()) < fewest_documents:
        available = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(
            f"the reference classifier has {available}, and needs {fewest_documents} or more of both; "
            "give more pages"
        )
    keyed = []
    for label, sample in enumerate(samples):
        keyed += [(key, label == 1, page) for key, page in sample.pages.values.items()]
    keyed.sort(key=lambda item: item[:2])
    labels = np.array([label for _, label, _ in keyed])
    sites = [page.site for _, _, page in keyed]
    parts = _parts(sites, labels)
    _check(parts, labels, sites)
    pages = {name: [keyed[i][2] for i in np.flatnonzero(parts == name)] for name in SHARES}
    truth = {name: labels[parts == name] for name in SHARES}
    descent = bits, epochs, learning_rate, regularisation
    weights = _descend(pages["training"], truth["training"], *descent)
    margins = {name: _page_margins(weights, pages[name]) for name in ("calibration", "held out")}
    slope, intercept = binary.platt(margins["calibration"], truth["calibration"])
    scores = {name: binary.sigmoid(slope * margins[name] + intercept).astype(np.float32) for name in margins}
    limit = binary.threshold(scores["calibration"], truth["calibration"], recall, precision)
    # What was calibrated and measured is a model of the training part; what is kept learns from all pages.
    weights = _descend([page for _, _, page in keyed], labels, *descent)
    trained_on = {key for (key, _, _), part in zip(keyed, parts, strict=True) if part == "training"}
    texts = []
    for sample in samples:
        texts.append([text for key, text in sorted(sample.texts.values.items()) if key in trained_on])
    facts = {
        "notes": notes or {},
        "settings": {
            "bits": bits,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "regularisation": regularisation,
            "recall": recall,
            "precision": precision,
            "characters": words.CHARACTERS,
            "most_positives": most_positives,
            "most_negatives": most_negatives,
        },
        "seen": {kind: sample.seen for kind, sample in zip(KINDS, samples, strict=True)},
        "parts": {name: _counts(pages[name], truth[name]) for name in SHARES},
        "languages": {kind: _languages(own) for kind, own in zip(KINDS, texts, strict=True)},
        "metrics": binary.measure(scores["held out"].astype(np.float64), truth["held out"], limit),
        "words": _telling_words(weights, texts),
    }
    return ReferenceModel(weights, slope, intercept, limit, facts)


@dataclass(frozen=True, slots=True)
class _Page:
    site: str
    buckets: np.ndarray
    counts: np.ndarray


class _Lowest:
    """The values put under the `limit` lowest of all keys; of several under one key, the first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.values: dict[int, Any] = {}
        self._heap: list[int] = []  # the keys of the values negated: the highest one first

    def wants(self, key: int) -> bool:
        return key not in self.values and (len(self._heap) < self.limit or key < -self._heap[0])

    def put(self, key: int, value: Any) -> None:
        if self.wants(key):
            self.values[key] = value
            if len(self._heap) < self.limit:
                heapq.heappush(self._heap, -key)
            else:
                del self.values[-heapq.heapreplace(self._heap, -key)]


class _Sample:
    """A sample of a class's pages, by the digest of the address, and the texts of a few of them."""

    def __init__(self, limit: int, bits: int, pages: Iterable[tuple[str, str]]) -> None:
        self.pages, self.texts, self.seen = _Lowest(limit), _Lowest(min(limit, SHOWN_TEXTS)), 0
        pending: dict[int, tuple[str, str]] = {}
        for url, text in pages:
            self.seen += 1
            key = int.from_bytes(_digest(normalise_url(url) or url)[:16])
            if key not in pending and self.pages.wants(key):
                pending[key] = url, text[: words.CHARACTERS]
            if len(pending) >= BATCH:
                self._take(pending, bits)
                pending = {}
        self._take(pending, bits)

    def _take(self, pending: dict[int, tuple[str, str]], bits: int) -> None:
        buckets, counts, ends = words.features([text for _, text in pending.values()], bits)
        start = 0
        for (key, (url, text)), end in zip(pending.items(), ends.tolist(), strict=True):
            if end > start:  # not of a page without words
                self.pages.put(key, _Page(site(url), buckets[start:end].copy(), counts[start:end].copy()))
                self.texts.put(key, text[:SHOWN_CHARACTERS])
            start = end


def _parts(sites: list[str], labels: np.ndarray) -> np.ndarray:
    """Assign each page to a part by its site: both classes are split by SHARES as far as whole sites allow.

    Sites come in order of their digests, each goes to the part that its classes have filled least; one that
    is more than a small part's share of a class is trained on.
    """
    counts: dict[str, list[int]] = {}
    for name, label in zip(sites, labels.tolist(), strict=True):
        counts.setdefault(name, [0, 0])[label] += 1
    totals = [len(labels) - int(labels.sum()), int(labels.sum())]
    filled = {part: [0, 0] for part in SHARES}
    part_of: dict[str, str] = {}

    def fullness(part: str) -> float:
        return sum(own[k] * filled[part][k] / (SHARES[part] * totals[k]) for k in (0, 1))

    for name in sorted(counts, key=_digest):
        own = counts[name]
        giant = any(own[k] > SHARES["held out"] * totals[k] for k in (0, 1))
        part = "training" if giant else min(SHARES, key=fullness)
        part_of[name] = part
        for k in (0, 1):
            filled[part][k] += own[k]
    return np.array([part_of[name] for name in sites])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _check(parts: np.ndarray, labels: np.ndarray, sites: list[str]) -> None:
    for name in SHARES:
        for label, kind in enumerate(KINDS):
            if (size := int((labels[parts == name] == label).sum())) < FEWEST:
                own = len({site for site, known in zip(sites, labels, strict=True) if known == label})
                raise UserError(
                    f"the reference classifier has {size} {kind} for its {name} part, which may share no "
                    f"site with the others, and needs {FEWEST}: all {int((labels == label).sum())} {kind} "
                    f"come from {own} sites; give pages of more sites"
                )


def _descend(
    pages: list[_Page], labels: np.ndarray, bits: int, epochs: int, rate: float, regularisation: float
) -> np.ndarray:
    """Fit the logistic regression's weights, float32[2, 2^bits], by AdaGrad page by page (Duchi et al. 2011).

    Both classes have equal weight.
    """
    rarity = _rarity(pages, bits)
    weights, squares = np.zeros(1 << bits), np.full(1 << bits, FIRST_SQUARE)
    bias, bias_square = 0.0, 1.0  # the calibration sets the intercept, so the bias is forgotten afterwards
    importance, truth = binary.class_weights(labels).tolist(), labels.tolist()
    for epoch in range(epochs):
        places = np.arange(len(pages), dtype=np.uint64) + np.uint64(epoch * len(pages))
        for i in np.argsort(words.mix(places), kind="stable").tolist():
            buckets, counts = pages[i].buckets, pages[i].counts
            x = VALUES[counts] * rarity[buckets]
            x /= math.sqrt(float((x * x).cumsum()[-1]))
            own = weights[buckets]
            error = importance[i] * (_sigmoid(float((own * x).sum()) + bias) - truth[i])
            gradient = error * x + regularisation * own
            square = squares[buckets] + gradient * gradient
            squares[buckets] = square
            weights[buckets] = own - rate * gradient / np.sqrt(square)
            bias_square += error * error
            bias -= rate * error / math.sqrt(bias_square)
    return np.stack([weights, rarity]).astype(np.float32)


def _rarity(pages: list[_Page], bits: int) -> np.ndarray:
    """Weigh each bucket by the root of log2(pages / pages that have it), float64[2^bits].

    Straight between powers of two it has, unlike a logarithm, the same bits on all machines. A bucket of no
    page has one page's.
    """
    pages_with = np.zeros(1 << bits, np.int64)
    for page in pages:
        pages_with[page.buckets] += 1
    mantissa, exponent = np.frexp((len(pages) + 1) / np.maximum(pages_with, 1))
    return np.sqrt(exponent - 2 + 2 * mantissa)


def _sigmoid(x: float) -> float:
    """binary.sigmoid of one number, for which numpy is slow."""
    small = min(abs(x), 40.0) * (-1 / 256)
    power = 1.0
    for term in range(10, 0, -1):
        power = 1.0 + power * small / term
    for _ in range(8):
        power *= power
    return (1.0 if x >= 0 else power) / (1.0 + power)


def _margins(weights: np.ndarray, buckets: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Inner products of the weights with documents' vectors of length 1, float64; 0 for one without words."""
    owners = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    values = VALUES[counts] * weights[1, buckets]
    total = np.bincount(owners, weights=weights[0, buckets] * values, minlength=len(ends))
    squares = np.bincount(owners, weights=values * values, minlength=len(ends))
    return total / np.sqrt(np.where(squares > 0, squares, 1.0))


def _page_margins(weights: np.ndarray, pages: list[_Page]) -> np.ndarray:
    buckets = [page.buckets for page in pages]
    counts = np.concatenate([page.counts for page in pages])
    ends = np.cumsum([len(own) for own in buckets], dtype=np.int64)
    return _margins(weights, np.concatenate(buckets), counts, ends)


def _counts(pages: list[_Page], labels: np.ndarray) -> dict[str, dict[str, int]]:
    """Count the documents and sites of each class in a part."""
    counts = {}
    for label, kind in enumerate(KINDS):
        sites = [page.site for page, own in zip(pages, labels, strict=True) if own == label]
        counts[kind] = {"documents": len(sites), "sites": len(set(sites))}
    return counts


def _languages(texts: list[str]) -> dict[str, int]:
    counts = Counter(language.identify(text)[0] for text in texts)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _telling_words(weights: np.ndarray, texts: list[list[str]]) -> dict[str, list[list[Any]]]:
    """Find the words and pairs that decide most for each class, by weight times documents of the sample.

    Each is [word, weight, documents].
    """
    documents: Counter[tuple[int, str]] = Counter()
    for text in itertools.chain(*texts):
        documents.update(words.spelled(text, _bits(weights)).items())
    frequent = []
    for (bucket, name), count in documents.items():
        if count >= FEWEST_SHOWN:
            frequent.append((float(weights[0, bucket]), count, name))
    frequent.sort(key=lambda item: (item[0] * item[1], item[2]))
    lowest, highest = frequent[:SHOWN], frequent[: -SHOWN - 1 : -1]
    random_pages, references = KINDS
    return {
        random_pages: [[name, weight, count] for weight, count, name in lowest if weight <= 0],
        references: [[name, weight, count] for weight, count, name in highest if weight > 0],
    }


def _bits(weights: np.ndarray) -> int:
    return weights.shape[1].bit_length() - 1
