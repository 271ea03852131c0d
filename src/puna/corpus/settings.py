"""Settings of the corpus: which raw data, how each is read, what is kept."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from puna.run.settings import not_hashed

BYTES_PER_LINE = 16  # of memory, for a remembered line
Reader = Literal[
    "warc",
    "html",
    "wikipedia",
    "stackexchange",
    "arxiv",
    "book",
    "text",
    "code",
    "github",
    "lines",
    "jsonl",
    "none",
]


def _known_languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Raise ValueError for codes that the language model does not have: they would drop a whole source."""
    if codes:
        from puna.corpus.filters import language

        if wrong := language.unknown(codes):
            raise ValueError(wrong)
    return codes


Languages = Annotated[tuple[str, ...], AfterValidator(_known_languages)]


class SourceSettings(BaseModel):
    """One source: raw files of one format, and which of the optional steps its documents go through."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name used in mixtures, tables and file names"
    )
    reader: Reader = Field(description="the format of the raw files; docs/own-data.md says what each reads")
    uris: tuple[str, ...] = Field(
        min_length=1,
        description="paths (globs), https://HOST/FILE#sha256=HEX or pypi:NAME==VERSION/WHEEL#sha256=HEX, "
        "each with !MEMBERS (a glob) for files in an archive",
    )
    licence: str = Field("", description="licence of documents that do not name their own")
    origin: Literal["", "public", "licensed", "private", "crawled", "user", "synthetic"] = Field(
        "",
        description="under what the public summary lists it; default: by its reader, and files of your own "
        "are left open",
    )
    languages: Languages | None = Field(
        None, description="languages kept in this source; default: corpus.languages; [] keeps all"
    )
    ccnet: Literal["off", "on", "exact"] = Field(
        "off",
        description="CCNet's line deduplication before the language is identified: on keeps the first copy "
        "of a line; exact does as CCNet's code does: no copy of a repeated line stays, words are glued where "
        "lines end, and a document needs 300 characters",
    )
    c4: bool = Field(
        False,
        description="the page heuristics of C4; of three sentences in a row that come again, in any such "
        "source, the first copy stays (but where it overlaps with its own repeat)",
    )
    perplexity: bool = Field(False, description="filter by corpus.perplexity")
    reference: bool = Field(False, description="filter by corpus.reference")
    books: bool = Field(
        False, description="a book whose content overlaps with an earlier one's by more than 90% is dropped"
    )


class PerplexitySettings(BaseModel):
    """CCNet's quality filter: a Kneser-Ney n-gram model over SentencePiece pieces, trained on your text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    train_on: tuple[str, ...] = Field(
        min_length=1, description="sources whose documents the model learns from, such as wikipedia"
    )
    training_bytes: int = Field(1_000_000_000, ge=1, description="most text taken for that")
    vocab_size: int = Field(
        65_536, ge=300, le=65_536, description="SentencePiece pieces; fewer where the text cannot fill them"
    )
    order: int = Field(
        5, ge=1, le=6, description="pieces of an n-gram, the last of which is predicted (CCNet: 5)"
    )
    percentiles: tuple[float, float] = Field(
        (30, 60), description="of the corpus at hand: head below the first, tail above the second"
    )

    @field_validator("percentiles")
    @classmethod
    def _ascend(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] < value[1] < 100:
            raise ValueError(
                f"two numbers between 0 and 100, the smaller first, such as [30, 60], not {list(value)}"
            )
        return value

    keep: tuple[Literal["head", "middle", "tail"], ...] = Field(
        ("head", "middle"), min_length=1, description="parts kept"
    )


class ReferenceSettings(BaseModel):
    """The paper's linear classifier: pages that Wikipedia cites against random pages."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    citations_from: tuple[str, ...] = Field(
        min_length=1, description="sources with the reader wikipedia whose articles name the cited pages"
    )
    recall: float = Field(0.9, gt=0, le=1, description="share of cited pages that the threshold keeps")
    negatives: int = Field(300_000, ge=1, description="most random pages taken to train")


class OptOutSettings(BaseModel):
    """Files that say whose pages are not to be used.

    The text of such a page in a web archive, a dump or GitHub's rows is not even extracted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: str = Field("", description="file of URL patterns, one a line")
    domains: str = Field(
        "", description="file of domains, one a line; a domain stands for its subdomains, too"
    )
    robots: str = Field(
        "", description="file in the manner of robots.txt, with a Host line before the rules of each host"
    )

    def paths(self) -> tuple[str, ...]:
        return tuple(path for path in (self.patterns, self.domains, self.robots) if path)


class CorpusSettings(BaseModel):
    """What goes into the corpus and the filters that every source passes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    root: str = not_hashed(
        ".", description="folder that relative file URIs start from, itself relative to the recipe's folder"
    )
    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    languages: Languages = Field(("en",), description="languages kept (fastText lid.176 codes); [] keeps all")
    language_score: float = Field(0.5, ge=0, le=1, description="smallest language score kept (CCNet: 0.5)")
    minimum_characters: int = Field(200, ge=1, description="shorter documents are dropped")
    near_duplicate_threshold: float = Field(
        0.8,
        gt=0,
        le=1,
        description="documents that share this much (Jaccard, of word 5-grams) with an earlier one of any "
        "source are dropped; 1: equal ones only",
    )
    deduplicate_against: str = Field(
        "",
        description="a run whose documents, and those that it knew, count as earlier ones; from corpus.root, "
        "such as out/first-dump",
    )
    perplexity: PerplexitySettings | None = None
    reference: ReferenceSettings | None = None
    opt_out: OptOutSettings = OptOutSettings()
    bad_words: str = Field(
        "",
        description="file of words, one a line; under c4, a page with one of them is dropped. None comes "
        "with Puna",
    )
    privacy: tuple[Literal["email", "phone", "ip"], ...] = Field(
        (), description="what is replaced by a placeholder in every text, title and address"
    )
    on_damaged_file: Literal["stop", "skip"] = Field(
        "stop", description="a truncated or unreadable raw file ends the run, or is counted"
    )
    remembered_lines: int = Field(
        31_250_000,
        ge=62_500,
        description="lines, under ccnet, and sentences, under c4, that are known as seen; then all are "
        "forgotten and a new scope begins. 16 bytes of memory each",
    )

    @property
    def uses_minhash(self) -> bool:
        """Whether near-duplicates are looked for."""
        return self.near_duplicate_threshold < 1

    @property
    def text_sources(self) -> tuple[str, ...]:
        """Names of the sources that may give documents."""
        return tuple(source.name for source in self.sources if source.reader != "none")

    @property
    def remembered_bytes(self) -> int:
        """Memory of the remembered lines."""
        return BYTES_PER_LINE * self.remembered_lines

    @model_validator(mode="after")
    def _consistent(self) -> "CorpusSettings":
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if self.deduplicate_against and not self.uses_minhash:
            raise ValueError(
                "deduplicate_against needs a near_duplicate_threshold below 1: the earlier run's documents "
                "are found by its index of near-duplicates"
            )
        if "dropped" in names:
            raise ValueError("no source may be named dropped: that is the list of what was dropped")
        if twice:
            raise ValueError(f"two sources have the same name: {', '.join(twice)}")
        for key, named in (
            ("perplexity", self.perplexity and self.perplexity.train_on),
            ("reference", self.reference and self.reference.citations_from),
        ):
            if unknown := sorted(set(named or ()) - set(names)):
                raise ValueError(
                    f"{key} names no source of the corpus: {', '.join(unknown)}; "
                    f"sources are {', '.join(names)}"
                )
            if not named and (asking := [source.name for source in self.sources if getattr(source, key)]):
                raise ValueError(
                    f"source {asking[0]} asks for {key}, and corpus.{key} says not from what it is learnt"
                )
        return self
