"""The card of a tuned model: base, licences, recipe, what was forgotten."""

import copy

from puna.report.card import card
from puna.report.markdown import html
from tests.report.test_tuning import DATA


def test_the_card_tells_base_licences_recipe_and_what_was_forgotten() -> None:
    text = card("letters", DATA, DATA["recipe_toml"], weights="models/SmolLM2.gguf")
    assert text.startswith("# letters\n\nSmolLM2.gguf, tuned with Puna")
    assert "`models/SmolLM2.gguf`. The licence of the base" in text
    assert "| chats | your own | 40 | 2,100 |" in text
    assert "The audit found: personal data, empty turn." in text
    assert "| plain questions right | 2 of 3 | 2 of 3 |" in text
    assert "| answers that end | 95% | 65% |" in text
    assert "- only 65% of the answers end by themselves" in text
    assert "Looking passages up would serve better." in text
    assert "```toml\n[base]\n```" in text and "$" not in text
    assert "<table>" in html(text, 2)


def test_what_is_not_known_is_said_to_be_so() -> None:
    data = copy.deepcopy(DATA)
    data["probe"] = {"skipped": "it reads too little"}
    data["sets"]["chats"] |= {"licence": "", "findings": {}}
    del data["passages"]
    text = card("letters", data, "", weights="m")
    assert "Not asked: it reads too little." in text
    assert "| chats | not said |" in text and "The audit found nothing." in text
    assert "`m`. The licence" in text and "nothing to warn of" not in text.split("Not asked")[0]
