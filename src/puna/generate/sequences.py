"""What the engine reads: texts that grow, and trees of continuations that are scored.

Both are sequences of tokens, of which some are read into blocks; a step reads some more and hands back the
logits that are wanted of them.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from puna.generate.decoder import BLOCK
from puna.generate.sampling import Sampling, choose, penalised, uniform
from puna.generate.stops import StopStrings
from puna.tokens.text_tokenizer import TextTokenizer


class Tree(NamedTuple):
    """Token ids of a context, the begin token first, and of the continuations whose probability is asked."""

    context: list[int]
    options: list[list[int]]


class OptionScore(NamedTuple):
    """Log-probabilities of an option's tokens, each after all before it; whether each is the likeliest."""

    log_probs: list[float]
    is_greedy: bool


class Sample(NamedTuple):
    """A text that was generated. tokens: without the one that ended it. log_probs: the model's own, before
    temperature and penalties. finish: "stop" for a stop token or string, "length", or "cancelled". version:
    of the weights that wrote its last token."""

    tokens: list[int]
    log_probs: list[float]
    text: str
    finish: str
    version: int


class Piece(NamedTuple):
    """What a step adds to a text: whole characters that hold nothing of a stop string."""

    token: int
    log_prob: float
    text: str


@dataclass(frozen=True)
class Request:
    """A prompt to be continued, the begin token first. seed, sample: with the prompt they decide what is
    drawn. stop_ids: None for the tokenizer's."""

    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stops: Many[str] = ()
    stop_ids: frozenset[int] | None = None
    seed: int = 0
    sample: int = 0
    on_piece: Callable[[Piece], None] = lambda piece: None


class Logits(NamedTuple):
    """Of wanted rows: logits [w, vocabulary], log-sums float64 [w], likeliest tokens [w]."""

    rows: np.ndarray
    sums: np.ndarray
    best: np.ndarray

    def log_prob(self, row: int, token: int) -> float:
        return float(self.rows[row, token] - self.sums[row])


class Reading(ABC):
    """Tokens of which the first `read` have keys and values in `blocks`. chain, named: of its full blocks
    that are known to others. wants_from: first position whose logits are wanted. reserve: blocks that it, and
    what follows it, may still take."""

    def __init__(self, tokens: list[int], wants_from: int) -> None:
        self.tokens, self.wants_from = tokens, wants_from
        self.read, self.blocks, self.chain, self.named, self.reserve = 0, list[int](), 0, 0, 0

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.read

    @property
    def finished(self) -> bool:
        """Whether nothing more of it is to be read."""
        return self.unread == 0

    @abstractmethod
    def close(self) -> None:
        """Note that it is finished, and so may be what it is a part of."""

    def next_block(self) -> tuple[int, ...] | None:
        """Tokens of its first full block that is not known, if there is one; the last token is read anew."""
        tokens = tuple(self.tokens[self.named * BLOCK : (self.named + 1) * BLOCK])
        full = len(tokens) == BLOCK and (self.named + 1) * BLOCK <= self.wants_from
        return tokens if full else None

    @abstractmethod
    def take(self, logits: Logits, row: int, first: int, count: int) -> "list[Reading]":
        """Take rows row .. row + count - 1 of the logits, those of positions from `first` on; what is to be
        read after it. Where nothing of its own is left unread, it is done."""


class Writing(Reading):
    """A prompt that grows by a token a step."""

    def __init__(self, request: Request, tokenizer: TextTokenizer) -> None:
        super().__init__(list(request.prompt), len(request.prompt) - 1)
        self.request, self.vocab_size = request, tokenizer.vocab_size
        self.stop_ids = tokenizer.stops if request.stop_ids is None else request.stop_ids
        self.stream, self.stops = tokenizer.stream(), StopStrings(request.stops)
        for token in request.prompt:  # a tokenizer may join its first word to what stands before it
            self.stream.add(token)
        self.counts: Counter[int] = Counter()
        self.seen = set(request.prompt) if request.sampling.penalises else set()
        self.log_probs: list[float] = []
        self.text, self.finish, self.version = "", "", 0

    @property
    def finished(self) -> bool:
        return bool(self.finish)

    def close(self) -> None:
        """A text is a part of nothing."""

    @property
    def new_tokens(self) -> list[int]:
        return self.tokens[len(self.request.prompt) :]

    def take(self, logits: Logits, row: int, first: int, count: int) -> list[Reading]:
        how, position, row = self.request.sampling, len(self.log_probs), row + count - 1
        if how.temperature == 0 and not how.penalises and logits.best[row] < self.vocab_size:
            token = int(logits.best[row])
        else:
            values = logits.rows[row, : self.vocab_size]
            if how.penalises:
                values = penalised(values, how, self.seen, self.counts)
            token = choose(values, how, uniform(self.request.seed, self.request.sample, position))
        if token in self.stop_ids:
            self.end("stop")
            return []
        self.tokens.append(token)
        self.counts[token] += 1
        self.log_probs.append(logits.log_prob(row, token))
        shown = self.stops.add(self.stream.add(token))
        self._show(token, shown)
        if self.stops.ended:
            self.finish = "stop"
        elif len(self.log_probs) == self.request.max_new_tokens:
            self.end("length")
        return []

    def _show(self, token: int, text: str) -> None:
        self.text += text
        self.request.on_piece(Piece(token, self.log_probs[-1] if self.log_probs else 0.0, text))

    def end(self, why: str) -> None:
        """End the text: what was held back comes out."""
        self.finish = why
        shown = self.stops.add(self.stream.end())
        if self.stops.ended:
            self.finish = "stop"
        self._show(-1, shown + self.stops.end())

    def sample(self) -> Sample:
        return Sample(self.new_tokens, self.log_probs, self.text, self.finish, self.version)


class Node(Reading):
    """A piece of a tree's tokens, behind that of its parent; the pieces that may follow it begin with
    different tokens. scores: (log-probability, likeliest or not) of each of its tokens. root, open_nodes: the
    piece of the context, and there the nodes that are not done."""

    def __init__(self, before: list[int], piece: list[int], options: dict[int, list[int]]) -> None:
        """options: those that begin with `piece`, by their numbers, from `piece` on."""
        groups: dict[int, dict[int, list[int]]] = {}
        self.ends, length = [], len(piece)
        for number, option in options.items():
            if len(option) == length:
                self.ends.append(number)
            else:
                groups.setdefault(option[length], {})[number] = option[length:]
        tokens = before + piece
        self.piece, self.scores = piece, list[tuple[float, bool]]()
        self.children = [Node(tokens, _common(list(group.values())), group) for group in groups.values()]
        # The last token of a leaf is scored, but nothing is asked of what follows it.
        super().__init__(tokens if self.children else tokens[:-1], len(before))
        self.own, self.root, self.open_nodes = len(before), self, 0
        blocks = -(-len(self.tokens) // BLOCK) - self.own // BLOCK
        self.reserve = blocks + sum(child.reserve for child in self.children)

    def take(self, logits: Logits, row: int, first: int, count: int) -> list[Reading]:
        length = self.own + len(self.piece)
        for place in range(count):
            following = first + place + 1
            if following < length:
                self._score(logits, row + place, self.piece[following - self.own], self)
            else:
                for child in self.children:
                    self._score(logits, row + place, child.piece[0], child)
        return list(self.children) if self.unread == 0 else []

    def _score(self, logits: Logits, row: int, token: int, node: "Node") -> None:
        node.scores.append((logits.log_prob(row, token), int(logits.best[row]) == token))

    def begin(self) -> None:
        """Make it the root: only what follows its last token is asked of it, and it is done when all below it
        are."""
        self.wants_from = len(self.tokens) - 1
        below = [self]
        for node in below:
            below += node.children
            node.root = self
        self.open_nodes = len(below)

    def close(self) -> None:
        self.root.open_nodes -= 1

    def collect(self, before: list[tuple[float, bool]], into: dict[int, OptionScore]) -> None:
        """Put the scores of all options that end in it or below it, with those of the tokens before."""
        scores = before + self.scores
        for number in self.ends:
            into[number] = OptionScore([value for value, _ in scores], all(best for _, best in scores))
        for child in self.children:
            child.collect(scores, into)


def _common(rows: list[list[int]]) -> list[int]:
    """What rows of tokens have in common at their beginning."""
    shortest = min(rows, key=len)
    pairs = enumerate(shortest)
    end = next((i for i, token in pairs if any(row[i] != token for row in rows)), len(shortest))
    return shortest[:end]
