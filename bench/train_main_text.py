"""Learn which blocks of a page are main text, from the tuning pages of bench/extraction.py and some manuals;
writes readers/main_text.json.

    python bench/train_main_text.py DATA [--peers FOLDER] [--write]

A block's label is the gold's where a segment or the gold page names it, else that of the extractor that
agrees best with the page's own gold segments: the three moods of trafilatura (2.3.1 when last run),
resiliparse. Two rounds of boosted oblivious trees; the second sees the scores that a block's neighbours got
from trees which did not learn from their site (five folds). The F1 printed is of pages left out in the same
way.
"""

import argparse
import hashlib
import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from extraction import Page, load, resiliparse_text, segment_score, word_score

from puna.corpus.readers.web import main_text, page
from puna.corpus.readers.web.blocks import Blocks, split
from puna.corpus.readers.web.elements import HEADING

FOLDS, BINS = 5, 64
TREES, DEPTH, RATE = (100, 60), 4, 0.1  # of the two rounds
PENALTY = 4.0  # added to a leaf's curvature
SAMPLE = 0.3  # share of the blocks that a tree sees, drawn by their weights
GOLD = 6.0  # weight of a block that holds a gold segment
# What the second round sees of the first's features.
SECOND = """
    size link free stops paragraph item level title_words copies since_h1 at page_size page_mass mass_before
    mass_after negatives least_negative outside_0.6 behind_0.4 before_0.6 near_comment mass_comment
    near_caption near_meta near_content
"""
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


def squeeze(text: str) -> str:
    """Its letters and digits."""
    return re.sub(r"[\W_]+", "", text.lower())


def labels_from(blocks: Blocks, teacher: str) -> np.ndarray:
    """The share of each block that the teacher's text has, in the teacher's order where a block is short."""
    whole = squeeze(teacher)
    cursor = 0
    found = np.zeros(len(blocks.texts))
    for number, text in enumerate(blocks.texts):
        own = squeeze(text)
        if len(own) < 20:
            at = whole.find(own, max(cursor - 200, 0), cursor + 400 + len(own)) if own else -1
            found[number] = at >= 0
        else:
            pieces = [own[start : start + 40] for start in range(0, max(len(own) - 39, 1), 40)]
            places = [whole.find(piece) for piece in pieces]
            found[number] = sum(place >= 0 for place in places) / len(pieces)
            at = max(places) if found[number] > 0.5 else -1
        if at >= 0:
            cursor = at + len(own)
    return found


def agreement(item: Page, text: str) -> float:
    """How well a text agrees with a page's gold segments."""
    return sum(segment in text for segment in item.present) - sum(
        segment in text for segment in item.absent + item.comments
    )


def examples(item: Page, blocks: Blocks, teachers: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights of a page's blocks."""
    size = blocks.sizes.astype(float)
    weight = 0.3 + np.minimum(size, 400) / 200
    if item.main is not None:
        label = labels_from(blocks, item.main)
        weight *= np.abs(label - 0.5) * 2
        return (label > 0.5).astype(float), weight * min(1, 40 / weight.sum())
    best = max(teachers, key=lambda text: agreement(item, text))
    label = labels_from(blocks, best)
    if not item.present:
        weight[blocks.kinds == HEADING] = (
            0  # the teacher drops those that repeat an entry of the table of contents
        )
    weight *= np.abs(label - 0.5) * 2 * (1 if agreement(item, best) >= len(item.present) - 1 else 0.3)
    label, weight = (label > 0.5).astype(float), weight * min(1, 30 / max(weight.sum(), 1))
    for segments, value in ((item.absent, 0.0), (item.comments, 0.0), (item.present, 1.0)):
        for segment in segments:
            hits = [number for number, text in enumerate(blocks.texts) if segment.strip() in text]
            for number in hits:
                label[number] = value
                weight[number] = max(weight[number], GOLD / len(hits))
    return label, weight


def grow(
    matrix: np.ndarray, label: np.ndarray, weight: np.ndarray, trees: int, seed: int, columns: np.ndarray
) -> Trees:
    """Boosted oblivious trees of logistic loss, by histograms; a third of the columns for each tree."""
    random = np.random.default_rng(seed)
    edges = [
        np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
        for column in matrix.T
    ]
    binned = np.stack(
        [np.searchsorted(edge, column, side="left") for edge, column in zip(edges, matrix.T, strict=True)]
    ).astype(np.uint8)
    sampled = np.clip(weight / weight.mean() * SAMPLE, 0.02, 1)
    prior = float((label * weight).sum() / weight.sum())
    bias = np.log(prior / (1 - prior))
    score = np.full(len(label), bias)
    feature, threshold, value = [], [], []
    for _ in range(trees):
        chance = 1 / (1 + np.exp(-score))
        rows = np.flatnonzero(random.random(len(label)) < sampled)
        drawn = weight[rows] / sampled[rows]
        slope, curve = drawn * (label[rows] - chance[rows]), drawn * chance[rows] * (1 - chance[rows])
        leaf = np.zeros(len(label), np.int64)
        asked, where = [], []
        usable = [column for column in random.permutation(columns)[: len(columns) // 3] if len(edges[column])]
        own = {column: binned[column][rows].astype(np.int64) for column in usable}
        for level in range(DEPTH):
            best, cut = (-1.0, 0, 0), leaf[rows] * BINS
            for column in usable:
                key = cut + own[column]
                sums = np.bincount(key, slope, BINS << level).reshape(-1, BINS).cumsum(1)
                curves = np.bincount(key, curve, BINS << level).reshape(-1, BINS).cumsum(1)
                left, left_curve = sums[:, :-1], curves[:, :-1]
                right, right_curve = sums[:, -1:] - left, curves[:, -1:] - left_curve
                gain = left**2 / (left_curve + PENALTY) + right**2 / (right_curve + PENALTY)
                gain = gain.sum(0)[: len(edges[column])]
                if gain.max() > best[0]:
                    best = (float(gain.max()), int(column), int(gain.argmax()))
            _, column, place = best
            leaf += (binned[column] > place).astype(np.int64) << level
            asked.append(column)
            where.append(float(edges[column][place]))
        sums, curves = np.bincount(leaf[rows], slope, 1 << DEPTH), np.bincount(leaf[rows], curve, 1 << DEPTH)
        values = np.rint(RATE * sums / (curves + PENALTY) * main_text.UNIT).astype(np.int64)
        score += values[leaf] / main_text.UNIT
        feature.append(asked)
        threshold.append(where)
        value.append(values)
    bias = np.array(round(bias * main_text.UNIT))
    return {
        "feature": np.array(feature),
        "threshold": np.array(threshold),
        "value": np.array(value),
        "bias": bias,
    }


def fold_of(site: str) -> int:
    """Which fold a site is in."""
    return hashlib.sha256(site.encode()).digest()[1] % FOLDS


def cross(
    matrix: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    fold: np.ndarray,
    trees: int,
    columns: np.ndarray,
) -> np.ndarray:
    """Scores of every row by trees grown on the other folds."""
    found = np.zeros(len(label), np.int64)
    for number in range(FOLDS):
        own = fold == number
        found[own] = main_text.apply(
            grow(matrix[~own], label[~own], weight[~own], trees, number, columns), matrix[own].T
        )
    return found


def report(name: str, items: list[Page], pages: list[Blocks], kept: list[np.ndarray]) -> None:
    """Both measures."""
    texts = [page.render(blocks, keep) for blocks, keep in zip(pages, kept, strict=True)]
    gold = [(item, text) for item, text in zip(items, texts, strict=True) if item.main is None]
    by_segments = segment_score([item for item, _ in gold], [text for _, text in gold])
    by_words = word_score(items, texts)
    for what, (score, precision, recall) in (("segments", by_segments), ("words", by_words)):
        print(f"{name}: {what} F1 {score:.4f}, precision {precision:.3f}, recall {recall:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    items = [item for item in load(arguments.data) if item.side == "tuning"] + documentation(arguments.data)
    pages = [split(page.decode(item.html, "")) for item in items]
    filled = [number for number, blocks in enumerate(pages) if blocks.texts]
    items, pages = [items[number] for number in filled], [pages[number] for number in filled]
    taught = [teach(item) for item in items]
    pairs = [examples(item, blocks, texts) for item, blocks, texts in zip(items, pages, taught, strict=True)]
    label, weight = (np.concatenate(column) for column in zip(*pairs, strict=True))
    first = [main_text.features(blocks) for blocks in pages]
    names = first[0][1]
    matrix = np.concatenate([found.T for found, _ in first])
    bounds = np.cumsum([0] + [len(blocks.texts) for blocks in pages])
    fold = np.concatenate(
        [np.full(len(blocks.texts), fold_of(item.site)) for item, blocks in zip(items, pages, strict=True)]
    )
    print(
        f"{len(items)} pages, {len(label)} blocks, {matrix.shape[1]} features,",
        f"{label.mean():.3f} of the blocks main text",
        flush=True,
    )

    def cut(rows: np.ndarray) -> list[np.ndarray]:
        return [rows[low:high] for low, high in pairwise(bounds)]

    report("labels", items, pages, cut(label > 0.5))
    every = np.arange(matrix.shape[1])
    scores = cross(matrix, label, weight, fold, TREES[0], every)
    report("round 1", items, pages, cut(scores > 0))
    second = [
        main_text.score_features(blocks, own, found[0])
        for blocks, own, (found, _) in zip(pages, cut(scores), first, strict=True)
    ]
    both = np.concatenate([matrix, np.concatenate([found.T for found, _ in second])], axis=1)
    columns = np.concatenate(
        [[names.index(name) for name in SECOND.split()], np.arange(matrix.shape[1], both.shape[1])]
    )
    scores = cross(both, label, weight, fold, TREES[1], columns)
    report(
        "round 2",
        items,
        pages,
        [main_text.select(own, found[0]) for own, (found, _) in zip(cut(scores), first, strict=True)],
    )
    if arguments.write:
        rounds = [
            grow(matrix, label, weight, TREES[0], 0, every),
            grow(both, label, weight, TREES[1], 0, columns),
        ]
        lines = [
            json.dumps({name: values.tolist() for name, values in trees.items()}, separators=(",", ":"))
            for trees in rounds
        ]
        main_text.MODEL.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def teach(item: Page) -> list[str]:
    """What other extractors find on a page whose gold is segments."""
    if item.main is not None:
        return []
    import trafilatura

    moods = ({}, {"favor_recall": True}, {"favor_precision": True})
    return [trafilatura.extract(item.html, include_comments=False, **mood) or "" for mood in moods] + [
        resiliparse_text(item.html)
    ]


if __name__ == "__main__":
    main()
