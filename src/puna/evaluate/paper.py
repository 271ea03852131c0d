"""The paper's tables 3 to 16 with models of one's own beside the published rows: as text, Markdown and JSON.

    markdown([read(Path("eval/SmolLM2"))])

A column names the score that belongs into it by a key, `task@shots[/group][:score]`, of the profile "paper":

    boolq@0    naturalquestions@64    mmlu@5/astronomy    truthfulqa@0:true

Averages are over questions: each column of a group counts with its number of questions. They are computed for
models that have all columns of the group, and for published rows where the paper prints none; where it prints
one that its own rows do not give, a note says so.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from puna.errors import UserError
from puna.text.lists import listed

PROFILE = "paper"
ROUNDED = 0.1001  # percent that averages may be off: rows and averages are printed with one decimal
KWH_PER_GPU_HOUR = 0.4 * 1.1  # table 15: 400 W times the power usage effectiveness of the data centre
TONNES_PER_MWH = 0.385
CUT_OFF = 1.0  # MWh that the paper cuts off
NO_LOG_PROBS = "not run, or asks for log-probabilities, which an endpoint does not give"
LEGEND = (
    "Published rows first. Beneath a score of your own stand its standard error and the items it is over; "
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
    """A column of a table. group: whose average it counts in, with `weight` questions; "=STEM": it is that
    group's average; "=*": the average of all columns with a weight."""

    name: str
    key: str
    group: str = ""
    weight: int = 0


class Table(NamedTuple):
    """A table of the paper. turned: columns are printed as lines; digits: behind the point; rows: published
    values by model, None where the paper has none."""

    number: int
    title: str
    turned: bool
    digits: int
    columns: list[Column]
    rows: dict[str, list[float | None]]

    @property
    def scale(self) -> float:
        """What a share of one is multiplied by: 100 in tables of percents."""
        return 100.0 if self.digits == 1 else 1.0

    def members(self, column: Column) -> list[int]:
        """Places of the columns that an average is over; none where `column` is no average."""
        if not column.group.startswith("="):
            return []
        wanted = column.group[1:]
        return [
            place for place, other in enumerate(self.columns) if other.weight and wanted in ("*", other.group)
        ]


def tables() -> list[Table]:
    """The published tables, in the paper's order."""
    found = []
    for table in listed(__file__, "paper_tables.json")["tables"]:
        columns = [Column(*column) for column in table.pop("columns")]
        rows = {name: values + [None] * (len(columns) - len(values)) for name, *values in table.pop("rows")}
        found.append(Table(**table, columns=columns, rows=rows))
    return found


def read(folder: Path) -> Model:
    """The model whose results a folder has, with the folders in it. Raises UserError where there are none, or
    those of several models."""
    found: dict[str, Score] = {}
    models, reason = set(), ""
    for path in sorted(folder.rglob(f"*.{PROFILE}.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        models.add(result["model"])
        reason = NO_LOG_PROBS if result["mode"] == "endpoint" else reason
        task = f"{result['task']}@{result['shots']}"
        for group, every in {"": result["scores"], **result["groups"]}.items():
            for name, score in every.items():
                key = task + f"/{group}" * bool(group)
                told = Score(score["value"], score["stderr"], score["n"], result["partial"])
                found |= {f"{key}:{name}": told} | ({key: told} if name == result["main"] else {})
    if len(models) != 1:
        problem = "results of several models" if models else "no results of profile paper"
        raise UserError(f"{folder} has {problem}: name a folder that puna eval wrote, one for each model")
    return Model(folder.name, found, reason)


def mean(table: Table, column: Column, values: Sequence[float | None]) -> float | None:
    """The average of a row over questions; None where a value is missing, or `column` is no average."""
    parts = [(values[place], table.columns[place].weight) for place in table.members(column)]
    if not parts or any(value is None for value, _ in parts):
        return None
    return sum((value or 0.0) * weight for value, weight in parts) / sum(weight for _, weight in parts)


def scores(table: Table, model: Model) -> list[Score | None]:
    """A model's score in each column, its averages computed where they are not among the scores."""
    found = [model.scores.get(column.key) for column in table.columns]
    for place, column in enumerate(table.columns):
        value = mean(table, column, [score and score.value for score in found])
        if found[place] is None and value is not None:
            members = table.members(column)
            parts = [score for at in members if (score := found[at])]
            weights = [table.columns[at].weight for at in members]
            spread = math.hypot(*(w * (part.error or 0.0) for w, part in zip(weights, parts, strict=True)))
            items, partial = sum(part.items for part in parts), any(part.partial for part in parts)
            found[place] = Score(value, spread / sum(weights), items, partial)
    return found


def grid(table: Table, models: Sequence[Model]) -> list[list[str]]:
    """The table as cells of text, its head first: published rows, then for each model its scores, their
    standard errors and the items behind them. Turned as the paper prints it."""
    lines = [["", *(column.name for column in table.columns)]]
    for name, values in table.rows.items():
        pairs = zip(table.columns, values, strict=True)
        filled = (mean(table, column, values) if value is None else value for column, value in pairs)
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
    return "n/a" if score is None else "–" if value is None else f"{table.scale * value:.{table.digits}f}"


def notes(table: Table, models: Sequence[Model], everything: Sequence[Table]) -> list[str]:
    """Why scores of models are missing, and where the paper's figures do not agree with each other."""
    found = [
        f"n/a of {model.name}: {model.reason}."
        for model in models
        if model.reason and None in scores(table, model)
    ]
    return found + list(_disagreements(table, everything))


def _disagreements(table: Table, everything: Sequence[Table]) -> Iterator[str]:
    elsewhere = {
        (name, column.key): (value, other.number)
        for other in everything
        if other is not table
        for name, values in other.rows.items()
        for column, value in zip(other.columns, values, strict=True)
    }
    for name, values in table.rows.items():
        if table.number == 15:
            yield from _carbon(name, *values)
            continue
        for column, value in zip(table.columns, values, strict=True):
            computed = mean(table, column, values)
            if value is not None and computed is not None and abs(value - computed) > ROUNDED:
                yield f"{name}, {column.name}: printed {value:.1f}, its rows give {computed:.1f}."
            other, number = elsewhere.get((name, column.key), (None, 0))
            if value is not None and other is not None and value != other:
                yield f"{name}, {column.name}: {value:.1f} here, {other:.1f} in table {number}."


def carbon(gpu_hours: float) -> tuple[float, float]:
    """(MWh, tonnes of CO2) of a training by the formula of section 6 of the paper."""
    mwh = gpu_hours * KWH_PER_GPU_HOUR / 1000
    return mwh, mwh * TONNES_PER_MWH


def _carbon(name: str, gpu_hours: float | None, mwh: float | None, tonnes: float | None) -> Iterator[str]:
    computed, _ = carbon(gpu_hours or 0.0)
    if mwh is not None and abs(computed - mwh) > CUT_OFF:
        yield f"{name}: printed {mwh:.0f} MWh, its GPU-hours give {computed:.1f}."


def markdown(models: Sequence[Model]) -> str:
    """All tables as Markdown."""
    everything, parts = tables(), []
    for table in everything:
        head, *rows = ([cell.replace("|", "\\|") for cell in line] for line in grid(table, models))
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        parts.append(f"## Table {table.number}: {table.title}\n")
        parts += [f"| {' | '.join(line)} |" for line in lines]
        parts += ["", *(f"{note}\n" for note in notes(table, models, everything))]
    return "\n".join(["# The paper's tables\n", f"{LEGEND}\n", *parts])


def as_json(models: Sequence[Model]) -> list[dict[str, Any]]:
    """All tables as values for JSON. Scores of models are shares of one, by column, None where there is
    none."""
    everything = tables()
    return [
        table._asdict()
        | {
            "columns": [column.name for column in table.columns],
            "models": {
                model.name: [score and score._asdict() for score in scores(table, model)] for model in models
            },
            "notes": notes(table, models, everything),
        }
        for table in everything
    ]
