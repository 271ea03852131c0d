"""Prompts of replay: none of them is asked by the probe."""

import pytest

from puna.tune import replay
from puna.tune.probe import shipped


@pytest.mark.parametrize("count", [1, 2, 7, 96, 128, 500])
def test_as_many_facts_as_other_prompts_each_once(count: int) -> None:
    facts, others = replay.prompts(True, count)
    asked = [*facts, *others]
    assert len(asked) == len(set(asked)) == count
    assert len(facts) == min(count // 2, 62)
    assert len({prompt.split()[0] for prompt in others}) > 1 or len(others) < 3
    none, beginnings = replay.prompts(False, count)
    assert not none and len(set(beginnings)) == min(count, 480)


def test_no_question_of_the_probe_is_replayed() -> None:
    facts, others = replay.prompts(True, 540)
    told = " ".join([*facts, *others]).lower()
    questions = [entry["question"].lower() for entry in shipped()["questions"]]
    assert not [question for question in questions if question in told]
    assert not [prompt for prompt in shipped()["prompts"] if prompt.lower() in told]
