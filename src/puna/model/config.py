"""The shape of a model, and the table of sizes."""

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from puna.errors import UserError

# Left out of a fingerprint where it is None, so that models without have the fingerprints they had before.
IF_SET: dict[str, Any] = {"hashed": "if set"}


class RopeScaling(BaseModel):
    """Llama 3.1's change of rotary frequencies for long contexts; names are those of Hugging Face's config.

    A frequency whose wave is longer than original_max_position_embeddings / low_freq_factor is divided by
    factor, one whose wave is shorter than original_max_position_embeddings / high_freq_factor stays, and
    between them the two are mixed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    factor: float = Field(8.0, ge=1)
    low_freq_factor: float = Field(1.0, gt=0)
    high_freq_factor: float = Field(4.0, gt=0)
    original_max_position_embeddings: int = Field(8192, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> "RopeScaling":
        if self.high_freq_factor <= self.low_freq_factor:
            low, high = self.low_freq_factor, self.high_freq_factor
            raise ValueError(f"high_freq_factor {high} is not above low_freq_factor {low}")
        return self


class LlamaConfig(BaseModel):
    """Everything that decides what the decoder computes. Names are those of Meta's release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(ge=2, description="width of the residual stream")
    n_layers: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    n_kv_heads: int = Field(
        ge=1, description="heads of keys and values; each serves n_heads / n_kv_heads query heads"
    )
    ffn_dim: int = Field(ge=1, description="inner width of SwiGLU")
    vocab_size: int = Field(ge=2)
    max_seq_len: int = Field(2048, ge=1)
    norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(10_000.0, gt=0)
    tie_embeddings: bool = False
    explicit_head_dim: int | None = Field(
        None, ge=2, json_schema_extra=IF_SET, description="width of a head where it is not dim / n_heads"
    )
    rope_scaling: RopeScaling | None = Field(None, json_schema_extra=IF_SET)

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.explicit_head_dim or self.dim // self.n_heads

    @property
    def q_dim(self) -> int:
        """Width of all query heads together; dim where none is explicit."""
        return self.n_heads * self.head_dim

    @model_validator(mode="before")
    @classmethod
    def _plain_attention(cls, values: Any) -> Any:
        """Set n_kv_heads to n_heads where it is missing: every head has its own keys and values. Forget a
        head's width that is dim / n_heads: equal models have equal configs."""
        if isinstance(values, dict) and values.get("n_kv_heads") is None:
            values = {**values, "n_kv_heads": values.get("n_heads")}
        if isinstance(values, dict) and (width := values.get("explicit_head_dim")) is not None:
            dim, heads = values.get("dim"), values.get("n_heads")
            if all(isinstance(value, int) for value in (width, dim, heads)) and width * heads == dim:
                values = {**values, "explicit_head_dim": None}
        return values

    @model_validator(mode="after")
    def _divides(self) -> "LlamaConfig":
        if self.explicit_head_dim is None and self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of n_heads {self.n_heads}")
        if self.head_dim % 2:
            name = "explicit_head_dim" if self.explicit_head_dim else "dim / n_heads"
            raise ValueError(f"{name} = {self.head_dim} is odd; rotary embedding turns pairs")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        return self

    def matrix_parameters(self) -> int:
        """Number of weights that a token is multiplied with: those of all linear layers and the head.

        The embedding, which is a look-up, and the norms do not count.
        """
        attention = 2 * self.dim * (self.q_dim + self.n_kv_heads * self.head_dim)
        return self.n_layers * (attention + 3 * self.dim * self.ffn_dim) + self.dim * self.vocab_size

    def parameters(self) -> int:
        """Number of trained weights; a tied head counts once."""
        embedding = 0 if self.tie_embeddings else self.dim * self.vocab_size
        return self.matrix_parameters() + embedding + (2 * self.n_layers + 1) * self.dim

    def flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations to train on one token.

        6 a matrix weight, and 6 q_dim per layer and position attended to, of which a causal sequence has
        (sequence_length + 1) / 2 on average, for scores and again for the weighted sum.
        """
        attention = 12 * self.n_layers * self.q_dim * (sequence_length + 1) / 2
        return 6.0 * self.matrix_parameters() + attention


SIZES: dict[str, dict[str, Any]] = {
    # The paper's table 2; ffn_dim as released: 2/3 of 4 dim, rounded up to a multiple of 256.
    "7b": {"dim": 4096, "n_layers": 32, "n_heads": 32, "ffn_dim": 11008, "vocab_size": 32000},
    "13b": {"dim": 5120, "n_layers": 40, "n_heads": 40, "ffn_dim": 13824, "vocab_size": 32000},
    "33b": {"dim": 6656, "n_layers": 60, "n_heads": 52, "ffn_dim": 17920, "vocab_size": 32000},
    "65b": {"dim": 8192, "n_layers": 80, "n_heads": 64, "ffn_dim": 22016, "vocab_size": 32000},
    # llama2.c's, each as its checkpoint of this name: tied, so an embedding counts once.
    "260k": {"dim": 64, "n_layers": 5, "n_heads": 8, "ffn_dim": 172, "vocab_size": 512, "max_seq_len": 512,
             "n_kv_heads": 4, "norm_eps": 1e-5, "tie_embeddings": True},
    "15m": {"dim": 288, "n_layers": 6, "n_heads": 6, "ffn_dim": 768, "vocab_size": 32000, "max_seq_len": 256,
            "norm_eps": 1e-5, "tie_embeddings": True},
    "42m": {"dim": 512, "n_layers": 8, "n_heads": 8, "ffn_dim": 1376, "vocab_size": 32000,
            "max_seq_len": 1024, "norm_eps": 1e-5, "tie_embeddings": True},
    "110m": {"dim": 768, "n_layers": 12, "n_heads": 12, "ffn_dim": 2048, "vocab_size": 32000,
             "max_seq_len": 1024, "norm_eps": 1e-5, "tie_embeddings": True},
    # For laptops; the name counts the weights of the layers, without embedding and head.
    "tiny": {"dim": 64, "n_layers": 2, "n_heads": 4, "ffn_dim": 176, "vocab_size": 512, "max_seq_len": 512},
    "1m": {"dim": 128, "n_layers": 4, "n_heads": 4, "ffn_dim": 344, "vocab_size": 4096, "max_seq_len": 1024},
    "2m": {"dim": 192, "n_layers": 4, "n_heads": 6, "ffn_dim": 512, "vocab_size": 4096, "max_seq_len": 512},
    "5m": {"dim": 256, "n_layers": 6, "n_heads": 8, "ffn_dim": 704, "vocab_size": 8192, "max_seq_len": 512},
    "25m": {"dim": 512, "n_layers": 8, "n_heads": 8, "ffn_dim": 1376, "vocab_size": 32000,
            "max_seq_len": 1024},
}  # fmt: skip


def config(size: str, vocab_size: int | None = None, **overrides: Any) -> LlamaConfig:
    """Return a size of the table with changed values.

    Raises UserError for an unknown size, pydantic's ValidationError for a wrong value.
    """
    if size not in SIZES:
        close = difflib.get_close_matches(size, SIZES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"no model size {size}{hint}; sizes are {', '.join(SIZES)}")
    changes = {"vocab_size": vocab_size} if vocab_size is not None else {}
    return LlamaConfig(**{**SIZES[size], **changes, **overrides})
