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
from puna.run.build import Build
from puna.run.settings import ExecutionSettings

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


def fingerprints(*overrides: str, root: Path = Path()) -> dict[str, str]:
    loaded = recipe.load(recipe.find("laptop"), overrides)
    build = Build(Path("none"), stages.stages(loaded, root))
    return {item.stage.name: item.fingerprint for item in build.plan()}


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("corpus.minimum_characters=201", "documents"),
        ("corpus.remembered_lines=1000000", "documents"),
        ("tokenizer.vocab_size=5000", "tokenizer"),
        ("tokens.held_out_fraction=0.04", "tokenizer"),
        ("train.steps=601", "train"),
        ("train.precision=bfloat16", "train"),
        ("seed=2", "train"),
        ("evaluate.temperature=0.5", "scores"),
    ],
)
def test_a_fingerprint_changes_with_what_its_stage_depends_on(override: str, first: str) -> None:
    base = fingerprints()
    order = list(base)
    changed = [name for name, mark in fingerprints(override).items() if mark != base[name]]
    assert changed == order[order.index(first) :]


def test_no_fingerprint_changes_with_how_it_is_made_or_checked() -> None:
    base = fingerprints()
    assert fingerprints(root=Path("/elsewhere")) == base
    execution = {
        "threads": 3, "micro_batch_sequences": 4, "remat": "full", "device": "cuda", "compile": "true",
        "checkpoint_steps": 7, "checkpoints_kept": 9, "workers": 1, "ray": "local", "group_bytes": 9,
        "memory_bytes": 8,
    }  # fmt: skip
    assert execution.keys() == ExecutionSettings.model_fields.keys()
    for override in (
        *(f"execution.{key}={value}" for key, value in execution.items()),
        "tokens.maximum_epochs=5",
        "tokens.small_sources=leave out",
        "train.validation_steps=7",
        "train.validation_tokens=99",
        "energy.watts=3",
        "corpus.root=elsewhere",
        "name=other",
    ):
        assert fingerprints(override) == base, override


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
