"""Count two walks through the code, on any revision of this repository: how far a reader has to go.

    python tools/walk.py page                         # one web page, from its raw file to a kept document
    python tools/walk.py setting --source OLDER/src   # train.learning_rate, from the recipe to the optimizer

Both run a made-up recipe of one web archive. page: `puna corpus` with every step of web pages on; every call
counts. setting: `puna run` until optimizer.py is reached; a call counts where an argument is the learning
rate, holds it (in dicts, lists, tuples, fields of dataclasses and settings, four deep at most), or is text
with it. The caller is the innermost function of the package on the stack, also through other libraries; that
of a generator is its consumer. Calls made by an import do not count. Figures:

- files: entered by a call, in the order of the first.
- edges: distinct pairs (caller's file, called file) of two files.
- climbs: edges where the called file imports the caller's, directly or through others. Imports inside
  functions count, and names put together in import_module, which stand for every file of the folder.
- returns upward: functions in the order of their first call; how often one lies in a file that imports,
  directly or through others, the file of the one before.
"""

import argparse
import dataclasses
import functools
import gzip
import inspect
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import closure

RATE, DEPTH, ENTRIES = 0.00273, 4, 1_000  # ENTRIES: of a list or dict, how many are looked at
WORDS = "llama herder village weaver traveller plain market river snow mountain summer road song"
RECIPE = f"""
tokenizer = {{vocab_size = 300}}
tokens = {{maximum_epochs = 1000}}
model = {{size = "tiny"}}
train = {{steps = 4, batch_sequences = 2, sequence_length = 32, learning_rate = {RATE}, warmup_steps = 1}}
[corpus]
privacy = ["email", "phone", "ip"]
sources = [{{name = "web", reader = "warc", uris = ["pages.warc.gz"], ccnet = "on", c4 = true}}]
"""


def write(folder: Path) -> Path:
    """Write a web archive and its recipe; return the recipe's path."""
    chance = random.Random(1)
    with gzip.open(folder / "pages.warc.gz", "wb") as archive:
        for number in range(8):
            samples = (chance.sample(WORDS.split(), 5) for _ in range(30))
            text = " ".join(f"The {' and the '.join(sample)} are old." for sample in samples)
            page = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
            page += f"<html><head><title>Page</title></head><body><p>{text}</p></body></html>"
            head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/{number}\r\n"
            head += f"Content-Type: application/http\r\nContent-Length: {len(page)}\r\n\r\n"
            archive.write(f"{head}{page}\r\n\r\n".encode())
    (folder / "walk.toml").write_text(RECIPE)
    return folder / "walk.toml"


def carries(value: Any, depth: int = DEPTH) -> bool:
    """Return whether a value is the learning rate or holds it."""
    if isinstance(value, float | str):
        return str(RATE) in value if isinstance(value, str) else value == RATE
    inside: Any = value if isinstance(value, list | tuple) else ()
    if isinstance(value, dict):
        inside = value.values()
    elif dataclasses.is_dataclass(value):
        inside = (getattr(value, field.name, None) for field in dataclasses.fields(value))
    elif hasattr(type(value), "model_fields"):
        inside = vars(value).values()
    return depth > 0 and any(carries(entry, depth - 1) for entry in itertools.islice(inside, ENTRIES))


def codes(frame: FrameType | None) -> Iterator[CodeType]:
    """Code on the stack, the innermost first."""
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def record(kind: str, package: str, folder: Path) -> None:
    """Run `puna` in this process; write the files of the functions entered, and the edges, as JSON."""
    from puna.corpus import engine

    try:
        from puna.cli.main import main
    except ModuleNotFoundError:  # a revision in which it is one file
        from puna.cli import main
    functions: dict[CodeType, str] = {}
    edges: dict[tuple[str, str], None] = {}
    leave, work = os._exit, engine._Worker.__call__

    def end(code: Any) -> None:
        sys.setprofile(None)
        (folder / "calls.json").write_text(json.dumps([list(functions.values()), list(edges)]))
        leave(code or 0)

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(package):
            return
        names, *starred = inspect.getargs(frame.f_code)
        if kind == "setting" and not any(carries(frame.f_locals.get(name)) for name in [*names, *starred]):
            return
        stack = [code for code in codes(frame) if code.co_filename.startswith(package)]
        if not all(code.co_flags & inspect.CO_OPTIMIZED for code in stack):
            return  # a module's or a class' body is on the stack: an import
        path = functions.setdefault(stack[0], stack[0].co_filename)
        if len(stack) > 1 and stack[1].co_filename != path:
            edges[stack[1].co_filename, path] = None
        if kind == "setting" and path.endswith("optimizer.py"):
            end(0)

    @functools.wraps(work)
    def profiled_work(self: Any, job: bytes) -> str:
        sys.setprofile(profile)  # Daft's threads are not Python's
        return work(self, job)

    engine._Worker.__call__, os._exit = profiled_work, end
    command = "corpus" if kind == "page" else "run"
    sys.argv = ["puna", command, str(write(folder)), "--out", str(folder / "out")]
    sys.setprofile(profile)
    try:
        main()
    except SystemExit as leaving:
        end(leaving.code)


def imports(source: Path) -> dict[str, set[str]]:
    """Return, for every file of the package, the files that it imports, directly or through others."""
    direct: dict[str, set[str]] = {}
    for path in (source / "puna").rglob("*.py"):
        names = closure.imports(path, inside_functions=True)
        files = {file for name in names for file in closure.module_files(name, source)[-1:]}
        for prefix in re.findall(r'import_module\(f"([\w.]+)\.\{', path.read_text()):
            files.update(source.joinpath(*prefix.split(".")).glob("*.py"))
        direct[str(path)] = set(map(str, files))
    return {path: closure.reachable(direct[path], direct.__getitem__) for path in direct}


def main() -> None:
    """Print the figures of one walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=("page", "setting"))
    parser.add_argument("--source", type=Path, default=closure.ROOT, help="the folder that holds puna/")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--record-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    source = options.source.resolve()
    if options.record_in:
        return record(options.kind, f"{source / 'puna'}{os.sep}", options.record_in)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, options.kind, "--source", source, "--record-in", folder]
        environment = {**os.environ, "PYTHONPATH": str(source)}
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
        entered, edges = json.loads((Path(folder) / "calls.json").read_text())
    imported = imports(source)
    climbs = [(caller, called) for caller, called in edges if caller in imported[called]]
    upward = [(last, path) for last, path in itertools.pairwise(entered) if last in imported[path] - {path}]
    figures = {"files": list(dict.fromkeys(entered))}
    for name, pairs in (("edges", edges), ("climbs", climbs), ("returns upward", upward)):
        figures[name] = [" -> ".join(pair) for pair in pairs]
    text = json.dumps(figures, indent=1).replace(f"{source / 'puna'}{os.sep}", "")
    if options.json:
        return print(text)
    for name, entries in json.loads(text).items():
        print(f"{name}: {len(entries)}", *entries, sep="\n    ")


if __name__ == "__main__":
    main()
