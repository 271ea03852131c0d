"""Lists of names and patterns, and texts to fill in, that lie in files beside the code that reads them."""

import json
import string
from pathlib import Path
from typing import Any


def listed(code: str, name: str) -> Any:
    """Return what is in the file `name` beside a module, whose `__file__` is `code`."""
    return json.loads(Path(code).with_name(name).read_text(encoding="utf-8"))


def filled(code: str, name: str, **values: str) -> str:
    """Return the text in the file `name` beside a module, with the value of each $word in it.

    Raises KeyError for a word without a value.
    """
    text = Path(code).with_name(name).read_text(encoding="utf-8")
    return string.Template(text).substitute(values)
