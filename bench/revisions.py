"""A revision of this repository against the working tree: speed of the training step and of the corpus.

    python bench/revisions.py 6ff9185 --step S               # CPU seconds of ten steps, policy llama
    python bench/revisions.py 6ff9185 --warc WARC... [--ccnet MODEL]

Each side is a process of its own with its own package and its own `train_step.py` or `corpus.py`, which do
the same work; they take turns. Told is speed, working tree over revision, with the 95% interval of the paired
ratios (of their logarithms, Student's t).
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = 10
# 97.5% quantiles of Student's t by degrees of freedom.
STUDENT = {4: 2.776, 6: 2.447, 8: 2.306, 10: 2.228, 14: 2.145, 20: 2.086}


def step_work(shape: str) -> Callable[[], None]:
    """Ten optimizer steps of this side's package."""
    import train_step
    from train_step import SHAPES, LlamaConfig, keep_freed_memory

    keep_freed_memory()
    step = train_step.ours(LlamaConfig(**SHAPES[shape]), "llama")

    def work() -> None:
        for _ in range(STEPS):
            step()

    return work


def corpus_work(files: list[Path], model: Path | None) -> Callable[[], None]:
    """This side's way of web archives to documents, on one worker."""
    import corpus

    scratch = Path(tempfile.mkdtemp())
    rounds = iter(range(1_000_000))

    def work() -> None:
        corpus.puna(files, scratch / str(next(rounds)), model)

    return work


def worker(options: argparse.Namespace) -> None:
    """Do the work each time a line comes in; answer with its CPU seconds."""
    sys.path.insert(0, options.worker)
    work = step_work(options.step) if options.step else corpus_work(options.warc, options.ccnet)
    answers = os.dup(1)
    os.dup2(2, 1)  # what the work prints is no answer
    for _ in sys.stdin:
        started = time.process_time()
        work()
        os.write(answers, f"{time.process_time() - started}\n".encode())


def side(checkout: Path, arguments: list[str]) -> Callable[[], float]:
    """A function that has one side do its work and returns the CPU seconds."""
    command = [sys.executable, __file__, "-", "--worker", str(checkout / "bench"), *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
    )

    def measure() -> float:
        assert process.stdin is not None and process.stdout is not None
        print("go", file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            sys.exit(f"{' '.join(command)} ended with {process.wait()}")
        return float(answer)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description="a revision against the working tree")
    parser.add_argument("revision")
    parser.add_argument("--step", choices=["S", "M"])
    parser.add_argument("--warc", nargs="+", type=Path)
    parser.add_argument("--ccnet", type=Path, help="folder of an n-gram model: every step of CCNet")
    parser.add_argument("--rounds", type=int, default=9, choices=[count + 1 for count in STUDENT])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return
    import table  # of the working tree: a worker has its own

    arguments = ["--step", options.step] if options.step else ["--warc", *map(str, options.warc)]
    arguments += ["--ccnet", str(options.ccnet)] if options.ccnet else []
    with tempfile.TemporaryDirectory() as scratch:
        packed = subprocess.run(
            ["git", "-C", str(ROOT), "archive", options.revision], capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", scratch], input=packed.stdout, check=True)
        before, after = side(Path(scratch), arguments), side(ROOT, arguments)
        before(), after()  # libraries load
        pairs = [(before(), after()) for _ in range(options.rounds)]
    logs = [math.log(one / other) for one, other in pairs]
    middle = statistics.mean(logs)
    half = STUDENT[len(logs) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    what = f"training step at {options.step}" if options.step else "web archives to documents"
    ratios = {
        "speed over the revision's": middle,
        "its 95% interval, from": middle - half,
        "its 95% interval, to": middle + half,
    }
    found = [
        table.Row(f"{what}: CPU seconds", options.revision, statistics.median(one for one, _ in pairs), "s"),
        table.Row(f"{what}: CPU seconds", "working tree", statistics.median(two for _, two in pairs), "s"),
        *(table.Row(f"{what}: {name}", "both", math.exp(value), "of 1") for name, value in ratios.items()),
    ]
    kind = f"step_{options.step}" if options.step else "ccnet" if options.ccnet else "corpus"
    table.finish(f"revisions_{kind}.py", found)


if __name__ == "__main__":
    main()
