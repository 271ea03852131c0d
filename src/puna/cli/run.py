"""puna run, show, verify and report: a recipe's stages and what they leave."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from puna.cli import output, signals
from puna.cli.arguments import JsonOption, OutOption, Override, RecipeArgument, RunArgument, existing_folder
from puna.errors import UserError

if TYPE_CHECKING:
    from puna.cli.view import ConsoleView
    from puna.recipe import CorpusRecipe, Recipe, TuneRecipe
    from puna.run.processes import Processes

UNFINISHED = {".work", ".scratch", ".saving"}  # folders of work that a run goes on with


def raw_folder(path: Path, recipe: "CorpusRecipe") -> Path:
    """The folder that a recipe's local files are relative to. path: the recipe's file."""
    return path.parent / os.path.expanduser(os.path.expandvars(recipe.corpus.root))


def run(
    recipe: RecipeArgument = "laptop",
    override: Override = None,
    out: OutOption = Path("out"),
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: make what is missing, skip what exists, write the report."""
    from puna import recipe as recipes
    from puna.cli.view import ConsoleView
    from puna.run import watch

    stops = signals.Signals()
    changes = tuple(override or ())
    with signals.once():
        path = recipes.find(recipe)
        loaded = recipes.load(path, changes)
    # As it is now: it may be edited while the run goes on.
    text = path.read_text() + "".join(f"\n# set on the command line: {change}" for change in changes)
    view = ConsoleView(loaded.train.steps)
    with signals.once():
        processes = _processes(loaded, view)
    if processes.world > 1:
        stops.together_seconds = watch.TOGETHER_SECONDS
    if processes.rank == 0:
        view.begin(path, out / loaded.name)

    from puna import stages
    from puna.report import summary
    from puna.run.build import Build

    listed = stages.stages(loaded, raw_folder(path, loaded))
    how = (loaded.execution, stops.should_stop, stops.pausable, processes, loaded.cluster)
    build = Build(out / loaded.name, listed, *how)
    if processes.rank:
        signals.run(build, view, stops)
        signals.leave(0)  # threads of the processes' group may outlive it
    planned = {item.stage.name: item for item in build.plan()}
    if not planned["train"].done:
        _check_memory(loaded, processes)
    nothing_to_do = all(item.done for item in planned.values()) and summary.current(build, loaded.energy)
    finished = signals.run(build, view, stops)
    if nothing_to_do:
        figures = summary.read(build.folder)
        view.console.print("nothing to do: every stage exists")
    else:
        figures = summary.write(build, finished, text, loaded.energy, recipe, program(), changes)
    _print_figures(build.folder, figures, as_json)
    if not as_json:
        print(f'next: {program()} generate {shlex.quote(str(build.folder))} "{_prompt(figures)}"')
    if processes.world > 1:
        processes.close()
        signals.leave(0)


def _processes(recipe: "Recipe", view: "ConsoleView") -> "Processes":
    """Those that torchrun started. Raises UserError where the recipe's mesh does not fit them."""
    from puna.run.processes import Processes, mesh_sizes
    from puna.train.stage import check_layout

    processes, mesh = Processes.started(), recipe.cluster.mesh
    if processes.world > 1:
        mesh_sizes(mesh, processes.world)
        check_layout(recipe.llama_config(), recipe.train, mesh.tensor)
    elif mesh.replicate * mesh.tensor * (1 if mesh.shard == "all" else mesh.shard) > 1:
        view.note(
            "one process: cluster.mesh is for those that torchrun starts (torchrun ... -m puna run ...)"
        )
    return processes


def program() -> str:
    """This program as it was called."""
    called = sys.argv[0]
    if Path(called).name != "puna":
        return "python -m puna"
    return "puna" if shutil.which("puna") == called else called


def _prompt(figures: dict[str, Any]) -> str:
    """A beginning that can be typed between double quotes."""
    prompts = [sample["prompt"] for sample in figures["samples"]]
    return next((prompt for prompt in prompts if not set(prompt) & set('"$`\\!\n')), "The ")


def _check_memory(recipe: "Recipe", processes: "Processes") -> None:
    from puna.plan import memory
    from puna.run import machine
    from puna.run.processes import mesh_sizes

    machine.check_precision(recipe.train.precision, recipe.execution.device)
    available = machine.available_bytes(recipe.execution.device)
    if recipe.execution.device == "cpu":
        available //= processes.local_world
    allowed = min(recipe.execution.memory_bytes or available, available)
    execution, parts, tensor = recipe.execution, 1, 1
    if processes.world > 1:
        replicate, shard, tensor = mesh_sizes(recipe.cluster.mesh, processes.world)
        rows = -(-recipe.train.batch_sequences // (replicate * shard))
        rows = min(rows, recipe.train.micro_batch(execution))
        execution, parts = execution.model_copy(update={"micro_batch_sequences": rows}), shard * tensor
    memory.check(recipe.llama_config(), recipe.train, execution, allowed, parts, tensor)


def show(
    recipe: RecipeArgument = "laptop",
    override: Override = None,
    out: OutOption = Path("out"),
    as_json: JsonOption = False,
) -> None:
    """Print a recipe's stages, their fingerprints, and which of them a run would make."""
    from puna import recipe as recipes
    from puna import stages
    from puna.run.build import Build

    path, changes = recipes.find(recipe), tuple(override or ())
    loaded: CorpusRecipe | TuneRecipe
    if recipes.is_tuning(path):
        loaded = recipes.load_tuning(path, changes)
        listed = stages.tuning_stages(loaded, recipes.root_of(recipe, path), out)
    else:
        loaded = recipes.load_corpus(path, changes)
        listed = stages.stages(loaded, raw_folder(path, loaded))
    build = Build(out / loaded.name, listed, loaded.execution)
    rows = [
        {
            "stage": item.stage.name,
            "fingerprint": item.fingerprint,
            "inputs": list(item.inputs),
            "state": "exists" if item.done else _waiting(build.folder / ".scratch" / item.folder.name),
            "folder": str(item.folder),
        }
        for item in build.plan()
    ]
    if as_json:
        return output.print_json(rows)
    columns = ("stage", "fingerprint", "inputs", "state")
    cells = [{**row, "inputs": " ".join(row["inputs"])} for row in rows]
    output.print_table(columns, [[row[column] for column in columns] for row in cells])
    if not isinstance(loaded, recipes.Recipe | recipes.TuneRecipe):
        print("a recipe of a corpus alone: it has no stages that train")


def _waiting(scratch: Path) -> str:
    """What a run would do about a stage that is not finished. scratch: the stage's folder of work."""
    whole = scratch.glob("step-*/index.json")  # a checkpoint's, which is written last and goes first
    if steps := sorted(int(path.parent.name.removeprefix("step-")) for path in whole):
        return f"will go on after step {steps[-1]:,}"
    return "will go on" if scratch.is_dir() and any(scratch.iterdir()) else "will run"


def verify(
    folder: Annotated[
        Path,
        typer.Argument(help="an artifact, a run's folder, or a folder of runs", callback=existing_folder),
    ],
    as_json: JsonOption = False,
) -> None:
    """Read every file of every artifact again and compare its digest; name what is damaged or gone."""
    rows = [*_artifact_rows(folder), *_missing_rows(folder)]
    if not rows:
        raise UserError(f"{folder} holds no artifact")
    if as_json:
        output.print_json(rows)
    else:
        cells = [[row["artifact"], *_figures_of(row)] for row in rows]
        output.print_table(("artifact", "files", "bytes", "digest"), cells)
    if problems := [row["problem"] for row in rows if not row["sound"]]:
        raise UserError("\n".join(problems))
    if not as_json:
        print("every file is as its manifest says")
        waiting = [path for run in (folder, *sorted(folder.iterdir())) for path in run.glob(".scratch/*-*")]
        for path in waiting:
            print(f"unfinished: {path.name} in {path.parents[1]}; the command that made it goes on with it")


def _figures_of(row: dict[str, Any]) -> list[Any]:
    return [row["files"], row["bytes"], row["digest"][:12]] if row["sound"] else ["", "", row["state"]]


def _artifact_rows(folder: Path) -> Iterator[dict[str, Any]]:
    from puna.run import artifact
    from puna.train import checkpoint

    for path in _files_called(checkpoint.INDEX, folder):
        if path.parent.name.startswith("step-"):
            yield _checkpoint_row(path.parent)
    for path in _files_called(artifact.MANIFEST, folder):
        try:
            loaded = artifact.load(path.parent)
            loaded.verify()
        except UserError as error:
            yield {"artifact": str(path.parent), "sound": False, "state": "damaged", "problem": str(error)}
        else:
            figures = {"files": len(loaded.files), "bytes": loaded.bytes, "digest": loaded.digest}
            yield {"artifact": str(path.parent), **figures, "sound": True}


def _checkpoint_row(path: Path) -> dict[str, Any]:
    """Of one that other trainings go on from."""
    from puna.train import checkpoint

    try:
        index = checkpoint.verify(path)
    except UserError as error:
        return {"artifact": str(path), "sound": False, "state": "damaged", "problem": str(error)}
    total = sum(described["bytes"] for described in index["files"].values())
    figures = {"files": len(index["files"]), "bytes": total, "digest": index["sha256"]}
    return {"artifact": str(path), **figures, "sound": True}


def _missing_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """What summaries list and is gone, and summaries that cannot be read."""
    from puna.report import summary

    for path in _files_called(summary.SUMMARY, folder):
        try:
            names = summary.missing(path.parent)
        except UserError as error:
            yield {"artifact": str(path), "sound": False, "state": "damaged", "problem": str(error)}
            continue
        for name in names:
            gone = path.parent / name
            problem = f"{gone} is gone, and {path} lists it; run the recipe again to make it"
            yield {"artifact": str(gone), "sound": False, "state": "gone", "problem": problem}


def _files_called(name: str, folder: Path) -> list[Path]:
    """Files of a name in a folder and below it; in an artifact its own alone, and none in unfinished work."""
    from puna.run.artifact import MANIFEST

    found = []
    for at, folders, files in os.walk(folder):
        if name in files:
            found.append(Path(at) / name)
        # What lies in an artifact is its content.
        folders[:] = [] if MANIFEST in files else sorted(set(folders) - UNFINISHED)
    return found


def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Print the figures of a finished run and where its page is."""
    from puna.report import summary

    _print_figures(run, summary.read(run), as_json)


def _print_figures(folder: Path, figures: dict[str, Any], as_json: bool) -> None:
    from puna.report import results, summary

    if as_json:
        return output.print_json(figures)
    if "tuned" in figures:
        from puna.cli.tune import print_tuned

        return print_tuned(folder, figures)
    counts = f"{figures['documents']:,} documents, {figures['tokens']:,} tokens trained"
    print(f"{counts}, {figures['model']['parameters']:,} weights")
    scores = figures["bits_per_byte"]
    labels = {"model": "model", "five_gram": "5-gram", "unigram": "unigram", "xz": "xz -9"}
    methods = [method for method in labels if any(method in values for values in scores.values())]
    rows = [(source, *(f"{values[method]:.3f}" for method in methods)) for source, values in scores.items()]
    output.print_table(("bits per byte", *(labels[method] for method in methods)), rows)
    unsure = results.unsure(figures["mixture"], figures.get("intervals"))
    for told in filter(None, (results.verdict(scores), unsure, results.five_gram_note(figures))):
        print(told)
    if "tokens_per_second" in figures:
        print(_cost(figures))
    print(f"report: {(folder / summary.REPORT).resolve()}")


def _cost(figures: dict[str, Any]) -> str:
    """Speed, time and energy in one line."""
    from puna.report.markup import carbon, duration, energy

    mean = figures["tokens"] / figures["training_seconds"]
    spent = figures["energy"]
    measured = spent["measured"]
    told = [
        f"{figures['tokens_per_second']:,.0f} tokens/s in the median step, {mean:,.0f} in the mean",
        f"{figures['matmul_peak_share']:.0%} of the matrix-product peak",
        f"{duration(sum(figures['seconds'].values()))} in all",
        energy(spent["kwh"], measured=measured),
        f"{carbon(spent['kg_co2'], measured=measured)} CO2",
    ]
    return ", ".join(told).replace("\xa0", " ")
