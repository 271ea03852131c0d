"""The package as a whole: every module imports, the heavy ones only when they are needed, the budgets
hold."""

import hashlib
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import puna
from puna import recipe, stages
from puna.run import artifact

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(puna.__path__, "puna.")
    if not module.name.endswith("__main__")
)
HEAVY = ("torch", "daft", "numpy", "pyarrow", "transformers", "sentencepiece")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is(name: str) -> None:
    assert (importlib.import_module(name).__doc__ or "").strip()


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = f"import sys, puna.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_readers_named_in_settings_are_there() -> None:
    from puna.corpus import readers
    from puna.corpus.settings import SourceSettings

    for reader in get_args(SourceSettings.model_fields["reader"].annotation):
        assert callable(readers.reader(reader))


def test_fingerprints_change_with_what_a_stage_depends_on() -> None:
    def marks(*overrides: str) -> dict[str, str]:
        from puna.run.build import Build

        loaded = recipe.load(recipe.find("laptop"), overrides)
        build = Build(loaded, Path(), Path("none"), stages.stages(loaded, Path()))
        return {item.stage.name: item.fingerprint for item in build.plan()}

    base = marks()
    for override, first in (
        ("corpus.minimum_characters=201", "documents"),
        ("tokenizer.vocab_size=5000", "tokenizer"),
        ("tokens.held_out=0.04", "tokenizer"),
        ("tokens.maximum_epochs=5", "train"),
        ("train.steps=601", "train"),
        ("seed=2", "train"),
        ("evaluate.temperature=0.5", "scores"),
    ):
        order = list(base)
        changed = [name for name, mark in marks(override).items() if mark != base[name]]
        assert changed == order[order.index(first) :], override
    for override in ("energy.watts=3", "corpus.root=elsewhere", "name=other"):
        assert marks(override) == base, override


def test_fingerprints_are_the_same_on_every_machine() -> None:
    text = '{"a": "ü", "b": [1, 2.5, null]}'
    assert (
        artifact.fingerprint({"b": [1, 2.5, None], "a": "ü"})
        == hashlib.sha256(text.encode()).hexdigest()[:12]
        == "7b9252ddd586"
    )


def test_size_budgets() -> None:
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, root / "tools" / "closure.py"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
