"""puna eval follow: scores of a run's checkpoints while it is trained."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from puna.cli.arguments import OutOption, Override, RecipeArgument
from puna.cli.run import raw_folder
from puna.errors import UserError

SECONDS = 10.0  # between two looks for a new checkpoint


def follow(
    recipe: RecipeArgument = "laptop",
    tasks: Annotated[str, typer.Option(help="names, such as boolq,piqa")] = "piqa",
    data: Annotated[
        Path | None, typer.Option(help="folder of the tasks' files; default: from the hub")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="so many items of each task; 0: all")] = 200,
    override: Override = None,
    out: OutOption = Path("out"),
) -> None:
    """Measure checkpoints of a run while another process trains it, and draw scores over tokens seen."""
    from puna import recipe as recipes
    from puna import stages
    from puna.evaluate import follow as following
    from puna.evaluate.task import find
    from puna.report.paper import render_curves
    from puna.run.build import Build
    from puna.run.files import write_atomically
    from puna.tokens.tokenizer import load

    path = recipes.find(recipe)
    loaded = recipes.load(path, tuple(override or ()))
    build = Build(out / loaded.name, stages.stages(loaded, raw_folder(path, loaded)))
    planned = {item.stage.name: item for item in build.plan()}
    training, made = planned["train"], planned["tokenizer"]
    if not made.done:
        raise UserError(f"{build.folder}: its training has not begun: puna run {recipe} in another window")
    chosen, tokenizer = [find(name) for name in tasks.split(",")], load(made.folder / "tokenizer.model")
    scratch, results = (build.folder / name / training.folder.name for name in (".scratch", "eval"))
    os.nice(19)  # training goes before
    done = False
    while not done:
        done = training.done
        for tokens, place in following.checkpoints(scratch, training.folder):
            folder = results / str(tokens)
            if (folder / f"{chosen[-1].name}.paper.json").is_file():
                continue
            if (model := following.read(place, loaded.llama_config())) is None:
                continue
            following.measure(model, place, tokenizer, chosen, folder, data=data, limit=limit)
            curves = following.curves(results)
            write_atomically(results / "curves.html", render_curves(loaded.name, curves))
            told = (f"{task}: {points[-1][1]:.1f}%" for task, points in curves.items())
            print(f"{tokens:,} tokens: {'; '.join(told)}", flush=True)
        time.sleep(0 if done else SECONDS)
    print(f"curves: {results / 'curves.html'}")
