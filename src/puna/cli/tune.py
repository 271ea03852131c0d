"""puna tune: a base model becomes one that answers."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from puna.cli import output, signals, usage
from puna.cli.arguments import JsonOption, OutOption, TuningArgument
from puna.cli.run import program
from puna.cli.tune_audit import audit
from puna.errors import UserError

if TYPE_CHECKING:
    from puna.run.artifact import Artifact
    from puna.run.build import Build


PREPARED = ("replay", "rows")  # the stages that a forecast reads
FEW_STEPS = 8  # of a training that is told to be short


class _RunFirst(usage.Implied):
    """`puna tune RECIPE` means `puna tune run RECIPE`."""

    implied = "run"


tune = typer.Typer(cls=_RunFirst)


@tune.callback()
def _tune() -> None:
    """Tune a base model on conversations: puna tune RECIPE (its options: puna tune run --help)."""


tune.command()(audit)


@tune.command()
def run(
    recipe: TuningArgument,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="keys of the recipe, such as stages.sft.epochs=1"),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="the same", show_default=False),
    ] = None,
    out: OutOption = Path("out"),
    forecast: Annotated[bool, typer.Option("--forecast", help="say what it will take, and stop")] = False,
    ask: Annotated[bool, typer.Option("--ask", help="ask before anything is trained")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tune a base model by a recipe: encode, forecast, train, and write what is asked for next."""
    from puna import recipe as recipes
    from puna import stages
    from puna.cli.view import ConsoleView
    from puna.report import summary
    from puna.run import watch
    from puna.run.build import Build
    from puna.run.processes import Processes

    stops = signals.Signals()
    every = (*(changes or ()), *(override or ()))
    processes, view = Processes.started(), ConsoleView(0)
    with signals.once():
        path = recipes.find(recipe)
        loaded = recipes.load_tuning(path, every)
        listed = stages.tuning_stages(loaded, recipes.root_of(recipe, path), out)
        if processes.world > 1 and (forecast or ask):
            raise UserError("--forecast and --ask are for one process: the others would wait for the answer")
    if processes.world > 1:
        stops.together_seconds = watch.TOGETHER_SECONDS
    how: Any = (loaded.execution, stops.should_stop, stops.pausable, processes, loaded.cluster)
    build = Build(out / loaded.name, listed, *how)
    if processes.rank:
        signals.run(build, view, stops)
        signals.leave(0)
    view.begin(path, build.folder)
    planned = build.plan()
    if all(item.done for item in planned) and summary.is_current(build):
        signals.run(build, view, stops)
        view.console.print("nothing to do: every stage exists")
    else:
        prepared = [stage for stage in listed if stage.name in PREPARED]
        ready = signals.run(Build(build.folder, prepared, *how[:3]), view, stops)
        told = forecasts(build, ready)
        for line in told.values():
            view.note(_sentence(line))
        if forecast:
            return output.print_json(told) if as_json else None
        if ask and not _agreed():
            return print("not trained; the same command asks again")
        view.expect({name: line["steps"] for name, line in told.items()})
        summary.write_tuned(
            build,
            signals.run(build, view, stops),
            told,
            loaded.energy,
            loaded.base.weights,
            path.read_text("utf-8"),
        )
    figures = summary.read(build.folder)
    if as_json:
        output.print_json(figures)
    else:
        print_tuned(build.folder, figures)
    if processes.world > 1:
        processes.close()
        signals.leave(0)


def _agreed() -> bool:
    """Whether a person says yes; no, where nobody answers."""
    try:
        return typer.confirm("Train it?")
    except typer.Abort:
        print()
        return False


def forecasts(build: "Build", ready: "dict[str, Artifact]") -> dict[str, dict[str, Any]]:
    """What each stage that is not done will take. Raises UserError where there is not as much memory."""
    from puna.plan import memory
    from puna.run import artifact, machine
    from puna.run.build import Silent
    from puna.run.stage import Context
    from puna.tune import forecast
    from puna.tune.settings import executed
    from puna.tune.supervised import counts, opened, plan

    found: dict[str, dict[str, Any]] = {}
    at = build.folder
    context = Context(build.execution, at, at, at, at, Silent())
    for item in (item for item in build.plan() if item.stage.together):
        stage, settings = item.stage, item.stage.settings
        if item.done:
            ready[stage.name] = artifact.load(item.folder)
            continue
        source = stage.inputs.get("base")
        begins = artifact.load(source) if isinstance(source, Path) else ready.get(str(source))
        inputs = {"rows": ready["rows"], **({"base": begins} if begins else {})}
        line = found[stage.name] = counts(plan(settings, ready["rows"]))
        if (source is not None and begins is None) or build.processes.world > 1:
            continue  # its base is another stage's, not there yet; or no process has the whole model
        config = opened(settings, inputs)[0].source.config
        batches, execution = plan(settings, ready["rows"]), executed(build.execution, settings.max_tokens)
        train = settings.stage.training(batches, settings.max_tokens)
        # As many tokens as are in memory at once, in one row.
        tokens = min(batches.largest, train.micro_batch(execution) * settings.max_tokens)
        train = train.model_copy(update={"sequence_length": tokens})
        execution = execution.model_copy(update={"micro_batch_sequences": 1})
        allowed = build.execution.memory_bytes or machine.available_bytes(execution.device)
        resident, needed = machine.resident_bytes(), memory.training_bytes(config, train, execution)
        if settings.stage.lora is None and needed > allowed:
            raise UserError(
                f"{stage.name} needs about {needed / 1e9:.1f} GB, and {allowed / 1e9:.1f} GB may be used: it "
                f"does not fit; adapters (stages.{stage.name}.lora.rank=8) need less, and so "
                "do a lower execution.micro_batch_sequences and chat.max_tokens"
            )
        line |= forecast.probe(settings, inputs, context)
        # What is frozen has no gradient, no moments and no copy of them.
        frozen = max(0, config.parameters() - line["trained_parameters"])
        line["memory_bytes"] = resident + needed - 24 * frozen
    return found


def _sentence(line: dict[str, Any]) -> str:
    from puna.report.markup import duration

    few = "; so few steps learn little: lower batch_conversations" if line["steps"] < FEW_STEPS else ""
    cpu = f", about {duration(line['cpu_seconds'])} of processor time" if "cpu_seconds" in line else ""
    size = f", {line['memory_bytes'] / 1e9:.1f} GB at most" if cpu else ""
    return (
        f"{line['conversations']:,} conversations, {line['tokens']:,} tokens, {line['learned_tokens']:,} of "
        f"them learned, in {line['rows']:,} packed rows; {line['steps']:,} "
        f"step{'s' * (line['steps'] != 1)}{cpu}{size}{few}"
    ).replace("\xa0", " ")


def print_tuned(folder: Path, figures: dict[str, Any]) -> None:
    """Print what a tuning came to, and what to do next."""
    from puna.report import summary

    for name, stage in figures["tuned"].items():
        rows = [(entry["step"], *(f"{loss:.3f}" for loss in entry["losses"].values()))
                for entry in stage["validations"]]  # fmt: skip
        if rows:
            output.print_table(("held out", *stage["validations"][0]["losses"]), rows)
        print(f"{name}: step {stage['selected_step']:,} of {stage['steps']:,}, format {stage['format']}")
        if stage["overfitting"]:
            print(stage["overfitting"])
    probe = figures["probe"]
    for name in ("before", "after") if "after" in probe else ():
        asked, told = len(probe[name]["questions"]), probe[name]
        ends = "" if told["ended"] is None else f"{told['ended']:.0%} of answers end by themselves, "
        bits = f"{told['bits_per_byte']:.3f} bits per byte of plain text"
        print(f"{name}: {told['right']} of {asked} plain questions right, {ends}{bits}")
    for text in probe.get("warnings", ()):
        print(f"warning: {text}")
    if advice := figures.get("passages", {}).get("advice"):
        print(advice)
    print(f"report: {folder / summary.REPORT}")
    print(f"model: {summary.model_folder(folder).resolve()}")
    print(f"next: {program()} chat {shlex.quote(str(folder))}")
