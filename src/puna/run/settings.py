"""How a run is executed, and what it costs: settings that are no part of what it computes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

HASHED = "hashed"


class Settings(BaseModel):
    """Values that do not change; keys that are not known are refused, and numbers that are none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def not_hashed(default: Any = ..., **options: Any) -> Any:
    """A pydantic field that is no part of a fingerprint: a check, a place, what is measured and not
    computed."""
    return Field(default, json_schema_extra={HASHED: False}, **options)


class ExecutionSettings(Settings):
    """How the work is done. May change in the middle of a run: it goes on in the same folder.

    The same result, bit for bit, for any value of remat, checkpoint_steps, checkpoints_kept,
    checkpoints_every, workers, ray, group_bytes and memory_bytes; the same within rounding for device,
    compile and micro_batch_sequences. A training keeps the number of threads that it began with, unless
    `threads` says another: Puna's kernels give the same bits on any number, matrix libraries promise them for
    one number alone.
    """

    device: Literal["cpu", "cuda"] = Field("cpu", description="where a model is trained; cuda: a GPU")
    threads: int = Field(
        0,
        ge=0,
        description="threads of training and encoding; 0: one a core, and those it began with for a training",
    )
    micro_batch_sequences: int | None = Field(
        None, ge=1, description="sequences in memory at once; default: the whole batch"
    )
    remat: Literal["none", "llama", "full"] = Field(
        "llama", description="activations kept for the backward (paper, section 2.4), see model/block.py"
    )
    compile: bool = Field(False, description="torch.compile each block; minutes at the first start, for GPUs")
    checkpoint_steps: int = Field(100, ge=1, description="steps between checkpoints")
    checkpoints_kept: int = Field(2, ge=1, description="newest checkpoints kept while a training runs")
    checkpoints_every: int | None = Field(
        None, ge=1, description="a checkpoint each so many steps that is kept for good; default: none"
    )
    workers: int = Field(0, ge=0, description="processes that read and clean raw files; 0: one a core")
    ray: str = Field(
        "",
        description="address of a Ray cluster that cleans; local: one started here; folders must be shared",
    )
    group_bytes: int = Field(32_000_000, ge=1, description="raw bytes cleaned and committed together")
    memory_bytes: int = Field(
        0, ge=0, description="a stage that may take more is refused before it starts; 0: all that is free"
    )


DEFAULT_EXECUTION = ExecutionSettings()


class MeshSettings(Settings):
    """How the processes of a training share its work; their number is the product of the three."""

    replicate: int = Field(1, ge=1, description="groups of processes that each hold the whole state (HSDP)")
    shard: int | Literal["all"] = Field(
        "all", description="processes that share the state and read different rows (FSDP2); all: what is left"
    )
    tensor: int = Field(1, ge=1, description="processes that share each layer and its tokens")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, dict) and {"pipeline", "context"} & set(value):
            raise ValueError(
                "there is no pipeline or context parallelism: a mesh has replicate, shard and tensor"
            )
        shard = value.get("shard", "all") if isinstance(value, dict) else "all"
        if shard != "all" and (type(shard) is not int or shard < 1):
            raise ValueError(f'shard {shard!r}: a number of processes, 1 or more, or "all" is needed')
        return value


class ClusterSettings(Settings):
    """On which processes a training runs, where torchrun started several. No part of any result beyond
    rounding, and of no fingerprint: may change in the middle of a run."""

    mesh: MeshSettings = Field(MeshSettings(), description="how they share the work")
    checkpoint_seconds: float | None = Field(
        None, gt=0, description="seconds after which a checkpoint is due, whatever the step; default: never"
    )
    replica_check_steps: int = Field(
        100, ge=1, description="steps between checks that processes with the same weights hold the same bits"
    )
    time_out_seconds: float = Field(
        600.0, gt=0, description="a training ends where a process waits longer than this for another"
    )


DEFAULT_CLUSTER = ClusterSettings()


class EnergySettings(Settings):
    """Turns time into energy and carbon as the paper does (section 6): watts x hours x PUE x kg CO2 a kWh."""

    watts: float = Field(
        45.0, gt=0, description="power of the whole machine at work, where no meter can be read"
    )
    pue: float = Field(1.1, ge=1, description="power usage effectiveness of the building (paper: 1.1)")
    kg_co2_per_kwh: float = Field(
        0.385, ge=0, description="carbon intensity of the grid (paper: 0.385, the US average)"
    )
