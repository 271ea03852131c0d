"""What readers yield for a record of a raw file; Arrow schemas of a document with its lineage; its folder."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.run import artifact

DAMAGED = "damaged file"  # reason of the row that reports damage of a raw file
# Returns the reason why a URL is opted out, "" for one that is not; None if nothing is opted out.
Refuses = Callable[[str], str] | None


@dataclass(frozen=True, slots=True)
class RawDocument:
    """Text of one record of a raw file, before any cleaning or filtering.

    url: address where it was published, or a stable name inside its file. offset: start of the record in its
    raw file, in bytes where the format has byte positions, else a running number. raw_digest: digest of the
    raw record that the text was extracted from.
    """

    url: str
    text: str
    offset: int
    raw_digest: str
    title: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """Record of a raw file that yields no document. reason: a short fixed phrase, by which it is counted."""

    reason: str
    url: str
    offset: int


class TruncatedFile(UserError):
    """Raised where a raw file ends, or cannot be read on, inside a record.

    url and offset are those of that record. The reader yields no SkippedRecord for it, so that it is counted
    once, as damage of the file.
    """

    def __init__(self, message: str, url: str, offset: int) -> None:
        super().__init__(message)
        self.url, self.offset = url, offset


def digest(raw: bytes | str) -> str:
    """Return the first 32 hex digits (128 bits) of SHA-256, the identity of a record or document."""
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogatepass")
    return hashlib.sha256(raw).hexdigest()[:32]


@functools.cache
def document_schema() -> Any:
    """Return the Arrow schema of a document in the corpus.

    `id` is the digest of the text, so equal texts have equal ids whatever their source. `perplexity`,
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
    """Return the Arrow schema of a record on its way through the steps: a document's columns and three more.

    `size` is the bytes of the text, `reason` why the record was dropped ("" while it is not), and `detail`
    says more about the reason, or what was replaced in the text.
    """
    import pyarrow as pa

    return pa.schema(
        [*document_schema(), ("size", pa.int64()), ("reason", pa.string()), ("detail", pa.string())]
    )


def documents_folder(run: Path) -> Path:
    """Return the folder of a run's documents: of its last finished run, or `run` itself where it is one.

    Raises UserError where there is none, and where it is not known which of several it is.
    """
    return run if (run / "dropped.parquet").is_file() else artifact.current(run, "documents")
