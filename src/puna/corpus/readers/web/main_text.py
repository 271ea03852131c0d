"""Classifier that finds a page's main text: two rounds of boosted oblivious trees over blocks in context.

After Kohlschütter, Fankhauser, Nejdl, "Boilerplate Detection using Shallow Text Features" (2010): lengths,
link density and the neighbours are the strongest features. The second round also gets the first round's
scores of the blocks around (stacking). All sums are of integers, so that a page has the same text on every
machine.
"""

import json
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.readers.web.blocks import Blocks
from puna.corpus.readers.web.elements import GROUPS, HEADING, ITEM, PARAGRAPH, PRE, ROW, names
from puna.run import compiled

MODEL = Path(__file__).with_name("main_text.json")
SOURCE = Path(__file__).with_name("main_text.cpp")
library = cache(partial(compiled.load, SOURCE, {"trees_add": "pnnpppnp"}))
DEPTH = 4  # levels of a tree that the compiled function takes
UNIT = 1000  # leaf values and scores are log-odds times this
MIN_CHARACTERS = 400  # of main text; with less than these, uncertain blocks are kept too
TINY_PAGE = 300
MIN_PROSE = 60  # characters of a block that is a sentence of the text
MAX_CAPTIONS = 120  # characters around a table of contents
MAX_TURNING = 400  # characters of what leads to the page before and after
MIN_SIBLINGS = 3  # alike, of a list
# Groups for which the size of the nearest element, as a share of the page, is a feature.
_NEAREST = """
    comment side navigation footer header related consent meta content caption list hidden unseen form quote
    prose article main li p
"""
NEAREST = [*map(GROUPS.index, names(_NEAREST))]
MANAGER, DIALOG, CONSENT, UNSEEN = map(GROUPS.index, names("manager dialog consent unseen"))
NAVIGATION = GROUPS.index("navigation")
STORY = [GROUPS.index(name) for name in ("article", "main")]
COOKIES = re.compile("cookie.*(?:cookie|consent)", re.IGNORECASE | re.DOTALL)
ASKS = re.compile(
    r"cookie|newsletter|subscri|abonn|consent|gdpr|sign (?:in|up)|log ?in|passwor[dt]|datenschutz"
    r"|privacy|confidentialité|e-?mail address|adblock|ad blocker|registr",
    re.IGNORECASE,
)
# Groups whose elements seldom hold main text.
BOILERPLATE = [
    *map(GROUPS.index, names("comment footer side navigation share related consent nav aside advert"))
]


def features(page: Blocks, found: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the features of the first round, [features, blocks]. The page has blocks; found: its layout."""
    count, index = len(page.texts), np.arange(len(page.texts))
    size, length, linked, sentences, level = np.array(
        [page.sizes, page.lengths, page.link_lengths, page.sentence_ends, page.levels], float
    )
    link, kinds, first, last = linked / length, page.kinds, page.first, page.last
    parents = np.maximum(page.parents, 0)

    # What counts as running text: its mass finds the part of the page that holds the story.
    prose = (size >= 80) & (link < 0.4) & ((sentences > 0) | (kinds == PARAGRAPH) | (size > 160))
    unseen = page.nearest[:, UNSEEN] >= 0
    if 2 * size[unseen].sum() < size.sum():
        prose &= ~unseen
    mass = np.where(prose | (kinds == PRE), np.floor(np.minimum(size, 1000) * (1 - link)), 0.0)
    sums = np.zeros((6, count + 1))
    np.cumsum([size, length, linked, sentences, mass, prose], axis=1, out=sums[:, 1:])
    sum_size, sum_length, sum_link, sum_mass = sums[[0, 1, 2, 4]]
    page_size, page_mass = sum_size[-1], max(sum_mass[-1], 1.0)
    node_sums = sums[:, last] - sums[:, first]  # [6, nodes]
    size_share, mass_share = node_sums[0] / page_size, node_sums[4] / page_mass

    # The block; the page; where in it, and in its running text, the block stands.
    columns = [size, link, size * (1 - link), sentences, level, kinds == PARAGRAPH, kinds == ITEM]
    columns += [page.copies, page.title_words / np.maximum(page.words, 1)]
    columns += [*np.outer((page_size, count, sum_mass[-1], sums[5, -1] / count), np.ones(count))]
    mass_after = (sum_mass[-1] - sum_mass[1:]) / page_mass
    columns += [sum_size[:-1] / page_size, sum_mass[:-1] / page_mass, mass_after]
    since, until = _since((level == 1, prose[::-1]), index)
    columns += [since, until[::-1]]
    low, high = _window(index, 2)
    columns += [(sum_link[high] - sum_link[low]) / (sum_length[high] - sum_length[low])]

    # The block's own element, its parent and its grandparent.
    children = np.bincount(parents[1:], minlength=len(parents))
    own, parent = page.nodes, parents[page.nodes]
    for step, node in enumerate((own, parent, parents[parent])):
        here = node_sums.take(node, 1)
        letters = np.maximum(here[1], 1)
        columns += [here[0], size_share[node], here[2] / letters]
        if step:
            columns += [mass_share[node], here[3] / letters, here[5], children[node]]

    # The innermost element that holds most of the running text, and how far outside it a block lies.
    for share in (0.4, 0.6):
        top = int(np.flatnonzero(mass_share > share)[-1]) if sum_mass[-1] else 0
        columns += [*_outside(page, top, index), np.full(count, size_share[top])]

    nearest = page.nearest.T[NEAREST]
    columns += [*np.where(nearest >= 0, size_share.take(nearest), 2.0)]
    nearest = page.nearest.T[BOILERPLATE]
    boilerplate = np.where(nearest >= 0, mass_share.take(nearest), 2.0)
    columns += [*boilerplate[:2], boilerplate.min(0), (boilerplate < 0.3).sum(0)]

    for column in (size, link, size * (1 - link), kinds == PARAGRAPH):
        columns += _shifted(column, (-1, 1))
    columns += _alike(page, found, node_sums, linked)
    # The heading over the block, and what stands up to the next.
    heading, following = found[3:]
    columns += [index - heading, following - index]
    columns += [np.where(heading >= 0, values[heading], -1) for values in (size, columns[8], link)]
    return np.array([*columns, sum_size[following] - sum_size[1:]], float)


def _alike(
    page: Blocks, found: tuple[np.ndarray, ...], node_sums: np.ndarray, linked: np.ndarray
) -> list[np.ndarray]:
    """Return features of the elements that have the name and hints of a block's element, and of its row.

    node_sums: of sizes, lengths, characters in links ..., [6, nodes].
    """
    own = page.signatures[page.nodes]
    times, letters = np.bincount(own), np.bincount(own, page.lengths)
    size_of_element = np.bincount(own, page.sizes) / np.maximum(times, 1)
    link_of_element = np.bincount(own, linked) / np.maximum(letters, 1)
    columns = [np.bincount(page.signatures)[own], times[own], size_of_element[own], link_of_element[own]]
    numbers, siblings, row = found[:3]
    links = _sums(is_link(page))
    first, last = page.first[row], page.last[row]
    columns += [siblings[row], last - first, links[last] - links[first], node_sums[0, row], node_sums[5, row]]
    size = np.bincount(numbers, node_sums[0])[numbers[row]] * (row > 0)  # of the list
    return [*columns, size / np.maximum(siblings[row], 1), size / node_sums[0, 0]]


def layout(page: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what both rounds ask for.

    For each node the number of its parent with its own name and hints, and how many children of the parent
    have these (0 for nodes without blocks and for the page); for each block the innermost element around it
    that is one of at least three siblings alike, a row of a list, whatever it is called (0 without one), the
    heading at or before it (-1 before the first), and the next heading behind it.
    """
    key = page.parents * (page.signatures.max() + 1) + page.signatures
    key[(page.last <= page.first) | (page.parents < 0)] = -1
    numbers = np.unique(key, return_inverse=True)[1]
    siblings = np.bincount(numbers)[numbers]
    siblings[key < 0] = 0
    row = _innermost(siblings >= MIN_SIBLINGS, page.parents)[page.nodes]
    headings = np.flatnonzero(page.kinds == HEADING)
    place = np.searchsorted(headings, np.arange(len(page.texts)), side="right")
    return numbers, siblings, row, np.append(-1, headings)[place], np.append(headings, len(place))[place]


def _innermost(hit: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Return for each node the innermost hit, itself or around it, 0 where there is none."""
    at = np.where(hit, np.arange(len(parents)), np.maximum(parents, 0))
    while True:
        above = np.where(hit[at], at, at[at])
        if (above == at).all():
            return at
        at = above


def score_features(
    page: Blocks, found: tuple[np.ndarray, ...], scores: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Return what the second round has besides the first's features, [features, blocks].

    found: the page's layout; scores: integers of the first round; size: characters of each block.
    """
    count, index = len(scores), np.arange(len(scores))
    value = np.clip(scores, -5 * UNIT, 5 * UNIT).astype(float)
    weight = np.minimum(size, 500)
    parents, first, last, node = np.maximum(page.parents, 0), page.first, page.last, page.nodes
    columns = [value, *_shifted(value, (-2, -1, 1, 2))]
    sum_weight, sum_value = _sums(weight), _sums(weight * value)
    sum_kept = _sums(np.where(value > 0, weight, 0.0))
    for width in (2, 5):
        low, high = _window(index, width)
        columns.append((sum_value[high] - sum_value[low]) / (sum_weight[high] - sum_weight[low]))
    for _ in range(3):
        low, high = first[node], last[node]
        node_weight = np.maximum(sum_weight[high] - sum_weight[low], 1)
        columns += [(sums[high] - sums[low]) / node_weight for sums in (sum_value, sum_kept)]
        node = parents[node]
    kept = max(sum_kept[-1], 1.0)
    share, best, all_kept = np.outer(
        (sum_kept[-1] / sum_weight[-1], value.max(), sum_kept[-1]), np.ones(count)
    )
    columns += [all_kept, share, sum_kept[:-1] / kept, (all_kept - sum_kept[1:]) / kept, best]
    behind = value[::-1]
    since = _since((value > 0, behind > 0, value > UNIT, behind > UNIT), index)
    columns += [since[0], since[1, ::-1], since[2], since[3, ::-1]]

    # Blocks of the same kind of element, alone and with its parent; the list whose row the block is in.
    own = page.signatures[page.nodes]
    pair = own * (page.signatures.max() + 1) + page.signatures[parents[page.nodes]]
    groups = (own, np.unique(pair, return_inverse=True)[1])
    columns += [_mean(value, weight, group) for group in groups]
    numbers, _, row, heading, following = found
    columns.append(np.where(row, _mean(value, weight, numbers[row]), 0))
    low = np.maximum(heading, 0)
    of_section = (sum_value[following] - sum_value[low]) / (sum_weight[following] - sum_weight[low])
    columns += [np.where(heading >= 0, value[heading], 0), of_section]
    # How far outside the innermost element that holds most of what the first round keeps.
    kept_share = (sum_kept[last] - sum_kept[first]) / kept
    top = int(np.flatnonzero(kept_share > 0.8)[-1]) if sum_kept[-1] else 0
    return np.array([*columns, *_outside(page, top, index)])


def apply(trees: dict[str, np.ndarray], *columns: np.ndarray) -> np.ndarray:
    """Return the integer scores of blocks by oblivious trees.

    Each level of a tree compares the same feature of every block with a threshold, and the outcomes, one bit
    a level, are the number of the leaf. columns: [features, blocks], in one array or several whose features
    follow each other.
    """
    count, depth = trees["feature"].shape
    together = np.ascontiguousarray(np.concatenate(columns), float)
    scores = np.full(together.shape[1], int(trees["bias"]))
    if depth == DEPTH and (functions := library()) is not None:
        sizes = together.shape[::-1]
        tables = (trees[name].ctypes.data for name in ("feature", "threshold", "value"))
        functions.trees_add(together.ctypes.data, *sizes, *tables, count, scores.ctypes.data)
        return scores
    for asked, threshold, value in zip(trees["feature"], trees["threshold"], trees["value"], strict=True):
        bits = together[asked] > threshold[:, None]
        scores += value[(1 << np.arange(depth)) @ bits]
    return scores


def keep(page: Blocks) -> np.ndarray:
    """Return which blocks are main text, bool [blocks]."""
    if not page.texts:
        return np.zeros(0, bool)
    first_round, second_round = model()
    found = layout(page)
    columns = features(page, found)
    more = score_features(page, found, apply(first_round, columns), columns[0])
    return clean(page, select(page, apply(second_round, columns, more)))


def clean(page: Blocks, kept: np.ndarray) -> np.ndarray:
    """Leave out what no score decides: dialogs, what is not shown, and what leads to other pages."""
    return without_captions(page, without_turning(page, without_unseen(page, without_dialogs(page, kept))))


def is_link(page: Blocks) -> np.ndarray:
    """Tell of which blocks most of the text leads to other pages, bool [blocks]."""
    return page.link_lengths > 0.6 * page.lengths


def without_captions(page: Blocks, kept: np.ndarray) -> np.ndarray:
    """Leave out the first line of an element that has nothing else but a list of links, which is left out."""
    linked = is_link(page)
    dropped_link = linked & ~kept
    links = _sums(dropped_link)
    short = kept & ~linked & (page.sizes < MIN_PROSE) & (page.sentence_ends == 0) & (page.kinds != HEADING)
    left = kept.copy()
    for block in np.flatnonzero(short[:-1] & dropped_link[1:]).tolist():
        node = page.nodes[block]
        while node and page.last[node] - page.first[node] == 1:
            node = page.parents[node]
        first, last = page.first[node], page.last[node]
        behind = last - first - 1
        left[block] = not (block == first and links[last] - links[first] == behind >= MIN_SIBLINGS)
    return left


def without_turning(page: Blocks, kept: np.ndarray) -> np.ndarray:
    """Leave out the lines of a book or manual that lead to the page before, after or above.

    They are told by their links. The largest element around these goes that has no other text: at most
    MAX_TURNING characters without a heading, a sentence or code.
    """
    marked = np.flatnonzero(page.turns)
    if not len(marked):
        return kept
    prose = (page.sentence_ends > 0) & (page.link_lengths < page.lengths / 2) & (page.sizes >= MIN_PROSE)
    prose = (prose & (page.kinds != ROW)) | (page.levels > 0) | (page.kinds == PRE)
    prose, sizes = _sums(prose), _sums(page.sizes)
    left = kept.copy()
    for node in marked.tolist():
        inside = slice(0, 0)
        while node and page.first[node] <= page.last[node]:
            first, last = page.first[node], page.last[node]
            if sizes[last] - sizes[first] > MAX_TURNING or prose[last] > prose[first]:
                break
            inside, node = slice(first, last), page.parents[node]
        left[inside] = False
    return left


def is_contents(page: Blocks, kept: np.ndarray) -> bool:
    """Tell whether of a page hardly anything but links is kept, as of a table of contents.

    Besides these it has a title and a caption: less than MAX_CAPTIONS characters without a sentence or code.
    """
    linked = is_link(page)
    rest = kept & ~linked
    is_list = (kept & linked).sum() >= MIN_SIBLINGS and page.sizes.sum() >= TINY_PAGE
    return bool(
        (is_list or (page.turns.any() and linked.sum() >= MIN_SIBLINGS))
        and page.sizes[rest].sum() < MAX_CAPTIONS
        and not (rest & ((page.kinds == PRE) | (page.sentence_ends > 0) & (page.sizes >= MIN_PROSE))).any()
    )


def without_unseen(page: Blocks, kept: np.ndarray) -> np.ndarray:
    """Leave out what a browser does not show, unless that is three quarters of the text or more: then a
    script shows it."""
    unseen = kept & (page.nearest[:, UNSEEN] >= 0)
    return kept & ~unseen if 4 * page.sizes[unseen].sum() < 3 * page.sizes[kept].sum() else kept


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


def select(page: Blocks, scores: np.ndarray) -> np.ndarray:
    """Return the blocks that are more likely main text than not, bool [blocks].

    Where these hold less than MIN_CHARACTERS, blocks with odds above e^-1, about one to three, are added. A
    page of less than TINY_PAGE characters has hardly anything but its text, outside of navigation.
    """
    if page.sizes.sum() < TINY_PAGE:
        return page.nearest[:, NAVIGATION] < 0
    kept = scores > 0
    return kept if page.sizes[kept].sum() >= MIN_CHARACTERS else scores > -UNIT


@cache
def model() -> list[dict[str, np.ndarray]]:
    """Load the trees of both rounds, which bench/train_main_text.py trains."""
    return arrays(json.loads(MODEL.read_text()))


def arrays(rounds: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Return trees as arrays: feature, threshold [trees, depth], value [trees, leaves], bias."""
    return [
        {name: np.array(values, float if name == "threshold" else np.int64) for name, values in trees.items()}
        for trees in rounds
    ]


def _window(index: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranges of the blocks at most `width` before or behind each block."""
    return np.maximum(index - width, 0), np.minimum(index + width + 1, len(index))


def _sums(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=float)])


def _shifted(values: np.ndarray, steps: tuple[int, ...]) -> list[np.ndarray]:
    """Return the values some steps ahead, each by itself, -1 beyond the ends of the page."""
    edge, count = max(steps), len(values)
    padded = np.full(count + 2 * edge, -1.0)
    padded[edge : edge + count] = values
    return [padded[edge + step : edge + step + count] for step in steps]


def _since(hits: tuple[np.ndarray, ...], index: np.ndarray) -> np.ndarray:
    """Return the number of blocks since the last of each kind of hit, 0 on it and 9999 before the first,
    [kinds, blocks]."""
    latest = np.maximum.accumulate(np.where(hits, index, -1), axis=1)
    return np.where(latest >= 0, index - latest, 9999.0)


def _mean(values: np.ndarray, weight: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the weighted mean of each block's group."""
    return (np.bincount(group, values * weight) / np.maximum(np.bincount(group, weight), 1))[group]


def _outside(page: Blocks, node: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many of a node and its ancestors a block lies outside of, and how many blocks it lies before
    the node's first and behind its last."""
    chain = _ancestors(page.parents, node)
    around = (page.first[chain, None] <= index) & (index < page.last[chain, None])
    return len(chain) - around.sum(0), page.first[node] - index, index - page.last[node]


def _ancestors(parents: np.ndarray, node: int) -> np.ndarray:
    """Return a node and its ancestors up to the page."""
    chain = [node]
    while node:
        node = parents[node]
        chain.append(node)
    return np.array(chain)
