"""Packed rows -> tuned weights: the stages of a tuning recipe that train, and what asks their result."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from puna.errors import UserError
from puna.run.artifact import Artifact
from puna.run.settings import not_hashed
from puna.run.stage import Context, Metrics
from puna.tune.encode import base_path
from puna.tune.settings import REPLAY, LoraSettings, SupervisedSettings, executed

if TYPE_CHECKING:
    from puna.generate.load import Opened
    from puna.model.llama import Llama
    from puna.model.lora import Adapter
    from puna.train.parallel import Parallel
    from puna.train.trainer import Event
    from puna.tune.rows import Batches

VERSIONS = {"replay": 1, "rows": 1, "supervised": 1, "probe": 1, "passages": 1, "exports": 1}
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


def plan(settings: SupervisedStageSettings, rows: Artifact) -> "Batches":
    """All batches of a stage. Raises UserError where there is nothing to learn from."""
    from puna.tune.rows import Batches, load

    told = rows.metrics["sets"]
    names = [name for name in settings.weights if told[name]["train"]["conversations"]]
    if not names:
        found = "; ".join(f"{name}: {told[name]}" for name in settings.weights)
        raise UserError(
            f"stages.{settings.stage.name}: no conversation is left to train on ({found}); chat.max_tokens "
            "says how long one may be"
        )
    sets = [load(rows.folder / "train", name) for name in names]
    each = [settings.stage.epochs * settings.weights[one.name] * len(one) for one in sets]
    draws = [max(1, round(count)) for count in each]
    if settings.replay is not None and told[settings.replay[0]]["train"]["conversations"]:
        name, share = settings.replay
        sets.append(load(rows.folder / "train", name))
        draws.append(round(sum(draws) * share / (1 - share)))
    steps = settings.stage.step_count(sum(draws))
    seen, length = min(sum(draws), steps * settings.stage.batch_conversations), settings.max_tokens
    return Batches(sets, draws, seed=settings.seed, steps=steps, conversations=seen, length=length)


def supervised(
    settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], context: Context
) -> Metrics:
    """Tune a model on packed conversations: its weights, or an adapter, with tokenizer and chat template, and
    the losses of all steps. Of several processes all call this, and the first one writes."""
    import torch

    from puna.model.weights import native
    from puna.run import machine
    from puna.run.watch import Watch
    from puna.tokens import files
    from puna.train import metrics, trainer, weights
    from puna.train.losses import LOSSES, last_loss
    from puna.train.pretraining import precision
    from puna.train.stage import HEARTBEAT, spread
    from puna.tune import rows
    from puna.tune.supervised import Supervised

    stage, encoded, processes = settings.stage, inputs[ROWS], context.processes
    machine.check_precision(stage.precision, context.execution.device)
    threads = torch.get_num_threads()
    execution = executed(context.execution, settings.max_tokens)
    torch.set_num_threads(execution.threads or threads)
    base, batches = opened(settings, inputs), plan(settings, encoded)
    config, train = base.source.config, stage.training(batches, settings.max_tokens)
    if stage.select == "best":
        execution = execution.model_copy(update={"checkpoints_every": train.validation_steps})
    held_out = {
        one.name: rows.whole(rows.load(encoded.folder / "held_out", one.name), settings.max_tokens)
        for one in batches.sets
        if encoded.metrics["sets"][one.name]["held_out"]["conversations"]
    }
    peak = processes.world * machine.matmul_peak(execution.device, precision(train))
    flops = config.flops_per_token(settings.max_tokens)
    log = metrics.Metrics(context.logs / "metrics.jsonl", lambda step: flops, peak)

    def publish(event: "Event") -> None:
        log.write(event)
        context.reporter.event(event)

    listening = [publish] if processes.rank == 0 else []
    heartbeat, on_gpu = context.logs.parent / HEARTBEAT, execution.device == "cuda"
    watch = Watch(processes, context.cluster.time_out_seconds, heartbeat, context.should_stop, on_gpu=on_gpu)
    try:
        with context.pausable(), watch.guarding():
            model, parallel = begin(settings, base, encoded, context)
            if processes.rank == 0 and stage.lora is None:
                native.describe(model.config, context.scratch)
                files.to_folder(base.tokenizer, context.scratch, base.chat_template, config.max_seq_len)
            parallel = dataclasses.replace(parallel, phase=watch.phase)
            trainer.keep_freed_memory(large=processes.world > 1)
            offered: Any = batches
            work = Supervised(model, offered, held_out, train, execution, parallel)
            work.add_noise(stage.noise_alpha, settings.seed)
            known = any(entry["step"] == 0 for entry in metrics.validation(log.path))
            if not parallel.team.broadcast(known) and held_out:
                found = trainer.ValidationEvent(0, 0, work.validate())
                # Of FSDP2, or the optimizer would be given gathered weights.
                getattr(model, "reshard", lambda: None)()
                spread(found, watch, listening)
            progress = trainer.train(
                *(model, work, train, execution),
                cluster=context.cluster,
                parallel=parallel,
                checkpoints=context.scratch,
                on_event=lambda event: spread(event, watch, listening),
                should_stop=watch.should_stop,
            )
            validations = parallel.team.broadcast(_validations(metrics.validation(log.path), settings))
            chosen = _chosen(validations, train.steps) if stage.select == "best" else train.steps
            whole = _result(model, context.scratch / f"step-{chosen:08d}", last=chosen == train.steps)
            if stage.lora is not None:
                _save_adapter(whole, base, context)
    finally:
        torch.set_num_threads(threads)
    processes.leave_group()
    if processes.rank:
        return {}
    if stage.lora is None:
        checkpoint = context.scratch / f"step-{chosen:08d}"
        native.save(weights.read(checkpoint) if processes.world > 1 else whole, context.work)
    files.to_folder(base.tokenizer, context.work, base.chat_template, config.max_seq_len)
    shutil.copyfile(context.scratch / LOSSES, context.work / LOSSES)
    losses = [json.loads(line)["loss"] for line in (context.work / LOSSES).read_text().splitlines()]
    told = overfitting(validations, losses)
    if told:
        context.reporter.note(told + ("" if stage.select == "best" else '; select = "best" keeps that step'))
    return {
        "parameters": model.config.parameters(),
        "trained_parameters": trained_parameters(model),
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


def opened(settings: SupervisedStageSettings, inputs: Mapping[str, Artifact]) -> "Opened":
    """The base of a stage, not read yet, with what the tuned model has: the tokenizer that its format needs,
    its template, and stops where it ends an answer."""
    from puna.generate import load
    from puna.tokens import chat
    from puna.tokens.control_tokens import for_format

    told = inputs[ROWS].metrics
    form = dataclasses.replace(chat.FORMATS[told["format"]], system=told["system"])
    base = load.open_model(load.open_source(base_path(settings.base, inputs)))
    tokenizer = for_format(base.tokenizer, form)
    tokenizer.stops = chat.stop_ids(form, tokenizer)
    return base._replace(tokenizer=tokenizer, chat_template=chat.jinja(form, tokenizer.adds_bos))


def begin(
    settings: SupervisedStageSettings, base: "Opened", rows: Artifact, context: Context
) -> "tuple[Llama, Parallel]":
    """The model before its first step, with rows for the tokens that its format needs. Of several processes
    each reads its own part alone, unless there are such rows or adapters."""
    import torch

    from puna.model import lora
    from puna.model.llama import Llama
    from puna.model.tensor_parallel import local
    from puna.train.parallel import ALONE, box_of, parallelize
    from puna.train.pretraining import precision
    from puna.train.stage import check_layout

    processes, cluster, device = context.processes, context.cluster, context.execution.device
    source, stage, size = base.source, settings.stage, rows.metrics["vocab_size"]
    new = tuple(range(source.config.vocab_size, size))
    in_parts = processes.world > 1 and not new and stage.lora is None
    source.check()
    model = Llama.empty(source.config, "meta") if in_parts else source.build(device)
    if new:
        lora.grow(model, new)
    if stage.lora is not None:
        lora.apply(model, adapter_of(stage.lora, new), seed=settings.seed)
    if processes.world == 1:
        return model, ALONE
    train = stage.training(plan(settings, rows), settings.max_tokens)
    check_layout(model.config, train, cluster.mesh.tensor)
    mesh = processes.mesh(device, cluster)
    parallel = parallelize(model, mesh, precision(train), cluster.time_out_seconds)
    if in_parts:
        model.to_empty(device=device)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                box = box_of(parameter)
                ends = zip(box.start, box.shape, strict=True)
                part = [slice(start, start + length) for start, length in ends]
                local(parameter).copy_(source.weights[name].read()[tuple(part)])
    return model, parallel


def adapter_of(settings: LoraSettings, new: Sequence[int] = ()) -> "Adapter":
    """What is adapted. new: ids of tokens whose rows are trained."""
    from puna.model.lora import ALL_LINEAR, Adapter

    targets = settings.targets or ALL_LINEAR
    return Adapter(settings.rank, settings.alpha, targets, settings.rs, rows=tuple(new))


def trained_parameters(model: "Llama") -> int:
    """How many numbers are trained of a model."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def _result(model: "Llama", checkpoint: Path, last: bool) -> "Llama":
    """The model with the trained weights of a checkpoint; last: as it is."""
    import torch

    from puna.model.tensor_parallel import local
    from puna.train.checkpoint import read_index, read_tensors, trainable_of
    from puna.train.parallel import box_of

    getattr(model, "reshard", lambda: None)()
    if not last:
        trainable = trainable_of(model)
        boxes = {name: box_of(parameter) for name, parameter in trainable.items()}
        with torch.no_grad():
            for name, value in read_tensors(checkpoint, read_index(checkpoint), boxes).items():
                local(trainable[name]).copy_(value)
    return model


def _save_adapter(model: "Llama", base: "Opened", context: Context) -> None:
    """Write an adapter; all processes gather it. A base beside the folder of runs, or in it, is named from
    the adapter's own folder, so that all can be moved together."""
    from puna.model.weights import peft

    first, run = context.processes.rank == 0, context.work.absolute().parents[1]
    beside = peft.Base.of(base.source) if first else peft.Base(base.source.path, 0, {})
    if run.parents[1] in beside.path.parents:
        beside = dataclasses.replace(beside, path=Path(os.path.relpath(beside.path, run / context.work.name)))
    peft.save(model, context.work, beside, write=first)


def _validations(
    found: Sequence[Mapping[str, Any]], settings: SupervisedStageSettings
) -> list[dict[str, Any]]:
    """Held-out losses in order; mean: of the sets that are not only replayed, by which weights are chosen."""
    replayed = settings.replay[0] if settings.replay else REPLAY
    told = []
    for entry in found:
        losses = entry["losses"]
        own = [loss for name, loss in losses.items() if name != replayed] or list(losses.values())
        told.append({"step": entry["step"], "losses": losses, "mean": sum(own) / len(own)})
    return told


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


def probed(settings: ProbeStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Ask the base and the tuned model the same: what was learned and forgotten, and what to know of it.

    {"skipped": why} where one of them reads too little for the questions.
    """
    from puna.generate import load
    from puna.tokens import chat
    from puna.tune import probe

    found: dict[str, Any] = {}
    for name, path in (("before", base_path(settings.base, inputs)), ("after", inputs["tuned"].folder)):
        context.reporter.progress("models asked", len(found), 2)
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
