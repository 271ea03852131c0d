"""Help, completion, and one message for every mistake on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from puna.cli.main import app, main

COMMANDS = [
    ["run"],
    ["show"],
    ["report"],
    ["trace"],
    ["verify"],
    ["keys"],
    ["generate"],
    ["chat"],
    ["corpus"],
    ["corpus", "clean"],
    ["corpus", "score"],
    ["corpus", "dropped"],
    ["tune"],
    ["tune", "audit"],
    ["eval"],
    ["eval", "run"],
    ["eval", "show"],
    ["eval", "diff"],
]
Capture = pytest.CaptureFixture[str]


def call(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["puna", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_help_says_what_to_type_first(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, text, errors = call(["--help"], monkeypatch, capsys)
    assert code == 0 and errors == ""
    words = [line.split() for line in text.splitlines()]
    assert ["puna", "run"] in [line[:2] for line in words]
    assert ["puna", "generate", "out/laptop"] in [line[:3] for line in words]
    assert ["puna", "corpus", "FOLDER"] in [line[:3] for line in words]
    panels = [line[1] for line in words if line[:1] == ["╭─"]]
    assert panels == ["Options", "Make", "Look", "Use"]
    listed = [line[1] for line in words if line[:1] == ["│"] and len(line) > 2 and [line[1]] in COMMANDS]
    assert listed == [
        "run",
        "corpus",
        "tune",
        "show",
        "report",
        "trace",
        "verify",
        "keys",
        "generate",
        "chat",
        "eval",
    ]
    assert "--install-completion" in text
    assert call(["-h"], monkeypatch, capsys) == call([], monkeypatch, capsys) == (0, text, "")


@pytest.mark.parametrize("command", COMMANDS, ids="-".join)
def test_every_command_has_help(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, text, errors = call([*command, "-h"], monkeypatch, capsys)
    assert code == 0 and errors == "" and f"Usage: puna {' '.join(command)}" in text
    parsed = typer.main.get_command(app)
    for name in command:
        parsed = parsed.commands[name]
    assert parsed.help and all(parameter.help for parameter in parsed.params)
    assert call([*command, "--help"], monkeypatch, capsys) == (0, text, "")


def test_options_of_generate_are_explained(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = call(["generate", "--help"], monkeypatch, capsys)[1]
    assert "the likeliest tokens that together have this probability" in text
    assert "the same seed gives the same text" in text


MISTAKES = {
    "run --steps 3": "no option --steps; a key of the recipe is set with -s train.steps=3",
    "run --steps=3 --json": "no option --steps; a key of the recipe is set with -s train.steps=3",
    "run --train.steps 3": "no option --train.steps; a key of the recipe is set with -s train.steps=3",
    "show --compile": "no option --compile; a key of the recipe is set with -s execution.compile=VALUE",
    "run --vocab-size 300": "no option --vocab-size; a key of the recipe is set with "
    "-s corpus.perplexity.vocab_size=300 or -s tokenizer.vocab_size=300",
    "corpus raw --minimum-characters 5": "no option --minimum-characters; "
    "a key of the recipe is set with -s corpus.minimum_characters=5",
    "run --licence MIT": "no option --licence; "
    "a key of the recipe is set with -s corpus.sources.NAME.licence=MIT",
    "run --step 3": "no option --step; did you mean the key of the recipe that is set with -s train.steps=3?",
    "run --jsn": "no option --jsn; did you mean --json?",
    "run --uot x": "no option --uot; did you mean --out?",
    "run --zzzz": "no option --zzzz; see puna run --help",
    "run -z": "no option -z; see puna run --help",
    "trace . --steps 3": "no option --steps; see puna trace --help",
    "--verison": "no option --verison; did you mean --version?",
    "--steps 3": "no option --steps; see puna --help",
    "rnu": "no command rnu; did you mean run?",
    "laptop": (
        "no command laptop; the commands are run, show, report, trace, verify, keys, generate, chat, "
        "export, import, personalize, corpus, tune, eval"
    ),
    "corpus droped out": "no file, folder or command droped; did you mean dropped?",
    "report": "missing argument run (folder of a finished run, such as out/laptop); see puna report --help",
    "generate .": "missing argument prompt (text to go on from); see puna generate --help",
    "generate . x --top-p 3": "--top-p: should be less than or equal to 1 (it is 3); "
    "see puna generate --help",
    "generate . x --seed q": "--seed: should be a valid integer (it is q); see puna generate --help",
    "generate . x --seed": "option '--seed' requires an argument",
    "trace . 0 0 0": "step: should be greater than or equal to 1 (it is 0); see puna trace --help",
    "export onnx out x": "form: onnx is none of hf, gguf, meta, delta; see puna export --help",
    "show a b": "got unexpected extra argument(s) (b); see puna show --help",
    "report /no/such": "/no/such: no such folder; name a run's folder, such as out/laptop",
    "verify /no/such": "/no/such: no such folder; name a run's folder, such as out/laptop",
    "report /dev/null": "/dev/null: a file, not a folder; name a run's folder, such as out/laptop",
    "keys trian": "no key has trian in it; did you mean train?",
    "show lptop": "no recipe named lptop; shipped recipes: alpaca, koala, laptop, laptop-paper, llama-i, "
    "seven-sources, vicuna; "
    "or give the path of a .toml file",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_get_one_message(line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    code, printed, errors = call(line.split(), monkeypatch, capsys)
    assert (code, printed, errors) == (2, "", f"puna: {MISTAKES[line]}\n")


def test_a_file_called_like_a_misspelt_command_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scores").mkdir()
    code, _, errors = call(["corpus", "scores"], monkeypatch, capsys)
    assert code == 2 and "puna: nothing here that a reader takes: scores" in errors


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    import puna

    assert call(["--version"], monkeypatch, capsys) == (0, f"puna {puna.__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "completions"),
    [
        ("puna run ", ["laptop", "laptop-paper", "seven-sources"]),
        ("puna show se", ["seven-sources"]),
        ("puna tune run ", ["alpaca", "koala", "llama-i", "vicuna"]),
        ("puna ge", ["generate"]),
        ("puna run ./ours", []),  # the shell goes on with names of files
        ("puna report /no/such --j", ["--json"]),
    ],
)
def test_the_shell_completes(typed: str, completions: list[str]) -> None:
    words = typed.split(" ")
    variables = {"_PUNA_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-m", "puna"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **variables}
    )
    assert result.stdout.split() == completions and result.stderr == ""


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_get_one_sentence(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "argv", ["puna", "run", "laptop"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = f"puna: Puna needs Linux, and this is {system}; a container or a virtual machine has it\n"
    assert (ended.value.code, *capsys.readouterr()) == (2, "", told)
