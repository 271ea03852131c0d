"""The paper's tables: the published values, the averages that its own rows give, models beside them."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from puna.errors import UserError
from puna.evaluate import paper
from puna.evaluate.paper import Model, Score, Table
from puna.evaluate.task import tasks
from puna.report import paper as page
from tests.report.test_report import checked

TABLES = {table.number: table for table in paper.tables()}
LLAMA = ("LLaMA 7B", "LLaMA 13B", "LLaMA 33B", "LLaMA 65B")


def average(table: Table, row: str, name: str) -> float:
    column = next(column for column in table.columns if column.name == name)
    found = paper.mean(column, table.rows[row])
    assert found is not None
    return found


def test_every_value_is_that_of_the_paper(data: Path) -> None:
    path = data.parent / "facts" / "paper_tables.tsv"
    if not path.is_file():
        pytest.skip(f"no list of the paper's values at {path}")
    wanted: Counter[tuple[str, float]] = Counter()
    with path.open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            wanted[row["table"].removesuffix("(text)"), float(row["value"])] += 1
    found = Counter(
        (str(table.number) if row != "GPT code-davinci-002 (in the text of section 4)" else "4", value)
        for table in TABLES.values()
        for row, values in table.rows.items()
        for value in values
        if value is not None
    )
    assert found == wanted and found.total() == 864


def test_averages_over_questions_are_those_that_the_paper_prints() -> None:
    table = TABLES[16]
    assert sum(weight for _, weight in table.columns[-1].parts) == 14_042
    for name, printed in zip(LLAMA, (35.1, 46.9, 57.8, 63.4), strict=True):
        assert average(table, name, "All") == pytest.approx(printed, abs=0.06)
    by_subject = [
        sum(value for column, value in zip(table.columns, table.rows[name], strict=True)
            if column.key.count("/") and not column.parts and value is not None) / 57
        for name in LLAMA
    ]  # fmt: skip
    assert [round(value, 1) for value in by_subject] == [35.6, 47.5, 58.0, 63.5]
    for group in ("Humanities", "STEM", "Social Sciences", "Other"):
        place = next(at for at, column in enumerate(table.columns) if column.name == group)
        for name, values in table.rows.items():
            assert average(table, name, group) == pytest.approx(values[place], abs=0.07), (name, group)


@pytest.mark.parametrize(
    ("number", "row", "name", "expected"),
    [
        (3, "LLaMA 7B", "Average (ours)", (76.5 + 79.8 + 48.9 + 76.1 + 70.1 + 72.8 + 47.6 + 57.2) / 8),
        (3, "LLaMA 65B", "Average (ours)", (85.3 + 82.8 + 52.3 + 84.2 + 77.0 + 78.9 + 56.0 + 60.2) / 8),
        (9, "LLaMA 65B", "Average", 63.4),
        (12, "LLaMA 65B", "Average", 66.66),
        (12, "GPT-3 175B", "Average", 67.2),
        (12, "OPT 175B", "Average", 69.5),
        (13, "LLaMA 7B", "All", 66.0),
        (13, "LLaMA 65B", "All", 77.5),
    ],
)
def test_other_averages(number: int, row: str, name: str, expected: float) -> None:
    assert average(TABLES[number], row, name) == pytest.approx(expected, abs=0.06)


def test_an_average_needs_all_its_columns() -> None:
    table = TABLES[3]
    assert paper.mean(table.columns[-1], table.rows["GPT-3 175B"]) is None
    assert paper.mean(table.columns[0], table.rows["LLaMA 7B"]) is None


def disagreements(table: Table) -> Iterator[str]:
    """Averages that the rows do not give, up to rounding, and values that another table has otherwise."""
    elsewhere = {
        (row, column.key): (value, other.number)
        for other in TABLES.values()
        if other is not table
        for row, values in other.rows.items()
        for column, value in zip(other.columns, values, strict=True)
    }
    for row, values in table.rows.items():
        for column, value in zip(table.columns, values, strict=True):
            computed = paper.mean(column, values)
            if value is not None and computed is not None and abs(value - computed) > 0.1001:
                yield f"{row}, {column.name}: printed {value:.1f}, its rows give {computed:.1f}."
            other, number = elsewhere.get((row, column.key), (None, 0))
            if None not in (value, other) and value != other:
                yield f"{row}, {column.name}: {value:.1f} here, {other:.1f} in table {number}."


@pytest.mark.parametrize("number", [number for number in TABLES if number != 15])
def test_where_the_paper_disagrees_with_itself_is_told(number: int) -> None:
    assert paper.notes(TABLES[number], []) == list(disagreements(TABLES[number]))
    assert bool(TABLES[number].notes) == (number in (9, 10, 16))
    assert not any("LLaMA" in note for note in TABLES[number].notes)


def test_carbon_follows_from_gpu_hours() -> None:
    """400 W a GPU, 1.1 times that with what the data centre needs, 0.385 kg a kWh; the paper cuts MWh off."""
    told = []
    for row, (hours, printed, tonnes) in TABLES[15].rows.items():
        assert hours is not None and printed is not None and tonnes is not None
        mwh = hours * 0.4 * 1.1 / 1000
        assert abs(mwh - printed) < 2 and abs(mwh * 0.385 - tonnes) < 1
        if row == "LLaMA 65B":
            assert (round(mwh, 1), round(mwh * 0.385, 1)) == (449.8, 173.2)
        if abs(mwh - printed) > 1:
            told.append(f"{row}: printed {printed:.0f} MWh, its GPU-hours give {mwh:.1f}.")
    assert told == TABLES[15].notes and len(told) == 1


def made() -> Model:
    sense = {column.key: Score(0.5, 0.03, 100) for column in TABLES[3].columns[:7]}
    sense["openbookqa@0"] = Score(0.25, 0.04, 50, partial=True)
    subjects = {column.key: Score(0.25, 0.01, 9) for column in TABLES[16].columns if not column.parts}
    other = {"mmlu@5": Score(0.26, 0.004, 513), "realtoxicityprompts@0": Score(0.1234, None, 10)}
    return Model("a|b <c>", {**sense, **subjects, **other}, "no log-probabilities")


def test_a_model_stands_beside_the_published_rows() -> None:
    head, *lines = paper.grid(TABLES[3], [made()])
    assert head[-1] == "Average (ours)" and all(len(line) == len(head) for line in lines)
    value, error, count = lines[-3:]
    assert value == ["a|b <c>", *["50.0"] * 7, "25.0", "46.9"]
    assert error == [
        "± standard error",
        *["3.0"] * 7,
        "4.0",
        f"{100 * math.hypot(*[0.03] * 7, 0.04) / 8:.1f}",
    ]
    assert count == ["n", *["100"] * 7, "50 partial", "750 partial"]
    assert paper.grid(TABLES[11], [made()])[-3:] == [
        ["a|b <c>", "0.123", "n/a"], ["± standard error", "–", ""], ["n", "10", ""]
    ]  # fmt: skip


def test_a_turned_table_has_a_line_a_subject_and_keeps_the_measured_average() -> None:
    lines = paper.grid(TABLES[16], [made()])
    assert lines[0][0] == "" and lines[0][-3:] == ["a|b <c>", "± standard error", "n"]
    assert len(lines) == 1 + 57 + 5
    told = {line[0]: line[-3:] for line in lines}
    assert told["Anatomy"] == ["25.0", "1.0", "9"] and told["Humanities"][0] == "25.0"
    assert told["All"] == ["26.0", "0.4", "513"]


def test_a_model_without_scores_has_one_line_that_says_so() -> None:
    lines = paper.grid(TABLES[7], [Model("empty", {})])
    assert lines[-1] == ["empty", *["n/a"] * 4] and lines[-2][0] == "LLaMA 65B"
    assert paper.notes(TABLES[7], [made()]) == ["n/a of a|b <c>: no log-probabilities."]


def test_markdown_and_json_hold_every_table() -> None:
    text = paper.markdown([made()])
    assert text.count("\n## Table ") == 14 and "| a\\|b <c> | 50.0 |" in text
    for block in text.split("\n## Table ")[1:]:
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1
    found = json.loads(json.dumps(paper.as_json([made()])))
    assert [table["number"] for table in found] == list(range(3, 17))
    assert found[0]["columns"][0] == "BoolQ" and found[0]["rows"]["LLaMA 7B"][0] == 76.5
    told = found[0]["models"]["a|b <c>"][7]
    assert told == {"value": 0.25, "error": 0.04, "items": 50, "partial": True}
    assert found[4]["models"]["a|b <c>"] == [None] * 4
    assert found[4]["notes"] == ["n/a of a|b <c>: no log-probabilities."]


def test_the_page_needs_no_other_file_and_no_script() -> None:
    text = page.render([made()])
    assert "script" not in checked(text) and "<strong>a|b &lt;c&gt;</strong>" in text
    assert text.count("<section") == 14 and "http" not in text.replace("http-equiv", "")
    assert "script" not in checked(page.render([]))


def result(folder: Path, task: str, shots: int, **more: object) -> None:
    """What `puna eval` writes of a task, as far as the tables read it."""
    scores = {"answer": {"value": shots / 100, "stderr": 0.02, "n": 30}}
    scores["none"] = {"value": 0.9, "stderr": None, "n": 30}
    told = {"model": "m", "mode": "float32", "task": task, "shots": shots, "main": "answer"}
    told |= {"scores": scores, "groups": {"her/her/she": scores}, "partial": True, **more}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task}.paper.json").write_text(json.dumps(told))


def test_results_of_other_shots_and_profiles_stand_apart(tmp_path: Path) -> None:
    result(tmp_path / "small" / "few", "naturalquestions", 5)
    result(tmp_path / "small", "naturalquestions", 64)
    result(tmp_path / "small", "winogender", 0, partial=False)
    (tmp_path / "small" / "boolq.lm-eval.json").write_text("of another profile")
    model = paper.read(tmp_path / "small")
    assert model.name == "small" and model.scores["naturalquestions@5:none"].value == 0.9
    assert [score and score.value for score in paper.scores(TABLES[4], model)] == [None, None, 0.05, 0.64]
    assert model.scores["winogender@0/her/her/she"] == Score(0.0, 0.02, 30, False)
    assert paper.scores(TABLES[13], model)[1] == Score(0.0, 0.02, 30, False)


@pytest.mark.parametrize("other", [{"model": "n"}, {"mode": "int8"}])
def test_a_folder_of_several_models_is_refused(other: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results of profile paper"):
        paper.read(tmp_path)
    result(tmp_path, "boolq", 0, mode="bfloat16")
    assert paper.read(tmp_path).name == f"{tmp_path.name} (bfloat16)"
    result(tmp_path, "piqa", 0, **{"mode": "bfloat16", **other})
    with pytest.raises(UserError, match="results of several models"):
        paper.read(tmp_path)


def test_every_column_asks_for_a_task_with_its_own_examples() -> None:
    known = tasks()
    keys = [column.key for table in TABLES.values() if table.number != 15 for column in table.columns]
    named = {key.partition("/")[0].partition(":")[0] for key in keys if key}
    assert {name.partition("@")[0] for name in named} <= known.keys()
    for name in named:
        task, _, shots = name.partition("@")
        if task not in ("naturalquestions", "triviaqa"):
            assert known[task].shots == int(shots), name
