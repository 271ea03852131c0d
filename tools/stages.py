"""Hold every stage to its version: who changes a stage's code raises its version, or writes down why not.

    python tools/stages.py                               # check; ends with 1 where a record is missing
    python tools/stages.py --record                      # record the code of stages whose version was raised
    python tools/stages.py --same-output "why" KIND...   # record code that gives the same output as before

A room is a folder of the package with a stage.py that names its kinds of stages in `VERSIONS = {kind: n}`.
Their code is stage.py and all files of the room that it imports, directly or through others, also inside
functions; without docstrings, comments and layout; and the .cpp, .h and .json files beside these. Kinds of
one room share it. Other rooms' code (text, run, the model for training) is not part of it.
"""

import argparse
import ast
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import closure

RECORDS = Path(__file__).with_name("stages.json")
BESIDE = (".cpp", ".h", ".json")


@dataclass(frozen=True)
class Record:
    """What stages.json holds of a kind. code: digest. same_output: why other code gives the same output."""

    version: int
    code: str
    same_output: str = ""


def versions(path: Path) -> dict[str, int]:
    """Return the constant `VERSIONS` of a stage.py; nothing where it defines no stages."""
    for node in ast.parse(path.read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "VERSIONS":
            return ast.literal_eval(node.value)
    return {}


def dump(node: Any) -> str:
    """Return a syntax tree as text, without docstrings, the same from every Python (ast.dump's is not)."""
    if isinstance(node, list):
        return f"[{','.join(map(dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    return f"{type(node).__name__}({','.join(f'{name}={dump(value)}' for name, value in fields.items())})"


def code_digest(room: Path) -> str:
    """Return the digest of the code of a room's stages."""
    source = room.parents[1]

    def imported(path: Path) -> list[Path]:
        names = closure.imports(path, inside_functions=True)
        files = (file for name in names for file in closure.module_files(name, source))
        return [file for file in files if room in file.parents]

    files = closure.reachable([room / "stage.py"], imported)
    beside = {
        path
        for folder in {path.parent for path in files}
        for path in folder.iterdir()
        if path.suffix in BESIDE
    }
    digest = hashlib.sha256()
    for path in sorted(files | beside):
        text = path.read_text()
        content = dump(ast.parse(text)) if path in files else text
        digest.update(f"{path.relative_to(room).as_posix()}\0{len(content)}\0{content}".encode())
    return digest.hexdigest()[:16]


def read(path: Path) -> dict[str, Record]:
    """Return the records by kind."""
    if not path.exists():
        return {}
    return {kind: Record(**fields) for kind, fields in json.loads(path.read_text()).items()}


def problem(kind: str, file: Path | None, old: Record | None, new: Record | None) -> str:
    """Return what has to be done about a kind of stage, or nothing."""
    if new is None:
        return f"{kind}: recorded, but no stage.py has it; run: python tools/stages.py --record"
    if old is None or new.version > old.version:
        return f"{kind}: version {new.version} is not recorded; run: python tools/stages.py --record"
    if new.version < old.version:
        return f"{kind}: version {new.version} is below the recorded {old.version}; raise it in {file}"
    if new.code != old.code:
        return (
            f"{kind}: its code has changed, and its version is still {new.version}. Raise it in {file}; "
            f'where the output is the same, run instead: python tools/stages.py --same-output "why" {kind}'
        )
    return ""


def main() -> int:
    """Check or record; return 1 when something is left to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--same-output", metavar="WHY")
    parser.add_argument("--source", type=Path, default=closure.ROOT, help="the folder that holds puna/")
    parser.add_argument("--records", type=Path, default=RECORDS, help="default: stages.json beside this file")
    options = parser.parse_args()
    old, new, files = read(options.records), dict[str, Record](), dict[str, Path]()
    source = options.source.resolve()
    for path in sorted((source / "puna").glob("*/stage.py")):
        for kind, version in versions(path).items():
            new[kind] = Record(version, code_digest(path.parent))
            files[kind] = path.relative_to(source.parent)
    if options.same_output is not None:
        if not options.same_output.strip() or "\n" in options.same_output or not options.kinds:
            parser.error("--same-output takes one line that says why, and then the kinds of stages")
        for kind in options.kinds:
            if kind not in old or kind not in new or old[kind].version != new[kind].version:
                parser.error(f"{kind}: no recorded stage with its version unchanged")
            old[kind] = replace(new[kind], same_output=options.same_output.strip())
    elif options.kinds:
        parser.error("kinds are named after --same-output only")
    if options.record:
        raised = {
            kind: record
            for kind, record in new.items()
            if kind not in old or record.version > old[kind].version
        }
        old = {kind: record for kind, record in old.items() if kind in new} | raised
    if options.record or options.same_output:
        records = {kind: asdict(old[kind]) for kind in sorted(old)}
        options.records.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    kinds = sorted(old.keys() | new.keys())
    problems = [problem(kind, files.get(kind), old.get(kind), new.get(kind)) for kind in kinds]
    for text in filter(None, problems):
        print(text)
    return int(any(problems))


if __name__ == "__main__":
    sys.exit(main())
