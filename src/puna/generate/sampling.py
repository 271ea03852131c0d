"""The next token from logits: penalties, temperature, top-k, top-p, min-p, and a number from a counter."""

import hashlib
import math
import struct
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from puna.errors import UserError

# Below it 1 / temperature is infinite. Differences of float32 logits (1e-45 at least) over it are, too, or
# large enough that only the largest logit has a probability.
COLDEST = sys.float_info.min
# Tokens less likely than the likeliest by more than this factor's logarithm are looked at only where the
# others do not decide.
NEAR = math.log(1e4)
NOT_FINITE = "the model's logits are not finite numbers: its weights are damaged, or it diverged"


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: penalties, then temperature, then the sets of top_k, top_p and min_p.

    temperature: 0 takes the largest logit. top_k: the k likeliest; 0: all. top_p: the smallest set of
    likeliest tokens whose probability reaches top_p (Holtzman et al. 2019). min_p: tokens at least min_p
    times as likely as the likeliest (Nguyen et al. 2024). repetition_penalty: positive logits of tokens of
    prompt and text are divided by it, negative ones multiplied (Keskar et al. 2019). presence_penalty,
    frequency_penalty: taken from logits of tokens of the text, once and as often as they came. Raises
    UserError for numbers outside their range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"a temperature is a number from 0 on, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is a number above 0 and at most 1, not {self.top_p}")
        if not (self.top_k >= 0 and 0 <= self.min_p <= 1):
            raise UserError(f"top_k is 0 or more, min_p 0 to 1, not {self.top_k} and {self.min_p}")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(f"repetition_penalty is a number above 0, not {self.repetition_penalty}")
        if not (math.isfinite(self.presence_penalty) and math.isfinite(self.frequency_penalty)):
            raise UserError("presence_penalty and frequency_penalty are finite numbers")

    @property
    def penalises(self) -> bool:
        """Whether earlier tokens change the logits."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)


def uniform(seed: int, sample: int, position: int) -> float:
    """A number of [0, 1) that depends on these three alone."""
    key = struct.pack("<qqq", seed % (1 << 63), sample, position)
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 11) / (1 << 53)


def penalised(logits: np.ndarray, how: Sampling, prompt: set[int], text: Counter[int]) -> np.ndarray:
    """Logits [vocabulary] after the penalties for the tokens of a prompt and of the text so far."""
    logits = logits.copy()
    if how.repetition_penalty != 1:
        seen = np.array(sorted(prompt | set(text)), dtype=np.int64)
        values = logits[seen]
        factor = np.where(values > 0, 1 / how.repetition_penalty, how.repetition_penalty)
        logits[seen] = values * factor
    if text:
        tokens = np.array(list(text), dtype=np.int64)
        counts = np.array(list(text.values()))
        logits[tokens] -= how.presence_penalty + how.frequency_penalty * counts
    return logits


def choose(logits: np.ndarray, how: Sampling, number: float) -> int:
    """The token of float32 logits [vocabulary] at a number of [0, 1): tokens from the likeliest on, those of
    equal logits by their ids, take an interval each as wide as their probability.

    Raises UserError for logits that are not numbers, or all infinite; -inf is a token that is never drawn.
    """
    highest = float(logits.max())
    if not math.isfinite(highest):
        raise UserError(NOT_FINITE)
    if how.temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore"):  # to -inf, of which nothing is left
        return _chosen(logits, highest, how, number)


def _chosen(logits: np.ndarray, highest: float, how: Sampling, number: float) -> int:
    # In float32 alone for the sum, whose error of 1e-6 moves no more than that of what is drawn.
    total = float(np.exp((logits - highest) / np.float32(max(how.temperature, 1e-30))).sum(dtype=np.float64))
    for all_of_them in (False, True):
        near = logits > -math.inf if all_of_them else logits >= highest - how.temperature * NEAR
        tokens = np.flatnonzero(near)
        order = tokens[np.argsort(-logits[tokens], kind="stable")]
        shares = np.exp((logits[order].astype(np.float64) - highest) / max(how.temperature, COLDEST))
        ends = shares.cumsum()
        count, mass = _allowed(how, shares, ends, float(ends[-1]) if all_of_them else total, all_of_them)
        place = int(np.searchsorted(ends, number * mass, side="right"))
        if place < count or all_of_them:
            break
    return int(order[min(place, count - 1)])


def _allowed(
    how: Sampling, shares: np.ndarray, ends: np.ndarray, total: float, all_of_them: bool
) -> tuple[int, float]:
    """(how many of the likeliest tokens may be drawn, their sum); 0 where the tokens, which are not all, do
    not decide it. ends: sums of the shares; total: that of all tokens."""
    count, mass = len(shares), total
    if how.top_k and (all_of_them or count >= how.top_k):
        count = min(count, how.top_k)
        mass = float(ends[count - 1])
    elif how.top_k:
        return 0, mass
    bounded = all_of_them or how.top_k or how.min_p >= math.exp(-NEAR)
    if how.top_p < 1:
        reached = int(np.searchsorted(ends[:count], how.top_p * mass)) + 1
        bounded = bounded or reached <= count
        count = min(count, reached)
    if how.min_p:
        count = min(count, int((shares >= how.min_p).sum()))
    if how.top_p == 1 and not how.min_p:  # what is drawn shows whether these tokens are enough
        return count, mass
    return (count, float(ends[count - 1])) if bounded else (0, mass)
