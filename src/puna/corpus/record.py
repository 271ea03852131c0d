"""A record: what readers yield, what goes through the steps, and the columns that stay in the corpus."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from puna.errors import UserError
from puna.run import artifact

DAMAGED = "damaged file"  # reason of the record that reports damage of a raw file
EXCERPT = 500  # characters kept of a dropped document, to check the filter by
# Returns the reason why a URL is opted out, "" for one that is not; None if nothing is opted out.
Refuses = Callable[[str], str] | None


@dataclass(frozen=True, slots=True)
class RawDocument:
    """Text of one record of a raw file, before any cleaning or filtering, but without invisible characters.

    url: address where it was published, or a stable name inside its file. offset: start of the record in its
    raw file, in bytes where the format has byte positions, else a running number. raw_digest: digest of the
    raw record that the text was extracted from. whole: characters of what the text was cut from, 0 where
    nothing was cut; cut: what was, as "boilerplate". date: the day on which it was captured or last changed,
    as its source says, "2024-03-31"; "" unknown.
    """

    url: str
    text: str
    offset: int
    raw_digest: str
    title: str = ""
    licence: str = ""
    whole: int = 0
    cut: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        from puna.text.invisible import without_invisible  # which loads numpy

        object.__setattr__(self, "text", without_invisible(self.text))
        object.__setattr__(self, "title", without_invisible(self.title))


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


@dataclass(slots=True)
class Record:
    """One record of a raw file on its way through the steps: a document, as long as it has no reason.

    id: digest of the text, so equal texts have equal ids whatever their source; "" until it is taken, and for
    good where no text was found. source, url, file, offset: where it comes from; title, licence, date,
    raw_digest: as in RawDocument. perplexity, bucket (head, middle, tail) and reference_score are None where
    the source does not ask for them. left_out: what was cut from it, with the characters of each cut, as
    "boilerplate 1,205, repeated lines 80"; left_out_characters: their sum. size: of the text, in bytes.
    reason: why it was dropped, a short fixed phrase; "" while it is in. detail: for people, more about the
    reason, or what was replaced in the text. repeats: id of the document that it repeats, if that is why.
    """

    id: str = ""
    source: str = ""
    url: str = ""
    title: str = ""
    licence: str = ""
    date: str = ""
    file: str = ""
    offset: int = 0
    raw_digest: str = ""
    language: str = ""
    language_score: float = 0.0
    alphanumeric_fraction: float = 0.0
    mean_line_length: float = 0.0
    perplexity: float | None = None
    bucket: str | None = None
    reference_score: float | None = None
    left_out: str = ""
    left_out_characters: int = 0
    text: str = ""
    size: int = 0
    reason: str = ""
    detail: str = ""
    repeats: str = ""
    # Arrays, which stand in files of their own between the steps.
    line_hashes: Any = None  # uint64 [lines]
    kept_lines: Any = None  # bool [lines], of those that did not come before
    signature: Any = None  # of MinHash, uint32 [k]

    def identify(self) -> None:
        """Take id and size of the text."""
        self.id, self.size = digest(self.text), len(self.text.encode())

    def change(self, text: str, cut: str) -> None:
        """Replace the text by what is left of it. cut: what went.

        What was measured of it is to be taken anew, but for its language and scores.
        """
        self.leave_out(cut, len(self.text) - len(text))
        self.text, self.id, self.size, self.signature = text, "", 0, None

    def leave_out(self, cut: str, characters: int) -> None:
        """Tell what was cut from the text, if anything."""
        if characters > 0:
            self.left_out = f"{self.left_out}{', ' * bool(self.left_out)}{cut} {characters:,}"
            self.left_out_characters += characters

    def drop(self, reason: str, detail: str = "", repeats: str = "") -> None:
        """Give the reason why it does not come into the corpus; of its text an excerpt stays."""
        if not self.id:
            self.identify()
        self.reason, self.detail, self.repeats = reason, detail or self.detail, repeats
        self.text = self.excerpt

    @property
    def excerpt(self) -> str:
        """The beginning of the text."""
        return self.text[:EXCERPT]


@functools.cache
def document_schema() -> Any:
    """Return the Arrow schema of a document in the corpus: the attributes of its Record up to the text."""
    import pyarrow as pa

    columns = list(record_schema())
    return pa.schema(columns[: 1 + record_schema().get_field_index("text")])


@functools.cache
def record_schema() -> Any:
    """Return the Arrow schema of a record between two steps: its attributes in order, without arrays."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float32()}
    kinds = {field.name: (get_args(field.type) or (field.type,))[0] for field in fields(Record)}
    return pa.schema([(name, types[kind]) for name, kind in kinds.items() if kind in types])


@functools.cache
def score_schema() -> Any:
    """Return the Arrow schema of a record's scores."""
    import pyarrow as pa

    return pa.schema([("perplexity", pa.float32()), ("reference_score", pa.float32())])


@functools.cache
def dropped_schema() -> Any:
    """Return the Arrow schema of the list of dropped records."""
    import pyarrow as pa

    names = ("source", "file", "offset", "url", "reason", "detail", "repeats", "left_out")
    return pa.schema([*(record_schema().field(name) for name in names), ("excerpt", pa.string())])


def documents_folder(run: Path) -> Path:
    """Return the folder of a run's documents: of its last finished run, or `run` itself where it is one.

    Raises UserError where there is none, and where it is not known which of several it is.
    """
    return run if (run / "dropped.parquet").is_file() else artifact.current(run, "documents")
