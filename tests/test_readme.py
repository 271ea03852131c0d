"""The README's commands do what it says, on a recipe of seconds."""

import os
import random
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from puna import recipe as recipes
from tests import tiny

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LINES = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in LINES and "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


def test_every_command(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path)
    commands = [line for line in LINES if line.startswith(".venv/bin/puna ")]
    assert {shlex.split(line)[1] for line in commands} == {
        "run",
        "show",
        "report",
        "generate",
        "trace",
        "verify",
        "corpus",
    }
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "rows.jsonl").write_text(
        '{"text": "short"}\n{"text": "' + "The old llama walks across the high plain. " * 9 + '"}\n'
    )
    (tmp_path / "letter.txt").write_text("The herder writes a letter about the long road.")
    there = {
        "laptop": recipe,
        "raw": tmp_path / "raw",
        "letter.txt": tmp_path / "letter.txt",
        "out/raw": tmp_path / "out" / "raw",
    }
    for line in commands:
        words = [
            word.replace("out/laptop", str(tmp_path / "out" / "small")) for word in shlex.split(line)[1:]
        ]
        words = [str(there.get(word, word)) for word in words]
        makes = words[0] in ("run", "show") or words[:2] == ["corpus", str(there["raw"])]
        tiny.puna(*words, *(["--out", tmp_path / "out"] if makes else []))


def test_the_recipe_in_the_readme(tmp_path: Path) -> None:
    """Books enough for its settings, made up; it runs as it stands."""
    block, _ = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "ours.toml").write_text(block)
    (tmp_path / "letters").mkdir()
    chance = random.Random(2)
    names = [
        "".join(chance.choice("abcdefghiklmnoprstuvw") for _ in range(chance.randrange(3, 9)))
        for _ in range(3000)
    ]
    for number in range(40):
        words = [
            chance.choice((*tiny.WHO, *tiny.DOES, *tiny.WHAT, chance.choice(names))) for _ in range(2500)
        ]
        (tmp_path / "letters" / f"{number}.txt").write_text(" ".join(words) + ".")
    result = tiny.puna(
        "run",
        tmp_path / "ours.toml",
        "--out",
        tmp_path / "out",
        "-s",
        "train.steps=30",
        "-s",
        "model.size=tiny",
    )
    assert "report: " in result.stdout


def test_the_recipe_of_a_corpus_in_the_readme_is_one(tmp_path: Path) -> None:
    _, block = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "crawl.toml").write_text(block)
    found = recipes.load_corpus(tmp_path / "crawl.toml").corpus
    assert (
        found.perplexity
        and found.perplexity.keep == ("head", "middle")
        and found.perplexity.percentiles == (30, 60)
    )


def test_make_run(tmp_path: Path) -> None:
    if not (ROOT / ".venv" / "installed").exists():
        pytest.skip("no .venv made by make in this checkout")
    recipe = tiny.write(tmp_path)
    command = ["make", "run", f"RECIPE={recipe}", f"ARGS=--out {tmp_path / 'out'}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    for told in ("report: ", "nothing to do"):
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False, env=environment
        )
        assert result.returncode == 0 and told in result.stdout + result.stderr, result.stderr


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_picture_of_the_house_is_the_tree() -> None:
    """Every file of the package stands in it, and nothing else does."""
    package = ROOT / "src" / "puna"
    drawn: set[str] = set()
    section = folder = ""
    for line in ARCHITECTURE.splitlines():
        if line.startswith("## "):
            section = line[3:].partition(":")[0]
            folder = f"{section}/" if (package / section).is_dir() else ""
        elif found := re.match(r"\| (\w+/) \|", line):
            folder = f"{section}/{found[1]}"
        elif line.startswith("| `"):
            named = re.findall(r"`([\w/.]+\.(?:py|cpp|json|css))`", line.split("|")[1])
            family = folder + named[0].rpartition("/")[0] if "/" in named[0] else folder.rstrip("/")
            for name in named:
                whole = f"{family}/{name.rpartition('/')[2]}" if family else name
                assert (package / whole).is_file(), whole
                drawn.add(whole)
    there = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    missing = sorted(name for name in there - drawn if not name.rpartition("/")[2].startswith("__"))
    assert not missing, f"not in the picture: {missing}"
    assert len(drawn) > 100


def test_the_picture_of_the_house_names_the_floors() -> None:
    """As the contracts of the linter have them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [[name.strip() for name in re.split("[|:]", layer)] for layer in contracts[0]["layers"]]
    picture = ARCHITECTURE.partition("```\n")[2].partition("```")[0].splitlines()
    drawn = [[name.strip() for name in re.split(r"\|", line.partition("  ")[0])] for line in picture]
    assert drawn == floors
    assert " -> ".join(", ".join(floor) for floor in floors) in README
