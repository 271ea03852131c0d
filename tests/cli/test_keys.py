"""The keys of a recipe as they are told to people."""

import json
from pathlib import Path

import pytest

from puna.cli import keys
from puna.recipe import Recipe

DOCUMENT = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_page_is_up_to_date() -> None:
    """After a change: puna keys --markdown > docs/keys.md."""
    assert DOCUMENT.read_text() == keys.page(list(keys.recipe_keys()))


def test_keys_of_every_section_are_known_and_explained() -> None:
    found = [key.path for key in keys.recipe_keys()]
    assert len(found) == len(set(found))
    for key in ("seed", "corpus.sources.NAME.uris", "tokens.mixture.NAME.share", "execution.remat"):
        assert key in found
    assert not {"corpus", "corpus.sources", "tokens.mixture", "train"} & set(found)
    assert not [key.path for key in keys.recipe_keys() if not key.meaning]
    assert all(key.value for key in keys.recipe_keys())


def test_what_a_key_takes_is_its_type() -> None:
    known = {key.path: key for key in keys.recipe_keys()}

    def told(path: str) -> tuple[str, str]:
        return known[path].value, known[path].default

    assert told("train.schedule") == ('"cosine" or "wsd"', '"cosine"')
    assert told("train.steps") == ("whole number, at least 1", keys.NEEDED)
    assert told("corpus.languages") == ("list of text", '["en"]')
    assert told("corpus.sources.NAME.languages") == ("list of text", "")
    assert told("corpus.perplexity.percentiles") == ("list of 2: number, number", "[30, 60]")
    assert told("corpus.privacy") == ('list of "email" or "phone" or "ip"', "[]")
    assert told("seed") == ("whole number, at least 0, below 2^63", "1")


@pytest.mark.parametrize(
    "section", ["train", "corpus", "tokens", "evaluate", "energy", "execution", "cluster"]
)
def test_every_default_is_the_recipes(section: str) -> None:
    """A recipe that says all defaults is the recipe that says none."""
    settings = Recipe.model_fields[section].annotation
    assert settings is not None
    for key in keys.recipe_keys():
        if key.section == section and key.default not in ("", keys.NEEDED):
            default = settings.model_fields[key.name].get_default(call_default_factory=True)
            assert json.loads(key.default) == json.loads(json.dumps(default))


def test_a_section_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    keys.keys("learning_rate")
    text = capsys.readouterr().out
    assert text.startswith("\n[train]\n") and "  train.learning_rate\n" in text and "steps" not in text
    keys.keys("energy", as_json=True)
    assert [row["key"] for row in json.loads(capsys.readouterr().out)] == [
        *("energy.watts", "energy.pue", "energy.kg_co2_per_kwh"),
    ]
