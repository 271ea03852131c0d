"""Speed beside other programs: a training and a generation that begin while a busy program holds every core.

    python bench/busy.py [--rounds 3]

Training is at shape S of train_step.py, generation 60 tokens with a model of the laptop recipe's size. Each
measurement is a process of its own, as a person starts one. Peers: Puna with OpenMP's own waiting and a
thread a core, as it was before threads were chosen, and transformers.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import table

from puna.run import machine
from puna.run.threads import bound_spinning

BUSY = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"
TOKENS = 60
PEERS = ("puna", "puna, threads not chosen", "transformers")


def training(peer: str) -> Callable[[], float]:
    """A step at S; tokens a second."""
    import train_step

    config = train_step.LlamaConfig(**train_step.SHAPES["S"])
    train_step.keep_freed_memory()
    step = (
        train_step.transformers(config, False) if peer == "transformers" else train_step.ours(config, "llama")
    )

    def measure() -> float:
        return train_step.TOKENS / train_step.wall(step)

    return measure


def generation(peer: str) -> Callable[[], float]:
    """TOKENS tokens of one row; tokens a second."""
    import torch

    from puna.model.config import config

    shape = config("1m")
    if peer == "transformers":
        import train_step

        model = train_step.transformers_model(shape, use_cache=True).eval()
        prompt = torch.tensor([[1, 2, 3, 4]])

        def go_on() -> None:
            model.generate(prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)

    else:
        import generate

        from puna.generate import engine
        from puna.model.llama import Llama

        ours = Llama.empty(shape)
        ours.init_weights(1)
        if peer != "puna":
            engine.SMALL_BYTES, engine.LOOK_SECONDS = 0, float("inf")

        one = engine.Engine(ours, generate.NoText(shape.vocab_size))

        def go_on() -> None:
            list(one.sample([[1, 2, 3, 4]], max_new_tokens=TOKENS))

    def measure() -> float:
        started = time.perf_counter()
        go_on()
        return TOKENS / (time.perf_counter() - started)

    return measure


def worker(what: str, peer: str) -> None:
    """Print the median speed of some measurements in this process."""
    if peer == "puna":
        bound_spinning()
    measure = training(peer) if what == "training" else generation(peer)
    measure()
    print(statistics.median(measure() for _ in range(3)))


def speed(what: str, peer: str, busy: bool) -> float:
    """Of a process of its own; busy: beside one busy program a core."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(machine.cores() if busy else 0)]
    try:
        command = [sys.executable, __file__, "--worker", what, "--peer", peer]
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))
        }
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(told.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="speed beside busy programs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.peer)
        return
    found = []
    for what in ("training", "generation"):
        medians: dict[bool, dict[str, float]] = {}
        for busy in (False, True):
            cases = {peer: partial(speed, what, peer, busy) for peer in PEERS}
            medians[busy] = table.alternate(cases, options.rounds)
            beside = "one busy program a core" if busy else "nothing"
            found += table.rows(f"{what} beside {beside}", "tokens/s", medians[busy])
        found += [
            table.Row(f"{what}, busy over quiet", peer, medians[True][peer] / medians[False][peer], "of 1")
            for peer in PEERS
        ]
    table.finish(__file__, found)


if __name__ == "__main__":
    main()
