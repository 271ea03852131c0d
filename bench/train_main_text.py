"""Learn which blocks of a page are main text, from the pages of bench/extraction.py and some manuals.

    python bench/train_main_text.py DATA [--peers FOLDER] [--folds FILE] [--write]

A block's label is the gold's where a segment or the gold page names it, else what the extractors say that
agree best with the page's own gold segments: the three moods of trafilatura (2.3.1 when last run),
resiliparse. Two rounds of boosted oblivious trees; the second sees the scores that a block's neighbours got
from trees which did not learn from their site (five folds).

--folds writes five pairs of rounds, each of which never saw a fifth of the sites, for bench/extraction.py;
--write the trees of all pages, readers/web/main_text.json.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from extraction import (
    FOLDS,
    Page,
    load,
    page_words,
    resiliparse_text,
    segment_counts,
    segment_score,
    word_score,
)

from puna.corpus.readers.web import main_text, page
from puna.corpus.readers.web.blocks import Blocks, split
from puna.corpus.readers.web.elements import HEADING

BINS = 64
QUANTILE_BLOCKS = 20_000  # whose features tell the bins
TREES, DEPTH, RATE = (250, 120), 4, 0.1  # of the two rounds
PENALTY = 4.0  # added to a leaf's curvature
SAMPLE, COLUMNS = (
    0.5,
    0.33,
)  # shares of the blocks, drawn by their weights, and of the features that a tree sees
GOLD = 6.0  # weight of a block that holds a gold segment
RUN = 8  # words
WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]|[^\W_\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]+")
TRUST = np.array([1, 1, 1, 0.7])  # in the teachers
Trees = dict[str, np.ndarray]


def documentation(data: Path) -> list[Page]:
    """Long pages of another kind than the gold's news and blogs: manuals in four languages, without gold;
    trafilatura's text is theirs."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    found = []
    for language in ("de", "en", "fr", "zh_CN"):
        with (data / "raw" / "html_multilingual" / f"debian-{language}-00.warc.gz").open("rb") as stream:
            records = ArchiveIterator(stream, record_types=WarcRecordType.response)
            pages = [
                Page(record.headers["WARC-Target-URI"], record.reader.read(), "debian") for record in records
            ]
        found += [item for item in pages if len(item.html) > 10_000][:60:3]
    return found


def shares_of(texts: list[str], gold: str) -> np.ndarray:
    """The share of each block's characters that a gold text holds, in the gold's order.

    Runs of up to RUN words of the blocks are matched with equal runs of the gold; of the chains of matches in
    which both go forward, the one of most characters counts (a Fenwick tree over the gold's words). A word of
    a menu that the story also has finds its place taken.
    """
    words = WORD.findall(gold.lower())
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word, []).append(place)
    best = [(0.0, -1)] * (len(words) + 2)  # of chains that end at a word or before: characters, last match
    matches: list[tuple[int, int, int, int]] = []  # block, characters, end in the gold, match before
    sizes = np.ones(len(texts))
    for block, text in enumerate(texts):
        own = WORD.findall(text.lower())
        sizes[block] = max(sum(map(len, own)), 1)
        for start in range(0, len(own), RUN):
            run = own[start : start + RUN]
            found = []
            rarest = min(range(len(run)), key=lambda number: len(places.get(run[number], ())))
            for place in places.get(run[rarest], ()):
                first = place - rarest
                if first >= 0 and words[first : first + len(run)] == run:
                    found.append((*chain_before(best, first), first + len(run)))
            characters = sum(map(len, run))
            for total, before, end in found:
                follows = before >= 0 and matches[before][2] >= end - len(run) - 1
                matches.append((block, characters, end, before))
                extend(best, end, (total + characters + 0.5 * follows, len(matches) - 1))
    covered = np.zeros(len(texts))
    match = chain_before(best, len(words))[1]
    while match >= 0:
        block, characters, _, match = matches[match]
        covered[block] += characters
    return covered / sizes


def chain_before(best: list[tuple[float, int]], end: int) -> tuple[float, int]:
    """The best chain that ends at a word or before."""
    found, at = (0.0, -1), end + 1
    while at:
        found = max(found, best[at])
        at -= at & -at
    return found


def extend(best: list[tuple[float, int]], end: int, chain: tuple[float, int]) -> None:
    """Note a chain that ends at a word."""
    at = end + 1
    while at < len(best):
        best[at] = max(best[at], chain)
        at += at & -at


def agreement(item: Page, text: str) -> float:
    """How well a text agrees with a page's gold segments."""
    return sum(segment in text for segment in item.present) - sum(
        segment in text for segment in item.absent + item.comments
    )


def examples(item: Page, blocks: Blocks, teachers: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights of a page's blocks."""
    weight = 0.3 + np.minimum(blocks.sizes.astype(float), 400) / 200
    if item.main is not None:
        label = shares_of(blocks.texts, item.main)
        weight *= np.where((label > 0.25) & (label < 0.6), 0.5, 1)
        return (label > 0.4).astype(float), weight * min(1, 40 / weight.sum())
    agreements = np.array([agreement(item, text) for text in teachers])
    votes = TRUST * (agreements >= agreements.max() - 1)
    label = votes @ [shares_of(blocks.texts, text) for text in teachers] / votes.sum()
    if not item.present:
        weight[blocks.kinds == HEADING] = (
            0  # the teacher drops those that repeat an entry of the table of contents
        )
    weight *= np.abs(label - 0.5) * 2 * (1 if agreements.max() >= len(item.present) - 1 else 0.3)
    label, weight = (label > 0.5).astype(float), weight * min(1, 30 / max(weight.sum(), 1))
    for segments, value in ((item.absent, 0.0), (item.comments, 0.0), (item.present, 1.0)):
        for segment in segments:
            hits = [number for number, text in enumerate(blocks.texts) if segment.strip() in text]
            for number in hits:
                label[number] = value
                weight[number] = max(weight[number], GOLD / len(hits))
    return label, weight


def histograms(
    binned: np.ndarray, leaf: np.ndarray, slope: np.ndarray, curve: np.ndarray, leaves: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of slopes and of curvatures by column, leaf and bin, each [columns, leaves, BINS].

    binned: [columns, rows]; leaf, slope, curve: [rows].
    """
    keys = [leaf * BINS + column for column in binned]
    shape = (leaves, BINS)
    return (
        np.array([np.bincount(key, slope, leaves * BINS).reshape(shape) for key in keys]),
        np.array([np.bincount(key, curve, leaves * BINS).reshape(shape) for key in keys]),
    )


@dataclass(frozen=True)
class Binned:
    """Features in bins of about equal size. edges: of each feature, in order; bins: [features, blocks]."""

    edges: list[np.ndarray]
    bins: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Binned":
        """matrix: [features, blocks]."""
        some = matrix[:, np.random.default_rng(0).permutation(matrix.shape[1])[:QUANTILE_BLOCKS]]
        shares = np.linspace(0, 1, BINS + 1)[1:-1]
        edges = [np.unique(np.quantile(column, shares, method="lower")) for column in some]
        pairs = zip(edges, matrix, strict=True)
        return cls(edges, np.array([np.searchsorted(edge, column) for edge, column in pairs], np.uint8))


def grow(data: Binned, label: np.ndarray, weight: np.ndarray, trees: int, seed: int) -> Trees:
    """Boosted oblivious trees of logistic loss, by histograms. Blocks of weight 0 take no part."""
    random = np.random.default_rng(seed)
    is_cut = np.arange(BINS - 1) < np.array([len(edge) for edge in data.edges])[:, None]
    sampled = np.clip(weight / weight[weight > 0].mean() * SAMPLE, 0.02, 1) * (weight > 0)
    prior = float((label * weight).sum() / weight.sum())
    bias = round(float(np.log(prior / (1 - prior))) * main_text.UNIT)
    score = np.full(len(label), bias, float) / main_text.UNIT
    feature, threshold, value = [], [], []
    for _ in range(trees):
        rows = np.flatnonzero(random.random(len(label), np.float32) < sampled)
        chance = 1 / (1 + np.exp(-score[rows]))
        drawn = weight[rows] / sampled[rows]
        slope, curve = drawn * (label[rows] - chance), drawn * chance * (1 - chance)
        leaf = np.zeros(len(label), np.uint8)
        asked, where = [], []
        usable = random.permutation(len(data.bins))[: int(len(data.bins) * COLUMNS)]
        own = np.array([data.bins[column].take(rows) for column in usable])
        for level in range(DEPTH):
            found = histograms(own, leaf[rows].astype(np.int64), slope, curve, 1 << level)
            sums, curves = (values.cumsum(2) for values in found)
            left, left_curve = sums[:, :, :-1], curves[:, :, :-1]
            right, right_curve = sums[:, :, -1:] - left, curves[:, :, -1:] - left_curve
            gain = left**2 / (left_curve + PENALTY) + right**2 / (right_curve + PENALTY)
            gain = np.where(is_cut[usable], gain.sum(1), -1)
            best, place = np.unravel_index(gain.argmax(), gain.shape)
            column = usable[best]
            leaf |= (data.bins[column] > place).view(np.uint8) << level
            asked.append(int(column))
            where.append(float(data.edges[column][place]))
        inside = leaf[rows].astype(np.int64)
        sums, curves = np.bincount(inside, slope, 1 << DEPTH), np.bincount(inside, curve, 1 << DEPTH)
        values = np.rint(RATE * sums / (curves + PENALTY) * main_text.UNIT).astype(np.int64)
        score += (values / main_text.UNIT).take(leaf)
        feature.append(asked)
        threshold.append(where)
        value.append(values)
    return {
        "feature": np.array(feature),
        "threshold": np.array(threshold),
        "value": np.array(value),
        "bias": np.array(bias),
    }


def report(name: str, items: list[Page], pages: list[Blocks], kept: list[np.ndarray]) -> None:
    """Both measures."""
    texts = [page.render(blocks, keep) for blocks, keep in zip(pages, kept, strict=True)]
    for kind, measure, mean in (
        ("segments", segment_counts, segment_score),
        ("words", page_words, word_score),
    ):
        counts = [
            measure(item, text)
            for item, text in zip(items, texts, strict=True)
            if (item.main is None) == (kind == "segments")
        ]
        score, precision, recall = mean(np.array(counts))
        print(f"{name}: {kind} F1 {score:.4f}, precision {precision:.3f}, recall {recall:.3f}", flush=True)


class Trainer:
    """Trees of both rounds for the pages of some folds."""

    def __init__(
        self, items: list[Page], pages: list[Blocks], pairs: list[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        self.pages = pages
        self.label, self.weight = (np.concatenate(column) for column in zip(*pairs, strict=True))
        self.layouts = [main_text.layout(blocks) for blocks in pages]
        pairs_of_pages = zip(pages, self.layouts, strict=True)
        self.of_pages = [main_text.features(blocks, found) for blocks, found in pairs_of_pages]
        self.matrix = np.concatenate(self.of_pages, 1)
        self.binned = Binned.of(self.matrix)
        counts = [len(blocks.texts) for blocks in pages]
        self.bounds = np.cumsum([0, *counts])
        self.fold = np.repeat([item.fold for item in items], counts)
        self.firsts: dict[frozenset[int], Trees] = {}

    def cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows of each page."""
        return [rows[low:high] for low, high in pairwise(self.bounds)]

    def first(self, without: frozenset[int]) -> Trees:
        """Trees of the first round that have not learned from some folds."""
        if without not in self.firsts:
            weight = np.where(np.isin(self.fold, list(without)), 0, self.weight)
            self.firsts[without] = grow(self.binned, self.label, weight, TREES[0], len(without))
        return self.firsts[without]

    def second(self, without: frozenset[int]) -> tuple[Trees, list[np.ndarray]]:
        """Trees of the second round, and the scores that they give every page. What they learn from are
        scores of a first round that knew neither the block's fold nor those left out."""
        scores = np.zeros(len(self.label), np.int64)
        for number in range(FOLDS):
            own = self.fold == number
            scores[own] = main_text.apply(self.first(without | {number}), self.matrix[:, own])
        rows = zip(self.pages, self.layouts, self.cut(scores), self.of_pages, strict=True)
        more = [
            main_text.score_features(blocks, found, own, columns[0]) for blocks, found, own, columns in rows
        ]
        further = np.concatenate(more, 1)
        binned = Binned.of(further)
        both = Binned(self.binned.edges + binned.edges, np.concatenate([self.binned.bins, binned.bins]))
        weight = np.where(np.isin(self.fold, list(without)), 0, self.weight)
        grown = grow(both, self.label, weight, TREES[1], 0)
        return grown, self.cut(main_text.apply(grown, self.matrix, further))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--folds", type=Path, help="write the trees of each fold there")
    parser.add_argument("--write", action="store_true", help="write the trees of all pages to MODEL")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    items = load(arguments.data) + documentation(arguments.data)
    pages = [split(page.decode(item.html, "")) for item in items]
    filled = [number for number, blocks in enumerate(pages) if blocks.texts]
    items, pages = [items[number] for number in filled], [pages[number] for number in filled]
    pairs = [examples(item, blocks, teach(item)) for item, blocks in zip(items, pages, strict=True)]
    trainer = Trainer(items, pages, pairs)
    print(f"{len(items)} pages, {len(trainer.label)} blocks, {len(trainer.matrix)} features", flush=True)
    report("labels", items, pages, [label > 0.5 for label, _ in pairs])
    if arguments.folds:
        kept, models = [np.zeros(0, bool)] * len(items), []
        for fold in range(FOLDS):
            grown, scores = trainer.second(frozenset((fold,)))
            models.append([trainer.first(frozenset((fold,))), grown])
            for number, item in enumerate(items):
                if item.fold == fold:
                    kept[number] = main_text.clean(
                        pages[number], main_text.select(pages[number], scores[number])
                    )
        report("held-out folds", items, pages, kept)
        arguments.folds.write_text(json.dumps([as_lists(rounds) for rounds in models]))
    if arguments.write:
        grown, _ = trainer.second(frozenset())
        lines = [
            json.dumps(trees, separators=(",", ":"))
            for trees in as_lists([trainer.first(frozenset()), grown])
        ]
        main_text.MODEL.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def as_lists(rounds: list[Trees]) -> list[dict[str, list[float]]]:
    return [{name: values.tolist() for name, values in trees.items()} for trees in rounds]


def teach(item: Page) -> list[str]:
    """What other extractors find on a page whose gold is segments."""
    if item.main is not None:
        return []
    import trafilatura

    moods: tuple[dict[str, bool], ...] = ({}, {"favor_recall": True}, {"favor_precision": True})
    return [trafilatura.extract(item.html, include_comments=False, **mood) or "" for mood in moods] + [
        resiliparse_text(item.html)
    ]


if __name__ == "__main__":
    main()
