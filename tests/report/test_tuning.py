"""The report of a tuning: what was learned and forgotten, told in words that nobody can miss."""

import copy
import re
from typing import Any

from puna.report import tuning

QUESTIONS = ["What is the capital of France?", "How many days are in a week?", "What is frozen water called?"]


def asked(right: list[bool], ended: float | None, bits: float, answer: str) -> dict[str, Any]:
    return {
        "format": "chatml",
        "questions": [
            {"question": question, "answer": f"{answer} {number}", "right": each, "ended": True}
            for number, (question, each) in enumerate(zip(QUESTIONS, right, strict=True))
        ],
        "right": sum(right),
        "samples": [{"prompt": "Describe <rain>.", "answer": f"{answer} & rain", "ended": False}],
        "ended": ended,
        "bits_per_byte": bits,
    }


def about(right: list[bool]) -> list[dict[str, Any]]:
    return [
        {"question": f"Q{number}?", "text": "The passage.", "answer": "An answer.", "right": each}
        for number, each in enumerate(right)
    ]


DATA: dict[str, Any] = {
    "recipe": "letters",
    "base": "SmolLM2.gguf",
    "puna": "0.1",
    "date": "2026-11-30",
    "machine": {"cpu": "a processor", "cores": 2},
    "result": "personal",
    "seconds": {"rows": 2.0, "personal": 118.0},
    "sets": {
        "chats": {
            "licence": "your own",
            "dropped": 2,
            "findings": {"personal data": 3, "empty turn": 1, "over-long": 0},
            "train": {"conversations": 40, "tokens": 4000, "learned_tokens": 2100},
            "held_out": {"conversations": 8, "tokens": 800, "learned_tokens": 420},
        }
    },
    "tuned": {
        "personal": {
            "conversations": 120,
            "tokens": 12000,
            "learned_tokens": 6300,
            "steps": 20,
            "loss": 0.512,
            "selected_step": 20,
            "format": "chatml",
            "overfitting": "",
            "validations": [
                {"step": 0, "losses": {"chats": 3.1}, "mean": 3.1},
                {"step": 20, "losses": {"chats": 1.234}, "mean": 1.234},
            ],
        }
    },
    "losses": {"personal": [{"step": step, "loss": 3 / step} for step in range(1, 21)]},
    "probe": {
        "before": asked([True, True, False], 0.95, 1.2, "Before"),
        "after": asked([False, True, True], 0.65, 1.25, "After"),
        "warnings": ["only 65% of the answers end by themselves"],
    },
    "passages": {
        "before": {"without": about([False, False]), "with": about([True, False])},
        "after": {"without": about([True, False]), "with": about([True, True])},
        "advice": "Looking passages up would serve better.",
    },
    "recipe_toml": "[base]\n",
}


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_every_figure_stands_in_the_page() -> None:
    page = tuning.render(DATA)
    text = text_of(page)
    assert "plain questions right 2 → 2 of 3" in text
    assert "answers that end 95% → 65%" in text
    assert "bits per byte 1.200 → 1.250" in text
    assert "Warning: only 65% of the answers end by themselves" in text and "Nothing to warn of" not in text
    assert "tuned from SmolLM2.gguf" in text
    assert "after step chats 0 3.100 20 1.234" in text
    assert "before tuning 0 of 2 1 of 2 after tuning 1 of 2 2 of 2" in text
    assert "Looking passages up would serve better." in text
    assert "chats your own 40 8 2,100 2 personal data 3, empty turn 1" in text
    assert "Describe &lt;rain&gt;." in page and "After &amp; rain" in page


def test_what_was_lost_stands_first() -> None:
    rows = re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', tuning.render(DATA))
    lost = [row for row in rows if row[0] in QUESTIONS]
    # Then what was gained, then what was kept.
    assert [question for question, _ in lost] == [QUESTIONS[place] for place in (0, 2, 1)]
    first = dict(lost)[QUESTIONS[0]]
    assert first.index("right") < first.index("Before 0") < first.index("wrong") < first.index("After 0")
    other = copy.deepcopy(DATA)
    for when, right in (("before", False), ("after", True)):
        other["probe"][when]["questions"][0]["right"] = right
    other["probe"]["after"]["questions"][2]["right"] = False
    other["probe"]["before"]["questions"][2]["right"] = True
    rows = re.findall(r'<th scope="row">([^<]*)</th>', tuning.render(other))
    assert next(question for question in rows if question in QUESTIONS) == QUESTIONS[2]
    for when in ("before", "after"):
        other["probe"][when]["questions"][0]["right"] = False
    page = tuning.render(other)
    folded = page[page.index("Show the 1 that neither answered") :]
    assert QUESTIONS[0] in folded[: folded.index("</details>")]
    assert page.count(QUESTIONS[0]) == 1


def test_warnings_of_stages_are_told() -> None:
    data = copy.deepcopy(DATA)
    data["probe"] = {"skipped": "the base reads 64 tokens"}
    data["tuned"]["personal"] |= {"overfitting": "overfitting: it rose", "skipped_steps": 2}
    text = text_of(tuning.render(data))
    assert "what it learned and forgot was not asked: the base reads 64 tokens" in text
    assert "personal: overfitting: it rose" in text and "2 steps were not taken" in text
    assert "What it forgot" not in text


def test_a_page_of_nothing_is_a_page() -> None:
    assert "<h1>a tuning</h1>" in tuning.render({})
    for key in DATA:
        tuning.render({name: value for name, value in DATA.items() if name != key})
