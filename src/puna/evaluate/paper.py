"""The paper's tables 3 to 16 with models of one's own beside the published rows: as text, Markdown and JSON.

    markdown([read(Path("eval/SmolLM2"))])

A column names the score that belongs into it by a key, `task@shots[/group][:score]`, of the profile "paper":

    boolq@0    naturalquestions@64    mmlu@5/astronomy    truthfulqa@0:true

Averages are over questions: each column of a group counts with its number of questions. They are computed for
models that have all columns of the group, and for published rows where the paper prints none; where its
figures do not agree with each other, a note says so.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from puna.errors import UserError
from puna.text.lists import listed

PROFILE = "paper"
NO_LOG_PROBS = "not run, or asks for log-probabilities, which an endpoint does not give"
LEGEND = (
    "Published rows first. Behind a score of your own stand its standard error and the items it is over; "
    "partial: not all that the published rows are over. n/a: not run, or not to be had, as a note then says."
)


class Score(NamedTuple):
    """A model's score. value, error: as shares of one; error: its standard error, None where there is none;
    items: how many it is over; partial: whether these are but a part of the published ones."""

    value: float
    error: float | None
    items: int
    partial: bool = False


class Model(NamedTuple):
    """A model of one's own. scores: by the keys of columns; reason: why others are not there, where that is
    known."""

    name: str
    scores: Mapping[str, Score]
    reason: str = ""


class Column(NamedTuple):
    """A column of a table. parts: of an average, (place of a column, its number of questions) of each."""

    name: str
    key: str
    parts: tuple[tuple[int, int], ...] = ()


class Table(NamedTuple):
    """A table of the paper. turned: columns are printed as lines; digits: behind the point, one where values
    are percents; rows: published values by model, None where the paper has none; notes: where its figures do
    not agree."""

    number: int
    title: str
    turned: bool
    digits: int
    columns: list[Column]
    rows: dict[str, list[float | None]]
    notes: Sequence[str] = ()


def tables() -> list[Table]:
    """The published tables, in the paper's order."""
    return [_table(**table) for table in listed(__file__, "paper_tables.json")["tables"]]


def _table(columns: list[list[Any]], rows: list[list[Any]], **more: Any) -> Table:
    """A table of the file, where a column is (name, key), with (group, questions) where it counts in
    averages, with "=group" or "=*" where it is one."""

    def parts(average: str) -> tuple[tuple[int, int], ...]:
        members = ((at, column) for at, column in enumerate(columns) if len(column) == 4)
        return tuple((at, column[3]) for at, column in members if average in ("=*", f"={column[2]}"))

    made = [Column(column[0], column[1], parts(column[2]) if len(column) == 3 else ()) for column in columns]
    whole = {name: values + [None] * (len(columns) - len(values)) for name, *values in rows}
    return Table(columns=made, rows=whole, **more)


def read(folder: Path) -> Model:
    """The model whose results a folder has, with the folders in it. Raises UserError where there are none, or
    those of several models."""
    found: dict[str, Score] = {}
    models = set()
    for path in sorted(folder.rglob(f"*.{PROFILE}.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        models.add((result["model"], result["mode"]))
        task = f"{result['task']}@{result['shots']}"
        for group, every in {"": result["scores"], **result["groups"]}.items():
            for name, score in every.items():
                key = task + f"/{group}" * bool(group)
                told = Score(score["value"], score["stderr"], score["n"], result["partial"])
                found |= {f"{key}:{name}": told} | ({key: told} if name == result["main"] else {})
    if len(models) != 1:
        problem = "results of several models" if models else "no results of profile paper"
        raise UserError(f"{folder} has {problem}: name a folder that puna eval wrote, one for each model")
    ((_, mode),) = models
    name = folder.name + f" ({mode})" * (mode != "float32")
    return Model(name, found, NO_LOG_PROBS if mode == "endpoint" else "")


def mean(column: Column, values: Sequence[float | None]) -> float | None:
    """The average of a row over questions; None where a value is missing, or `column` is no average."""
    known = [(value, weight) for at, weight in column.parts if (value := values[at]) is not None]
    if not known or len(known) < len(column.parts):
        return None
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)


def scores(table: Table, model: Model) -> list[Score | None]:
    """A model's score in each column, its averages computed where they are not among the scores."""
    found = [model.scores.get(column.key) for column in table.columns]
    for place, column in enumerate(table.columns):
        value = mean(column, [score and score.value for score in found])
        if found[place] is None and value is not None:
            parts = [(score, weight) for at, weight in column.parts if (score := found[at])]
            spread = math.hypot(*(weight * (score.error or 0.0) for score, weight in parts))
            error = spread / sum(weight for _, weight in parts)
            items, partial = sum(score.items for score, _ in parts), any(score.partial for score, _ in parts)
            found[place] = Score(value, error, items, partial)
    return found


def grid(table: Table, models: Sequence[Model]) -> list[list[str]]:
    """The table as cells of text, its head first: published rows, then for each model its scores, their
    standard errors and the items behind them. Turned as the paper prints it."""
    lines = [["", *(column.name for column in table.columns)]]
    for name, values in table.rows.items():
        pairs = zip(table.columns, values, strict=True)
        filled = (mean(column, values) if value is None else value for column, value in pairs)
        lines.append([name, *("–" if value is None else f"{value:,.{table.digits}f}" for value in filled)])
    for model in models:
        found = scores(table, model)
        lines.append([model.name, *(_told(score, score and score.value, table) for score in found)])
        if any(found):
            errors = (_told(score, score and score.error, table) if score else "" for score in found)
            counts = (f"{score.items:,}{' partial' * score.partial}" if score else "" for score in found)
            lines += [["± standard error", *errors], ["n", *counts]]
    return [list(line) for line in zip(*lines, strict=True)] if table.turned else lines


def _told(score: Score | None, value: float | None, table: Table) -> str:
    scale = 100 if table.digits == 1 else 1
    return "n/a" if score is None else "–" if value is None else f"{scale * value:.{table.digits}f}"


def notes(table: Table, models: Sequence[Model]) -> list[str]:
    """Why scores of models are missing, and where the paper's figures do not agree with each other."""
    missing = [model for model in models if model.reason and None in scores(table, model)]
    return [*(f"n/a of {model.name}: {model.reason}." for model in missing), *table.notes]


def markdown(models: Sequence[Model]) -> str:
    """All tables as Markdown."""
    parts = ["# The paper's tables\n", f"{LEGEND}\n"]
    for table in tables():
        head, *rows = ([cell.replace("|", "\\|") for cell in line] for line in grid(table, models))
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        parts.append(f"## Table {table.number}: {table.title}\n")
        parts += [f"| {' | '.join(line)} |" for line in lines]
        parts += ["", *(f"{note}\n" for note in notes(table, models))]
    return "\n".join(parts)


def as_json(models: Sequence[Model]) -> list[dict[str, Any]]:
    """All tables as values for JSON. Scores of models are shares of one, by column, None where there is
    none."""
    told = []
    for table in tables():
        own = {model.name: [score and score._asdict() for score in scores(table, model)] for model in models}
        columns = [column.name for column in table.columns]
        told.append(table._asdict() | {"columns": columns, "models": own, "notes": notes(table, models)})
    return told
