"""puna eval paper: the paper's tables beside models that were measured; scores of lm-evaluation-harness."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from puna.cli import output
from puna.cli.arguments import JsonOption


def paper(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="folders of results, one a model", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="files to write, without .md, .html, .json")] = Path("eval/paper"),
    as_json: JsonOption = False,
) -> None:
    """Put measured models into the paper's tables 3 to 16, beside the published rows."""
    from puna.evaluate import paper as tables
    from puna.report import paper as page
    from puna.run.files import write_atomically

    models = [tables.read(folder) for folder in folders or ()]
    found = tables.as_json(models)
    out.parent.mkdir(parents=True, exist_ok=True)
    forms = {".md": tables.markdown(models), ".html": page.render(models), ".json": json.dumps(found)}
    for suffix, text in forms.items():
        write_atomically(out.with_name(out.name + suffix), text)
    if as_json:
        return output.print_json(found)
    print(tables.LEGEND)
    for table in tables.tables():
        head, *rows = tables.grid(table, models)
        print(f"\nTable {table.number}: {table.title}")
        output.print_table(head, rows)
        for note in tables.notes(table, models):
            print(note)
    print(f"\nwritten: {', '.join(str(out) + suffix for suffix in forms)}")


def with_harness(
    loaded: Any, tasks: Sequence[str], data: Path | None, shots: int | None, limit: int, as_json: bool
) -> None:
    """Print what lm-evaluation-harness finds for a model. data: folder of YAML files with tasks of one's
    own."""
    from puna.evaluate import harness

    found = harness.run(loaded, tasks, shots=shots, limit=limit or None, folder=data)
    if as_json:
        return output.print_json({name: found[name] for name in ("results", "n-samples", "versions")})
    print(harness.table(found))
