"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from puna.errors import UserError


def existing_folder(folder: Path | None) -> Path | None:
    """Refuse an argument that names no folder. Raises UserError."""
    if folder is not None and not folder.is_dir():
        problem = "a file, not a folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {problem}; name a run's folder, such as out/laptop")
    return folder


def _shipped_recipes(tuning: bool = False) -> list[str]:
    """Names of those that train, or tune."""
    from puna import recipe

    paths = [path for folder in (recipe.CHECKOUT, recipe.PACKAGED) for path in folder.glob("*.toml")]
    return sorted({path.stem for path in paths if recipe.is_tuning(path) == tuning})


def _that_tune() -> list[str]:
    return _shipped_recipes(tuning=True)


def _that_train() -> list[str]:
    return _shipped_recipes()


RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="a shipped recipe's name (laptop, laptop-paper, seven-sources), or a .toml file",
        autocompletion=_that_train,
    ),
]
TuningArgument = Annotated[
    str,
    typer.Argument(
        help="a shipped recipe's name (alpaca, koala, llama-i, vicuna), or a .toml file",
        autocompletion=_that_tune,
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="a key of the recipe, such as train.steps=300; repeatable",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option(help="folder of all runs")]
JsonOption = Annotated[bool, typer.Option("--json", help="print figures as JSON")]
RunArgument = Annotated[
    Path,
    typer.Argument(
        help="folder of a finished run, such as out/laptop", show_default=False, callback=existing_folder
    ),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="folder of a finished run, such as out/laptop; of a checkpoint, step-NUMBER; folder or file of "
        "weights, such as model.gguf",
        show_default=False,
    ),
]
ModeOption = Annotated[
    Literal["float32", "bfloat16", "int8"],
    typer.Option(help="of the weights of a model in float32; texts and scores are others in each"),
]
