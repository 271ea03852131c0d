"""One engine that continues prompts and scores continuations, many at once.

Sequences join and leave at every step. A step reads rows, one for each text that grows first, then pieces of
prompts, up to `rows` of them. Prompts that begin alike share the blocks of their beginnings; one that begins
like a prompt that is being read waits for it. Keys and values take at most `memory_bytes`: a sequence is only
begun when all that it may need fits.

With the compiled decoder (a CPU, float32, a C++ compiler) log-probabilities do not depend on what else is
read, on the order of arrival, on what is known already or on `rows`, bit by bit.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from puna.errors import UserError
from puna.generate.blocks import Blocks
from puna.generate.decoder import BLOCK, Batch, block_bytes, decoder, log_sums
from puna.generate.sampling import NOT_FINITE, Sampling
from puna.generate.sequences import Logits, Node, OptionScore, Piece, Reading, Request, Sample, Tree, Writing
from puna.model.llama import Llama
from puna.run.threads import Cores
from puna.tokens.text_tokenizer import TextTokenizer

__all__ = ["Engine", "OptionScore", "Piece", "Request", "Sample", "Sampling", "Tree"]

MEMORY_BYTES = 1 << 30  # of keys and values; pages are the system's until they are written to
ROWS = 256  # of a step: enough that products run at their full speed
LOOK_AHEAD = 64  # sequences that are looked at for the next one to begin
# Weights of a model whose steps are done before a second thread has begun.
SMALL_BYTES = 16_000_000
LOOK_SECONDS = 0.25  # between two looks at what else runs
Asked = TypeVar("Asked")
One = TypeVar("One", bound=Reading)


class Engine:
    """Generates with a model and its tokenizer, on the model's device.

    mode: "float32", or "bfloat16" or "int8" weights, whose numbers are others. A model in another precision,
    or on a GPU, is computed in its own. version: counts updates of the weights, from 0.
    """

    def __init__(
        self,
        model: Llama,
        tokenizer: TextTokenizer,
        *,
        memory_bytes: int = MEMORY_BYTES,
        mode: str = "float32",
        rows: int = ROWS,
    ) -> None:
        self.model, self.tokenizer, self.rows, self.version = model, tokenizer, rows, 0
        self.context = model.config.max_seq_len
        count = max(1, memory_bytes // block_bytes(model, model.tok_embeddings.weight.element_size()))
        self.blocks = Blocks(count)
        self.decoder = decoder(model, count, mode)
        self.waiting: list[Reading] = []
        self.running: list[Reading] = []
        self._reserved = 0
        self._threads = Threads(model)

    def submit(self, request: Request) -> Writing:
        """Queue a prompt; `step` goes on with it. Its `finish` is set when it is done.

        Raises UserError for an empty prompt, for tokens that the model does not have, and for what passes the
        context or the memory.
        """
        prompt, limit = request.prompt, self.context
        if request.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is 1 or more, not {request.max_new_tokens}")
        if len(prompt) + request.max_new_tokens > limit:
            raise UserError(
                f"a prompt has {len(prompt)} tokens; with {request.max_new_tokens} new ones it passes the "
                f"model's {limit}"
            )
        self._check(prompt)
        writing = Writing(request, self.tokenizer)
        writing.reserve = -(-(len(prompt) + request.max_new_tokens) // BLOCK)
        self._queue(writing)
        return writing

    def cancel(self, writing: Writing) -> None:
        """End a text at once; its blocks are free again. Nothing happens to one that is done."""
        if writing.finish:
            return
        writing.end("cancelled")
        if writing in self.waiting:
            self.waiting.remove(writing)
        else:
            self._leave(writing)

    def sample(
        self,
        prompts: Sequence[list[int]],
        *,
        n: int = 1,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        stops: Sequence[str] = (),
        seed: int = 0,
        first_sample: int = 0,
    ) -> Iterator[tuple[int, int, Sample]]:
        """(prompt, number, sample) of n samples of each prompt, numbered from `first_sample`, as they finish.

        A sample depends on the seed, the tokens of its prompt and its number alone. Raises UserError as
        `submit` does.
        """
        how = sampling or Sampling()

        def begin(place: tuple[int, int]) -> Writing:
            prompt, number = place
            return self.submit(Request(prompts[prompt], max_new_tokens, how, stops, None, seed, number))

        wanted = itertools.product(range(len(prompts)), range(first_sample, first_sample + n))
        for place, writing in self._as_they_finish(wanted, begin, lambda writing: writing.finished):
            yield *place, writing.sample()

    def score(self, trees: Iterable[Tree]) -> Iterator[tuple[int, list[OptionScore]]]:
        """(number of the tree, scores of its options), as they are done.

        What options, and contexts, have in common at their beginnings is read once. Raises UserError for an
        empty context or option, and for what passes the context or the memory.
        """
        planted = self._as_they_finish(
            enumerate(trees), lambda asked: self._plant(asked[1]), lambda root: root.open_nodes == 0
        )
        for (number, _), root in planted:
            scores: dict[int, OptionScore] = {}
            for child in root.children:
                child.collect([], scores)
            yield number, [scores[option] for option in range(len(scores))]

    def _as_they_finish(
        self, wanted: Iterable[Asked], begin: Callable[[Asked], One], is_done: Callable[[One], bool]
    ) -> Iterator[tuple[Asked, One]]:
        """Begin what is wanted, LOOK_AHEAD at once, and go on until all is done; what was asked, with what
        came of it."""
        source, more = iter(wanted), True
        open_ones: list[tuple[Asked, One]] = []
        while more or open_ones:
            room = max(0, LOOK_AHEAD - len(self.waiting))
            begun = [(asked, begin(asked)) for asked in itertools.islice(source, room)]
            more, open_ones = more and len(begun) == room, open_ones + begun
            self.step()
            done = [(asked, one) for asked, one in open_ones if is_done(one)]
            open_ones = [(asked, one) for asked, one in open_ones if not is_done(one)]
            yield from done

    def update(self, model: Llama) -> None:
        """Take the weights of a model of the same shape; texts that are being written read their beginnings
        anew. Raises ValueError while trees are scored, or for another shape."""
        if model.config != self.model.config:
            raise ValueError("new weights are for a model of the same shape")
        if any(isinstance(one, Node) for one in self.running):
            raise ValueError("scores of one tree come from one model: update when all trees are done")
        for one in self.running:
            one.reserve += len(one.blocks)
            one.blocks, one.read, one.wants_from = [], 0, len(one.tokens) - 1
        self.waiting, self.running, self._reserved = self.running + self.waiting, [], 0
        self.model, self.version = model, self.version + 1
        self.blocks.forget()
        self.decoder.load(model)

    @torch.inference_mode()
    def step(self) -> bool:
        """Read some rows more; False where there is nothing to read."""
        self._admit()
        batch, chosen = self._plan()
        if batch is None:
            return False
        with self._threads:
            logits = self._logits(self.decoder.read(batch))
        row = 0
        for one, count in chosen:
            first = max(one.wants_from, one.read)
            wanted = max(0, one.read + count - first)
            one.read += count
            self._name(one)
            if wanted:
                if isinstance(one, Writing):
                    one.version = self.version
                followers = one.take(logits, row, first, wanted)
                row += wanted
                self._follow(one, followers)
        return True

    def _logits(self, rows: torch.Tensor) -> Logits:
        """Raises UserError for logits that are not finite."""
        sums = log_sums(rows)
        if not np.isfinite(sums).all():
            raise UserError(NOT_FINITE)
        best = rows.argmax(-1).cpu().numpy() if len(rows) else np.zeros(0, dtype=np.int64)
        return Logits(rows.cpu().numpy(), sums, best)

    def _check(self, tokens: list[int]) -> None:
        size = self.model.config.vocab_size
        if not tokens:
            raise UserError("a prompt is empty: give it at least the begin token")
        if not 0 <= min(tokens) <= max(tokens) < size:
            raise UserError(f"tokens are 0 to {size - 1}, not {min(tokens)} to {max(tokens)}")

    def _plant(self, tree: Tree) -> Node:
        """Queue a tree."""
        longest = max((len(option) for option in tree.options), default=0)
        if not tree.options or not all(tree.options):
            raise UserError("an option is empty: at least one token is scored")
        if len(tree.context) + longest - 1 > self.context:
            raise UserError(
                f"a context of {len(tree.context)} tokens and an option of {longest} pass the model's "
                f"{self.context}"
            )
        for tokens in (tree.context, *tree.options):
            self._check(tokens)
        options = {number: tree.context + option for number, option in enumerate(tree.options)}
        root = Node([], tree.context, options)
        root.begin()
        self._queue(root)
        return root

    def _queue(self, one: Reading) -> None:
        if one.reserve > self.blocks.count:
            per_token = block_bytes(self.model) // BLOCK
            raise UserError(
                f"keys and values of {one.reserve * BLOCK} tokens take {one.reserve * BLOCK * per_token:,} "
                f"bytes; the bound is {self.blocks.count * BLOCK * per_token:,}: raise memory_bytes"
            )
        self.waiting.append(one)

    def _admit(self) -> None:
        """Begin waiting sequences for which there is room, in their order, but those that would read again
        what another is about to make known."""
        announced = {
            (one.chain, tokens)
            for one in self.running
            if one.unread > 1 and (tokens := one.next_block()) is not None
        }
        for one in self.waiting[:LOOK_AHEAD]:
            if len(self.running) >= self.rows or self._reserved + one.reserve > self.blocks.available:
                break
            chain, matched = self._match(one)
            one.chain, one.named = chain, len(matched)
            tokens = one.next_block()
            if tokens is not None and (chain, tokens) in announced:
                one.chain, one.named = 0, 0
                continue
            if tokens is not None:
                announced.add((chain, tokens))
            for block in matched:
                self.blocks.share(block)
            one.blocks, one.read = matched, len(matched) * BLOCK
            one.reserve -= len(matched)
            self._reserved += one.reserve
            self.waiting.remove(one)
            self.running.append(one)

    def _match(self, one: Reading) -> tuple[int, list[int]]:
        """The chain of known blocks that a sequence begins with, and the blocks."""
        chain, matched = 0, list[int]()
        for end in range(BLOCK, one.wants_from + 1, BLOCK):
            found = self.blocks.find(chain, tuple(one.tokens[end - BLOCK : end]))
            if found is None:
                break
            matched.append(found[0])
            chain = found[1]
        return chain, matched

    def _plan(self) -> tuple[Batch | None, list[tuple[Reading, int]]]:
        """The rows of the next step: texts that grow first, then prompts."""
        left, chosen = self.rows, list[tuple[Reading, int]]()
        for one in sorted(self.running, key=lambda one: one.unread > 1):
            count = min(one.unread, left)
            if count == 0:
                break
            left -= count
            for _ in range(len(one.blocks), -(-(one.read + count) // BLOCK)):
                self._take_block(one)
            chosen.append((one, count))
        if not chosen:
            return None, []
        firsts = list(itertools.accumulate((count for _, count in chosen), initial=0))
        tables = np.zeros((len(chosen), max(len(one.blocks) for one, _ in chosen)), dtype=np.int32)
        tokens, runs, wanted = list[int](), list[tuple[int, int, int]](), list[int]()
        for number, (one, count) in enumerate(chosen):
            tables[number, : len(one.blocks)] = one.blocks
            tokens += one.tokens[one.read : one.read + count]
            runs.append((firsts[number], count, one.read))
            skipped = max(0, one.wants_from - one.read)
            wanted += range(firsts[number] + skipped, firsts[number] + count)
        arrays = (np.array(runs, dtype=np.int32), tables, np.array(wanted, dtype=np.int32))
        return Batch(np.array(tokens, dtype=np.int64), *arrays), chosen

    def _take_block(self, one: Reading) -> int:
        block = self.blocks.take()
        one.blocks.append(block)
        one.reserve -= 1
        self._reserved -= 1
        return block

    def _name(self, one: Reading) -> None:
        """Make the full blocks known that a sequence has read."""
        while (one.named + 1) * BLOCK <= one.read:
            tokens = tuple(one.tokens[one.named * BLOCK : (one.named + 1) * BLOCK])
            one.chain = self.blocks.name(one.chain, tokens, one.blocks[one.named])
            one.named += 1

    def _follow(self, one: Reading, followers: list[Reading]) -> None:
        """Begin what follows a piece of a tree, and end what is done."""
        for follower in followers:
            whole = one.read // BLOCK
            follower.blocks = one.blocks[:whole]
            for block in follower.blocks:
                self.blocks.share(block)
            follower.chain, follower.named, follower.read = one.chain, whole, one.read
            one.reserve -= follower.reserve
            if follower.unread == 0:
                follower.close()
                self._reserved -= follower.reserve
                self.blocks.release(follower.blocks)
                continue
            if one.read % BLOCK:
                self.decoder.copy(one.blocks[whole], self._take_block(follower))
            self.running.append(follower)
        if one.finished:
            self._leave(one)

    def _leave(self, one: Reading) -> None:
        one.close()
        self._reserved -= one.reserve
        self.running.remove(one)
        self.blocks.release(one.blocks)
        one.blocks = []


class Threads:
    """torch's threads while a model generates: one for a small model, else one a core that is free."""

    def __init__(self, model: Llama) -> None:
        self.cores = Cores()
        weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        self.small = weights < SMALL_BYTES
        self.chosen: int | None = 1 if self.small else None

    def __enter__(self) -> "Threads":
        """Look what else runs, if that was some time ago."""
        self.before = torch.get_num_threads()
        if not self.small and self.cores.seconds() > LOOK_SECONDS:
            self.chosen = self.cores.free()
        torch.set_num_threads(min(self.before, self.chosen or self.before))
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)
