"""Supervised tuning: a base and packed conversations to tuned weights, or to an adapter."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from puna.errors import UserError
from puna.generate import load
from puna.generate.load import Opened
from puna.model import lora
from puna.model.llama import Llama
from puna.model.tensor_parallel import local
from puna.model.weights import native, peft
from puna.run import machine
from puna.run.artifact import Artifact
from puna.run.stage import Context, Metrics
from puna.run.watch import Watch
from puna.tokens import chat, files
from puna.tokens.control_tokens import for_format
from puna.train import checkpoint, metrics, trainer, weights
from puna.train.losses import LOSSES, last_loss
from puna.train.noise import Noise
from puna.train.objective import loss_and_gradients
from puna.train.parallel import ALONE, Box, Parallel, box_of, parallelize
from puna.train.pretraining import Pretraining, precision
from puna.train.stage import HEARTBEAT, check_layout, spread
from puna.train.trainer import Event, Outcome, ValidationEvent
from puna.tune import rows
from puna.tune.encode import base_path
from puna.tune.settings import executed
from puna.tune.stage import SupervisedStageSettings


class Supervised(Pretraining):
    """See `trainer.Work`: the learned tokens of packed conversations, each the next one."""

    batches: Any  # a `tune.rows.Batches`
    noise: Noise | None = None
    resident = 0  # bytes, once the largest rows are done

    def add_noise(self, alpha: float, seed: int) -> None:
        """See `Noise`; alpha 0: none."""
        if alpha:
            self.noise = self.objective = Noise(self.objective, self.model, alpha, seed)  # type: ignore[assignment]

    def step(self, step: int) -> Outcome:
        # Rows differ in width: what is freed does not always fit the next ones, since what oneDNN keeps of
        # each new shape lies between, and piles up.
        if machine.resident_bytes(trimmed=False) > 1.1 * self.resident:
            trainer.keep_freed_memory()
        if self.noise is not None:
            self.noise.step = step
        return super().step(step)

    def dry_run(self) -> None:
        """The first rows of the step that has most."""
        batch = self.batches.batch(self.batches.fullest, self.parallel.rank, self.parallel.world)
        part = next(batch.micro_batches(self.micro_batch))
        loss_and_gradients(self.model, part, self.micro_batch, self.objective)
        self.resident = machine.resident_bytes(trimmed=False)


def plan(settings: SupervisedStageSettings, encoded: Artifact) -> rows.Batches:
    """All batches of a stage. Raises UserError where there is nothing to learn from."""
    told, stage, folder = encoded.metrics["sets"], settings.stage, encoded.folder / "train"
    names = [name for name in settings.weights if told[name]["train"]["conversations"]]
    if not names:
        read = sum(told[name].get("read", 0) for name in settings.weights)
        why = f"of {read:,} rows none is left: the audit dropped them, or they pass chat.max_tokens"
        raise UserError(f"stages.{stage.name}: {why if read else 'its files have no rows'}")
    sets = [rows.load(folder, name) for name in names]
    draws = [max(1, round(stage.epochs * settings.weights[one.name] * len(one))) for one in sets]
    name, share = settings.replay or ("", 0.0)
    if share and told[name]["train"]["conversations"]:
        sets.append(rows.load(folder, name))
        draws.append(round(sum(draws) * share / (1 - share)))
    steps = stage.step_count(sum(draws))
    seen, length = min(sum(draws), steps * stage.batch_conversations), settings.max_tokens
    return rows.Batches(sets, draws, seed=settings.seed, steps=steps, conversations=seen, length=length)


def counts(batches: rows.Batches) -> dict[str, Any]:
    """What a stage reads, all its steps together."""
    return {
        "conversations": batches.conversations,
        "steps": batches.steps,
        "rows": sum(batches.rows),
        "tokens": batches.tokens_before(batches.steps),
        "learned_tokens": batches.targets,
    }


def opened(
    settings: SupervisedStageSettings, inputs: Mapping[str, Artifact]
) -> tuple[Opened, tuple[int, ...]]:
    """(the base of a stage, not read yet, with what the tuned model has: the tokenizer that its format needs,
    its template, and stops where it ends an answer; ids of the tokens that are new)."""
    told = inputs["rows"].metrics
    form = replace(chat.FORMATS[told["format"]], system=told["system"])
    base = load.open_model(load.open_source(base_path(settings.base, inputs)))
    tokenizer = for_format(base.tokenizer, form)
    tokenizer.stops = chat.stop_ids(form, tokenizer)
    new = tuple(range(base.tokenizer.vocab_size, tokenizer.vocab_size))
    return base._replace(tokenizer=tokenizer, chat_template=chat.jinja(form, tokenizer.adds_bos)), new


def begin(
    settings: SupervisedStageSettings, base: Opened, new: Sequence[int], train: Any, context: Context
) -> tuple[Llama, Parallel]:
    """The model before its first step, with rows for new tokens. Of several processes each reads its own part
    alone, unless there are such rows or adapters."""
    processes, cluster, device = context.processes, context.cluster, context.execution.device
    source, adapted = base.source, settings.stage.lora
    in_parts = processes.world > 1 and not new and adapted is None
    if processes.world > 1 and cluster.mesh.tensor > 1 and (adapted or settings.stage.noise_alpha):
        raise UserError("cluster.mesh.tensor above 1 goes with neither adapters nor noise_alpha")
    source.check()
    model = Llama.empty(source.config, "meta") if in_parts else source.build(device)
    if new:
        lora.grow(model, new)
    if adapted is not None:
        targets = adapted.targets or lora.ALL_LINEAR
        adapter = lora.Adapter(adapted.rank, adapted.alpha, targets, adapted.rs, rows=tuple(new))
        lora.apply(model, adapter, seed=settings.seed)
    if processes.world == 1:
        return model, ALONE
    check_layout(model.config, train, cluster.mesh.tensor)
    mesh = processes.mesh(device, cluster)
    parallel = parallelize(model, mesh, precision(train), cluster.time_out_seconds)
    if in_parts:
        model.to_empty(device=device)
        _fill(model, lambda name, box: _cut(source.weights[name].read(), box))
    return model, parallel


@torch.no_grad()
def _fill(model: Llama, read: Callable[[str, Box], torch.Tensor]) -> None:
    """Copy what this process holds of trained parameters from elsewhere."""
    for name, parameter in checkpoint.trainable_of(model).items():
        local(parameter).copy_(read(name, box_of(parameter)))


def _cut(whole: torch.Tensor, box: Box) -> torch.Tensor:
    ends = zip(box.start, box.shape, strict=True)
    return whole[tuple(slice(start, start + size) for start, size in ends)]


def trained_parameters(model: Llama) -> int:
    """How many numbers are trained of a model."""
    return sum(each.numel() for each in model.parameters() if each.requires_grad)


def tune(settings: SupervisedStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Tune a model on packed conversations: its weights, or an adapter, with tokenizer and chat template, and
    the losses of all steps. Of several processes all call this, and the first one writes."""
    stage, encoded, processes = settings.stage, inputs["rows"], context.processes
    machine.check_precision(stage.precision, context.execution.device)
    threads = torch.get_num_threads()
    execution = executed(context.execution, settings.max_tokens)
    torch.set_num_threads(execution.threads or threads)
    (base, new), batches = opened(settings, inputs), plan(settings, encoded)
    train = stage.training(batches, settings.max_tokens)
    if stage.select == "best":
        execution = execution.model_copy(update={"checkpoints_every": train.validation_steps})
    held = [rows.load(encoded.folder / "held_out", one.name) for one in batches.sets]
    held_out = {one.name: rows.whole(one, settings.max_tokens) for one in held if len(one)}
    peak = processes.world * machine.matmul_peak(execution.device, precision(train))
    flops = base.source.config.flops_per_token(settings.max_tokens)
    log = metrics.Metrics(context.logs / "metrics.jsonl", lambda step: flops, peak)

    def publish(event: Event) -> None:
        log.write(event)
        context.reporter.event(event)

    listening = [publish] if processes.rank == 0 else []
    heartbeat, on_gpu = context.logs.parent / HEARTBEAT, execution.device == "cuda"
    watch = Watch(processes, context.cluster.time_out_seconds, heartbeat, context.should_stop, on_gpu=on_gpu)
    try:
        with context.pausable(), watch.guarding():
            model, parallel = begin(settings, base, new, train, context)
            if processes.rank == 0:
                _describe(base, model, context.scratch)
            parallel = replace(parallel, phase=watch.phase)
            trainer.keep_freed_memory(large=processes.world > 1)
            offered: Any = batches
            work = Supervised(model, offered, held_out, train, execution, parallel)
            work.add_noise(stage.noise_alpha, settings.seed)
            known = any(entry["step"] == 0 for entry in metrics.validation(log.path))
            if not parallel.team.broadcast(known) and held_out:
                spread(ValidationEvent(0, 0, work.validate()), watch, listening)
                _reshard(model)
            progress = trainer.train(
                *(model, work, train, execution),
                cluster=context.cluster,
                parallel=parallel,
                checkpoints=context.scratch,
                on_event=lambda event: spread(event, watch, listening),
                should_stop=watch.should_stop,
            )
            validations = parallel.team.broadcast(_validations(log.path, settings))
            chosen = _best(validations)["step"] if stage.select == "best" and validations else train.steps
            kept = context.scratch / f"step-{chosen:08d}"
            _reshard(model)
            if chosen != train.steps:
                index = checkpoint.read_index(kept)
                _fill(model, lambda name, box: checkpoint.read_tensors(kept, index, {name: box})[name])
            if stage.lora is not None:
                _save_adapter(model, base, context)
    finally:
        torch.set_num_threads(threads)
    processes.leave_group()
    if processes.rank:
        return {}
    if stage.lora is None:
        native.save(weights.read(kept) if processes.world > 1 else model, context.work)
    _describe(base, model, context.work)
    shutil.copyfile(context.scratch / LOSSES, context.work / LOSSES)
    losses = [json.loads(line)["loss"] for line in (context.work / LOSSES).read_text().splitlines()]
    if told := overfitting(validations, losses):
        context.reporter.note(told + ("" if stage.select == "best" else '; select = "best" keeps that step'))
    return {
        **counts(batches),
        "format": encoded.metrics["format"],
        "parameters": model.config.parameters(),
        "trained_parameters": trained_parameters(model),
        "loss": last_loss(context.work / LOSSES),
        "skipped_steps": progress.skipped,
        "validations": validations,
        "selected_step": chosen,
        "overfitting": told,
    }


def _describe(base: Opened, model: Llama, folder: Path) -> None:
    """Write what lies beside weights: the shape, tokenizer, template, ids that end a text."""
    native.describe(model.config, folder)
    files.to_folder(base.tokenizer, folder, base.chat_template, model.config.max_seq_len)


def _reshard(model: Llama) -> None:
    """Give a model of FSDP2 its own parameters back after a forward: an optimizer would be given gathered
    ones."""
    getattr(model, "reshard", lambda: None)()


def _save_adapter(model: Llama, base: Opened, context: Context) -> None:
    """Write an adapter; all processes gather it. A base beside the folder of runs, or in it, is named from
    the adapter's own folder, so that all can be moved together."""
    first, run = context.processes.rank == 0, context.work.absolute().parents[1]
    beside = peft.Base.of(base.source) if first else peft.Base(base.source.path, 0, {})
    if run.parents[1] in beside.path.parents:
        beside = replace(beside, path=Path(os.path.relpath(beside.path, run / context.work.name)))
    peft.save(model, context.work, beside, write=first)


def _validations(log: Path, settings: SupervisedStageSettings) -> list[dict[str, Any]]:
    """Held-out losses in order; mean: of the sets that are not only replayed, by which weights are chosen."""
    replayed = settings.replay[0] if settings.replay else ""
    told = (entry for entry in metrics.validation(log) if entry["losses"])
    found = [{"step": entry["step"], "losses": entry["losses"]} for entry in told]
    for entry in found:
        own = [loss for name, loss in entry["losses"].items() if name != replayed]
        entry["mean"] = float(np.mean(own or list(entry["losses"].values())))
    return found


def _best(validations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """That of the trained steps with the lowest loss, the earliest of equal ones."""
    return min((one for one in validations if one["step"]), key=lambda one: (one["mean"], one["step"]))


def overfitting(validations: Sequence[Mapping[str, Any]], losses: Sequence[float | None]) -> str:
    """Say where the held-out loss rose while the training loss fell; "" where it did not."""
    after = [entry for entry in validations if entry["step"]]
    if len(after) < 2:
        return ""
    best, last, every = _best(after), after[-1], after[0]["step"]
    before = [[loss for loss in losses[max(0, one["step"] - every) : one["step"]] if loss is not None]
              for one in (best, last)]  # fmt: skip
    then, now = (float(np.mean(part)) if part else 0.0 for part in before)
    if last["mean"] < 1.005 * best["mean"] or now >= then:
        return ""
    return (
        f"overfitting: the held-out loss rose from {best['mean']:.3f} after step {best['step']:,} to "
        f"{last['mean']:.3f} after step {last['step']:,}, while the training loss fell from {then:.3f} to "
        f"{now:.3f}"
    )
