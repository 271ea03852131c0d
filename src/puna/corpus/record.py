"""The one schema of a document, with its lineage, and what a reader gives before it is cleaned."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from puna.errors import UserError

DAMAGED = "damaged file"  # the reason of a record that its raw file's damage cost
Refuses = (
    Callable[[str], str] | None
)  # url -> why it is opted out of, "" where it is not; None where nothing is


@dataclass(frozen=True, slots=True)
class Found:
    """One candidate document, as a reader found it in a raw file.

    url: where it was published, or a stable name inside its file. offset: where it starts in its raw file, in
    bytes where the format has byte positions, else as a running number. raw_digest: digest of the raw record
    the text was made from.
    """

    url: str
    text: str
    offset: int
    raw_digest: str
    title: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that a reader could not or should not turn into a document; counted by `reason`, which is a
    short fixed phrase."""

    reason: str
    url: str
    offset: int


class BrokenOff(UserError):
    """A raw file that cannot be read on inside a record, which is counted as the file's damage alone. url,
    offset: of that record."""

    def __init__(self, message: str, url: str, offset: int) -> None:
        super().__init__(message)
        self.url, self.offset = url, offset


def digest(raw: bytes | str) -> str:
    """First 32 hex digits of SHA-256: enough to name a record or a document for good."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw).hexdigest()[
        :32
    ]


@functools.cache
def document_schema() -> Any:
    """Arrow schema of a kept document.

    id is the digest of the text, so equal texts have equal ids wherever they came from. `perplexity`,
    `bucket` (head, middle, tail) and `reference_score` are null where the source does not ask for them.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("url", pa.string()),
            ("title", pa.string()),
            ("licence", pa.string()),
            ("file", pa.string()),
            ("offset", pa.int64()),
            ("raw_digest", pa.string()),
            ("language", pa.string()),
            ("language_score", pa.float32()),
            ("alphanumeric_fraction", pa.float32()),
            ("mean_line_length", pa.float32()),
            ("perplexity", pa.float32()),
            ("bucket", pa.string()),
            ("reference_score", pa.float32()),
            ("text", pa.string()),
        ]
    )


@functools.cache
def row_schema() -> Any:
    """Arrow schema of a record on its way: a document's, the bytes of its text, why it was dropped ("" while
    it is not), and more about that or about what was replaced in it."""
    import pyarrow as pa

    return pa.schema(
        [*document_schema(), ("size", pa.int64()), ("reason", pa.string()), ("detail", pa.string())]
    )
