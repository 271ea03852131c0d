"""An engine as plain as can be: no cache, one row at a time, the whole context for every token."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from puna.generate import engine
from puna.generate.load import Loaded


class Tree(NamedTuple):
    context: list[int]
    options: list[list[int]]


class OptionScore(NamedTuple):
    log_probs: list[float]
    is_greedy: bool


class Sample(NamedTuple):
    tokens: list[int]
    log_probs: list[float]
    text: str
    finish: str


class Sampling(NamedTuple):
    temperature: float = 0.0
    top_p: float = 1.0


class Stop(Exception):
    """A kill, at a place that a test chooses."""


class Engine:
    """asked: how many trees and samples there were. stop_after: a kill after so many."""

    mode = "float32"
    memory_bytes = 0

    def __init__(self, loaded: Loaded, stop_after: int = -1) -> None:
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.asked, self.stop_after = 0, stop_after

    def _count(self) -> None:
        if self.asked == self.stop_after:
            raise Stop
        self.asked += 1

    @torch.inference_mode()
    def log_probs(self, ids: list[int]) -> Any:
        assert 0 < len(ids) <= self.model.config.max_seq_len
        logits = self.model(torch.tensor([ids]))[0, :, : self.tokenizer.vocab_size]
        return logits.double().log_softmax(-1)

    def score(self, trees: Iterable[Tree]) -> Iterator[tuple[int, list[OptionScore]]]:
        """From the last tree to the first: an order that nothing may rest on."""
        for number, tree in sorted(enumerate(trees), reverse=True):
            if tree.options != [[0]]:  # the timing of the cost
                self._count()
            told = []
            for option in tree.options:
                rows = self.log_probs([*tree.context, *option[:-1]])[len(tree.context) - 1 :]
                chosen = [float(row[token]) for row, token in zip(rows, option, strict=True)]
                told.append(OptionScore(chosen, rows.argmax(-1).tolist() == option))
            yield number, told

    def sample(
        self,
        prompts: list[list[int]],
        *,
        n: int = 1,
        max_new_tokens: int,
        sampling: Any = None,
        stops: Sequence[str] = (),
        seed: int = 0,
        first_sample: int = 0,
    ) -> Iterator[tuple[int, int, Sample]]:
        temperature = sampling.temperature if sampling else 0.0
        for number in range(first_sample, first_sample + n):
            for place, prompt in enumerate(prompts):
                if sampling:
                    self._count()
                bits = hashlib.sha256(repr((seed, prompt, number)).encode()).digest()[:7]
                chance = torch.Generator().manual_seed(int.from_bytes(bits, "big"))
                ids, told, text, finish = list(prompt), [], "", "length"
                for _ in range(max_new_tokens):
                    row = self.log_probs(ids)[-1]
                    weights = (row / (temperature or 1.0)).softmax(-1)
                    token = int(
                        torch.multinomial(weights, 1, generator=chance) if temperature else row.argmax()
                    )
                    if token == self.tokenizer.eos_id:
                        finish = "stop"
                        break
                    ids.append(token)
                    told.append(float(row[token]))
                    text = self.tokenizer.decode(ids[len(prompt) :])
                    found = [text.index(stop) for stop in stops if stop in text]
                    if found:
                        text, finish = text[: min(found)], "stop"
                        break
                yield place, number, Sample(ids[len(prompt) :], told, text, finish)


for name, value in {"Tree": Tree, "Sampling": Sampling, "Engine": Engine}.items():
    if not hasattr(engine, name):
        setattr(engine, name, value)
