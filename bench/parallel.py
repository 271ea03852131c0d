"""One training step on two processes of a thread each against one process of two threads: what sharing the
work costs in processor time.

    python bench/parallel.py [--shape M] [--rounds 5] [--steps 2]

At a shape of train_step.py, 4,096 tokens a step, gloo over loopback. Each layout's processes start once and
wait; the layouts take turns. Tokens per CPU second count all threads of all processes of a layout.
"""

import argparse
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import table

from puna.run.threads import bound_spinning

LAYOUTS = {"puna": (1, 1), "FSDP 2": (2, 1), "tensor 2": (1, 2)}  # (shard, tensor)
THREADS = 2  # of a layout's processes together


def stepping(shape: str, shard: int, tensor: int) -> Callable[[], object]:
    """A step of this process, as a training takes it."""
    import torch
    import train_step

    from puna.model.llama import Llama
    from puna.train.objective import NextToken, loss_and_gradients
    from puna.train.optimizer import build, update
    from puna.train.parallel import ALONE, init_weights, parallelize
    from puna.train.settings import TrainSettings
    from puna.train.trainer import keep_freed_memory

    torch.set_num_threads(THREADS // (shard * tensor))
    keep_freed_memory(large=shard * tensor > 1)
    config = train_step.LlamaConfig(**train_step.SHAPES[shape])
    model, parallel = Llama.empty(config, "meta"), ALONE
    if shard * tensor > 1:
        torch.distributed.init_process_group("gloo")
        names = ("replicate", "shard", "tensor")
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1, shard, tensor), mesh_dim_names=names)
        parallel = parallelize(model, mesh)
    init_weights(model, 1, "cpu")
    whole = train_step.batch_of(config)
    rows, length = whole.tokens.shape
    batch = whole.share(parallel.rank, parallel.world)
    settings = TrainSettings(steps=10_000, batch_sequences=rows, sequence_length=length, warmup_steps=0)
    optimizer = build(model, settings)

    def step() -> float:
        loss = loss_and_gradients(model, batch, rows, NextToken("llama"), parallel)
        update(model, optimizer, 0, settings, loss)
        return parallel.total(loss).item()

    return step


def worker(shape: str, layout: str) -> None:
    """For each line on stdin, which is a number of steps, the seconds and CPU seconds of one; then leave."""
    step = stepping(shape, *LAYOUTS[layout])
    for line in sys.stdin:
        started, used = time.perf_counter(), time.process_time()
        losses = [step() for _ in range(int(line))]
        spent = (time.perf_counter() - started, time.process_time() - used)
        print(json.dumps([seconds / len(losses) for seconds in spent]), flush=True)
    os._exit(0)  # gloo's threads may hold the last tensors


class Workers:
    """The processes of one layout."""

    def __init__(self, shape: str, layout: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shard, tensor = LAYOUTS[layout]
        command = [sys.executable, __file__, "--shape", shape, "--worker", layout]
        common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.running: list[subprocess.Popen[str]] = []
        for rank in range(shard * tensor):
            environment = {**common, "RANK": str(rank), "WORLD_SIZE": str(shard * tensor)}
            self.running.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
                )
            )

    def measure(self, steps: int) -> tuple[float, float]:
        """Seconds of a step, and CPU seconds of all processes."""
        for process in self.running:
            self._pipe(process.stdin).write(f"{steps}\n")
            self._pipe(process.stdin).flush()
        found = [json.loads(self._pipe(process.stdout).readline()) for process in self.running]
        return max(seconds for seconds, _ in found), sum(used for _, used in found)

    @staticmethod
    def _pipe(pipe: Any) -> Any:
        assert pipe is not None
        return pipe

    def close(self) -> None:
        for process in self.running:
            self._pipe(process.stdin).close()
            process.wait()


def measured(shape: str, rounds: int, steps: int) -> list[table.Row]:
    layouts = {name: Workers(shape, name) for name in LAYOUTS}
    cpu: dict[str, list[float]] = {name: [] for name in LAYOUTS}

    def turn(name: str) -> float:
        seconds, used = layouts[name].measure(steps)
        cpu[name].append(used)
        return seconds

    try:
        cases = {name: functools.partial(turn, name) for name in LAYOUTS}
        medians = table.alternate(cases, rounds)
    finally:
        for workers in layouts.values():
            workers.close()
    import train_step

    speeds = {name: train_step.TOKENS / statistics.median(values[1:]) for name, values in cpu.items()}
    found = table.rows(f"{shape}: tokens per CPU second", "tokens/CPU s", speeds)
    walls = {name: train_step.TOKENS / value for name, value in medians.items()}
    return found + table.rows(f"{shape}: tokens per second", "tokens/s", walls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=["S", "M"], default="M")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of one measurement")
    parser.add_argument("--worker", choices=LAYOUTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.shape, options.worker)
        return
    bound_spinning()  # as the command line does, for the processes started here
    table.finish(__file__, measured(options.shape, options.rounds, options.steps))


if __name__ == "__main__":
    main()
