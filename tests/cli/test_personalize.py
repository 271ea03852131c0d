"""docs/personalize.md: the way from a folder of documents and chats to a model that is talked to."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from puna.cli.personalize import _last_run, _name_of
from puna.errors import UserError
from puna.model.weights import gguf, hf
from puna.report import summary
from puna.tune.personalize import RECIPE
from tests.tiny import puna
from tests.tune import documents, small

PAGE = (Path(__file__).parents[2] / "docs" / "personalize.md").read_text()


def commands() -> list[list[str]]:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    return [shlex.split(line.removeprefix(".venv/bin/puna ")) for line in lines]


def artifacts(run: Path) -> dict[str, str]:
    """Fingerprint by stage."""
    return {entry["stage"]: entry["fingerprint"] for entry in summary.read(run)["stages"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder in which the page's first command was typed, and what it printed."""
    folder = tmp_path_factory.mktemp("personal")
    small.write_base(folder / "out" / "laptop")
    documents.write(folder / "club")
    (folder / "club" / "scan.pdf").write_bytes(b"%PDF-1.4")
    return folder, puna(*commands()[0], cwd=folder)


def test_the_page_leads_from_documents_to_chat(made: Any) -> None:
    folder, told = made
    run = folder / "out" / "club"
    assert [words[0] for words in commands()] == ["personalize", "chat"]
    assert told.stdout.splitlines()[-1].endswith("chat out/club")
    answered = puna(*commands()[1], cwd=folder, input="Who has the key in winter?\n")
    assert answered.returncode == 0
    figures = summary.read(run)
    assert figures["tuned"]["personal"]["format"] == "vicuna_v1.1"
    assert set(figures["sets"]) == {"chats", "questions", "texts", "replay"}
    assert {"before", "after"} <= set(figures["probe"])
    assert len(figures["passages"]["after"]["with"]) == len(figures["passages"]["before"]["without"]) > 0
    report = (run / "report.html").read_text()
    for title in ("What it learned", "Your documents", "What it forgot", "Answers side by side", "Data"):
        assert f">{title}</h2>" in report
    card = (run / "model_card.md").read_text()
    assert card.startswith("# club\n") and "| chats | your own |" in card and 'name = "personal"' in card
    (exports,) = run.glob("exports-*")
    assert hf.recognises(exports / "merged") and gguf.recognises(exports / "model.gguf")


def test_before_anything_is_trained_personal_data_are_shown(made: Any) -> None:
    folder, told = made
    assert "ann-and-bo.txt, row 1: 1 email" in told.stdout
    assert "scan.pdf: nothing here that a reader takes" in told.stdout
    assert "10 documents, 2 chat files, 3 chats" in told.stdout
    assert f"base: {folder / 'out' / 'laptop'}" in told.stdout


def test_again_does_nothing_and_a_new_file_only_what_depends_on_it(made: Any) -> None:
    folder, _ = made
    run = folder / "out" / "club"
    before, written = artifacts(run), (run / RECIPE).stat().st_mtime_ns
    again = puna(*commands()[0], cwd=folder)
    assert "nothing to do: every stage exists" in again.stderr
    assert artifacts(run) == before and (run / RECIPE).stat().st_mtime_ns == written
    more = folder / "club" / "papers" / "ferry.txt"
    more.write_text("The ferry is a flat barge that crosses the Selva on a chain every quarter of an hour.\n")
    puna(*commands()[0], cwd=folder)
    after = artifacts(run)
    assert {name for name, fingerprint in after.items() if fingerprint == before[name]} == {"replay"}


def test_without_yes_one_question_is_asked_behind_the_forecast(made: Any, tmp_path: Path) -> None:
    folder, _ = made
    words = [word for word in commands()[0] if word != "--yes"]
    told = puna(*words, "--out", tmp_path, cwd=folder, input="n\n")
    assert told.stdout.count("Train it?") == 1 and "not trained; the same command asks" in told.stdout
    assert "packed rows; " in told.stderr
    assert "not trained" in puna(*words, "--out", tmp_path, cwd=folder, input="").stdout
    assert not (tmp_path / "club" / summary.SUMMARY).exists()


def test_a_name_that_is_none_or_anothers_run_is_refused_before_anything_is_written(
    made: Any, tmp_path: Path
) -> None:
    folder, _ = made
    words = ["personalize", "club", "--as", "Ann", "--base", "out/laptop", "--out", str(tmp_path)]
    assert "--name a/b" in puna(*words, "--name", "a/b", cwd=folder, code=2).stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "club").mkdir()
    (tmp_path / "club" / summary.SUMMARY).write_text("{}")
    assert "choose another --name" in puna(*words, cwd=folder, code=2).stderr
    assert [path.name for path in (tmp_path / "club").iterdir()] == [summary.SUMMARY]


def test_the_base_is_the_run_that_was_finished_last(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model is at hand.*--base"):
        _last_run(tmp_path)
    for place, name in enumerate(("first", "second", "club")):
        (tmp_path / name).mkdir()
        tuned = {"tuned": {}} if name == "club" else {}  # what was tuned is not taken by itself
        (tmp_path / name / summary.SUMMARY).write_text(json.dumps(tuned))
        os.utime(tmp_path / name / summary.SUMMARY, (place, place))
    assert _last_run(tmp_path) == tmp_path / "second"


def test_folders_have_names_of_their_own() -> None:
    names = {folder: _name_of(folder) for folder in ("club", "My letters", "письма", "дом", "été")}
    assert names["club"] == "club" and names["My letters"] == "My-letters"
    assert len(set(names.values())) == 5
    names["/"] = _name_of("")
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) for name in names.values())
