"""Settings of the tokenizer, the token shards and the mixture."""

from typing import Literal

from pydantic import Field, model_validator

from puna.run.settings import Settings, not_hashed


class TokenizerSettings(Settings):
    """SentencePiece BPE as in the paper, section 2.1: digits of every script split, bytes for unknown
    characters."""

    vocab_size: int = Field(
        32_000, ge=260, le=1 << 31, description="pieces, the 256 bytes and 3 control pieces included"
    )
    character_coverage: float = Field(
        0.9995, ge=0.98, le=1, description="share of characters that get a piece; the rest become bytes"
    )
    training_bytes: int = Field(
        50_000_000,
        ge=1,
        description="at most this much text trains the tokenizer, evenly from every source, all over each",
    )


class MixtureSource(Settings):
    """How much of one source training sees: a share of all tokens, or a number of epochs."""

    share: float | None = Field(None, gt=0, le=1, description="share of the training tokens")
    epochs: float | None = Field(None, gt=0, description="times the source is seen, relative to the others")


class TokensSettings(Settings):
    """Token shards and the mixture of sources."""

    held_out_fraction: float = Field(
        0.02,
        gt=0,
        lt=0.5,
        description="share of documents, by hash, kept for validation and scores; at least 8 a source of 16",
    )
    held_out_bytes: int = Field(
        0,
        ge=0,
        description="of sources whose held-out documents have fewer bytes of text, more documents are held "
        "out until they have as many, but at most a fifth of the source",
    )
    maximum_epochs: float = not_hashed(
        4.0, gt=0, description="a source asked to be seen more often than this is refused"
    )
    small_sources: Literal["refuse", "leave out"] = not_hashed(
        "refuse",
        description="what becomes of sources with fewer than two documents, of which one would be held out",
    )
    mixture: dict[str, MixtureSource] = Field(
        default_factory=dict, description="per source; empty: every source in proportion to its size"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "TokensSettings":
        entries = self.mixture.values()
        if entries and not all(
            (e.share is None) != (e.epochs is None)
            and (e.share is None) == (next(iter(entries)).share is None)
            for e in entries
        ):
            raise ValueError("give every source of the mixture a share, or every one a number of epochs")
        shares = [entry.share for entry in entries if entry.share is not None]
        if shares and abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"the shares of the mixture add up to {sum(shares):g} instead of 1")
        return self
