"""Token shards -> trained weights: a stage of a run."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.run import artifact
from puna.run.artifact import Artifact
from puna.run.stage import Context, Metrics
from puna.tokens.settings import TokensSettings
from puna.train.settings import TrainSettings

if TYPE_CHECKING:
    from puna.model.llama import Llama
    from puna.run.watch import Watch
    from puna.tokens.batches import Batches, Phases
    from puna.tokens.tokenizer import Tokenizer
    from puna.train.parallel import Parallel
    from puna.train.trainer import Event

    Listener = Callable[[Event], None]
    Whole = Callable[[], Llama | None]
    Subscribe = Callable[[Whole, Tokenizer, Listener], Listener]

VERSIONS = {"train": 12}
HEARTBEAT = "heartbeat.json"  # in a run's folder logs, while it trains
# Of TrainSettings: what changes a step only once the rate of a wsd schedule falls.
DECAY = {"steps", "decay_fraction", "final_learning_rate_fraction"}


class TrainStageSettings(BaseModel):
    """What trained weights depend on.

    sources: in the recipe's order. size: the model's name in the table of sizes. mixture: with its check.
    kernels: which code computes, as `compiled.kind` names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    sources: tuple[str, ...]
    size: str
    model: LlamaConfig
    mixture: TokensSettings
    train: TrainSettings
    kernels: str


def sources_in(shards: Artifact, sources: Sequence[str]) -> list[str]:
    """Those of the sources that have shards, in the same order."""
    return [name for name in sources if name in shards.metrics]


def batches_of(settings: TrainStageSettings, shards: Artifact) -> "Batches | Phases":
    """The training batches over the shards of an artifact. Raises UserError when a source would be seen too
    often."""
    from puna.tokens import batches, mixture
    from puna.tokens.shards import load

    if left := sorted(set(settings.mixture.mixture) - set(shards.metrics)):
        raise UserError(
            f"tokens.mixture names {left[0]}, which has fewer than two documents and is left out "
            "(tokens.small_sources)"
        )
    sources = sources_in(shards, settings.sources)
    opened = [load(shards.folder, name, "train", settings.model.vocab_size) for name in sources]
    sizes = {shard.source: len(shard.tokens) for shard in opened}
    train = settings.train

    def phase(length: int, count: int, steps: int) -> batches.Batches:
        sequences = {source: batches.sequences_in(size, length) for source, size in sizes.items()}
        shares = mixture.plan(sizes, sequences, settings.mixture, steps * count, settings.seed)
        return batches.Batches(opened, shares, seed=settings.seed, batch_sequences=count, length=length)

    made: batches.Batches | batches.Phases
    short_steps = min(train.short_steps, train.steps)
    made = phase(train.sequence_length, train.batch_sequences, train.steps - short_steps)
    if short_steps:
        count = train.batch_sequences * train.sequence_length // train.short_length
        made = batches.Phases(phase(train.short_length, count, short_steps), made, short_steps)
    mixture.check(made.mixture, settings.mixture.maximum_epochs, train.steps)
    return made


def check_epochs(mixture: TokensSettings, train: TrainSettings, text_bytes: int) -> None:
    """Raise UserError where training is sure to see a source too often, before there is a tokenizer."""
    from puna.tokens.mixture import check_bytes

    trained = train.steps * train.batch_sequences * train.sequence_length
    check_bytes(text_bytes, trained, mixture.maximum_epochs, train.steps)


def trunk(settings: TrainStageSettings, inputs: Mapping[str, Artifact]) -> str:
    """Fingerprint of all that decides the steps before a wsd schedule's decay: trainings that share it differ
    in steps and decay alone."""
    hashed = artifact.canonical(settings)
    hashed["train"] = {key: value for key, value in hashed["train"].items() if key not in DECAY}
    known = {name: made.fingerprint for name, made in inputs.items()}
    return artifact.fingerprint({"version": VERSIONS["train"], "settings": hashed, "inputs": known})


def check_layout(config: LlamaConfig, train: TrainSettings, tensor: int) -> None:
    """Raises UserError where a model or its sequences do not divide by the processes that share a layer."""
    counts = {"sequence_length": train.sequence_length, "short_length": train.short_length}
    counts |= {name: getattr(config, name) for name in ("n_heads", "n_kv_heads", "ffn_dim", "vocab_size")}
    if odd := [f"{name} {count}" for name, count in counts.items() if count % tensor]:
        raise UserError(f"cluster.mesh: {', '.join(odd)} cannot be divided by tensor {tensor}")


def train(
    settings: TrainStageSettings,
    inputs: Mapping[str, Artifact],
    context: Context,
    subscribers: Sequence["Subscribe"] = (),
) -> Metrics:
    """Train a model; its weights, the losses of all steps, and what rebuilds its batches.

    subscribers: each is given a function that returns the model (`weights.whole`: all processes call it, and
    the first one alone gets it), its tokenizer and a function that publishes events of its own, and returns
    what is called with every event, after the log. All processes call this, and the first one writes.
    """
    import torch

    from puna.model import KERNELS
    from puna.model.weights import native
    from puna.run import compiled, machine
    from puna.run.watch import Watch
    from puna.tokens.batches import rows_of, save_batch_plan
    from puna.tokens.shards import load
    from puna.tokens.tokenizer import load as load_tokenizer
    from puna.train import metrics, trainer, weights
    from puna.train.losses import LOSSES, last_loss
    from puna.train.pretraining import Pretraining, precision

    machine.check_precision(settings.train.precision, context.execution.device)
    threads = torch.get_num_threads()
    shards, config, execution = inputs["tokens"], settings.model, context.execution
    torch.set_num_threads(execution.threads or threads)
    if problem := compiled.problem(KERNELS):
        context.reporter.note(f"without Puna's kernels ({problem}), training runs on torch's operations")
    batches = batches_of(settings, shards)
    if (train := settings.train).short_steps >= train.steps:
        context.reporter.note(
            f"all {train.steps:,} steps have short sequences, by train.short_steps = {train.short_steps:,}: "
            f"the model learns nothing of what is over {train.short_length:,} tokens away, and is scored on "
            f"sequences of {train.sequence_length:,}"
        )
    held_out = {}
    for name in sources_in(shards, settings.sources):
        shard = load(shards.folder, name, "held_out", config.vocab_size)
        rows = rows_of(shard.sample(settings.train.validation_tokens), settings.train.sequence_length)
        held_out[name] = rows
    processes = context.processes
    peak = processes.world * machine.matmul_peak(execution.device, precision(settings.train))
    log = metrics.Metrics(
        context.logs / "metrics.jsonl",
        lambda step: config.flops_per_token(settings.train.length_of(step)),
        peak,
    )
    before_decay = _before_decay(settings, inputs, context)
    if settings.train.schedule == "wsd" and processes.rank == 0:
        metrics.inherit(log.path, before_decay / log.path.name)

    if processes.world > 1 and 4 * config.parameters() > weights.LARGEST_COPY:
        subscribers = ()
        context.reporter.note(
            f"no samples are written on the way: one process would hold {4 * config.parameters() / 1e9:.0f} "
            "GB of weights; puna generate takes any checkpoint"
        )

    def publish(event: "Event") -> None:
        log.write(event)
        context.reporter.event(event)

    tokenizer_file = inputs["tokenizer"].path("tokenizer.model")
    if processes.rank == 0:
        weights.describe((context.scratch, before_decay), config, tokenizer_file)
    tokenizer = load_tokenizer(tokenizer_file)
    heartbeat, on_gpu = context.logs.parent / HEARTBEAT, execution.device == "cuda"
    watch = Watch(processes, context.cluster.time_out_seconds, heartbeat, context.should_stop, on_gpu=on_gpu)
    try:
        with context.pausable(), watch.guarding():
            model, parallel = _begin(settings, context)
            parallel = dataclasses.replace(parallel, phase=watch.phase)
            whole = partial(weights.whole, model, parallel)
            listening = [subscribe(whole, tokenizer, publish) for subscribe in subscribers]
            if processes.rank == 0:
                listening.insert(0, publish)
            progress = trainer.train(
                model,
                Pretraining(model, batches, held_out, settings.train, execution, parallel),
                settings.train,
                execution,
                cluster=context.cluster,
                parallel=parallel,
                checkpoints=context.scratch,
                before_decay=before_decay if settings.train.schedule == "wsd" else None,
                on_event=lambda event: spread(event, watch, listening),
                should_stop=watch.should_stop,
            )
    finally:
        torch.set_num_threads(threads)
    processes.leave_group()
    if processes.rank:
        return {}
    if settings.train.schedule == "wsd":
        metrics.copy_until(log.path, settings.train.decay_start, before_decay / log.path.name)
    last = context.scratch / f"step-{settings.train.steps:08d}"
    native.save(weights.read(last) if processes.world > 1 else model, context.work)
    _keep(context)
    save_batch_plan(batches, settings.train.steps, config.vocab_size, context.work)
    (context.work / "tokenizer.model").write_bytes(tokenizer_file.read_bytes())
    shutil.copyfile(context.scratch / LOSSES, context.work / LOSSES)
    return {
        "parameters": config.parameters(),
        "tokens": batches.tokens_before(settings.train.steps),
        "loss": last_loss(context.work / LOSSES),
        "skipped_steps": progress.skipped,
        "mixture": {
            share.source: {"share": share.share, "epochs": share.epochs} for share in batches.mixture
        },
    }


def spread(event: "Event", watch: "Watch", listening: Sequence["Listener"]) -> None:
    """Tell all who listen an event, and what the watch has found."""
    from puna.train.trainer import Notice

    watch.loss = getattr(event, "loss", watch.loss)
    for found in (event, *map(Notice, watch.notices())):
        for listener in listening:
            listener(found)


def _begin(settings: TrainStageSettings, context: Context) -> "tuple[Llama, Parallel]":
    """The model before its first step; of several processes each makes its own part alone."""
    from puna.model.llama import Llama
    from puna.train.parallel import ALONE, init_weights, parallelize
    from puna.train.pretraining import precision

    processes, cluster, device = context.processes, context.cluster, context.execution.device
    if processes.world == 1:
        model = Llama.empty(settings.model, device)
        model.init_weights(settings.seed)
        return model, ALONE
    model = Llama.empty(settings.model, "meta")
    mesh = processes.mesh(device, cluster)
    parallel = parallelize(model, mesh, precision(settings.train), cluster.time_out_seconds)
    init_weights(model, settings.seed, device)
    return model, parallel


def _keep(context: Context) -> None:
    """Let checkpoints of a finished training stay, where that was asked for."""
    from puna.train import weights

    if every := context.execution.checkpoints_every:
        kept = context.shared / context.scratch.name
        weights.keep(context.scratch, kept, every)
        context.reporter.note(f"the checkpoints of each {every:,} steps stay in {kept}")


def _before_decay(settings: TrainStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Path:
    """The folder that this training shares with those of other lengths; says where none can be gone on
    with."""
    folder = context.shared / trunk(settings, inputs)
    own = settings.train.steps
    earlier = sorted(int(path.name.removeprefix("steps-")) for path in folder.glob("steps-*"))
    shorter = [steps for steps in earlier if steps < own]
    if shorter and settings.train.schedule != "wsd" and not any(context.scratch.glob("step-*")):
        context.reporter.note(
            f"an earlier training of {shorter[-1]} steps cannot be gone on with: under schedule cosine the "
            'rate of every step depends on train.steps. With train.schedule = "wsd" more steps go on from '
            "where the decay begins"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"steps-{own}").touch()
    return folder
