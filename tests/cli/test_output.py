"""Tables, and errors of the file system whichever library noticed them."""

import errno

import pytest

from puna.cli import output


def test_tables_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("source", "documents", "score"), [("news", 1234567, "0.250"), ("a", 5, "-")])
    assert capsys.readouterr().out.splitlines() == [
        "source  documents  score",
        "news    1,234,567  0.250",
        "a               5  -",
    ]


def test_an_empty_table_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("source", "documents"), [])
    assert capsys.readouterr().out == "source  documents\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            "out/x: No space left on device; nothing half-written is left: free some room and run again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/etc/x"),
            "/etc/x: Permission denied; change its rights, or name another place",
        ),
        (
            RuntimeError("PytorchStreamWriter failed: No space left on device"),
            "cannot write: No space left on device; "
            "nothing half-written is left: free some room and run again",
        ),
        (
            OSError(errno.EIO, "Input/output error", "out/x"),
            "out/x: Input/output error; the disk or its server fails: look there, and run again",
        ),
        (ValueError("a mistake of ours"), None),
        (OSError(errno.ENOENT, "No such file or directory", "x"), None),
    ],
)
def test_problems_of_the_disk(error: Exception, message: str | None) -> None:
    assert output.disk_problem(error) == message
    outer = RuntimeError("while writing")
    outer.__cause__ = error
    assert output.disk_problem(outer) == message
