"""Which blocks of a page are its main text: two rounds of boosted oblivious trees over what surrounds each
block.

After Kohlschütter, Fankhauser, Nejdl, "Boilerplate Detection using Shallow Text Features" (2010): lengths,
link density and the neighbours' say most. The second round also sees the first round's scores of the blocks
around (stacking). All sums are of integers, so that a page has the same text on every machine.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

from puna.corpus.readers.web.blocks import GROUPS, ITEM, PARAGRAPH, PRE, Blocks

MODEL = Path(__file__).with_name("main_text.json")
UNIT = 1000  # a leaf's value is the log-odds times this
FEW = 800  # characters
PIECE = 256  # blocks that are judged at once; each takes up to 8 kB meanwhile
NEAR = """
    comment side navigation footer header related consent meta content caption list hidden form quote prose article main li p
""".split()  # noqa: SIM905  (the groups whose nearest element's share of the page is asked for)
WHERE = [GROUPS.index(name) for name in NEAR]
NEGATIVE = [
    GROUPS.index(name)
    for name in (
        "comment",
        "side",
        "navigation",
        "footer",
        "share",
        "related",
        "consent",
        "nav",
        "aside",
        "advert",
    )
]


def features(page: Blocks) -> tuple[np.ndarray, list[str]]:
    """[features, blocks] and the features' names. A page of no blocks is not asked for."""
    count, index = len(page.texts), np.arange(len(page.texts))
    size, length, linked, stops, level = np.array(
        [page.sizes, page.lengths, page.links, page.stops, page.levels], float
    )
    link, kinds, place, first, last = linked / length, page.kinds, page.places, page.first, page.last
    parents = np.maximum(page.parents, 0)

    # What counts as running text: its mass finds the part of the page that holds the story.
    prose = (size >= 80) & (link < 0.4) & ((stops > 0) | (kinds == PARAGRAPH) | (size > 160))
    mass = np.where(prose | (kinds == PRE), np.floor(np.minimum(size, 1000) * (1 - link)), 0.0)
    sums = np.zeros((6, count + 1))
    np.cumsum([size, length, linked, stops, mass, prose], axis=1, out=sums[:, 1:])
    sum_size, sum_length, sum_link, sum_mass = sums[[0, 1, 2, 4]]
    total, all_mass = sum_size[-1], max(sum_mass[-1], 1.0)
    inside = sums[:, last] - sums[:, first]  # of each node
    share, full = inside[0] / total, inside[4] / all_mass

    found: dict[str, np.ndarray] = {
        "size": size, "link": link, "free": size * (1 - link), "stops": stops, "level": level,
        "paragraph": kinds == PARAGRAPH, "item": kinds == ITEM,
        "copies": page.copies,
        "title_words": page.common / np.maximum(page.words, 1),
        "page_size": np.full(count, total), "page_blocks": np.full(count, count), "page_mass": np.full(count, sum_mass[-1]),
        "page_prose": np.full(count, sums[5, -1] / count),
        "at": sum_size[:-1] / total, "mass_before": sum_mass[:-1] / all_mass, "mass_after": (sum_mass[-1] - sum_mass[1:]) / all_mass,
        "since_h1": _since(level == 1, index), "to_prose": _since(prose[::-1], index)[::-1],
    }  # fmt: skip
    for width in (2, 12):
        low, high = np.maximum(index - width, 0), np.minimum(index + width + 1, count)
        found[f"link_around_{width}"] = (sum_link[high] - sum_link[low]) / (
            sum_length[high] - sum_length[low]
        )

    # The elements around: the block's own, the one around that, and the next.
    children = np.bincount(parents[1:], minlength=len(parents))
    own, above = place, parents[place]
    found["repeats"] = page.repeats
    for step, node in enumerate((own, above, parents[above])):
        here = inside[:, node]
        found[f"node_size_{step}"], found[f"node_share_{step}"] = here[0], share[node]
        found[f"node_link_{step}"] = here[2] / np.maximum(here[1], 1)
        if step:
            found[f"node_mass_{step}"], found[f"node_stops_{step}"] = (
                full[node],
                here[3] / np.maximum(here[1], 1),
            )
            found[f"node_prose_{step}"], found[f"children_{step}"] = here[5], children[node]

    # The innermost element that holds most of the running text, and how far outside it a block lies.
    for part in (0.4, 0.6):
        top = int(np.flatnonzero(full > part)[-1]) if sum_mass[-1] else 0
        chain = _ancestors(parents, top)
        found[f"outside_{part}"] = len(chain) - (
            (first[chain, None] <= index) & (index < last[chain, None])
        ).sum(0)
        found[f"before_{part}"], found[f"behind_{part}"] = first[top] - index, index - last[top]
        found[f"top_size_{part}"] = np.full(count, share[top])

    near = page.near.T
    found |= zip(
        (f"near_{name}" for name in NEAR), np.where(near[WHERE] >= 0, share[near[WHERE]], 2.0), strict=True
    )
    negative = np.where(near[NEGATIVE] >= 0, full[near[NEGATIVE]], 2.0)
    found["mass_comment"], found["mass_footer"] = negative[0], negative[3]
    found["least_negative"], found["negatives"] = negative.min(0), (negative < 0.3).sum(0)

    for name in ("size", "link", "free", "paragraph"):
        for step in (-1, 1):
            found[f"{name}_{step:+}"] = _shift(found[name], step)
    return np.array(list(found.values()), float), list(found)


def around(page: Blocks, scores: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Features of the second round: the first round's scores (integers) of a block and of those around it."""
    found: dict[str, np.ndarray] = {}
    count = len(scores)
    value = np.clip(scores, -5 * UNIT, 5 * UNIT).astype(float)
    weight = np.minimum(size, 500)
    index = np.arange(count)
    parents, first, last, node = np.maximum(page.parents, 0), page.first, page.last, page.places
    found["score"] = value
    for step in (-3, -2, -1, 1, 2, 3):
        found[f"score_{step:+}"] = _shift(value, step)
    sum_weight, sum_value = _sums(weight), _sums(weight * value)
    sum_kept = _sums(np.where(value > 0, weight, 0.0))
    for width in (2, 5, 10):
        low, high = np.maximum(index - width, 0), np.minimum(index + width + 1, count)
        found[f"score_around_{width}"] = (sum_value[high] - sum_value[low]) / (
            sum_weight[high] - sum_weight[low]
        )
    for step in range(4):
        weight_here = np.maximum(sum_weight[last[node]] - sum_weight[first[node]], 1)
        found[f"score_node_{step}"] = (sum_value[last[node]] - sum_value[first[node]]) / weight_here
        found[f"kept_node_{step}"] = (sum_kept[last[node]] - sum_kept[first[node]]) / weight_here
        node = parents[node]
    kept = max(sum_kept[-1], 1.0)
    found["kept"] = np.full(count, sum_kept[-1])
    found["kept_share"] = np.full(count, sum_kept[-1] / sum_weight[-1])
    found["kept_before"] = sum_kept[:-1] / kept
    found["kept_after"] = (sum_kept[-1] - sum_kept[1:]) / kept
    found["best"] = np.full(count, value.max())
    found["since_kept"] = _since(value > 0, index)
    found["to_kept"] = _since(value[::-1] > 0, index)[::-1]
    found["since_sure"] = _since(value > UNIT, index)
    found["to_sure"] = _since(value[::-1] > UNIT, index)[::-1]
    return np.array(list(found.values())), list(found)


def apply(trees: dict[str, np.ndarray], *columns: np.ndarray) -> np.ndarray:
    """Scores, integers, by oblivious trees: each level of a tree asks the same question of every block; the
    answers name the leaf.

    columns: [features, blocks], in one array or several whose features follow each other.
    """
    count, depth = trees["feature"].shape
    scores = np.full(columns[0].shape[1], int(trees["bias"]))
    for at in range(0, len(scores), PIECE):
        some = np.concatenate([part[:, at : at + PIECE] for part in columns])
        answers = (
            (some[trees["feature"].T.ravel()] > trees["threshold"].T.reshape(-1, 1))
            .view(np.uint8)
            .reshape(depth, count, -1)
        )
        leaf = answers[0]
        for level in range(1, depth):
            leaf = leaf | (answers[level] << level)
        scores[at : at + PIECE] += trees["value"].ravel()[leaf + (np.arange(count) << depth)[:, None]].sum(0)
    return scores


def keep(page: Blocks) -> np.ndarray:
    """Which blocks are main text, booleans."""
    if not page.texts:
        return np.zeros(0, bool)
    rounds = model()
    columns, _ = features(page)
    more, _ = around(page, apply(rounds[0], columns), columns[0])
    return chosen(apply(rounds[1], columns, more), columns[0])


def chosen(scores: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The blocks that more likely are main text than not; where these are few, those too that are so by odds
    of one to three."""
    kept = scores > 0
    return kept if size[kept].sum() >= FEW else scores > -UNIT


@cache
def model() -> list[dict[str, np.ndarray]]:
    """The two rounds' trees: feature, threshold [trees, depth], value [trees, leaves], bias; made by
    bench/train_main_text.py."""
    return [
        {name: np.array(values) for name, values in trees.items()} for trees in json.loads(MODEL.read_text())
    ]


def _sums(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _shift(values: np.ndarray, step: int) -> np.ndarray:
    """The values `step` blocks on; -1 beyond the page's ends."""
    found = np.full(len(values), -1.0)
    if step > 0:
        found[:-step] = values[step:]
    else:
        found[-step:] = values[:step]
    return found


def _since(hit: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Blocks since the last hit, 0 on it; 9999 before the first."""
    latest = np.maximum.accumulate(np.where(hit, index, -1))
    return np.where(latest >= 0, index - latest, 9999).astype(float)


def _ancestors(parents: np.ndarray, node: int) -> np.ndarray:
    chain = [node]
    while node:
        node = parents[node]
        chain.append(node)
    return np.array(chain)
