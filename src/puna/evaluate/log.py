"""What a model answered, item by item, in a file that only grows; a run that was stopped goes on from it.

A line is known again by the model's weights, the tokenizer, the task's version and profile, the seed, the
prompt's text with the number of examples in it, the item and its repeat: where any of them is another, the
model is asked anew.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.generate.load import Loaded

Key = tuple[str, int, str]  # item, repeat, prompt


def digest(*parts: Any) -> str:
    """A short digest of values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def identify(loaded: Loaded, mode: str = "float32") -> dict[str, str]:
    """Digests of a model's weights, in whatever format they came, and of its tokenizer; the engine's mode."""
    import torch

    weights = hashlib.sha256()
    for name, weight in sorted(loaded.model.state_dict().items()):
        weights.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        weights.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    tokenizer = loaded.tokenizer
    pieces = [tokenizer.piece(token) for token in range(tokenizer.vocab_size)]
    kind = type(tokenizer).__name__
    told = digest(kind, tokenizer.bos, pieces)
    return {"model": weights.hexdigest()[:16], "tokenizer": told, "mode": mode}


class Log:
    """The file of one task. identity: what all its lines must share to be known again."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self.run = path, digest(sorted(identity.items()))
        self.known: dict[Key, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            lines = file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):  # a kill cut it off
                file.truncate(sum(map(len, lines[:-1])))
                del lines[-1]
        for line in map(json.loads, lines):
            if line["run"] == self.run:
                self.known[line["item"], line["repeat"], line["prompt"]] = line

    def add(self, key: Key, **told: Any) -> None:
        """Write a line, at once."""
        item, repeat, prompt = key
        self.known[key] = line = {"run": self.run, "item": item, "repeat": repeat, "prompt": prompt, **told}
        with self.path.open("ab") as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
