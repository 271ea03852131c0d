"""n-gram models of token ids: interpolated modified Kneser-Ney (Chen and Goodman 1998), as KenLM's `lmplz`
estimates them (Heafield, Pouzyrevsky, Clark and Koehn 2013, section 3).

A text is one array of token ids in which a begin token (KenLM's <s>) stands before every document; it is
context only and never predicted. What ends a document (</s>) is a token like any other. n-grams never cross
documents.

The n-grams of one order are stored in lexical order and numbered. Those that begin with the same n - 1 tokens
lie side by side, so an order is two arrays beside its values: the last token of each n-gram, and for each
n-gram of the order below where its extensions start. All single tokens have a number, seen or not: their id.

Where this differs from lmplz: |V| counts every token id but the begin token (lmplz: with --vocab_pad;
`seen_only` is its default); discounts that are zero, and not only those below zero, are replaced; and the
last n-gram of each order goes into the counts of counts by its adjusted count, where lmplz takes the count in
the text.
"""

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.errors import UserError
from puna.run import compiled
from puna.run.files import replacing

Array = np.ndarray[Any, Any]
ABSENT = np.uint32(0xFFFFFFFF)
FALLBACK = (0.5, 1.0, 1.5)  # lmplz --discount_fallback
CHUNK = 1 << 18  # n-grams processed at once
MAGIC = b"puna kneser-ney 1\n"
ALIGNMENT = 64  # bytes
SOURCE = Path(__file__).with_suffix(".cpp")
SIGNATURES = {"extend": "pnnnppnppppppp->n", "score": "pnnpppppppi"}


@functools.cache
def library() -> Any:
    """Load the compiled loops; None where they cannot be built or are switched off."""
    return compiled.load(SOURCE, SIGNATURES)


@dataclass(frozen=True)
class Order:
    """The n-grams of one order, m of them.

    last_tokens: uint32 [m]. first_child: uint32 [n-grams of the order below + 1]; those that extend n-gram i
    below are first_child[i] : first_child[i + 1]. log10_probabilities, log10_backoffs: float32 [m]; of the
    highest order all backoffs are 0, and the array is empty.
    """

    last_tokens: Array
    first_child: Array
    log10_probabilities: Array
    log10_backoffs: Array


@dataclass(frozen=True)
class KneserNey:
    """P(token | up to `order` - 1 tokens before it, inside the document).

    discounts: of each order, for counts 1, 2, 3 and more.
    """

    vocab_size: int
    begin: int
    log10_unseen: float
    discounts: tuple[tuple[float, ...], ...]
    orders: tuple[Order, ...]

    def scores(self, tokens: Array, threads: int = 1) -> Array:
        """Compute log10 P of every token, float64; 0 for the begin tokens.

        tokens: ids, a begin token before every document. The result does not depend on `threads`.
        """
        tokens = check(tokens, self.vocab_size, self.begin)
        longer = tokens
        scores = self.orders[0].log10_probabilities[tokens].astype(np.float64)
        compiled_loops = library()
        for below, order in zip(self.orders, self.orders[1:], strict=False):
            contexts, longer = longer, np.empty_like(tokens)
            if compiled_loops is None:
                _score(tokens, self.begin, order, below.log10_backoffs, contexts, longer, scores)
            else:
                ngrams = order.first_child, order.last_tokens, order.log10_probabilities
                arrays = (*ngrams, below.log10_backoffs, contexts, longer, scores)
                pointers = (array.ctypes.data for array in arrays)
                compiled_loops.score(tokens.ctypes.data, len(tokens), self.begin, *pointers, threads)
        return scores

    def save(self, path: Path) -> None:
        """Write the model as one file; equal models are equal files.

        It has a line that names the format, one of JSON, then all arrays, little endian, each at a multiple
        of ALIGNMENT bytes.
        """
        arrays = [array for order in self.orders for array in vars(order).values()]
        header = {name: value for name, value in vars(self).items() if name != "orders"}
        header["sizes"] = [len(array) for array in arrays]
        with replacing(path) as part, part.open("wb") as file:
            file.write(MAGIC + json.dumps(header).encode() + b"\n")
            for array in arrays:
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def load(path: Path) -> KneserNey:
    """Map a saved model; its arrays are read from the file when they are used.

    Raises UserError where the file is no model, or a damaged one.
    """
    try:
        with path.open("rb") as file:
            magic, line = file.readline(len(MAGIC)), file.readline()
            offset = file.tell()
        if magic != MAGIC:
            raise ValueError("it does not start like one")
        header = json.loads(line)
        content = np.memmap(path, np.uint8, mode="r")
        arrays: list[Array] = []
        for number, size in enumerate(header["sizes"]):
            offset += -offset % ALIGNMENT
            array = content[offset : offset + 4 * size]
            arrays.append(array.view("<u4" if number % 4 < 2 else "<f4"))
            offset += 4 * size
        orders = tuple(Order(*arrays[at : at + 4]) for at in range(0, len(arrays), 4))
        if offset != len(content) or not orders:
            raise ValueError(f"it has {len(content)} bytes, and {offset} are expected")
        _check_orders(orders)
        vocab_size, begin = header["vocab_size"], header["begin"]
        if len(orders[0].last_tokens) != vocab_size or not 0 <= begin < vocab_size:
            raise ValueError("its vocabulary does not fit its lists")
        discounts = tuple(tuple(values) for values in header["discounts"])
        return KneserNey(vocab_size, begin, header["log10_unseen"], discounts, orders)
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(f"{path} is no n-gram model, or is damaged ({error}); train it again") from error


def _check_orders(orders: Sequence[Order]) -> None:
    """Raise ValueError where the lists of an order do not fit each other, or those of the order below."""
    size_below = 1
    for number, order in enumerate(orders, 1):
        size, edges = len(order.last_tokens), order.first_child
        sizes = len(order.log10_probabilities), len(order.log10_backoffs), len(edges)
        expected = size, size if number < len(orders) else 0, size_below + 1
        bounds = int(edges[0]), int(edges[-1])
        if sizes != expected or bounds != (0, size) or (edges[1:] < edges[:-1]).any():
            raise ValueError(f"its lists of order {number} do not fit together")
        size_below = size


def check(tokens: Array, vocab_size: int, begin: int) -> Array:
    """Convert token ids to a uint32 array.

    Raises ValueError where a begin token does not come first, or an id is not of the vocabulary.
    """
    tokens = np.asarray(tokens)
    if len(tokens) and (tokens[0] != begin or tokens.min() < 0 or tokens.max() >= vocab_size):
        raise ValueError(f"token ids must start with the begin token {begin} and lie in 0..{vocab_size - 1}")
    return np.ascontiguousarray(tokens, np.uint32)


def _score(
    tokens: Array, begin: int, order: Order, backoffs: Array, contexts: Array, longer: Array, scores: Array
) -> None:
    """`score` of ngram.cpp, in numpy."""
    context = np.concatenate([[ABSENT], contexts[:-1]]).astype(np.uint32)
    at = np.flatnonzero((context != ABSENT) & (tokens != begin))
    context, wanted = context[at], tokens[at]
    low, high = (order.first_child[context + edge].astype(np.int64) for edge in (np.uint32(0), np.uint32(1)))
    end = high
    while (open_ := low < high).any():
        middle = (low + high) // 2
        below = open_ & (order.last_tokens[np.where(open_, middle, 0)] < wanted)
        low, high = np.where(below, middle + 1, low), np.where(open_ & ~below, middle, high)
    hit = low < end
    hit[hit] = order.last_tokens[low[hit]] == wanted[hit]
    longer[:] = ABSENT
    longer[at[hit]] = low[hit]
    scores[at[hit]] = order.log10_probabilities[low[hit]]
    scores[at[~hit]] += backoffs[context[~hit]]


@dataclass
class _Counts:
    """The n-grams of one order while they are counted.

    repeats: how often each occurs in the text; suffixes: number of the n-gram without its first token; kept:
    which are not pruned, where any are.
    """

    last_tokens: Array
    first_child: Array
    repeats: Array
    suffixes: Array
    kept: Array | None = None


def estimate(
    blocks: Iterable[Array],
    *,
    vocab_size: int,
    begin: int,
    order: int = 5,
    prune: Sequence[int] = (),
    seen_only: bool = False,
) -> KneserNey:
    """Estimate a model from a text: count its n-grams and smooth the counts.

    blocks: arrays of token ids, in each a begin token before every document. prune: n-grams that occur in the
    text so often or less are left out, for each order, the last one for all higher orders; as in lmplz, but 0
    for single tokens. seen_only: the uniform distribution under the single tokens is over the tokens of the
    text and one unknown token, as in lmplz, and not over the vocabulary; probabilities of all ids of the
    vocabulary then add up to more than 1 where several are not in the text. Memory: 16 bytes a token and
    about as many a different n-gram. Raises UserError for a text without tokens, ValueError for ids outside
    of the vocabulary.
    """
    limits = [*prune, *[prune[-1] if prune else 0] * order][:order]
    if limits[0] or limits != sorted(limits):
        raise ValueError(
            f"prune={tuple(prune)}: the first must be 0, and no one lower than the one before it"
        )
    checked = [check(block, vocab_size, begin) for block in blocks]
    tokens = checked[0] if len(checked) == 1 else np.concatenate([np.empty(0, np.uint32), *checked])
    if (tokens == begin).all():
        raise UserError("an n-gram model cannot be trained: the text has no tokens")
    if len(tokens) >= ABSENT:
        raise UserError(
            f"an n-gram model is trained on fewer than {ABSENT} tokens, here are {len(tokens)}; "
            "train it on a part of the text"
        )
    del checked
    levels, counts = _count(tokens, vocab_size, begin, limits)
    del tokens
    outcomes = int((counts[0] > 0).sum()) + 1 if seen_only else vocab_size - 1
    lower = np.array([1 / outcomes])
    orders: list[Order] = []
    discounts = []
    unseen, everything = 0.0, slice(None)
    kept: Any = everything
    for number, level in enumerate(levels, 1):
        count = counts.pop(0)
        discounts.append(_discounts(count))
        lower, backoffs = _smooth(count, level, lower, np.array([0.0, *discounts[-1]]))
        if number == 1:
            unseen = float(_log10(backoffs / outcomes)[0])
            lower[begin] = 1.0
        else:
            orders[-1].log10_backoffs[:] = _log10(backoffs[kept])
        # No extension of a pruned n-gram is kept, so the first children of the kept ones still bound them.
        first_child, bounds, kept = level.first_child, kept, everything if level.kept is None else level.kept
        if level.kept is not None:
            first_child = np.concatenate([[0], np.cumsum(kept)]).astype(np.uint32)[first_child]
        if bounds is not everything:
            first_child = np.append(first_child[:-1][bounds], first_child[-1:])
        last_tokens, probabilities = np.ascontiguousarray(level.last_tokens[kept]), _log10(lower[kept])
        size = len(last_tokens) if number < len(levels) else 0
        orders.append(Order(last_tokens, first_child, probabilities, np.zeros(size, np.float32)))
        level.suffixes = level.last_tokens = level.first_child = np.empty(0, np.uint32)
    return KneserNey(vocab_size, begin, unseen, tuple(discounts), tuple(orders))


def _count(
    tokens: Array, vocab_size: int, begin: int, limits: list[int]
) -> tuple[list[_Counts], list[Array]]:
    """Count the n-grams of every order that `limits` has; return them and their adjusted counts.

    The adjusted count is how many different tokens come before an n-gram; for the highest order and for
    n-grams that begin with the begin token, which have nothing before them, how often they occur in the text.
    """
    repeats = np.bincount(tokens, minlength=vocab_size).astype(np.uint32)
    single = np.arange(vocab_size, dtype=np.uint32)
    levels = [_Counts(single, np.array([0, vocab_size], np.uint32), repeats, np.zeros_like(single))]
    counts = []
    sortable = tokens.astype(np.uint16) if vocab_size <= 1 << 16 else tokens
    positions = np.argsort(sortable, kind="stable").astype(np.uint32)
    numbers = tokens
    first, end = begin, begin + 1  # the n-grams that begin with the begin token
    for length in range(1, len(limits)):
        below = levels[-1]
        adjusted = np.zeros_like(below.repeats)
        level, numbers, positions = _extend(
            tokens, vocab_size, begin, length, positions, below.repeats, numbers, adjusted
        )
        adjusted[first:end] = below.repeats[first:end]
        below.kept = below.repeats > limits[length - 1] if limits[length - 1] else None
        below.repeats = np.empty(0, np.uint32)
        counts.append(adjusted)
        levels.append(level)
        first, end = int(level.first_child[first]), int(level.first_child[end])
    counts.append(levels[-1].repeats)
    levels[-1].kept = levels[-1].repeats > limits[-1] if limits[-1] else None
    counts[0][begin] = 0
    return levels, counts


def _extend(
    tokens: Array,
    vocab_size: int,
    begin: int,
    length: int,
    positions: Array,
    repeats: Array,
    numbers: Array,
    preceding: Array,
) -> tuple[_Counts, Array, Array]:
    """Find the n-grams one token longer than `length`, as `extend` of ngram.cpp.

    Returns the n-grams, the number of the one that begins at each position, and the positions sorted by
    n-gram. preceding: an array of zeros, which is filled.
    """
    contexts = len(repeats)
    if (compiled_loops := library()) is not None:
        next_numbers, first_child = np.empty_like(tokens), np.empty(contexts + 1, np.uint32)
        outputs = [np.empty(len(positions), np.uint32) for _ in range(3)]
        sizes = len(tokens), begin, length
        arrays = (numbers, next_numbers, first_child, *outputs, preceding)
        pointers = (array.ctypes.data for array in arrays)
        count = compiled_loops.extend(
            tokens.ctypes.data, *sizes, positions.ctypes.data, repeats.ctypes.data, contexts, *pointers
        )
        for output in outputs:
            output.resize(count, refcheck=False)
        last_tokens, next_repeats, suffixes = outputs
        extended = positions[: int(next_repeats.sum(dtype=np.int64))]
        return _Counts(last_tokens, first_child, next_repeats, suffixes), next_numbers, extended
    starts = positions.astype(np.int64)
    starts = starts[starts + length < len(tokens)]
    starts = starts[tokens[starts + length] != begin]
    keys = numbers[starts].astype(np.int64) * vocab_size + tokens[starts + length]
    unique, at, inverse, counted = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    next_numbers = np.zeros_like(tokens)
    next_numbers[starts] = inverse
    first_child = np.concatenate([[0], np.cumsum(np.bincount(unique // vocab_size, minlength=contexts))])
    suffixes = numbers[starts[at] + 1]
    np.add.at(preceding, suffixes, 1)
    columns = (unique % vocab_size, first_child, counted, suffixes)
    level = _Counts(*(array.astype(np.uint32) for array in columns))
    return level, next_numbers, starts.astype(np.uint32)


def _discounts(counts: Array) -> tuple[float, ...]:
    """Discounts for counts 1, 2, 3 and more from the counts of counts (Chen and Goodman 1998, equation 26).

    FALLBACK where a count of counts is zero or a discount is not positive.
    """
    n = [int((counts == times).sum()) for times in range(5)]
    if not (n[1] and n[2] and n[3]):
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    discounts = tuple(times - (times + 1) * y * n[times + 1] / n[times] for times in (1, 2, 3))
    return discounts if min(discounts) > 0 else FALLBACK


def _smooth(counts: Array, level: _Counts, lower: Array, discounts: Array) -> tuple[Array, Array]:
    """Compute probabilities of one order's n-grams, interpolated with the order below, and backoffs; float64.

    A backoff is the weight that a context leaves for the order below, 1 for what is no context. The
    probabilities of pruned n-grams mean nothing, and no kept one depends on them.
    """
    probabilities = np.empty(len(counts))
    backoffs = np.ones(len(level.first_child) - 1)
    for start in range(0, len(backoffs), CHUNK):
        edges = level.first_child[start : start + CHUNK + 1].astype(np.int64)
        here = slice(edges[0], edges[-1])
        count = counts[here].astype(np.int64)
        times = np.minimum(count, 3)
        edges = edges - edges[0]
        pruned = np.zeros(1, bool) if level.kept is None else ~level.kept[here]
        # Sums over the n-grams of each context, all in integers. What is pruned leaves all of its count.
        terms = [count, *((times == value) & ~pruned for value in (1, 2, 3)), count * pruned]
        total, once, twice, more, lost = (
            np.diff(np.concatenate([[0], np.cumsum(term)])[edges]) for term in terms
        )
        left = discounts[1] * once + discounts[2] * twice + discounts[3] * more + lost
        backoff = np.divide(left, total, out=backoffs[start : start + CHUNK], where=total > 0)
        context = np.repeat(np.arange(len(total)), np.diff(edges))
        discounted = (count - discounts[times]) / total[context]
        probabilities[here] = discounted + backoff[context] * lower[level.suffixes[here]]
    return probabilities, backoffs


def _log10(values: Array) -> Array:
    """Compute log10 of numbers in (0, 1], float32, bitwise equal on every machine, as the C library's is not.

    values = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh s, s = (m - 1) / (m + 1), |s| < 0.172,
    whose series is cut where its terms are below 1e-14.
    """
    result = np.empty(len(values), np.float32)
    for start in range(0, len(values), CHUNK):
        mantissa, exponent = np.frexp(values[start : start + CHUNK])
        small = mantissa < 0.5**0.5
        mantissa, exponent = np.where(small, 2 * mantissa, mantissa), exponent - small
        s = (mantissa - 1) / (mantissa + 1)
        square, series = s * s, 0.0
        for power in range(17, 0, -2):
            series = series * square + 1 / power
        result[start : start + CHUNK] = np.minimum(
            exponent * 0.30102999566398120 + s * series * 0.86858896380650366, 0
        )
    return result
