"""Choices: what is asked of a model for an item, and scores from log-probabilities.

A context and an option are tokenized as one text, and what is scored begins where its tokens leave those of
the context alone, for every tokenizer. Of an item's options the likeliest is chosen by each of

    none            log P(option | context)
    characters      the same by the option's Unicode characters, without the space in front
    bytes, tokens   the same by its UTF-8 bytes, by its tokens
    answer          log P(option | context) - log P(option | "Answer:")
"""

import math
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from puna.tokens.text_tokenizer import TextTokenizer, split_option


class Branches(NamedTuple):
    """A context and the options scored behind it, as ids; arrays take an eighth of the memory of lists."""

    context: array
    options: tuple[array, ...]


class Request(NamedTuple):
    """What is asked for an item. places: of each of its options, which of the branches and which option
    there; then, where the item has an unconditional context, of the same options behind that."""

    branches: tuple[Branches, ...]
    places: tuple[tuple[int, int], ...]

    def longest(self, new_tokens: int = 0) -> int:
        """The most ids that a model reads in a row: the last one of an option is only predicted; contexts
        without options have `new_tokens` written behind them."""
        behind = [max((len(o) - 1 for o in each.options), default=new_tokens) for each in self.branches]
        return max(len(each.context) + more for each, more in zip(self.branches, behind, strict=True))


class Scored(NamedTuple):
    """An option's log-probability, in how many ids; the same behind the unconditional context, or None."""

    log_prob: float
    tokens: int
    unconditional: float | None = None


def split(tokenizer: TextTokenizer, context: str, option: str) -> tuple[list[int], list[int]]:
    """(ids that are given, ids that are scored) by `split_option`; something is always given.

    Where they have no common beginning and the tokenizer puts nothing before a text, its begin token is given
    all the same, or its end token where it has no other: a model says nothing about a first token.
    """
    given, scored = split_option(tokenizer, context, option)
    begin = tokenizer.bos_id if tokenizer.bos_id >= 0 else tokenizer.eos_id
    return given or [begin], scored


def ask(tokenizer: TextTokenizer, pairs: Sequence[tuple[str, str]]) -> Request:
    """Tokens of (context, option) pairs; those with the same ids given become branches of one context."""
    branches: dict[tuple[int, ...], list[array]] = {}
    places = []
    for context, option in pairs:
        given, scored = split(tokenizer, context, option)
        known = branches.setdefault(tuple(given), [])
        places.append((list(branches).index(tuple(given)), len(known)))
        known.append(array("i", scored))
    made = tuple(Branches(array("i", given), tuple(options)) for given, options in branches.items())
    return Request(made, tuple(places))


def gather(request: Request, options: int, log_probs: Sequence[Sequence[Sequence[float]]]) -> list[Scored]:
    """Scores of a request's first `options` places. log_probs: of each of its branches, option and id."""
    chosen = [log_probs[branch][option] for branch, option in request.places]
    sums = [math.fsum(each) for each in chosen]
    rest = sums[options:]
    return [Scored(sums[n], len(chosen[n]), rest[n] if rest else None) for n in range(options)]


def values(options: Sequence[str], scores: Sequence[Scored]) -> dict[str, list[float]]:
    """What options are compared by, for each normalisation that applies, in the order of the options."""
    printed = [option.removeprefix(" ") for option in options]
    by = {
        "none": [score.log_prob for score in scores],
        "characters": [s.log_prob / max(len(t), 1) for s, t in zip(scores, printed, strict=True)],
        "bytes": [s.log_prob / max(len(t.encode()), 1) for s, t in zip(scores, printed, strict=True)],
        "tokens": [score.log_prob / score.tokens for score in scores],
    }
    lifts = [s.log_prob - s.unconditional for s in scores if s.unconditional is not None]
    return by | ({"answer": lifts} if lifts else {})


def choose(options: Sequence[str], scores: Sequence[Scored]) -> dict[str, int]:
    """Return the number of the chosen option by each normalisation; of equal ones the first."""
    return {name: each.index(max(each)) for name, each in values(options, scores).items()}


def mean_and_error(numbers: Sequence[float]) -> tuple[float, float | None]:
    """(mean, its standard error: the sample's deviation by the square root of n); of one number, None."""
    count = len(numbers)
    mean = math.fsum(numbers) / count
    if count == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((n - mean) ** 2 for n in numbers) / (count - 1) / count)


def mcnemar(first: int, second: int) -> float:
    """Two-sided exact p of McNemar's test: items that only the first, and only the second got right."""
    count, fewer = first + second, min(first, second)
    tail = sum(math.comb(count, number) for number in range(fewer + 1))
    return min(1.0, 2 * tail / 2**count)
