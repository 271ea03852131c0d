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
from puna.run import artifact, compiled
from puna.run.build import Build
from puna.run.settings import ExecutionSettings
from tests import tiny

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


MALLOPT = """
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>
extern "C" int mallopt(int parameter, int value) {
    std::FILE* log = std::fopen(std::getenv("MALLOPT_LOG"), "a");
    std::fprintf(log, "%d %d %d\\n", getpid(), parameter, value);
    std::fclose(log);
    return reinterpret_cast<int (*)(int, int)>(dlsym(RTLD_NEXT, "mallopt"))(parameter, value);
}
"""


@pytest.fixture
def mallopt_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for every change of an allocator policy: its process, parameter and value."""
    source, log = tmp_path / "mallopt.cpp", tmp_path / "mallopt.log"
    source.write_text(MALLOPT)
    if (library := compiled.library(source)) is None:
        pytest.skip("no C++ compiler")
    log.touch()
    monkeypatch.setenv("MALLOPT_LOG", str(log))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return log


def test_no_import_sets_an_environment_variable_or_an_allocator_policy(mallopt_log: Path) -> None:
    """Of what ours import, torch, Arrow and others are asked first."""
    code = (
        "import importlib, os, torch, pyarrow, sentencepiece\nbefore = dict(os.environ)\n"
        f"for name in {MODULES!r}: importlib.import_module(name)\n"
        "print({name: value for name, value in os.environ.items() if before.get(name) != value})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "{}\n"
    assert mallopt_log.read_text() == ""
    again = [sys.executable, "-c", "import ctypes; ctypes.CDLL(None).mallopt(-1, 99)"]
    subprocess.run(again, check=True)
    assert mallopt_log.read_text().endswith(" -1 99\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_training_does_not_run_under_the_corpus_allocator_policy(
    workers: int, mallopt_log: Path, tmp_path: Path
) -> None:
    """One heap for all threads is a policy of the corpus' own processes alone."""
    M_ARENA_MAX = -8
    command = tiny.command(
        "run", tiny.write(tmp_path), "--out", tmp_path, "-s", f"execution.workers={workers}"
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    changes = [tuple(map(int, line.split())) for line in mallopt_log.read_text().splitlines()]
    assert {parameter for pid, parameter, _ in changes if pid == process.pid} == {-1, -3}  # of the training
    others = {pid for pid, parameter, value in changes if (parameter, value) == (M_ARENA_MAX, 1)}
    assert process.pid not in others and len(others) >= (workers > 1)


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
        "checkpoint_steps": 7, "checkpoints_kept": 9, "checkpoints_every": 8, "workers": 1, "ray": "local",
        "group_bytes": 9, "memory_bytes": 8,
    }  # fmt: skip
    assert execution.keys() == ExecutionSettings.model_fields.keys()
    for override in (
        *(f"execution.{key}={value}" for key, value in execution.items()),
        "tokens.maximum_epochs=5",
        "tokens.small_sources=leave out",
        "train.validation_steps=7",
        "train.validation_tokens=99",
        "energy.watts=3",
        "cluster.mesh.replicate=2",
        "cluster.mesh.shard=4",
        "cluster.mesh.tensor=2",
        "cluster.checkpoint_seconds=9",
        "cluster.time_out_seconds=9",
        "cluster.replica_check_steps=9",
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
