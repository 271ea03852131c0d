"""Hold the budgets of size: what a reader must read between a batch on disk and the optimizer step, and the
package as a whole.

Counts the files that `train/pretraining.py` imports at module level, directly or through others, the trainer
among them (imports inside functions and under TYPE_CHECKING are not followed), and lines of code: no blanks,
comments or docstrings. Ends with 1 when a budget is exceeded.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1] / "src"
PACKAGE = ROOT / "puna"
ENTRY = PACKAGE / "train" / "pretraining.py"
CLOSURE_FILES, CLOSURE_LINES = 30, 3_000
CORPUS_LINES, OTHER_LINES, CPP_LINES, FILE_LINES, COLUMNS = 10_500, 17_000, 4_500, 600, 110
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
# Literals, which may hold the signs of comments, before comments.
CPP = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|(//[^\n]*|/\*.*?\*/)', re.DOTALL)
Node = TypeVar("Node")


def code_lines(path: Path) -> int:
    """Return the lines of code of one Python file."""
    text = path.read_text()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            code.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(code)


def cpp_lines(path: Path) -> int:
    """Return the lines of code of one C++ file."""

    def without_comment(match: re.Match[str]) -> str:
        return match[0] if match[1] is None else "\n" * match[1].count("\n")

    return sum(bool(line.strip()) for line in CPP.sub(without_comment, path.read_text()).splitlines())


def imports(path: Path, inside_functions: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, at module level or anywhere (relative imports are not in use)."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def module_files(name: str, root: Path = ROOT) -> list[Path]:
    """Files under `root` that importing a dotted name loads, the innermost last."""
    parts = name.split(".")
    stems = [root.joinpath(*parts[:end]) for end in range(1, len(parts) + 1)]
    files = [path for stem in stems for path in (stem.with_suffix(".py"), stem / "__init__.py")]
    return [path for path in files if path.is_file()]


def reachable(start: Iterable[Node], following: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """Return `start` and all that follows from it, directly or through others."""
    seen: set[Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += following(node)
    return seen


def loaded(path: Path, root: Path = ROOT) -> list[Path]:
    """Files under `root` that importing one of them loads by its own imports."""
    return [file for name in imports(path) for file in module_files(name, root)]


def main() -> int:
    """Print the counts; return 1 when one exceeds its budget."""
    package, corpus = sorted(PACKAGE.rglob("*.py")), sorted((PACKAGE / "corpus").rglob("*.py"))
    cpp = sorted([*PACKAGE.rglob("*.cpp"), *PACKAGE.rglob("*.h")])
    files = reachable([ENTRY], loaded)
    longest = max([*package, *cpp], key=lambda path: len(path.read_text().splitlines()))
    of_corpus = sum(map(code_lines, corpus))
    widest = max(len(line) for path in cpp for line in path.read_text().splitlines())
    rows = [
        ("files from batch to optimizer step", len(files), CLOSURE_FILES),
        ("their lines of code", sum(map(code_lines, files)), CLOSURE_LINES),
        ("lines of code of the corpus", of_corpus, CORPUS_LINES),
        ("lines of code of the other rooms", sum(map(code_lines, package)) - of_corpus, OTHER_LINES),
        ("lines of code in C++", sum(map(cpp_lines, cpp)), CPP_LINES),
        (f"longest file, {longest.relative_to(ROOT)}", len(longest.read_text().splitlines()), FILE_LINES),
        ("columns of the widest line in C++", widest, COLUMNS),
    ]
    for name, count, budget in rows:
        print(f"{name:<48} {count:>6,} of {budget:,}{'  TOO MANY' if count > budget else ''}")
    return int(any(count > budget for _, count, budget in rows))


if __name__ == "__main__":
    sys.exit(main())
