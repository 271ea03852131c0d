"""Conversations -> packed rows -> tuned weights: the stages of a tuning recipe."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from puna.errors import UserError
from puna.run.artifact import Artifact
from puna.run.settings import not_hashed
from puna.run.stage import Context, Metrics
from puna.tune.encode import base_content, base_path
from puna.tune.settings import REPLAY, SupervisedSettings, executed

if TYPE_CHECKING:
    from puna.model.llama import Llama
    from puna.model.weights.source import Source
    from puna.train.parallel import Parallel
    from puna.train.trainer import Event
    from puna.tune.rows import Batches

VERSIONS = {"replay": 1, "rows": 1, "supervised": 1, "probe": 1}
ROWS = "rows"  # the input with encoded conversations


class SupervisedStageSettings(BaseModel):
    """What tuned weights depend on.

    base: where the weights that are tuned lie, an input's folder or a place whose content is hashed beside.
    weights: of each set that is trained on, by its name; replay: (name of the set, its share). selected:
    validations an epoch, where they decide which weights are kept. kernels: which code computes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    base: Path | None = not_hashed()
    stage: SupervisedSettings
    max_tokens: int
    weights: dict[str, float]
    replay: tuple[str, float] | None
    selected: int | None = Field(None, json_schema_extra={"hashed": "if set"})
    kernels: str


class ProbeStageSettings(BaseModel):
    """What a probe depends on beside the tuned model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path | None = not_hashed()


def content(settings: SupervisedStageSettings | ProbeStageSettings) -> dict[str, str] | None:
    """Digests of the base, where it is no input."""
    return base_content(settings.base) if settings.base else None


def plan(settings: SupervisedStageSettings, rows: Artifact) -> "Batches":
    """All batches of a stage. Raises UserError where there is nothing to learn from."""
    from puna.tune.rows import Batches, load

    names = [name for name in settings.weights if rows.metrics["sets"][name]["train"]["conversations"]]
    if not names:
        dropped = {name: rows.metrics["sets"][name]["dropped"] for name in settings.weights}
        raise UserError(
            f"stages.{settings.stage.name}: no conversation is left to train on; dropped are {dropped}; "
            "chat.max_tokens says how long one may be"
        )
    sets = [load(rows.folder / "train", name) for name in names]
    counts = [settings.stage.epochs * settings.weights[name] * len(one)
              for name, one in zip(names, sets, strict=True)]  # fmt: skip
    draws = [max(1, round(count)) for count in counts]
    if settings.replay is not None:
        name, share = settings.replay
        sets.append(load(rows.folder / "train", name))
        draws.append(round(sum(draws) * share / (1 - share)))
    steps = settings.stage.step_count(sum(draws))
    seen = min(sum(draws), steps * settings.stage.batch_conversations)
    return Batches(
        sets, draws, seed=settings.seed, steps=steps, conversations=seen, length=settings.max_tokens
    )


def supervised(
    settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], context: Context
) -> Metrics:
    """Tune a model on packed conversations: its weights, tokenizer and chat template, and the losses of all
    steps. Of several processes all call this, and the first one writes."""
    import torch

    from puna.generate import load
    from puna.model.weights import native
    from puna.run import machine
    from puna.run.watch import Watch
    from puna.tokens import files
    from puna.train import metrics, trainer, weights
    from puna.train.losses import LOSSES, last_loss
    from puna.train.parallel import ALONE
    from puna.train.pretraining import precision
    from puna.train.stage import HEARTBEAT, check_layout, spread
    from puna.tune import rows
    from puna.tune.supervised import Supervised

    stage, encoded, processes = settings.stage, inputs[ROWS], context.processes
    machine.check_precision(stage.precision, context.execution.device)
    threads = torch.get_num_threads()
    execution = executed(context.execution, settings.max_tokens)
    torch.set_num_threads(execution.threads or threads)
    opened = load.open_model(load.open_source(base_path(settings.base, inputs)))
    config, batches = opened.source.config, plan(settings, encoded)
    train = stage.training(batches.steps, batches.batch_sequences, settings.max_tokens)
    if stage.select == "best":
        execution = execution.model_copy(update={"checkpoints_every": train.validation_steps})
    check_layout(config, train, context.cluster.mesh.tensor if processes.world > 1 else 1)
    held_out = {
        one.name: rows.whole(rows.load(encoded.folder / "held_out", one.name), settings.max_tokens)
        for one in batches.sets
        if encoded.metrics["sets"][one.name]["held_out"]["conversations"]
    }
    tokenizer, template = chat_of(encoded, opened.tokenizer)
    peak = processes.world * machine.matmul_peak(execution.device, precision(train))
    log = metrics.Metrics(
        context.logs / "metrics.jsonl", lambda step: config.flops_per_token(settings.max_tokens), peak
    )

    def publish(event: "Event") -> None:
        log.write(event)
        context.reporter.event(event)

    if processes.rank == 0:
        native.describe(config, context.scratch)
        files.to_folder(tokenizer, context.scratch, template, config.max_seq_len)
    heartbeat, on_gpu = context.logs.parent / HEARTBEAT, execution.device == "cuda"
    watch = Watch(processes, context.cluster.time_out_seconds, heartbeat, context.should_stop, on_gpu=on_gpu)
    try:
        with context.pausable(), watch.guarding():
            model, parallel = (
                _shared(opened.source, train, context)
                if processes.world > 1
                else (begin(settings, inputs, execution.device), ALONE)
            )
            parallel = dataclasses.replace(parallel, phase=watch.phase)
            trainer.keep_freed_memory(large=processes.world > 1)
            work = Supervised(
                *(model, batches, held_out, train, execution, parallel),
                noise_alpha=stage.noise_alpha,
                seed=settings.seed,
            )
            before = not any(entry["step"] == 0 for entry in metrics.validation(log.path))
            if parallel.team.broadcast(before) and held_out:
                found = trainer.ValidationEvent(0, 0, work.validate())
                # Of FSDP2, or the optimizer would be given gathered weights.
                getattr(model, "reshard", lambda: None)()
                if processes.rank == 0:
                    publish(found)
            progress = trainer.train(
                *(model, work, train, execution),
                cluster=context.cluster,
                parallel=parallel,
                checkpoints=context.scratch,
                on_event=lambda event: spread(event, watch, [publish] if processes.rank == 0 else []),
                should_stop=watch.should_stop,
            )
    finally:
        torch.set_num_threads(threads)
    processes.leave_group()
    if processes.rank:
        return {}
    replayed = settings.replay[0] if settings.replay else ""
    validations = [
        {"step": entry["step"], "losses": entry["losses"], "mean": _mean(entry["losses"], replayed)}
        for entry in metrics.validation(log.path)
    ]
    chosen = _chosen(validations, train.steps) if stage.select == "best" else train.steps
    checkpoint = context.scratch / f"step-{chosen:08d}"
    whole = weights.read(checkpoint) if processes.world > 1 or chosen != train.steps else model
    native.save(whole, context.work)
    files.to_folder(tokenizer, context.work, template, config.max_seq_len)
    shutil.copyfile(context.scratch / LOSSES, context.work / LOSSES)
    losses = [json.loads(line)["loss"] for line in (context.work / LOSSES).read_text().splitlines()]
    told = overfitting(validations, losses)
    if told:
        context.reporter.note(told + ("" if stage.select == "best" else '; select = "best" keeps that step'))
    return {
        "parameters": config.parameters(),
        "format": encoded.metrics["format"],
        "conversations": batches.conversations,
        "tokens": batches.tokens_before(train.steps),
        "learned_tokens": batches.targets,
        "filled": batches.filled,
        "steps": train.steps,
        "loss": last_loss(context.work / LOSSES),
        "skipped_steps": progress.skipped,
        "validations": validations,
        "selected_step": chosen,
        "overfitting": told,
    }


def chat_of(encoded: Artifact, tokenizer: Any) -> tuple[Any, str]:
    """(tokenizer, chat template) of a tuned model: it stops where its format ends an answer."""
    from puna.tokens import chat

    form = dataclasses.replace(chat.FORMATS[encoded.metrics["format"]], system=encoded.metrics["system"])
    tokenizer.stops = chat.stop_ids(form, tokenizer)
    return tokenizer, chat.jinja(form, tokenizer.adds_bos)


def probed(settings: ProbeStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Ask the base and the tuned model the same: what was learned and forgotten, and what to know of it.

    {"skipped": why} where one of them reads too little for the questions.
    """
    from puna.generate import load
    from puna.tokens import chat
    from puna.tune import probe

    found = {}
    for number, (name, path) in enumerate(
        (("before", base_path(settings.base, inputs)), ("after", inputs["tuned"].folder))
    ):
        context.reporter.progress("questions", number, 2)
        model, tokenizer, template, *_ = load.load(path)
        form = chat.recognise(template) if template else None
        try:
            found[name] = probe.probe(model, tokenizer, form)
        except UserError as error:
            context.reporter.note(f"not asked what it learned and forgot: {error}")
            return {"skipped": str(error)}
    told = probe.warnings(found["before"], found["after"])
    for text in told:
        context.reporter.note(text)
    return {**found, "warnings": told}


def begin(settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], device: str) -> "Llama":
    """The whole model before its first step."""
    from puna.generate import load

    return load.open_source(base_path(settings.base, inputs)).build(device)


def _shared(source: "Source", train: Any, context: Context) -> "tuple[Llama, Parallel]":
    """The model before its first step, where several processes train: each reads its own part alone."""
    import torch

    from puna.model.llama import Llama
    from puna.model.tensor_parallel import local
    from puna.train.parallel import box_of, parallelize
    from puna.train.pretraining import precision

    source.check()
    model = Llama.empty(source.config, "meta")
    mesh = context.processes.mesh(context.execution.device, context.cluster)
    parallel = parallelize(model, mesh, precision(train), context.cluster.time_out_seconds)
    model.to_empty(device=context.execution.device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            box = box_of(parameter)
            part = [slice(start, start + size) for start, size in zip(box.start, box.shape, strict=True)]
            local(parameter).copy_(source.weights[name].read()[tuple(part)])
    return model, parallel


def _mean(losses: Mapping[str, float], replayed: str) -> float:
    """Held-out loss by which weights are chosen: the mean over the sets, without what is only replayed."""
    own = [loss for name, loss in losses.items() if name not in (replayed, REPLAY)] or list(losses.values())
    return sum(own) / len(own)


def _chosen(validations: Sequence[Mapping[str, Any]], last: int) -> int:
    """The step with the lowest held-out loss, the earliest of equal ones; the last where none is known."""
    return min(((entry["mean"], entry["step"]) for entry in validations if entry["step"]), default=(0, last))[
        1
    ]


def overfitting(validations: Sequence[Mapping[str, Any]], losses: Sequence[float | None]) -> str:
    """Say where the held-out loss rose while the training loss fell; "" where it did not."""
    after = [entry for entry in validations if entry["step"]]
    if len(after) < 2:
        return ""
    best, last = min(after, key=lambda entry: entry["mean"]), after[-1]
    every = after[0]["step"]

    def trained(step: int) -> float:
        known = [loss for loss in losses[max(0, step - every) : step] if loss is not None]
        return sum(known) / max(1, len(known))

    fell = trained(last["step"]) < trained(best["step"])
    if best["step"] == last["step"] or last["mean"] < 1.005 * best["mean"] or not fell:
        return ""
    return (
        f"overfitting: the held-out loss rose from {best['mean']:.3f} after step {best['step']:,} to "
        f"{last['mean']:.3f} after step {last['step']:,}, while the training loss fell from "
        f"{trained(best['step']):.3f} to {trained(last['step']):.3f}"
    )
