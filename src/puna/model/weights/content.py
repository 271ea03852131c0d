"""What decides the weights of a file or folder: digests of its files, taken without reading a weight."""

from pathlib import Path
from typing import Any

from puna.run.digests import cached_digest


def content(path: Path | None) -> dict[str, Any]:
    """Digests of a file of weights, or of a folder's files, and of what an adapter is added to; nothing for
    None."""
    from puna.model.weights import peft

    if path is None:
        return {}
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.is_file())
    if path.suffix == ".bin" and (beside := path.with_name("tokenizer.bin")).is_file():  # llama2.c's
        files.append(beside)
    told = [one for one in files if not one.name.startswith(".") and one.suffix.lower() != ".md"]
    found: dict[str, Any] = {"base": {one.name: cached_digest(one) for one in told}}
    if peft.recognises(path):
        found["below"] = content(peft.base_path(path))
    return found
