"""What commands print: JSON, tables, and errors as one message."""

import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

_ADVICE = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "nothing half-written is left: free some room and run again",
    ),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "change its rights, or name another place"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "the disk or its server fails: look there, and run again"),
}


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def print_line(value: Any) -> None:
    """Print JSON in one line."""
    print(json.dumps(value))


def print_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print plain columns: text to the left, figures to the right, whole numbers with separators."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [
            cell.rjust(width) if _is_figure(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _is_figure(cell: str) -> bool:
    whole = cell.removesuffix(" partial").replace(",", "")
    return (cell[:1].isdigit() and "." in cell) or whole.isdigit() or cell in ("–", "n/a")


def fail(message: str) -> NoReturn:
    """Print an error that a person can put right, and end with exit code 2."""
    print(f"puna: {message}", file=sys.stderr)
    sys.exit(2)


def disk_problem(error: BaseException) -> str | None:
    """Explain an error of the file system, whichever library noticed it; None for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None:  # libraries in other languages pass the system's words on as text
            number = next((known for known in _ADVICE if os.strerror(known) in str(cause)), None)
        if number in _ADVICE:
            path = cause.filename if isinstance(cause, OSError) else None
            return f"{path or 'cannot write'}: {os.strerror(number)}; {_ADVICE[number]}"
        cause = cause.__cause__ or cause.__context__
    return None
