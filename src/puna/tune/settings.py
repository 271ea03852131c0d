"""Settings of tuning: a base model, conversations, and named stages that train on them."""

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from puna.run.settings import ExecutionSettings, not_hashed
from puna.train.settings import TrainSettings

if TYPE_CHECKING:
    from puna.tune.rows import Batches

MICRO_BATCH_TOKENS = 4096  # in memory at once, where a recipe does not say
REPLAY = "replay"  # the data set of the base's own answers
TAKEN = ("base", "rows", "probe", "passages", "exports", REPLAY)  # names that no stage of a recipe can have
IF_SET: dict[str, Any] = {"hashed": "if set"}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BaseSettings(_Settings):
    """The model that is tuned."""

    weights: str = not_hashed(
        description="weights of any format, or a run's folder; recipe:laptop for what that recipe has trained"
    )


class ChatSettings(_Settings):
    """How conversations are written as tokens."""

    format: str = Field(
        "", description="such as chatml; default: that of the base's template, or vicuna_v1.1"
    )
    system: str = Field("", description="of conversations without a system turn; default: the format's own")
    max_tokens: int = Field(1024, ge=8, description="of a conversation, and of a row of packed ones, at most")


class DataSettings(_Settings):
    """One set of conversations, by its name."""

    files: tuple[str, ...] = Field(min_length=1, description="files or folders, from the recipe's folder")
    licence: str = Field("", description="under which it may be used, for the model card")
    weight: float = Field(1.0, gt=0, description="how often each conversation comes an epoch")
    learn: Literal["all", "last"] = Field("all", description="which of the assistant's turns are learned")
    speaker: str = Field("", description="in chats between people: whose turns are learned")
    template: Literal["chat", "text"] = Field(
        "chat", description="text: the last turn is learned as it stands"
    )
    defects: Literal["refuse", "drop"] = Field("refuse", description="of rows that puna tune audit refuses")
    clean: Literal["", "sharegpt"] = Field(
        "",
        description="sharegpt: drop one-turn, non-alternating, very short and repeated conversations, and "
        "those with blocked words (Vicuna)",
    )
    languages: tuple[str, ...] = Field((), description="codes that clean keeps; none: all")
    condition: Literal["", "feedback"] = Field(
        "", description="feedback: of two answers both are learned, behind marks that tell them apart (Koala)"
    )
    limit: int | None = Field(None, ge=1, json_schema_extra=IF_SET, description="first rows; default: all")


class ReplaySettings(_Settings):
    """Rows that keep what the base knows: of a set of one's own, or the base's own answers."""

    share: float = Field(0.25, ge=0, lt=1, description="of all conversations that are trained on")
    data: str = Field("", description="a set of [data]; default: the base answers prompts of Puna's")
    prompts: int = Field(128, ge=1, description="prompts that the base answers")
    answer_tokens: int = Field(96, ge=1, description="tokens of an answer at most")
    temperature: float = Field(0.7, ge=0, description="of the answers; 0 takes the likeliest token")


class ValidationSettings(_Settings):
    """Conversations that are held out of training, by a hash of their first turn."""

    fraction: float = Field(0.02, ge=0, le=0.5, description="of each set that is held out")
    rows: int = Field(8, ge=0, description="held out at least, but no more than a fifth of a set")


class AfterSettings(_Settings):
    """What is done with the tuned model."""

    passages: str = Field(
        "", description="a JSON list of questions with the passages that answer them, asked before and after"
    )
    exports: bool = Field(False, description="write it for transformers and as GGUF, too")


class LoraSettings(_Settings):
    """Low-rank adapters in place of all weights (Hu et al. 2021)."""

    rank: int = Field(8, ge=1, description="of the product that is added to a weight")
    alpha: float = Field(16.0, gt=0, description="the product counts alpha / rank")
    targets: tuple[str, ...] = Field((), description="such as q_proj or lm_head; default: all but the head")
    rs: bool = Field(False, description="the product counts alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023)")


class SupervisedSettings(_Settings):
    """A stage that learns the answers of conversations."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="of the stage, and of its result's folder")
    kind: Literal["supervised"] = Field("supervised", description="what the stage does")
    start: str = Field("", description="the stage whose model is tuned on, or base; default: the one before")
    data: tuple[str, ...] = Field((), description="names of sets; default: all")
    epochs: int = Field(3, ge=1, description="how often each conversation is seen, times its set's weight")
    maximum_steps: int | None = Field(None, ge=1, json_schema_extra=IF_SET, description="end after so many")
    batch_conversations: int = Field(32, ge=1, description="conversations an optimizer step, at most")
    learning_rate: float = Field(2e-5, gt=0, description="peak learning rate")
    final_learning_rate_fraction: float = Field(0.0, ge=0, le=1, description="last rate, of the peak")
    warmup_fraction: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the rate rises")
    schedule: Literal["cosine", "wsd"] = Field("cosine", description="how the rate falls after the warm-up")
    weight_decay: float = Field(0.0, ge=0, description="on matrices only")
    beta2: float = Field(0.999, ge=0, lt=1, description="of AdamW")
    gradient_clip: float = Field(1.0, gt=0, description="largest global gradient norm")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of activations and products")
    noise_alpha: float = Field(0.0, ge=0, description="of noise on embeddings (NEFTune), such as 5; 0: none")
    select: Literal["last", "best"] = Field("last", description="weights to keep; best: by held-out loss")
    validations: int = not_hashed(1, ge=1, description="an epoch, of the held-out conversations")
    lora: LoraSettings | None = Field(None, description="default: all weights are tuned")

    def step_count(self, conversations: int) -> int:
        """Optimizer steps over so many conversations, all epochs counted."""
        return min(-(-conversations // self.batch_conversations), self.maximum_steps or conversations)

    def training(self, batches: "Batches", max_tokens: int) -> TrainSettings:
        """What the trainer is told. max_tokens: of a row at most."""
        steps, rows = batches.steps, batches.batch_sequences
        own = {name: getattr(self, name) for name in TrainSettings.model_fields if hasattr(self, name)}
        own |= {"steps": steps, "batch_sequences": rows, "sequence_length": max_tokens}
        warmup = min(round(self.warmup_fraction * steps), steps - 1)
        # The rate is the last one behind the last step, as in transformers: no step is without one, not even
        # the only one.
        last, falling = self.final_learning_rate_fraction, steps - warmup
        last += (1 - last) * 0.5 * (1 + math.cos(math.pi * (falling - 1) / falling))
        own |= {"warmup_steps": warmup, "final_learning_rate_fraction": last}
        return TrainSettings(**own, validation_steps=-(-steps // (self.epochs * self.validations)))


def executed(execution: ExecutionSettings, max_tokens: int) -> ExecutionSettings:
    """How tuning is executed: with MICRO_BATCH_TOKENS in memory at once where nothing is said."""
    rows = execution.micro_batch_sequences or max(1, MICRO_BATCH_TOKENS // max_tokens)
    return execution.model_copy(update={"micro_batch_sequences": rows})


class TuneSettings(_Settings):
    """What decides a tuned model."""

    base: BaseSettings
    chat: ChatSettings = ChatSettings()
    data: dict[str, DataSettings] = Field(min_length=1, description="sets of conversations, by name")
    replay: ReplaySettings = ReplaySettings()
    validation: ValidationSettings = ValidationSettings()
    after: AfterSettings = AfterSettings()
    stages: tuple[SupervisedSettings, ...] = Field(min_length=1, description="trained one after the other")

    @model_validator(mode="after")
    def _named(self) -> "TuneSettings":
        known = ["base"]
        for stage in self.stages:
            if stage.name in (*TAKEN, *known):
                raise ValueError(f"stages.{stage.name}: the name is taken; give each stage its own")
            if stage.start and stage.start not in known:
                raise ValueError(f"stages.{stage.name}.start: no stage {stage.start} before it")
            if unknown := sorted(set(stage.data) - set(self.data)):
                raise ValueError(f"stages.{stage.name}.data: no set {unknown[0]} in [data]")
            known.append(stage.name)
        if self.replay.data not in ("", *self.data):
            raise ValueError(f"replay.data: no set {self.replay.data} in [data]")
        if REPLAY in self.data and self.replay.data != REPLAY:
            raise ValueError(f"data.{REPLAY}: the name is that of the base's own answers; choose another")
        return self
