"""Stages by themselves: named, repeated, fed from other runs, recorded, killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from puna.errors import UserError
from puna.run import artifact, build
from puna.run.artifact import Artifact
from puna.run.build import Build, cost
from puna.run.settings import ExecutionSettings, not_hashed
from puna.run.stage import Context, Stage

MADE: list[str] = []


class Words(BaseModel):
    words: tuple[str, ...]
    folder: Path = not_hashed(Path())
    limit: int = not_hashed(5)


class Quiet:
    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []

    def stage(self, name: str, state: str, detail: str = "") -> None:
        self.states.append((name, state))

    def progress(self, what: str, done: int, total: int) -> None: ...
    def note(self, text: str) -> None: ...
    def event(self, event: Any) -> None: ...


def write(settings: Words, inputs: Mapping[str, Artifact], context: Context) -> dict[str, Any]:
    before = "".join(made.path("text").read_text() for _, made in sorted(inputs.items()))
    (context.work / "text").write_text(before + " ".join(settings.words))
    MADE.append(context.work.name)
    return {"words": len(settings.words), "threads": 1}


def stage(
    name: str, *words: str, inputs: Mapping[str, str | Path] | None = None, **settings: Any
) -> Stage[Words]:
    return Stage(name, "words", 1, Words(words=words, **settings), write, inputs or {})


def run(folder: Path, *stages: Stage[Words], **options: Any) -> tuple[dict[str, Artifact], Quiet]:
    quiet = Quiet()
    return Build(folder, stages, **options).run(quiet), quiet


def test_stages_of_one_kind_have_names_of_their_own(tmp_path: Path) -> None:
    first = stage("first", "a")
    again = stage("again", "b", inputs={"text": "first"})
    third = stage("third", "c", inputs={"one": "first", "two": "again"})
    finished, quiet = run(tmp_path, first, again, third)
    assert finished["third"].path("text").read_text() == "aabc"
    assert finished["third"].stage == "words" and finished["third"].folder.name.startswith("third-")
    assert finished["third"].inputs == {
        name: finished[source].fingerprint for name, source in third.inputs.items()
    }
    assert quiet.states == [
        (name, state) for name in ("first", "again", "third") for state in ("start", "done")
    ]
    assert run(tmp_path, first, again, third)[1].states == [
        (name, "reuse") for name in ("first", "again", "third")
    ]


def test_an_input_from_another_run(tmp_path: Path) -> None:
    other, _ = run(tmp_path / "other", stage("base", "x"))
    own = stage("own", "y", inputs={"text": other["base"].folder})
    finished, _ = run(tmp_path / "own", own)
    assert finished["own"].path("text").read_text() == "xy"
    assert finished["own"].inputs == {"text": other["base"].fingerprint}
    with pytest.raises(UserError, match="is not an artifact"):
        run(tmp_path / "own", stage("own", inputs={"text": tmp_path / "gone"}))


def test_what_is_not_hashed_makes_nothing_anew(tmp_path: Path) -> None:
    MADE.clear()
    finished, _ = run(tmp_path, stage("one", "a"))
    run(
        tmp_path, stage("one", "a", folder=Path("elsewhere"), limit=9), execution=ExecutionSettings(threads=7)
    )
    assert len(MADE) == 1
    run(tmp_path, stage("one", "b"))
    assert len(MADE) == 2
    assert finished["one"].settings == {"words": ["a"]}


def test_content_that_settings_name_is_hashed(tmp_path: Path) -> None:
    digest = {"file": "1"}
    read = Stage("one", "words", 1, Words(words=("a",)), write, content=lambda: dict(digest))
    first, _ = run(tmp_path, read)
    digest["file"] = "2"
    second, _ = run(tmp_path, read)
    assert first["one"].fingerprint != second["one"].fingerprint


def test_a_stage_that_fails_leaves_the_others_as_the_current_ones(tmp_path: Path) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise UserError("no")

    run(tmp_path, stage("one", "a"), stage("two", "a", inputs={"text": "one"}))
    failing = Stage("two", "words", 2, Words(words=("b",)), fail, {"text": "one"})
    with pytest.raises(UserError, match="no"):
        run(tmp_path, changed := stage("one", "b"), failing)
    expected = Build(tmp_path, [changed]).plan()[0].folder
    assert artifact.current(tmp_path, "one") == expected


def test_the_last_finished_run_of_a_folder_is_known(tmp_path: Path) -> None:
    for words in ("a", "b", "a"):
        finished, _ = run(tmp_path, stage("one", words))
        assert artifact.current(tmp_path, "one") == finished["one"].folder
    (tmp_path / artifact.CURRENT).unlink()
    with pytest.raises(UserError, match="holds several one: name one of one-"):
        artifact.current(tmp_path, "one")
    with pytest.raises(UserError, match="holds no two"):
        artifact.current(tmp_path, "two")


def test_how_it_was_executed_lies_beside_the_artifact(tmp_path: Path) -> None:
    finished, _ = run(tmp_path, stage("one", "a"), execution=ExecutionSettings(workers=3))
    (account,) = (tmp_path / "logs" / finished["one"].folder.name / "attempts").iterdir()
    assert json.loads(account.read_text())["execution"]["workers"] == 3
    assert "workers" not in (finished["one"].folder / artifact.MANIFEST).read_text()


def test_a_killed_attempt_has_cost_its_time(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from puna.run import build\n"
        "build.ATTEMPT_SECONDS = 0.05\n"
        "from tests.run.test_build import Quiet, Words\nfrom puna.run.stage import Stage\n"
        "words = Words(words=('a',))\n"
        "def slow(*_): print('at work', flush=True); time.sleep(60)\n"
        "build.Build(Path(sys.argv[1]), [Stage('one', 'words', 1, words, slow)]).run(Quiet())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None and process.stdout.readline() == b"at work\n"
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
    finished, _ = run(tmp_path, stage("one", "a"))
    logs = tmp_path / "logs" / finished["one"].folder.name
    assert len(list((logs / "attempts").iterdir())) == 2 and 0.3 < cost(logs)["seconds"] < 60


def test_energy_is_measured_only_where_every_attempt_was(tmp_path: Path) -> None:
    for number, joules in enumerate((4.0, 5.0)):
        (tmp_path / "attempts").mkdir(exist_ok=True)
        account = {"seconds": 1.0, "joules": joules, "execution": {}}
        (tmp_path / "attempts" / f"{number}.json").write_text(json.dumps(account))
    assert cost(tmp_path) == {"seconds": 2.0, "joules": 9.0}
    (tmp_path / "attempts" / "2.json").write_text(
        json.dumps({"seconds": 1.0, "joules": None, "execution": {}})
    )
    assert cost(tmp_path) == {"seconds": 3.0, "joules": None}
    assert cost(tmp_path / "none") == {"seconds": 0.0, "joules": None}
    for damaged in ("[]", '{"seconds": 1.0}', '{"seconds": "x", "joules": 1}', "{"):
        (tmp_path / "attempts" / "3.json").write_text(damaged)
        assert cost(tmp_path) == {"seconds": 3.0, "joules": None}


def test_planning_and_a_second_run_read_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, stage("one", "a"))

    def read(path: Path) -> str:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr("puna.run.digests.file_digest", read)
    assert run(tmp_path, stage("one", "a"))[1].states == [("one", "reuse")]


def test_files_that_had_a_second_name_in_scratch_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(settings: Words, inputs: Mapping[str, Artifact], context: Context) -> dict[str, Any]:
        (context.scratch / "file").write_text("a")
        os.link(context.scratch / "file", context.work / "file")
        return {}

    linking = Stage("one", "words", 1, Words(words=()), link)
    run(tmp_path, linking)

    def read(path: Path) -> str:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr("puna.run.digests.file_digest", read)
    assert run(tmp_path, linking)[1].states == [("one", "reuse")]


def test_a_second_run_notices_a_changed_artifact(tmp_path: Path) -> None:
    finished, _ = run(tmp_path, stage("one", "a"))
    path = finished["one"].path("text")
    path.write_text("b")
    os.utime(path, (time.time() - 9, time.time() - 9))
    with pytest.raises(UserError, match="the content of text does not match its digest"):
        run(tmp_path, stage("one", "a"))


def test_attempts_are_recorded_every_few_seconds() -> None:
    assert 1 <= build.ATTEMPT_SECONDS <= 30
