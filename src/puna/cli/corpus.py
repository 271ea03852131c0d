"""puna corpus: raw files to clean documents, and questions to a finished corpus."""

import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from puna.cli import output, signals, usage
from puna.cli.arguments import JsonOption, OutOption, Override, RunArgument, existing_folder
from puna.cli.run import raw_folder
from puna.errors import UserError

if TYPE_CHECKING:
    from puna.cli.view import ConsoleView
    from puna.run.artifact import Artifact

HEAD = "# What the corpus was made from."
LISTED_UNREAD = 20  # files that no reader takes, named one by one


class _CleanFirst(usage.Implied):
    """`puna corpus PATH` means `puna corpus clean PATH`."""

    implied = "clean"


corpus = typer.Typer(cls=_CleanFirst)


@corpus.callback()
def _corpus() -> None:
    """Turn raw files into clean documents: puna corpus PATH... (its options: puna corpus clean --help)."""


@corpus.command()
def clean(
    paths: Annotated[
        list[str],
        typer.Argument(help="raw files, folders of them, addresses, a file of addresses; or one recipe"),
    ],
    name: Annotated[str, typer.Option(help="name of the output folder; default: the first path's")] = "",
    languages: Annotated[
        str, typer.Option(help="languages kept, such as en,de; default: all, or the recipe's")
    ] = "",
    override: Override = None,
    out: OutOption = Path("out"),
    as_json: JsonOption = False,
) -> None:
    """Turn raw files into clean documents, with a data card and a page to judge the filters by."""
    from puna import recipe as recipes
    from puna.cli.view import ConsoleView

    codes = _language_codes(languages)
    view = ConsoleView(1)
    changes = list(override or ())
    if _is_recipe(paths, name):
        if codes:
            changes.insert(0, f"corpus.languages={json.dumps(codes)}")
        view.begin(paths[0], out / recipes.load_corpus(recipes.find(paths[0]), tuple(changes)).name)
        documents, page = _build(paths[0], changes, out, view)
    else:
        folder = out / _output_name(name, paths)
        documents, page = _clean(folder, paths, codes, changes, view)
    if as_json:
        output.print_json({**documents.metrics, "documents": str(documents.folder), "page": str(page)})
    else:
        _print_funnel(documents, page)


def _language_codes(languages: str) -> list[str]:
    from puna.corpus.filters import language

    codes = [code.strip() for code in languages.split(",") if code.strip()]
    if wrong := language.unknown(codes):
        raise UserError(f"--languages: {wrong}")
    return codes


def _is_recipe(paths: list[str], name: str) -> bool:
    """Whether a recipe is given instead of raw files. Raises UserError where both are."""
    from puna import recipe as recipes

    given = [path for path in paths if path.endswith(".toml")]
    if given and (len(paths) > 1 or name):
        raise UserError(
            f"{given[0]} is a recipe, which is given alone and has a name of its own; "
            "put raw files among its sources"
        )
    return bool(given) or (len(paths) == 1 and recipes.is_shipped(paths[0]))


def _output_name(name: str, paths: list[str]) -> str:
    name = name or _folder_name(paths[0])
    if _folder_name(name) != name:
        raise UserError(
            f"--name {name}: a name has letters, digits and hyphens, such as {_folder_name(name)}"
        )
    return name


def _folder_name(path: str) -> str:
    """A folder name out of a path or an address."""
    last = path.partition("#")[0].rstrip("/").rpartition("/")[2].partition(".")[0]
    letters = [letter if letter.isalnum() and letter.isascii() else "-" for letter in last]
    return "".join(letters).strip("-") or "corpus"


def _clean(
    folder: Path, paths: list[str], codes: list[str], changes: list[str], view: "ConsoleView"
) -> "tuple[Artifact, Path]":
    """Write a recipe that reads these paths, make its documents, and add the sections that train a small
    model on them: (documents, the page).

    Where the folder has a recipe, that stays until the run of the new one has ended well.
    """
    from puna.corpus.sources import discover, fetch
    from puna.run.files import write_atomically

    discover.check(folder, paths)
    view.begin(paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more", folder)
    text, unread = discover.recipe(folder.name, paths, codes, folder / ".scratch" / fetch.DOWNLOADS)
    begun = f"{HEAD}\n{text}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in unread[:LISTED_UNREAD]:
        view.note(f"no reader takes {name}")
    if len(unread) > LISTED_UNREAD:
        view.note(f"and {len(unread) - LISTED_UNREAD} others")
    # A temporary recipe lies beside the other, since paths start from a recipe's folder.
    recipe, state = folder / discover.RECIPE, folder / discover.STATE
    next_recipe, next_state = (path.with_name(f".{path.name}") for path in (recipe, state))
    first = recipe if not recipe.exists() else next_recipe
    try:
        write_atomically(state if first is recipe else next_state, discover.state(paths, begun))
        write_atomically(first, begun)
        documents, page = _build(str(first), changes, folder.parent, view)
        whole = _with_training(text, documents, view)
        write_atomically(next_state, discover.state(paths, whole))
        write_atomically(recipe, whole)
        os.replace(next_state, state)
    finally:
        for path in (next_recipe, next_state):
            path.unlink(missing_ok=True)
    return documents, page


def _with_training(text: str, documents: "Artifact", view: "ConsoleView") -> str:
    """A recipe of a corpus with its head and what trains a small model on these documents, if one can be."""
    from puna import recipe as recipes
    from puna.plan import small

    try:
        training = recipes.as_toml(small.sections(documents))
    except UserError as error:
        why = f"too little text to train a model on: {error}; give more documents"
        view.note(why)
        return f"{HEAD} It is {why}.\n{text}"
    return f"{HEAD} `puna run` on this file trains a small model on it.\n{text}{training}"


def _build(recipe: str, changes: list[str], out: Path, view: "ConsoleView") -> "tuple[Artifact, Path]":
    """Make a recipe's documents, and a page to judge the filters by: (documents, the page)."""
    from puna import recipe as recipes
    from puna import stages
    from puna.corpus.sources import fetch
    from puna.report import summary
    from puna.run.build import Build

    stops = signals.Signals()
    path = recipes.find(recipe)
    loaded = recipes.load_corpus(path, tuple(changes))
    listed = stages.corpus_stages(loaded, raw_folder(path, loaded))
    build = Build(out / loaded.name, listed, loaded.execution, stops.should_stop, stops.pausable)
    documents = signals.run(build, view, stops)["documents"]
    # What `discover` downloaded is now in the artifact of the fetch stage.
    shutil.rmtree(build.folder / ".scratch" / fetch.DOWNLOADS, ignore_errors=True)
    return documents, summary.write_corpus_page(build.folder, documents)


def _print_funnel(documents: "Artifact", page: Path) -> None:
    from puna.corpus.funnel import FUNNEL

    rows = [
        (source, *(steps[step]["documents"] for step in FUNNEL), steps["kept"]["bytes"])
        for source, steps in documents.metrics["sources"].items()
    ]
    output.print_table(("documents", *FUNNEL, "bytes kept"), rows)
    for source, reasons in documents.metrics["dropped"].items():
        if reasons:
            ordered = sorted(reasons.items(), key=lambda item: -item[1])
            print(f"dropped of {source}: " + ", ".join(f"{count:,} {reason}" for reason, count in ordered))
    print(f"documents: {documents.folder.resolve()}\npage: {page.resolve()}")


@corpus.command()
def score(
    files: Annotated[list[Path], typer.Argument(help="text files, each one document", exists=False)],
    run: Annotated[
        Path | None,
        typer.Option(
            help="a run whose corpus learnt quality models, such as out/mine", callback=existing_folder
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print language, perplexity and reference score of local texts."""
    from puna.corpus import inspect

    rows = inspect.score(files, run)
    if as_json:
        return output.print_json(rows)
    columns = ["file", "language", "score", "characters"]
    if run:
        columns += ["perplexity", "bucket", "reference"]
    output.print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])


def _cell(value: Any) -> Any:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else value


@corpus.command()
def dropped(
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="only reasons that begin so, such as opt-out")] = "",
    source: Annotated[str, typer.Option(help="only this source")] = "",
    most: Annotated[int, typer.Option("--most", "-n", min=0, help="most records; 0: all")] = 50,
    text: Annotated[bool, typer.Option("--text", help="how their text begins, too")] = False,
    as_json: JsonOption = False,
) -> None:
    """List records that were dropped, each with its reason."""
    from puna.corpus import inspect

    for row in inspect.dropped(run, reason, source, most):
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            _print_dropped(row, text)
    counts = [
        (name, why, count)
        for name, reasons in inspect.dropped_counts(run).items()
        for why, count in reasons.items()
    ]
    total = sum(count for name, why, count in counts if source in ("", name) and why.startswith(reason))
    if most and total > most:
        print(f"{total - most:,} more; --most 0 lists all", file=sys.stderr)
    if not total:
        asked = (f" of {source}" if source else "") + (f" for the reason {reason!r}" if reason else "")
        listed = "; ".join(f"{name}: {why}" for name, why, _ in sorted(counts)) or "none"
        raise UserError(f"{run}: no dropped record{asked}; there are: {listed}")


def _print_dropped(row: dict[str, Any], with_text: bool) -> None:
    from puna.corpus import inspect

    detail = f": {row['detail']}" if row["detail"] else ""
    repeated = f" ({inspect.describe(row['of'])})" if row["of"] else ""
    print(f"{row['source']}  {row['reason']}{detail}{repeated}  {row['url']}  {row['file']}:{row['offset']}")
    if with_text:
        print(textwrap.indent(row["excerpt"] or "(no text was made of it)", "    ") + "\n")
