"""A model behind an OpenAI-compatible endpoint: it writes texts for tasks, and gives no log-probabilities.

model = Endpoint("http://127.0.0.1:8000/v1")
runner.run(task, model, model, Options("paper"), folder, model.identity)
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from puna.errors import UserError
from puna.generate.engine import Sample, Sampling
from puna.generate.stops import StopStrings

TOGETHER = 8  # requests at once
SECONDS = 600.0  # that an answer may take
MOST_STOPS = 4  # that the interface takes; the others are cut off here


class Endpoint:
    """Model, tokenizer and engine at once, as far as the runner asks for them. Its ids are characters: what
    tokens a text has, and whether it is too long, the server alone knows."""

    mode, bos, bos_id = "endpoint", (), 0
    model = SimpleNamespace(config=SimpleNamespace(max_seq_len=1 << 30))

    def __init__(self, url: str) -> None:
        self.url, self.tokenizer = url.rstrip("/"), self
        self.name: str = self._ask("models")["data"][0]["id"]
        self.identity = {"model": f"{self.url} {self.name}", "tokenizer": "endpoint", "mode": self.mode}

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def score(self, trees: Iterable[Any]) -> Iterator[Any]:
        """Raises UserError for any tree: nothing is known of how likely a text is."""
        for _ in trees:
            raise UserError(f"{self.url} gives no log-probabilities: choose tasks whose answers are written")
        return iter(())

    def sample(
        self, prompts: Sequence[Sequence[int]], *, n: int = 1, max_new_tokens: int,
        sampling: Sampling | None = None, stops: Sequence[str] = (), seed: int = 0, first_sample: int = 0,
    ) -> Iterator[tuple[int, int, Sample]]:  # fmt: skip
        """Yield (prompt, number of the sample, sample), as `Engine.sample` does."""
        chance = sampling or Sampling()
        how: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "temperature": chance.temperature,
            "top_p": chance.top_p,
        }
        how |= {"model": self.name, "stop": list(stops)[:MOST_STOPS] or None}

        def ask(place: int, number: int) -> Any:
            text = "".join(map(chr, prompts[place]))
            own = zlib.crc32(f"{seed} {number} {text}".encode())
            return self._ask("completions", {**how, "prompt": text, "seed": own})["choices"][0]

        wanted = list(product(range(len(prompts)), range(first_sample, first_sample + n)))
        with ThreadPoolExecutor(TOGETHER) as workers:
            for asked, answer in zip(wanted, workers.map(ask, *zip(*wanted, strict=True)), strict=True):
                yield *asked, _cut(answer, stops)

    def _ask(self, path: str, asked: object = None) -> Any:
        return ask(f"{self.url}/{path}", asked)


def ask(url: str, asked: object = None, key: str = "") -> Any:
    """What an address answers, as JSON. asked: sent as JSON; key: of the service. Raises UserError."""
    body = None if asked is None else json.dumps(asked).encode()
    head = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urlopen(Request(url, body, head), timeout=SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        told = error.read(500).decode(errors="replace") if isinstance(error, HTTPError) else ""
        raise UserError(f"{url}: {error} {told}".rstrip()) from error


def _cut(choice: dict[str, Any], stops: Sequence[str]) -> Sample:
    """An answer up to the first of all stops."""
    held = StopStrings(stops)
    text = held.add(choice["text"]) + held.end()
    cut = not held.ended and choice.get("finish_reason") == "length"
    return Sample([], [], text, "length" if cut else "stop", 0)
