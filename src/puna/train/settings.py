"""Settings of training: the paper's optimizer and schedule (section 2.2, 2.3)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainSettings(BaseModel):
    """One training run. Defaults are the paper's where it gives one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(ge=1, description="optimizer steps")
    batch_sequences: int = Field(ge=1, description="sequences an optimizer step")
    micro_batch_sequences: int | None = Field(
        None, ge=1, description="sequences at once; default: the whole batch"
    )
    sequence_length: int = Field(2048, ge=2, description="tokens a sequence")
    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate")
    minimum_learning_rate: float = Field(
        0.1, ge=0, le=1, description="last learning rate as a share of the peak"
    )
    warmup_steps: int = Field(2000, ge=0)
    schedule: Literal["cosine", "wsd"] = Field(
        "cosine", description="how the rate falls after the warm-up, see train/optimizer.py"
    )
    decay_share: float = Field(
        0.2, ge=0, le=1, description="share of the steps in which a wsd schedule's rate falls"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: for the matrices of the layers, see train/muon.py"
    )
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.1, ge=0, description="on matrices only")
    gradient_clip: float = Field(1.0, gt=0, description="largest global gradient norm")
    z_loss: float = Field(
        0.0,
        ge=0,
        description="factor of the squared log-sum of the logits, added to the loss; 0 in the paper",
    )
    remat: Literal["none", "llama", "full"] = Field(
        "llama", description="activations kept for the backward (section 2.4), see model/remat.py"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="where the model is trained; cuda: a graphics processor"
    )
    compile: bool = Field(
        False,
        description="torch.compile each block; minutes at the first start, for devices without our kernels",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of activations and products, weights stay float32; auto: bfloat16 on graphics processors that have it",
    )
    checkpoint_steps: int = Field(100, ge=1, description="steps between checkpoints")
    validation_steps: int = Field(100, ge=1, description="steps between validations")
    validation_tokens: int = Field(
        20_000, ge=1, description="held-out tokens a source that a validation reads"
    )

    @property
    def tokens_per_step(self) -> int:
        return self.batch_sequences * self.sequence_length

    @property
    def micro_batch(self) -> int:
        return self.micro_batch_sequences or self.batch_sequences

    @property
    def decay_steps(self) -> int:
        return round(self.decay_share * self.steps)

    @model_validator(mode="after")
    def _fits(self) -> "TrainSettings":
        if self.batch_sequences % self.micro_batch:
            raise ValueError(
                f"micro_batch_sequences {self.micro_batch} does not divide batch_sequences {self.batch_sequences}"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is not below steps {self.steps}: training would never reach its rate"
            )
        if self.schedule == "wsd" and self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and {self.decay_steps} steps of decay (decay_share {self.decay_share:g}) are more "
                f"than steps {self.steps}: lower one of the two"
            )
        return self
