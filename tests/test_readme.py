"""What the README and the pages in docs/ say can be typed, and their links and recipes are right."""

import json
import os
import random
import re
import shlex
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from puna import recipe as recipes
from puna.cli.main import app
from puna.generate.load import load
from puna.report import summary
from puna.tokens import chat
from puna.tune import probe
from tests import tiny
from tests.tune import small

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
TEXTS = {name: (ROOT / name).read_text() for name in PAGES}
MAKE = {"make run", "make test", "make .venv/installed", "make run RECIPE=ours.toml"}
LONGER = {"make test-slow", "make test-faults"}  # in sentences alone
PUNA = ".venv/bin/puna "


def blocks(name: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXTS[name], re.DOTALL)


def lines(name: str) -> list[str]:
    """Commands of a page, without what is said beside them."""
    found = [line.partition(" #")[0].strip() for block in blocks(name, "sh") for line in block.splitlines()]
    return [line for line in found if line]


def inline_commands() -> list[tuple[str, str]]:
    """(page, command) of every command between backquotes."""
    found = []
    for name, text in TEXTS.items():
        for quoted in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if re.match(r"(puna|python|make|pip) ", quoted):
                found.append((name, quoted))
    return sorted(set(found))


APART = ("docs/personalize.md",)  # tests/cli/test_personalize.py types its commands
RUN = list(
    dict.fromkeys(
        line for name in PAGES if name not in APART for line in lines(name) if line.startswith(PUNA)
    )
)
OURS = blocks("docs/own-data.md", "toml")[0]
CRAWL = blocks("docs/filters.md", "toml")[0]
CHAT = blocks("docs/tuning.md", "toml")[0]


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in lines("README.md") and "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


def test_two_commands_do_all() -> None:
    assert lines("README.md")[:2] == ["make run", "make test"]
    others = {line for name in PAGES for line in lines(name) if not line.startswith(PUNA)}
    assert others == MAKE
    targets = re.findall(r"^([.\w/-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {line.split()[1] for line in MAKE | LONGER} <= set(targets)


def test_every_command_of_every_page_runs(tmp_path: Path) -> None:
    """In the pages' order, on a recipe of seconds."""
    assert {shlex.split(line)[1] for line in RUN} == {
        *("run", "show", "report", "generate", "trace", "verify", "keys", "corpus", "export", "import"),
        *("chat", "tune"),
    }
    recipe = tiny.write(tmp_path)
    (tmp_path / "laptop.toml").write_text(recipe.read_text())
    (tmp_path / "ours.toml").write_text(recipe.read_text())
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "rows.jsonl").write_text(
        '{"text": "short"}\n{"text": "' + "The old llama walks across the high plain. " * 9 + '"}\n'
    )
    small.write(tmp_path).rename(tmp_path / "chat.toml")
    (tmp_path / "letter.txt").write_text("The herder writes a letter about the long road.")
    tiny.puna("run", "laptop.toml", cwd=tmp_path)  # as make run has done
    for line in RUN:
        words = ["laptop.toml" if word == "laptop" else word for word in shlex.split(line)[1:]]
        if "train.steps=100" in words:
            words[words.index("train.steps=100")] = "train.steps=10"
        tiny.puna(*words, cwd=tmp_path)


def parse(command: Any, words: list[str]) -> None:
    """Read a command line as typer does, and do nothing. Raises what typer raises."""
    while hasattr(command, "commands"):
        if words[0] not in command.commands and (implied := getattr(command, "implied", "")):
            words = [implied, *words]
        command, words = command.commands[words[0]], words[1:]
    command.make_context("puna", list(words))


@pytest.mark.parametrize(("name", "line"), inline_commands(), ids=lambda text: text.replace("/", "-"))
def test_commands_between_backquotes_can_be_typed(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        assert line in MAKE | LONGER
    elif program == "pip":
        assert words[0] == "install"
    elif program == "python":
        assert words[0] == "-m" or (ROOT / words[0]).is_file(), f"{name}: {words[0]}"
    elif words[0] == "--install-completion":
        assert "--install-completion" in tiny.puna("--help").stdout
    elif words[0].startswith("-"):
        assert words[0] in ("--help", "-h", "--version")
    else:
        (tmp_path / "out" / "NAME").mkdir(parents=True)
        for folder in (word for word in words if word.startswith("out/")):
            (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path)
        command = typer.main.get_command(app)
        assert words[0] in command.commands  # type: ignore[attr-defined]
        if len(words) > 1 and "--help" not in words:
            parse(command, words)


def test_the_recipe_of_your_own(tmp_path: Path) -> None:
    """Books enough for its settings, made up; it runs as it stands."""
    (tmp_path / "ours.toml").write_text(OURS)
    (tmp_path / "letters").mkdir()
    chance = random.Random(2)
    names = [
        "".join(chance.choice("abcdefghiklmnoprstuvw") for _ in range(chance.randrange(3, 9)))
        for _ in range(3000)
    ]
    for number in range(10):
        words = [chance.choice((*tiny.WHO, *tiny.DOES, *tiny.WHAT, chance.choice(names))) for _ in range(240)]
        (tmp_path / "letters" / f"{number}.txt").write_text(" ".join(words) + ".")
    written = sum(path.stat().st_size for path in (tmp_path / "letters").iterdir())
    assert 35_000 < written < 45_000  # the least that the page names
    result = tiny.puna("run", tmp_path / "ours.toml", "--out", tmp_path / "out")
    assert "report: " in result.stdout


def test_the_recipe_of_a_crawl_is_one(tmp_path: Path) -> None:
    (tmp_path / "crawl.toml").write_text(CRAWL)
    found = recipes.load_corpus(tmp_path / "crawl.toml").corpus
    assert found.perplexity is not None
    assert found.perplexity.keep == ("head", "middle") and found.perplexity.percentiles == (30, 60)


def test_the_laptops_model_is_tuned_and_answers_in_its_format(tmp_path: Path) -> None:
    """The page's recipe on a base that the tiny recipe trains: it stops, and says what was asked for."""
    laptop = tiny.write(tmp_path).rename(tmp_path / "laptop.toml")
    length = ("-s", "train.sequence_length=160", "-s", "tokens.maximum_epochs=1000")
    tiny.puna("run", laptop, *length, "--out", tmp_path / "out")
    (tmp_path / "chat.toml").write_text(CHAT)
    rows = small.rows(200)
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = ("chat.format=koala", "chat.max_tokens=160", "stages.sft.learning_rate=1e-2")
    changes += ("stages.sft.epochs=8", "replay.prompts=4", "replay.answer_tokens=8", "replay.share=0.05")
    tiny.puna("tune", tmp_path / "chat.toml", *changes, "--out", tmp_path / "out")
    model, tokenizer, template, *_ = load(summary.model_folder(tmp_path / "out" / "chat"))
    form = chat.recognise(template or "")
    asked = [row["messages"][0]["content"] for row in rows[:20]]
    answers = probe.ask(model, tokenizer, form, asked, max_new_tokens=24)
    assert sum(bool(answer.ended) for answer in answers) >= 18
    assert sum(answer.answer.startswith("Of ") for answer in answers) >= 18


def test_every_recipe_of_a_page_is_tried() -> None:
    assert [block for name in PAGES for block in blocks(name, "toml")] == [CRAWL, OURS, CHAT]


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


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "``", TEXTS[name], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("https://"):
            assert ((ROOT / name).parent / link.partition("#")[0]).exists(), link


def test_every_page_can_be_found_from_the_readme() -> None:
    for name in PAGES[1:]:
        assert f"({name})" in README, name


def test_every_promise_names_tests_that_are_there() -> None:
    named = re.findall(r"\[`(Test\w+)`\]\(([\w/.]+)\)", README)
    assert len(named) >= 8
    for class_name, path in named:
        assert f"\nclass {class_name}:" in (ROOT / path).read_text(), class_name
    told = {class_name for class_name, path in named if path == "tests/test_promises.py"}
    promises = re.findall(r"^class (Test\w+):", (ROOT / "tests/test_promises.py").read_text(), re.MULTILINE)
    assert told == set(promises)


def test_the_picture_is_small_and_its_recipe_is_one(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import picture
    finally:
        sys.path.pop(0)
    header = picture.PICTURE.read_bytes()[:24]
    assert header.startswith(b"\x89PNG") and struct.unpack(">II", header[16:]) == (
        picture.WIDTH,
        picture.HEIGHT,
    )
    assert picture.PICTURE.stat().st_size <= picture.MOST_BYTES
    assert picture.PICTURE.relative_to(ROOT).as_posix() in README
    loaded = recipes.load(picture.write_recipe(tmp_path))
    assert loaded.name == "own-text" and Path(loaded.corpus.root) == ROOT


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
            named = re.findall(r"`([\w/.]+\.(?:py|cpp|h|json|md|css))`", line.split("|")[1])
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
