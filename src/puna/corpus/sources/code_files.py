"""Which files are source code, by their names, and how comments are written in them."""

from pathlib import PurePosixPath
from typing import Any

from puna.text.lists import listed

# (what begins a line comment, what begins and ends a block comment)
CommentMarks = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]


def _listed(marks: list[list[Any]]) -> CommentMarks:
    line, block = marks
    return tuple(line), tuple((start, end) for start, end in block)


_MARKS_AND_SUFFIXES = listed(__file__, "comment_marks.json")
MARKS_BY_SUFFIX = {
    suffix: _listed(marks) for marks, suffixes in _MARKS_AND_SUFFIXES for suffix in suffixes.split()
}
_HASH = MARKS_BY_SUFFIX["sh"]
_NAMES = ("makefile", "gnumakefile", "dockerfile", "rakefile", "gemfile", "cmakelists.txt")


def comment_marks(name: str) -> CommentMarks | None:
    """Return the comment marks of a source file, by its name; None for what is not known as one."""
    path = PurePosixPath(name)
    return _HASH if path.name.lower() in _NAMES else MARKS_BY_SUFFIX.get(path.suffix.lstrip(".").lower())


def is_source_code(name: str) -> bool:
    """Whether a file's name is that of source code."""
    return comment_marks(name) is not None
