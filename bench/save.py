"""How long a save holds training up, beside a plain copy of the state: each in turn, medians.

python bench/save.py --rounds 15

A state of 300 MB, weights and moments of AdamW of a model of 25 million weights. The first save, whose memory
was taken before (`Saver.prepare`), is told by itself. The files are written between two rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.train.checkpoint import Progress, Saver, state_of
from puna.train.losses import Losses


def seconds(do: Callable[[], None]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    config = LlamaConfig(dim=512, n_layers=6, n_heads=8, ffn_dim=1408, vocab_size=5632, max_seq_len=64)
    model = Llama.empty(config)
    model.init_weights(1)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        losses = Losses(Path(folder) / "losses.jsonl")
        losses.begin()
        with Saver(model, optimizer, losses) as saver:
            state = state_of(saver.trainable, optimizer)
            copies = {name: torch.empty_like(value).zero_() for name, value in state.items()}

            def copy() -> None:
                for name, value in state.items():
                    copies[name].copy_(value.detach())

            def save() -> None:
                saver.save(Path(folder), Progress(1))

            prepared = seconds(lambda: saver.prepare() and None)
            first = seconds(save)
            saver.wait()
            taken: dict[str, list[float]] = {"copy": [], "save": []}
            for _ in range(rounds):
                taken["copy"].append(seconds(copy))
                taken["save"].append(seconds(save))
                saver.wait()
    size = sum(value.numel() * value.element_size() for value in state.values())
    medians = {name: statistics.median(values) for name, values in taken.items()}
    print(f"{size / 1e6:.0f} MB in {len(state)} tensors, {torch.get_num_threads()} threads, {rounds} rounds")
    print(f"taking the memory, once   {1e3 * prepared:6.0f} ms")
    print(f"first save                {1e3 * first:6.0f} ms")
    print(
        f"copy of the state         {1e3 * medians['copy']:6.0f} ms ({1e3 * min(taken['copy']):.0f} at least)"
    )
    print(
        f"save                      {1e3 * medians['save']:6.0f} ms ({1e3 * min(taken['save']):.0f} at least)"
    )
    print(f"save / copy               {medians['save'] / medians['copy']:6.2f}")
    ratios = [one / other for one, other in zip(taken["save"], taken["copy"], strict=True)]
    print(f"median of the ratios      {statistics.median(ratios):6.2f}")


if __name__ == "__main__":
    main()
