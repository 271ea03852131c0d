"""Recipes: every problem at once with file and key, overrides, and the shipped ones."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from puna import recipe
from puna.errors import UserError
from tests import tiny
from tests.tiny import RECIPE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "small.toml"
    found.write_text(RECIPE)
    return found


def test_a_recipe_is_frozen_and_named_after_its_file(path: Path) -> None:
    loaded = recipe.load(path)
    assert (
        loaded.name == "small" and loaded.train.steps == 20 and loaded.corpus.sources[0].licence == "CC0-1.0"
    )
    with pytest.raises(ValidationError, match="frozen"):
        loaded.train.steps = 5  # type: ignore[misc]
    assert loaded.llama_config().vocab_size == 320 and loaded.llama_config().max_seq_len == 32


def test_the_head_is_tied_as_the_size_is_unless_the_recipe_says_so(path: Path) -> None:
    for size, own in (("tiny", False), ("260k", True), ("15m", True), ("7b", False)):
        override = f'model.size="{size}"'
        assert recipe.load(path, (override,)).llama_config().tie_embeddings is own
        for said in (True, False):
            changed = recipe.load(path, (override, f"model.tie_embeddings={str(said).lower()}"))
            assert changed.llama_config().tie_embeddings is said
    assert recipe.load(path, ('model.size="260k"',)).llama_config().n_kv_heads == 4


def test_all_problems_at_once(path: Path) -> None:
    text = RECIPE.replace(
        "learning_rate = 5e-3", 'learning_rate = -1\nlearnig_rate = 1\nsteps_ = 3\nbeta1 = "x"'
    ).replace("seed = 3", "sed = 3")
    path.write_text(
        text.replace('reader = "lines"', 'reader = "pdf"').replace('[model]\nsize = "tiny"', "[model]")
    )
    with pytest.raises(UserError) as caught:
        recipe.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: 7 problems\n")
    for told in (
        "train.learning_rate: Input should be greater than 0 (it is -1)",
        "train.learnig_rate: unknown key; did you mean learning_rate?",
        "train.steps_: unknown key; did you mean steps?",
        'train.beta1: a number is needed, such as 0.5 (it is "x")',
        "sed: unknown key; did you mean seed?",
        "corpus.sources.stories.reader: one of warc, html, wikipedia,",
        "model.size: missing",
    ):
        assert told in message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('size = "tiny"', 'size = "9b"|model.size: no model size 9b'),
        ('size = "tiny"', 'size = "tiny"\nn_kv_heads = 3|model: '),
        (
            "[tokens]",
            "[tokens]\nmixture = {stories = {epochs = 1}, cod = {epochs = 2}}"
            "|tokens.mixture.cod: no such source",
        ),
        (
            "[tokens]",
            "[tokens]\nmixture = {stories = {epochs = 1}}"
            "|tokens.mixture: source code has neither share nor epochs",
        ),
        ('name = "code"', 'name = "stories"|corpus: two sources have the same name: stories'),
        (
            "[execution]",
            "[execution]\nmicro_batch_sequences = 3"
            "|execution.micro_batch_sequences: 3 does not divide train.batch_sequences 4",
        ),
        ("warmup_steps = 4", "warmup_steps = 20|train: warmup_steps 20 is not below steps 20"),
        (
            "warmup_steps = 4",
            "warmup_steps = 4\nshort_length = 8|train: short_length and short_steps go together",
        ),
        (
            "warmup_steps = 4",
            "warmup_steps = 4\nshort_length = 12\nshort_steps = 9"
            "|train: short_length 12 does not divide sequence_length 32",
        ),
        ("seed = 3", 'seed = 3\nname = "../evil"|name: String should match pattern'),
        ("seed = 3", "seed = |not valid TOML"),
    ],
)
def test_problems_between_keys(path: Path, change: str, told: str) -> None:
    new, _, message = told.partition("|")
    path.write_text(RECIPE.replace(change, new, 1))
    with pytest.raises(UserError) as caught:
        recipe.load(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "[corpus]",
            '[corpus]\nlanguage_score = "0.6"',
            'corpus.language_score: a number is needed, such as 0.5 (it is "0.6")',
        ),
        (
            "[execution]",
            '[execution]\nworkers = "2"',
            'execution.workers: a whole number is needed, such as 100 (it is "2")',
        ),
        (
            "[execution]",
            "[execution]\nworkers = 2.0",
            "execution.workers: a whole number is needed, such as 100 (it is 2.0)",
        ),
        (
            "[corpus]",
            "[corpus]\nminimum_characters = true",
            "corpus.minimum_characters: a whole number is needed, such as 100 (it is true)",
        ),
        (
            "[corpus]",
            "[corpus]\nlanguage_score = true",
            "corpus.language_score: a number is needed, such as 0.5 (it is true)",
        ),
        ("[corpus]", "[corpus]\nlanguages = [1]", "corpus.languages.0: text in quotes is needed (it is 1)"),
        (
            "[corpus]",
            "[corpus]\nperplexity = true",
            "corpus.perplexity: a section is needed, with keys of its own (it is true)",
        ),
        (
            'reader = "lines"',
            'reader = "lines"\nc4 = "true"',
            'corpus.sources.stories.c4: true or false is needed (it is "true")',
        ),
        (
            'reader = "lines"',
            'reader = "lines"\nc4 = 1',
            "corpus.sources.stories.c4: true or false is needed (it is 1)",
        ),
        ("steps = 20", "steps = 2e1", "train.steps: a whole number is needed, such as 100 (it is 20.0)"),
        ("seed = 3", "seed = inf", "seed: a whole number is needed, such as 100 (it is Infinity)"),
        ("5e-3", "nan", "train.learning_rate: Input should be a finite number (it is NaN)"),
        ("5e-3", "-inf", "train.learning_rate: Input should be a finite number (it is -Infinity)"),
        (
            "seed = 3",
            "seed = 2020-01-02",
            "seed: no key takes a date or a time; where text is meant, put it in quotes (it is 2020-01-02)",
        ),
        (
            'licence = "CC0-1.0"',
            "licence = 2020-01-02T03:04:05Z",
            "corpus.sources.stories.licence: no key takes a date or a time",
        ),
        ("[corpus]", "[corpus]\nperplexity = 03:04:05", "corpus.perplexity: no key takes a date or a time"),
        (
            "[tokens]",
            "[tokens]\nmixture = {stories = 2020-01-02}",
            "tokens.mixture.stories: no key takes a date or a time",
        ),
        ("seed = 3", f"seed = 0x{'F' * 9000}", "seed: no key takes so large a number"),
        ("seed = 3", f"seed = {'9' * 9000}", "not valid TOML: "),
        (
            "seed = 3",
            f"seed = {'[' * 300}{']' * 300}",
            "recipe: lists or sections lie too deep in each other",
        ),
        ("seed = 3", f"a{'.a' * 2000} = 1", "recipe: lists or sections lie too deep in each other"),
        ("seed = 3", f"seed = {'[' * 99_000}{']' * 99_000}", "not valid TOML: "),
    ],
)
def test_a_value_of_another_type_is_refused(path: Path, old: str, new: str, told: str) -> None:
    assert old in RECIPE
    path.write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        recipe.load(path)
    message = str(caught.value)
    assert (
        told in message
        and (message.startswith(f"{path}: 1 problem\n") or "TOML" in told)
        and len(message) < 1000
    )


def test_a_whole_number_is_a_number_and_a_list_a_tuple(path: Path) -> None:
    path.write_text(
        RECIPE.replace(
            "[corpus]",
            '[corpus]\nlanguage_score = 1\nperplexity = {train_on = ["code"], percentiles = [2, 5.5]}',
        )
    )
    corpus = recipe.load(path, ("corpus.near_duplicate_threshold=1",)).corpus
    assert (corpus.language_score, corpus.near_duplicate_threshold) == (1.0, 1.0) and isinstance(
        corpus.near_duplicate_threshold, float
    )
    assert corpus.perplexity and corpus.perplexity.percentiles == (2.0, 5.5)


@given(st.floats(0, 1, exclude_min=True))
def test_no_digit_of_a_number_is_lost(value: float) -> None:
    """Through JSON, and so in fingerprints."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.toml"
        path.write_text(RECIPE)
        loaded = recipe.load(path, (f"corpus.near_duplicate_threshold={value!r}",))
        assert loaded.corpus.near_duplicate_threshold == value


ALONE = RECIPE[: RECIPE.index("[tokenizer]")]


def test_a_recipe_of_a_corpus_alone(path: Path) -> None:
    path.write_text(ALONE)
    alone = recipe.load_corpus(path, ("corpus.minimum_characters=9",))
    assert type(alone) is recipe.CorpusRecipe and (
        alone.name,
        alone.seed,
        alone.corpus.minimum_characters,
    ) == ("small", 3, 9)
    with pytest.raises(UserError, match="recipe small is one of a corpus alone"):
        alone.require_training()
    path.write_text(RECIPE)
    both = recipe.load_corpus(path)
    assert both == recipe.load(path) == both.require_training()
    assert both.corpus.sources == alone.corpus.sources


@pytest.mark.parametrize("missing", [["train"], ["tokenizer", "model"], ["tokenizer", "model", "train"]])
def test_what_training_lacks_is_told_with_what_would_do(path: Path, missing: list[str]) -> None:
    sections = re.split(r"(?m)^(?=\[\w+\]$)", RECIPE)
    text = "".join(section for section in sections if section.partition("]")[0][1:] not in missing)
    path.write_text(text)
    assert isinstance(recipe.load_corpus(path), recipe.CorpusRecipe)
    with pytest.raises(UserError) as caught:
        recipe.load(path)
    message = str(caught.value)
    assert message.startswith(
        f"{path}: 1 problem\n  {', '.join(missing)}: missing, which training needs (puna corpus {path}"
    )
    path.write_text(text + "\n" + message.partition("write\n")[2])
    assert recipe.load(path).train.sequence_length == (256 if "train" in missing else 32)
    path.write_text(text.replace("seed = 3", "sead = 3"))
    with pytest.raises(UserError, match=r"2 problems\n  sead: unknown key; did you mean seed\?\n  .*missing"):
        recipe.load(path)
    with pytest.raises(UserError, match=r"1 problem\n  sead: unknown key; did you mean seed\?$"):
        recipe.load_corpus(path)


def test_the_sections_that_are_there_are_checked(path: Path) -> None:
    path.write_text(ALONE + "[train]\nsteps = 0\n[tokens]\nheld_out = 2\n")
    with pytest.raises(
        UserError,
        match=r"3 problems\n  tokens\.held_out: .*\n  train\.steps: .*\n  train\.batch_sequences: missing$",
    ):
        recipe.load_corpus(path)


def test_a_recipe_that_is_not_text(path: Path) -> None:
    path.write_bytes(b"seed = 1 # \xff")
    with pytest.raises(UserError, match=r"small\.toml: not UTF-8 text \(byte 11\)"):
        recipe.load(path)


def test_a_file_whose_name_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xffr.toml")
    path.write_text(RECIPE)
    with pytest.raises(
        UserError, match=r"1 problem\n  name: it is the file's, which is not text in UTF-8; rename the file"
    ):
        recipe.load(path)
    assert recipe.load(path, ("name=other",)).name == "other"


def test_one_source_with_a_wrong_key_is_not_too_few(path: Path) -> None:
    entry = '[corpus]\n[[corpus.sources]]\nname = "a"\nreader = "lines"\n'
    for lines, told in (
        ('uris = ["a.txt"]\nc5 = true', "corpus.sources.a.c5: unknown key"),
        ("uris = []", "corpus.sources.a.uris: at least"),
    ):
        path.write_text(entry + lines)
        with pytest.raises(UserError, match=rf"1 problem\n  {told}"):
            recipe.load_corpus(path)
    path.write_text("[corpus]\nsources = []")
    with pytest.raises(UserError, match=r"1 problem\n  corpus\.sources: at least one entry is needed"):
        recipe.load_corpus(path)


def test_overrides_are_toml_or_bare_words(path: Path) -> None:
    loaded = recipe.load(
        path,
        ("train.steps=30", "model.size=2m", "evaluate.prompts=['a', 'b']", "energy.watts=9.5", "name=other"),
    )
    assert (loaded.train.steps, loaded.model.size, loaded.evaluate.prompts) == (30, "2m", ("a", "b"))
    assert (loaded.energy.watts, loaded.name) == (9.5, "other")
    named = recipe.load(path, ("corpus.sources.code.licence=MIT", "corpus.sources.0.reader=book"))
    assert [(source.reader, source.licence) for source in named.corpus.sources] == [
        ("book", "CC0-1.0"),
        ("code", "MIT"),
    ]
    with pytest.raises(UserError, match=r'corpus\.languages: a list is needed, such as \["en"\]'):
        recipe.load(path, ("corpus.languages=en",))
    with pytest.raises(UserError) as caught:
        recipe.load(path, ("train.step=30", "steps", "seed.x=1", "name=\udcff"))
    message = str(caught.value)
    assert (
        "did you mean steps?" in message
        and "an override is written section.key=value" in message
        and "seed.x: cannot be set" in message
    )
    assert "name=?: not UTF-8 text" in message


def test_find_lists_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe named nothing; shipped recipes: .*laptop"):
        recipe.find("nothing")
    with pytest.raises(UserError, match="no recipe file at"):
        recipe.find(str(tmp_path / "x.toml"))


def test_find_points_to_the_recipe_that_puna_corpus_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "mine").mkdir(parents=True)
    (tmp_path / "out" / "mine" / "recipe.toml").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "out/mine"):
        with pytest.raises(UserError, match=r"; did you mean out/mine/recipe\.toml\?$"):
            recipe.find(name)
    with pytest.raises(UserError) as caught:
        recipe.find("other")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("steps=3", "steps: unknown key; did you mean train.steps?"),
        ("tokenizer.vocab_size=many", "a whole number is needed, such as 260"),
        ("train.steps=many", "a whole number is needed, such as 100"),
    ],
)
def test_hints_of_single_keys(tmp_path: Path, change: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe.load(tiny.write(tmp_path), (change,))
    assert told in str(caught.value)


def test_every_shipped_recipe_loads() -> None:
    shipped = sorted(recipe.CHECKOUT.glob("*.toml"))
    assert {"laptop", "laptop-paper", "seven-sources"} <= {path.stem for path in shipped}
    assert {path.stem for path in shipped if recipe.is_tuning(path)} == {
        "alpaca",
        "vicuna",
        "koala",
        "llama-i",
    }
    for path in (path for path in shipped if not recipe.is_tuning(path)):
        loaded = recipe.load(recipe.find(path.stem))
        assert loaded.name == path.stem and loaded.llama_config().parameters() > 0


def test_the_two_laptop_recipes_differ_in_training_alone() -> None:
    ours, papers = (recipe.load(recipe.find(name)) for name in ("laptop", "laptop-paper"))
    for room in ("seed", "corpus", "tokenizer", "tokens", "model", "evaluate", "execution", "energy"):
        assert getattr(ours, room) == getattr(papers, room), room
    assert (papers.train.optimizer, papers.train.schedule) == ("adamw", "cosine")
    defaults = type(papers.train).model_fields
    for key in ("beta1", "beta2", "weight_decay", "gradient_clip", "final_learning_rate_fraction"):
        assert getattr(papers.train, key) == defaults[key].default, key


OLD_KEYS = sorted(recipe.RENAMED)


@pytest.mark.parametrize("old", OLD_KEYS)
def test_a_renamed_key_is_refused_with_its_new_name(path: Path, old: str) -> None:
    new = recipe.RENAMED[old].partition(",")[0]
    table = ("train_on" if "perplexity" in old else "citations_from") if old.count(".") == 2 else ""
    section = old.rpartition(".")[0]
    extra = (f'{section}={{{table} = ["code"], {old.rpartition(".")[2]} = 9}}',) if table else (f"{old}=9",)
    with pytest.raises(UserError) as caught:
        recipe.load(path, extra)
    assert f"{old}: is called {new}" in str(caught.value)
    assert "unknown key" not in str(caught.value)


@pytest.mark.parametrize("old", OLD_KEYS)
def test_new_names_of_keys_exist(old: str) -> None:
    model: Any = recipe.Recipe
    *sections, last = recipe.RENAMED[old].partition(",")[0].split(".")
    for section in sections:
        annotation = model.model_fields[section].annotation
        model = next((one for one in get_args(annotation) if hasattr(one, "model_fields")), annotation)
    assert last in model.model_fields
