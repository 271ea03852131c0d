"""Lists of names and patterns that lie in a JSON file beside the code that reads them."""

import json
from pathlib import Path
from typing import Any


def listed(code: str, name: str) -> Any:
    """Return what is in the file `name` beside a module, whose `__file__` is `code`."""
    return json.loads(Path(code).with_name(name).read_text(encoding="utf-8"))
