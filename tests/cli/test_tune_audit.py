"""puna tune audit on small files: what is printed, what is written, which exit code it ends with."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_usage import Capture, call
from tests.tokens.conversations import small_sentencepiece

ROOT = Path(__file__).parents[2]
GOOD = {"instruction": "What is a puna?", "output": "A grassland."}
TWICE = {
    "messages": [{"role": "user", "content": "What is a puna?"}, {"role": "assistant", "content": "A plain."}]
}
EMPTY = {"instruction": "What is that?", "output": " "}
PAIR = {"prompt": "Say </s> twice.", "chosen": "No.", "rejected": "Yes."}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD, TWICE, EMPTY, PAIR, EMPTY], indent=0))
    return path


def audit(monkeypatch: pytest.MonkeyPatch, capsys: Capture, *words: Any, code: int = 0) -> tuple[str, str]:
    monkeypatch.setenv("COLUMNS", "80")
    found, out, errors = call(["tune", "audit", *map(str, words)], monkeypatch, capsys)
    assert found == code, (out, errors)
    return out, errors


def test_defects_with_rows_and_lines(rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    out, errors = audit(monkeypatch, capsys, rows, code=2)
    lines = out.splitlines()
    assert re.fullmatch(r"5 rows, \d{3} characters as vicuna_v1.1, \d+\.\d% of them learned", lines[0])
    assert "empty turn                  2  row 3 (line 18), turn 2 (also 5): no text" in lines
    assert "duplicate question          1  row 2 (line 6): as rows.json, row 1" in lines
    assert "control string              1  row 4 (line 22), turn 1: '</s>' stays text" in lines
    assert [rows.read_text().splitlines()[line - 1] for line in (6, 18, 22)] == ["{"] * 3
    heads = [each.split()[0] for each in lines if each.endswith("  rows  first")]
    assert heads == ["refused", "warning"]
    assert "over-long (with --length)" in out.replace("\n", " ")
    assert "row 1; + is learned" in lines
    assert lines[lines.index("row 1; + is learned") + 2] == "+  A grassland.</s>"
    assert "licence: no file beside the data" in out
    assert errors.startswith("puna: not to be learned from: empty turn: 2; first ")
    assert "--drop FOLDER" in errors
    assert "\x1b" not in out


def test_the_rows_that_stay_are_written(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out, _ = audit(monkeypatch, capsys, rows, "--drop", tmp_path / "out", "--preview", 0)
    assert f"{tmp_path}/out: 3 rows in kept.jsonl" in out
    assert "+ is learned" not in out
    (tmp_path / "out" / "LICENSE").write_text((ROOT / "LICENSE").read_text())
    out, _ = audit(monkeypatch, capsys, tmp_path / "out" / "kept.jsonl")
    assert "refused" not in out
    assert "licence: Apache-2.0 (LICENSE)" in out
    found = json.loads(audit(monkeypatch, capsys, tmp_path / "out" / "kept.jsonl", "--json")[0])
    assert (found["rows"], found["counts"]["duplicate question"], found["counts"]["empty turn"]) == (3, 1, 0)
    assert found["findings"][0]["file"] == f"{tmp_path}/out/kept.jsonl"


def test_tokens_are_counted_with_a_tokenizer(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(small_sentencepiece().model)
    words = (rows, "--tokenizer", tmp_path / "tokenizer.model", "--format", "koala", "--length", 20)
    found = json.loads(audit(monkeypatch, capsys, *words, "--json", code=2)[0])
    assert found["format"] == "koala"
    assert 0 < found["learned_share"] < 0.5 < found["tokens"]
    assert found["counts"]["over-long"] == 5
    told = [each["told"] for each in found["findings"] if each["kind"] == "over-long"]
    assert all("too many: 0 pieces; too long alone, and gone: round 1" in each for each in told), told


def test_what_cannot_be_asked(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for words, told in (
        (("--length", 8), "name a model with --tokenizer"),
        (("--format", "vicuna"), "--format vicuna: there are vicuna_v1.1, koala"),
        (("--eval", tmp_path / "no"), "no such folder"),
        (("--eval", tmp_path), "no files of a task"),
    ):
        assert told in audit(monkeypatch, capsys, rows, *words, code=2)[1]
    assert "No such file" in audit(monkeypatch, capsys, tmp_path / "none.json", code=2)[1]


def test_what_data_say_to_a_terminal_is_shown_and_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    row = {"instruction": "\x1b]0;title\x07Say it.", "output": "\x1b[2J\x9b31mIt.\r"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    out, _ = audit(monkeypatch, capsys, tmp_path / "rows.jsonl")
    assert "+  \ufffd[2J\ufffd31mIt.\ufffd</s>" in out.splitlines()
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(out)


def test_a_file_is_no_folder_to_write_to(
    rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = rows.read_text()
    assert "is a file; name a folder" in audit(monkeypatch, capsys, rows, "--drop", rows, code=2)[1]
    assert rows.read_text() == before


def test_tokens_are_counted_with_those_that_the_format_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(GOOD) + "\n")
    (tmp_path / "tokenizer.model").write_bytes(small_sentencepiece().model)
    words = [tmp_path / "rows.jsonl", "--tokenizer", tmp_path / "tokenizer.model", "--format", "chatml"]
    out, _ = audit(monkeypatch, capsys, *words)
    assert re.match(r"1 rows, \d+ tokens as chatml", out)


@pytest.mark.parametrize("content", ["", "\n \n", "[]"])
def test_nothing_to_audit_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, content: str
) -> None:
    path = tmp_path / ("rows.json" if content == "[]" else "rows.jsonl")
    path.write_text(content)
    assert "no conversations in it" in audit(monkeypatch, capsys, path, code=2)[1]
