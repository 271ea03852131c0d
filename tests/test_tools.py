"""tools/stages.py on a package made here, and what tools/closure.py counts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
STAGE = '''"""Two stages."""
from puna.mill.wheel import turn

VERSIONS = {"flour": 1, "bran": 3}


def flour():
    """Grind."""
    from puna.mill.stones import grind
    from puna.text import split

    return turn(grind(split("corn")))
'''


@pytest.fixture
def mill(tmp_path: Path) -> Path:
    """A package with one room that has stages and one that has none."""
    room = tmp_path / "src" / "puna" / "mill"
    (room / "stones").mkdir(parents=True)
    files = {
        "stage.py": STAGE,
        "__init__.py": "",
        "wheel.py": "def turn(corn):\n    return corn[::-1]\n",
        "stones/__init__.py": "SIZE = 3\n\n\ndef grind(corn):\n    return corn[:SIZE]\n",
        "stones/size.json": "3",
        "sack.py": "SACKS = 1\n",
        "../text.py": "split = list\n",
        "../__init__.py": "",
    }
    for name, text in files.items():
        (room / name).write_text(text)
    (tmp_path / "src" / "puna" / "run").mkdir()
    (tmp_path / "src" / "puna" / "run" / "stage.py").write_text("class Stage: pass\n")
    assert stages(room, "--record") == (0, "")
    return room


def stages(room: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the tool."""
    source = room.parents[1]
    command = [sys.executable, TOOLS / "stages.py", "--source", source, "--records", source / "records.json"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def records(room: Path) -> dict[str, dict[str, object]]:
    return json.loads((room.parents[1] / "records.json").read_text())


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", '"""Grind."""', '"""Grind corn.\n\n    Slowly."""  # by water'),
        ("stage.py", '"""Two stages."""\n', ""),
        ("wheel.py", "    return", "\n    return"),
        ("sack.py", "1", "2"),
        ("../text.py", "list", "tuple"),
    ],
)
def test_what_is_no_code_of_a_stage(mill: Path, file: str, old: str, new: str) -> None:
    replace(mill / file, old, new)
    assert stages(mill) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", '"corn"', '"wheat"'),
        ("wheel.py", "-1", "-2"),
        ("stones/__init__.py", "3", "4"),  # imported inside a function
        ("stones/size.json", "3", "4"),
        ("__init__.py", "", "YEAR = 1"),
    ],
)
def test_changed_code_needs_a_version_or_a_word(mill: Path, file: str, old: str, new: str) -> None:
    before = records(mill)
    (mill / file).write_text((mill / file).read_text().replace(old, new) if old else new)
    code, told = stages(mill)
    assert code == 1 and told.count("its code has changed") == 2
    assert "Raise it in src/puna/mill/stage.py" in told and '--same-output "why" flour' in told
    assert stages(mill, "--record") == (1, told) and records(mill) == before  # a raised version only
    code, told = stages(mill, "--same-output", "only the words of a message", "flour")
    assert code == 1 and "flour" not in told and "bran" in told
    assert stages(mill, "--same-output", "read by nobody", "bran") == stages(mill) == (0, "")
    after = records(mill)
    assert after["flour"]["version"] == 1 and after["flour"]["same_output"] == "only the words of a message"
    assert after["bran"]["code"] == after["flour"]["code"] != before["flour"]["code"]


def test_a_raised_version_is_recorded(mill: Path) -> None:
    replace(mill / "stage.py", '"flour": 1, "bran": 3', '"flour": 2, "bran": 4')
    code, told = stages(mill)
    assert code == 1 and "flour: version 2 is not recorded; run: python tools/stages.py --record" in told
    code, told = stages(mill, "--same-output", "nothing has changed", "flour")
    assert code == 2 and "no recorded stage with its version unchanged" in told
    assert stages(mill, "--record") == stages(mill) == (0, "")
    assert {kind: record["version"] for kind, record in records(mill).items()} == {"flour": 2, "bran": 4}
    assert all(record["same_output"] == "" for record in records(mill).values())


def test_versions_do_not_go_back_and_stages_that_go_leave_no_record(mill: Path) -> None:
    replace(mill / "stage.py", '"flour": 1, "bran": 3', '"flour": 0')
    code, told = stages(mill)
    assert code == 1 and "flour: version 0 is below the recorded 1" in told and "bran: recorded, but" in told
    code, told = stages(mill, "--record")
    assert code == 1 and "flour" in told and "bran" not in told
    replace(mill / "stage.py", '"flour": 0', '"flour": 1')
    assert stages(mill, "--same-output", "bran was nothing", "flour") == (0, "")
    assert list(records(mill)) == ["flour"]


@pytest.mark.parametrize("arguments", [("--same-output", " ", "flour"), ("--same-output", "why"), ("flour",)])
def test_a_word_and_a_kind_belong_together(mill: Path, arguments: tuple[str, ...]) -> None:
    assert stages(mill, *arguments)[0] == 2


def test_lines_of_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    import closure

    path = tmp_path / "a.cpp"
    path.write_text(
        '// one\nint a;  // two\n\n/* three\n\nfour */ int b;\nchar c[] = "/*";\n  /* five */\nint d;\n'
    )
    assert closure.cpp_lines(path) == 4
    path = tmp_path / "a.py"
    path.write_text(
        '"""One."""\n\nimport os  # two\n\n\ndef a():\n    """Three\n    four."""\n    return """\n\n"""\n'
    )
    assert closure.code_lines(path) == 5
