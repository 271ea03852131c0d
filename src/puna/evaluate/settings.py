"""Settings of the scores of a trained model."""

from pydantic import Field

from puna.run.settings import Settings


class EvaluateSettings(Settings):
    """Bits per byte on held-out documents, and samples."""

    held_out_tokens: int = Field(
        500_000, ge=1, description="held-out tokens a source that are scored, whole documents from all over"
    )
    ngram: bool = Field(True, description="whether a 5-gram model is trained and scored beside the model")
    ngram_tokens: int = Field(
        20_000_000,
        ge=1,
        description="training tokens that the 5-gram learns from at most, whole documents from all over, of "
        "every source in proportion to its size; it takes up to 130 bytes of memory a token",
    )
    prompts: tuple[str, ...] = Field(
        ("The ",), description="beginnings that the model continues for the report"
    )
    sample_tokens: int = Field(120, ge=1, description="tokens a sample")
    temperature: float = Field(
        0.8, ge=0, description="of samples: logits are divided by it; 0 takes the likeliest token"
    )
    top_p: float = Field(
        0.95, gt=0, le=1, description="of samples: the likeliest tokens that together have this probability"
    )
