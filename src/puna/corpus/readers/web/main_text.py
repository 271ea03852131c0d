"""Classifier that finds a page's main text: two rounds of boosted oblivious trees over blocks in context.

After Kohlschütter, Fankhauser, Nejdl, "Boilerplate Detection using Shallow Text Features" (2010): lengths,
link density and the neighbours are the strongest features. The second round also gets the first round's
scores of the blocks around (stacking). All sums are of integers, so that a page has the same text on every
machine.
"""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np

from puna.corpus.readers.web.blocks import Blocks
from puna.corpus.readers.web.elements import GROUPS, ITEM, PARAGRAPH, PRE, names

MODEL = Path(__file__).with_name("main_text.json")
UNIT = 1000  # leaf values and scores are log-odds times this
MIN_CHARACTERS = 800  # of main text; with less than these, uncertain blocks are kept too
BATCH = 256  # blocks scored at once; each takes up to 8 kB meanwhile
# Groups for which the size of the nearest element, as a share of the page, is a feature.
NEAREST = names("""
    comment side navigation footer header related consent meta content caption list hidden form quote prose
    article main li p
""")
NEAREST_INDEX = [GROUPS.index(name) for name in NEAREST]
MANAGER, DIALOG, CONSENT = (GROUPS.index(name) for name in ("manager", "dialog", "consent"))
STORY = [GROUPS.index(name) for name in ("article", "main")]
COOKIES = re.compile("cookie.*(?:cookie|consent)", re.IGNORECASE | re.DOTALL)
ASKS = re.compile(
    r"cookie|newsletter|subscri|abonn|consent|gdpr|sign (?:in|up)|log ?in|passwor[dt]|datenschutz"
    r"|privacy|confidentialité|e-?mail address|adblock|ad blocker|registr",
    re.IGNORECASE,
)
# Groups whose elements seldom hold main text.
BOILERPLATE = names("comment side navigation footer share related consent nav aside advert")
BOILERPLATE_INDEX = [GROUPS.index(name) for name in BOILERPLATE]


def features(page: Blocks) -> tuple[np.ndarray, list[str]]:
    """Return the features of the first round, [features, blocks], and their names. The page has blocks."""
    count, index = len(page.texts), np.arange(len(page.texts))
    size, length, linked, sentences, level = np.array(
        [page.sizes, page.lengths, page.link_lengths, page.sentence_ends, page.levels], float
    )
    link, kinds, first, last = linked / length, page.kinds, page.first, page.last
    parents = np.maximum(page.parents, 0)

    # What counts as running text: its mass finds the part of the page that holds the story.
    prose = (size >= 80) & (link < 0.4) & ((sentences > 0) | (kinds == PARAGRAPH) | (size > 160))
    mass = np.where(prose | (kinds == PRE), np.floor(np.minimum(size, 1000) * (1 - link)), 0.0)
    sums = np.zeros((6, count + 1))
    np.cumsum([size, length, linked, sentences, mass, prose], axis=1, out=sums[:, 1:])
    sum_size, sum_length, sum_link, sum_mass = sums[[0, 1, 2, 4]]
    page_size, page_mass = sum_size[-1], max(sum_mass[-1], 1.0)
    node_sums = sums[:, last] - sums[:, first]  # [6, nodes]
    size_share, mass_share = node_sums[0] / page_size, node_sums[4] / page_mass

    columns: dict[str, np.ndarray] = {
        "size": size,
        "link": link,
        "free": size * (1 - link),
        "stops": sentences,
        "level": level,
        "paragraph": kinds == PARAGRAPH,
        "item": kinds == ITEM,
        "copies": page.copies,
        "title_words": page.title_words / np.maximum(page.words, 1),
        "page_size": np.full(count, page_size),
        "page_blocks": np.full(count, count),
        "page_mass": np.full(count, sum_mass[-1]),
        "page_prose": np.full(count, sums[5, -1] / count),
        "at": sum_size[:-1] / page_size,
        "mass_before": sum_mass[:-1] / page_mass,
        "mass_after": (sum_mass[-1] - sum_mass[1:]) / page_mass,
        "since_h1": _since(level == 1, index),
        "to_prose": _since(prose[::-1], index)[::-1],
    }
    for width in (2, 12):
        low, high = _window(index, width)
        links_around = sum_link[high] - sum_link[low]
        columns[f"link_around_{width}"] = links_around / (sum_length[high] - sum_length[low])

    # The block's own element, its parent and its grandparent.
    children = np.bincount(parents[1:], minlength=len(parents))
    own, parent = page.nodes, parents[page.nodes]
    columns["repeats"] = page.repeats
    for step, node in enumerate((own, parent, parents[parent])):
        sums_here = node_sums.take(node, 1)
        columns[f"node_size_{step}"] = sums_here[0]
        columns[f"node_share_{step}"] = size_share[node]
        columns[f"node_link_{step}"] = sums_here[2] / np.maximum(sums_here[1], 1)
        if step:
            columns[f"node_mass_{step}"] = mass_share[node]
            columns[f"node_stops_{step}"] = sums_here[3] / np.maximum(sums_here[1], 1)
            columns[f"node_prose_{step}"] = sums_here[5]
            columns[f"children_{step}"] = children[node]

    # The innermost element that holds most of the running text, and how far outside it a block lies.
    for share in (0.4, 0.6):
        top = int(np.flatnonzero(mass_share > share)[-1]) if sum_mass[-1] else 0
        chain = _ancestors(parents, top)
        around = (first[chain, None] <= index) & (index < last[chain, None])
        columns[f"outside_{share}"] = len(chain) - around.sum(0)
        columns[f"before_{share}"] = first[top] - index
        columns[f"behind_{share}"] = index - last[top]
        columns[f"top_size_{share}"] = np.full(count, size_share[top])

    nearest = page.nearest.T[NEAREST_INDEX]
    shares = np.where(nearest >= 0, size_share.take(nearest), 2.0)
    columns |= zip((f"near_{name}" for name in NEAREST), shares, strict=True)
    nearest = page.nearest.T[BOILERPLATE_INDEX]
    boilerplate = np.where(nearest >= 0, mass_share.take(nearest), 2.0)
    columns["mass_comment"] = boilerplate[BOILERPLATE.index("comment")]
    columns["mass_footer"] = boilerplate[BOILERPLATE.index("footer")]
    columns["least_negative"] = boilerplate.min(0)
    columns["negatives"] = (boilerplate < 0.3).sum(0)

    for name in ("size", "link", "free", "paragraph"):
        columns |= zip((f"{name}_-1", f"{name}_+1"), _shifted(columns[name], (-1, 1)), strict=True)
    return np.array(list(columns.values()), float), list(columns)


def score_features(page: Blocks, scores: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return what the second round has besides the first's features, [features, blocks], and the names.

    scores: integers of the first round; size: characters of each block.
    """
    count = len(scores)
    value = np.clip(scores, -5 * UNIT, 5 * UNIT).astype(float)
    weight = np.minimum(size, 500)
    index = np.arange(count)
    parents, first, last, node = np.maximum(page.parents, 0), page.first, page.last, page.nodes
    columns: dict[str, np.ndarray] = {"score": value}
    steps = (-3, -2, -1, 1, 2, 3)
    columns |= zip((f"score_{step:+}" for step in steps), _shifted(value, steps), strict=True)
    sum_weight, sum_value = _sums(weight), _sums(weight * value)
    sum_kept = _sums(np.where(value > 0, weight, 0.0))
    for width in (2, 5, 10):
        low, high = _window(index, width)
        score_around = sum_value[high] - sum_value[low]
        columns[f"score_around_{width}"] = score_around / (sum_weight[high] - sum_weight[low])
    for step in range(4):
        node_weight = np.maximum(sum_weight[last[node]] - sum_weight[first[node]], 1)
        columns[f"score_node_{step}"] = (sum_value[last[node]] - sum_value[first[node]]) / node_weight
        columns[f"kept_node_{step}"] = (sum_kept[last[node]] - sum_kept[first[node]]) / node_weight
        node = parents[node]
    kept = max(sum_kept[-1], 1.0)
    columns["kept"] = np.full(count, sum_kept[-1])
    columns["kept_share"] = np.full(count, sum_kept[-1] / sum_weight[-1])
    columns["kept_before"] = sum_kept[:-1] / kept
    columns["kept_after"] = (sum_kept[-1] - sum_kept[1:]) / kept
    columns["best"] = np.full(count, value.max())
    columns["since_kept"] = _since(value > 0, index)
    columns["to_kept"] = _since(value[::-1] > 0, index)[::-1]
    columns["since_sure"] = _since(value > UNIT, index)
    columns["to_sure"] = _since(value[::-1] > UNIT, index)[::-1]
    return np.array(list(columns.values())), list(columns)


def apply(trees: dict[str, np.ndarray], *columns: np.ndarray) -> np.ndarray:
    """Return the integer scores of blocks by oblivious trees.

    Each level of a tree compares the same feature of every block with a threshold, and the outcomes, one bit
    a level, are the number of the leaf. columns: [features, blocks], in one array or several whose features
    follow each other.
    """
    count, depth = trees["feature"].shape
    features, thresholds = trees["feature"].T.ravel(), trees["threshold"].T.reshape(-1, 1)
    leaves, first_leaf = trees["value"].ravel(), (np.arange(count) << depth)[:, None]
    scores = np.full(columns[0].shape[1], int(trees["bias"]))
    for start in range(0, len(scores), BATCH):
        batch = np.concatenate([part[:, start : start + BATCH] for part in columns])
        bits = (batch.take(features, 0) > thresholds).view(np.uint8).reshape(depth, count, -1)
        leaf = bits[0]
        for level in range(1, depth):
            leaf = leaf | (bits[level] << level)
        scores[start : start + BATCH] += leaves.take(leaf + first_leaf).sum(0)
    return scores


def keep(page: Blocks) -> np.ndarray:
    """Return which blocks are main text, bool [blocks]."""
    if not page.texts:
        return np.zeros(0, bool)
    first_round, second_round = model()
    columns, _ = features(page)
    more, _ = score_features(page, apply(first_round, columns), columns[0])
    return without_dialogs(page, select(apply(second_round, columns, more), columns[0]))


def without_dialogs(page: Blocks, kept: np.ndarray) -> np.ndarray:
    """Leave out what consent managers show, by their names, and dialogs about cookies, letters or accounts.

    The latter are dialogs by element or role, and elements for consent by their names; what they are about
    their text says, for pages also show stories and notes in dialogs. What holds half of the text, or a
    page's heading, stays.
    """
    left = kept
    for group, words in ((MANAGER, None), (DIALOG, ASKS), (CONSENT, COOKIES)):
        nodes = set(page.nearest[kept, group].tolist())
        if not nodes or nodes == {-1}:
            continue
        left, size = left.copy(), np.where(kept, page.sizes, 0)
        for node in sorted(nodes - {-1}):
            inside = slice(page.first[node], page.last[node])
            is_story = (page.nearest[inside, STORY] > node).any() or (page.levels[inside] == 1).any()
            if 2 * size[inside].sum() < size.sum() and not is_story:
                text = " ".join(page.texts[inside][:100]) if words else ""
                left[inside] &= bool(words and not words.search(text))
    return left if left.any() else kept


def select(scores: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the blocks that are more likely main text than not, bool [blocks].

    Where these hold less than MIN_CHARACTERS, blocks with odds above e^-1, about one to three, are added.
    """
    kept = scores > 0
    return kept if size[kept].sum() >= MIN_CHARACTERS else scores > -UNIT


@cache
def model() -> list[dict[str, np.ndarray]]:
    """Load the trees of both rounds: feature, threshold [trees, depth], value [trees, leaves], bias.

    bench/train_main_text.py trains them.
    """
    rounds = json.loads(MODEL.read_text())
    return [{name: np.array(values) for name, values in trees.items()} for trees in rounds]


def _window(index: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranges of the blocks at most `width` before or behind each block."""
    return np.maximum(index - width, 0), np.minimum(index + width + 1, len(index))


def _sums(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _shifted(values: np.ndarray, steps: tuple[int, ...]) -> list[np.ndarray]:
    """Return the values some steps ahead, each by itself, -1 beyond the ends of the page."""
    edge, count = max(steps), len(values)
    padded = np.full(count + 2 * edge, -1.0)
    padded[edge : edge + count] = values
    return [padded[edge + step : edge + step + count] for step in steps]


def _since(hit: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the number of blocks since the last hit, 0 on it and 9999 before the first."""
    latest = np.maximum.accumulate(np.where(hit, index, -1))
    return np.where(latest >= 0, index - latest, 9999).astype(float)


def _ancestors(parents: np.ndarray, node: int) -> np.ndarray:
    """Return a node and its ancestors up to the page."""
    chain = [node]
    while node:
        node = parents[node]
        chain.append(node)
    return np.array(chain)
