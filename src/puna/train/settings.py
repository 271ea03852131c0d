"""Settings of training: the paper's optimizer and schedule (section 2.2, 2.3)."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from puna.run.settings import ExecutionSettings, Settings, not_hashed


class OptimizerSettings(Settings):
    """What the trainer does with the gradients of any work. Defaults are the paper's where it gives one."""

    steps: int = Field(ge=1, description="optimizer steps")
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate")
    final_learning_rate_fraction: float = Field(
        0.1, ge=0, le=1, description="last learning rate as a share of the peak"
    )
    warmup_steps: int = Field(
        2000, ge=0, description="steps in which the learning rate rises from 0 to its peak (paper: 2,000)"
    )
    schedule: Literal["cosine", "wsd"] = Field(
        "cosine", description="how the rate falls after the warm-up, see train/optimizer.py"
    )
    decay_fraction: float = Field(
        0.2, ge=0, le=1, description="share of the steps in which a wsd schedule's rate falls"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: for the matrices of the layers, see train/optimizer.py"
    )
    beta1: float = Field(
        0.9, ge=0, lt=1, description="of AdamW: what its mean of gradients keeps a step (paper: 0.9)"
    )
    beta2: float = Field(
        0.95, ge=0, lt=1, description="of AdamW: what its mean of their squares keeps a step (paper: 0.95)"
    )
    weight_decay: float = Field(0.1, ge=0, description="on matrices only")
    gradient_clip: float = Field(1.0, gt=0, description="largest global gradient norm")
    spikes: Literal["keep", "skip", "rollback"] = Field(
        "keep",
        description="what to do with a step whose loss or gradient norm lies six deviations above those "
        "before: skip passes it over, rollback all since the last rollback_steps, see train/health.py",
    )
    rollback_steps: int = Field(100, ge=1, description="steps between states that a rollback goes back to")
    validation_steps: int = not_hashed(100, ge=1, description="steps between validations")

    @property
    def decay_steps(self) -> int:
        """Steps in which the rate of a wsd schedule falls; at least one, unless `decay_fraction` is 0."""
        return max(1, round(self.decay_fraction * self.steps)) if self.decay_fraction else 0

    @property
    def decay_start(self) -> int:
        """Steps that are done when the rate of a wsd schedule begins to fall."""
        return self.steps - self.decay_steps

    @model_validator(mode="after")
    def _fits(self) -> "OptimizerSettings":
        if self.schedule == "cosine":  # where it says nothing, so that it is no part of a fingerprint
            self.__dict__["decay_fraction"] = type(self).model_fields["decay_fraction"].default
        if self.spikes != "rollback":
            self.__dict__["rollback_steps"] = type(self).model_fields["rollback_steps"].default
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is not below steps {self.steps}: training would never "
                "reach its rate"
            )
        if self.schedule == "wsd" and self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and {self.decay_steps} steps of decay (decay_fraction "
                f"{self.decay_fraction:g}) are more than steps {self.steps}: lower one"
            )
        return self


class TrainSettings(OptimizerSettings):
    """One pre-training."""

    batch_sequences: int = Field(ge=1, description="sequences an optimizer step")
    sequence_length: int = Field(2048, ge=2, description="tokens a sequence")
    short_length: int = Field(
        0, ge=0, description="tokens a sequence in the first `short_steps`, as many tokens a step; 0: none"
    )
    short_steps: int = Field(
        0,
        ge=0,
        description="steps with short sequences, which are quicker; the others learn to look back farther",
    )
    z_loss: float = Field(
        0.0,
        ge=0,
        description="factor of the squared log-sum of the logits, added to the loss; 0 in the paper",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of activations and products; weights, moments and sums are float32 always"
    )
    validation_tokens: int = not_hashed(
        20_000, ge=1, description="held-out tokens a source that a validation reads, drawn all over it"
    )

    @model_validator(mode="after")
    def _short_first(self) -> "TrainSettings":
        if (self.short_length > 0) != (self.short_steps > 0):
            raise ValueError("short_length and short_steps go together: give both, or neither")
        if self.short_length == 1:
            raise ValueError("short_length 1 leaves nothing to look back at: a sequence has 2 tokens or more")
        if self.short_length and self.sequence_length % self.short_length:
            raise ValueError(
                f"short_length {self.short_length} does not divide sequence_length {self.sequence_length}"
            )
        return self

    def length_of(self, step: int) -> int:
        """Tokens a sequence of a step, which counts from 1."""
        return self.short_length if step <= self.short_steps else self.sequence_length

    def micro_batch(self, execution: ExecutionSettings) -> int:
        """Sequences in memory at once."""
        return execution.micro_batch_sequences or self.batch_sequences

    @field_validator("precision", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if value == "auto":
            raise ValueError('it is named: "float32", or "bfloat16", which "auto" took on GPUs that have it')
        return value
