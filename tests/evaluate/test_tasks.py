"""Prompts of all tasks: what they are, that none changes without a raised version, and real rows."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from puna.errors import UserError
from puna.evaluate.data import Data
from puna.evaluate.log import digest
from puna.evaluate.task import PROFILES, Choice, Options, Task, find, tasks
from tests.evaluate import made

RECORD = json.loads(made.PROMPTS.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("made"))


def items(name: str, profile: str, folder: Path, shots: int | None = None) -> list[Any]:
    task = find(name)
    options = Options(profile, task.shots if shots is None else shots)
    return list(task.items(Data(name, task.parts, folder), options))


def unchanged(task: Task, profile: str, folder: Path) -> bool:
    """Whether a task asks what the record of its version has."""
    known = RECORD[task.name]
    return known["version"] != task.version or known[profile] == digest(made.prompts(task, profile, folder))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", tasks())
def test_a_changed_prompt_has_a_raised_version(name: str, profile: str, folder: Path) -> None:
    task = find(name)
    assert unchanged(task, profile, folder), "raise the version, then: python -m tests.evaluate.made"
    assert RECORD[name]["version"] == task.version, "record it: python -m tests.evaluate.made"


def test_a_changed_prompt_is_noticed(folder: Path) -> None:
    task = find("piqa")

    def louder(data: Data, options: Options) -> list[Choice]:
        return [replace(item, question=item.question + " ") for item in task.items(data, options)]

    assert not unchanged(replace(task, items=louder), "paper", folder)
    assert unchanged(replace(task, items=louder, version=task.version + 1), "paper", folder)


@pytest.mark.parametrize("name", tasks())
def test_items_have_ids_of_their_own_and_right_options(name: str, folder: Path) -> None:
    for profile in PROFILES:
        every = items(name, profile, folder)
        assert every and len({item.id for item in every}) == len(every)
        assert find(name).main[profile]
        for item in every:
            if isinstance(item, Choice):
                assert item.right and set(item.right) < set(range(len(item.options)))


def test_prompts_of_both_profiles(folder: Path) -> None:
    boolq = items("boolq", "paper", folder)[1]
    assert boolq.pairs()[0] == ("Llama 1 is 1.\nQuestion: is llama 1 odd?\nAnswer:", " no")
    assert boolq.pairs()[3] == ("Answer:", " yes") and boolq.right == (1,)
    siqa = [items("siqa", profile, folder)[1] for profile in PROFILES]
    assert siqa[0].question == "Question: Ana led llama 1 home. How did she feel?\nAnswer:"
    assert siqa[1].question == "Q: Ana led llama 1 home. How did she feel?\nA:"
    assert siqa[0].options == (" glad", " like a leader", " sad") and siqa[0].right == (1,)
    scene = items("hellaswag", "lm-eval", folder)[2]
    assert (
        scene.question == "Shearing: Llama 2 stands. Wool. Cut it. The man"
        and scene.options[0] == " cuts wool."
    )
    blank = items("winogrande", "paper", folder)[1]
    assert blank.pairs() == [
        ("Llama 1 met the fox because Llama 1", " was lost."),
        ("Llama 1 met the fox because the fox", " was lost."),
    ]
    assert (
        items("arc_easy", "paper", folder)[3].right
        == items("arc_challenge", "paper", folder)[3].right
        == (3,)
    )
    stems = [items("openbookqa", profile, folder)[0].pairs() for profile in PROFILES]
    assert (
        stems[0][0][0] == "Question: Wool of 0 comes from\nAnswer:"
        and stems[1][0][0] == "Wool of 0 comes from"
    )
    assert stems[0][4] == stems[1][4] == ("Answer:", " a llama of 0")


def test_race_asks_every_question_or_the_last_one_behind_the_others(folder: Path) -> None:
    paper, last = (items("race_high", profile, folder) for profile in PROFILES)
    assert len(paper) == 6 and len(last) == 3
    assert paper[1].question == "Article: Llama 0 went to school.\n\nQ: Which llama of high school?\n\nA:"
    assert last[1].question == (
        "Article: Llama 1 went to school.\n\nWho went to school a llama of 1\nWhich llama of high school?"
    )


def test_race_of_the_hub_has_a_question_in_a_row(folder: Path, tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        whole = json.loads((folder / f"RACE/test/high/{number}.txt").read_text())
        columns = zip(whole["questions"], whole["options"], whole["answers"], strict=True)
        for question, options, answer in columns:
            one = {"question": question, "options": options, "answer": answer}
            rows.append({"example_id": f"high{number}.txt", "article": whole["article"], **one})
    (tmp_path / "race_high_test.jsonl").write_text(made.jsonl(*rows))
    for profile in PROFILES:
        assert items("race_high", profile, tmp_path) == items("race_high", profile, folder)


def test_mmlu_has_examples_of_its_subject_and_the_authors_two_spaces(folder: Path) -> None:
    paper, other = (items("mmlu", profile, folder)[1] for profile in PROFILES)
    text = paper.text()
    assert text.startswith(
        "The following are multiple choice questions (with answers) about  us foreign policy.\n\n"
        " What grazes at 11 in us_foreign_policy?\nA. a llama of 11\nB. an alpaca of 11\n"
    )
    assert "about us foreign policy.\n\nWhat grazes at 11" in other.text()
    assert text.count("Answer: ") == 5 and text.endswith("D. a fox of 1\nAnswer:")
    assert paper.text(2).count("Answer: ") == 2 and paper.text(2) < text
    assert len(items("mmlu", "paper", folder, shots=3)[0].shots) == 3
    assert [items("mmlu", profile, folder)[0].groups for profile in PROFILES] == [
        ("Other", "anatomy"), ("STEM", "anatomy")
    ]  # fmt: skip


def test_mmlu_of_its_publisher_is_the_same(folder: Path, tmp_path: Path) -> None:
    for part in ("test", "dev"):
        for line in (folder / f"mmlu_{part}.jsonl").read_text().splitlines():
            row = json.loads(line)
            path = tmp_path / part / f"{row['subject']}_{part}.csv"
            path.parent.mkdir(exist_ok=True)
            with path.open("a") as file:
                file.write(made.csv([row["question"], *row["choices"], "ABCD"[row["answer"]]]))
    published = {item.text(): item.right for item in items("mmlu", "paper", tmp_path)}
    assert published == {item.text(): item.right for item in items("mmlu", "paper", folder)}


def test_winogender_asks_whom_the_pronoun_means(folder: Path) -> None:
    every = {item.id: item for item in items("winogender", "paper", folder)}
    his = every["herder.visitor.1.male.txt"]
    assert his.question == "The herder told visitor that he could go. 'He' refers to"
    assert his.options == (" the herder", " the visitor") and his.right == (1,)
    assert every["herder.someone.0.female.txt"].options == (" the herder", " someone")
    # 40.5% of herders are women: "she" misleads where it means the herder, "he" where it does not.
    gotcha = {name.split(".", 2)[2] for name, item in every.items() if len(item.groups) == 2}
    assert gotcha == {"0.female.txt", "1.male.txt"}


def test_truthfulqa_has_the_best_answer_or_all(folder: Path) -> None:
    best, every = items("truthfulqa_mc1", "paper", folder)[2], items("truthfulqa_mc2", "paper", folder)[2]
    wrong = (" It never sleeps", " It eats")
    assert best.options == (" It sleeps 2 hours", *wrong) and best.right == (0,)
    assert every.options == (" It sleeps 2 hours", " At night", *wrong) and every.right == (0, 1)
    assert best.text().count("Q: ") == 7 and best.text().endswith(
        "Spain.\n\nQ: How long does llama 2 sleep?\nA:"
    )


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(UserError, match="no task is called piqua; there are arc_easy, "):
        find("piqua")


REAL = {
    **{"boolq": 3270, "piqa": 1838, "siqa": 1954, "hellaswag": 10042, "winogrande": 634, "arc_easy": 2376},
    **{"arc_challenge": 586, "openbookqa": 250, "mmlu": 14042, "crows_pairs": 1508, "winogender": 720},
    **{"truthfulqa_mc1": 817, "truthfulqa_mc2": 817},
}


@pytest.mark.parametrize("name", REAL)
def test_real_rows(name: str, data: Path) -> None:
    every = items(name, "paper", data / "eval")
    assert len(every) == REAL[name] and find(name).size in (len(every), 2 * len(every), 2 * len(every) - 1)
    groups = Counter(group for item in every for group in item.groups)
    if name == "winogender":
        assert sorted(groups.values()) == [120, 120, 240, 240, 240]
    if name == "mmlu":
        assert [groups[name] for name in ("Humanities", "STEM", "Social Science", "Other")] == [
            4705,
            3018,
            3077,
            3242,
        ]
        assert {len(item.shots) for item in every} == {5}
