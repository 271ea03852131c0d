"""Hold the budgets of size: what a reader must read between a batch on disk and the optimizer step, and the
package as a whole.

Counts the files that `train/trainer.py` imports at module level, directly or through others (imports inside
functions and under TYPE_CHECKING are not followed), and their lines of code: no blanks, comments or
docstrings. Ends with 1 when a budget is passed.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src"
ENTRY = ROOT / "puna" / "train" / "trainer.py"
CLOSURE_FILES, CLOSURE_LINES, FILE_LINES, PACKAGE_LINES = 25, 5_000, 600, 20_000
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(path: Path) -> int:
    """Lines of code of one file."""
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


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports at module level (the package uses no relative imports)."""
    waiting = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            waiting += node.body + node.orelse
        elif isinstance(node, ast.Try | ast.With):
            waiting += node.body
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def closure(entry: Path) -> list[Path]:
    """Files of the package that importing `entry` loads, itself included."""
    seen: set[Path] = set()
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports(path):
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                stem = ROOT.joinpath(*parts[:end])
                waiting += [
                    found for found in (stem.with_suffix(".py"), stem / "__init__.py") if found.is_file()
                ]
    return sorted(seen)


def main() -> int:
    """Print the counts; 1 when one is over its budget."""
    package = sorted(ROOT.rglob("*.py"))
    files = closure(ENTRY)
    longest = max(package, key=lambda path: len(path.read_text().splitlines()))
    rows = [
        ("files from batch to optimizer step", len(files), CLOSURE_FILES),
        ("their lines of code", sum(map(code_lines, files)), CLOSURE_LINES),
        (f"longest file, {longest.relative_to(ROOT)}", len(longest.read_text().splitlines()), FILE_LINES),
        ("lines of code of the package", sum(map(code_lines, package)), PACKAGE_LINES),
    ]
    for name, found, budget in rows:
        print(f"{name:<48} {found:>6,} of {budget:,}{'  TOO MANY' if found > budget else ''}")
    return int(any(found > budget for _, found, budget in rows))


if __name__ == "__main__":
    sys.exit(main())
