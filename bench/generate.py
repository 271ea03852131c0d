"""Generation against transformers on identical work, taking turns in one run; weights are random.

    python bench/generate.py [--shape S|M|1B] [--rows 16] [--rounds 5]

The same shape, prompts and number of new tokens, greedy. Transformers has its dynamic cache, and where there
is a GPU its static one with a compiled forward besides. On a machine with CUDA everyone runs there in
bfloat16, elsewhere in float32.
"""

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version

import table
import torch
from train_step import DEVICE, DTYPE, SHAPES, transformers_model

from puna.generate.engine import generate
from puna.model.config import LlamaConfig
from puna.model.llama import Llama

PROMPT, NEW = 64, 128  # tokens


def ours(config: LlamaConfig, prompts: torch.Tensor) -> Callable[[], object]:
    model = Llama(config)
    model.init_weights(1)
    model.to(DEVICE, DTYPE)
    rows = prompts.tolist()
    return lambda: generate(model, rows, max_new_tokens=NEW)


def theirs(config: LlamaConfig, prompts: torch.Tensor, cache: str | None) -> Callable[[], object]:
    model = transformers_model(config, use_cache=True).eval().to(DEVICE, DTYPE)
    tokens = prompts.to(DEVICE)
    options = {"cache_implementation": cache} if cache else {}

    @torch.inference_mode()
    def run() -> object:
        return model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
            **options,
        )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="S")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = LlamaConfig(**SHAPES[options.shape])
    chance = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, config.vocab_size, (options.rows, PROMPT), generator=chance)
    peers = {"puna": ours(config, prompts), "transformers": theirs(config, prompts, None)}
    if DEVICE == "cuda":
        peers["transformers, static cache"] = theirs(config, prompts, "static")

    def seconds(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    medians = table.alternate(
        {name: (lambda run=run: seconds(run)) for name, run in peers.items()}, options.rounds
    )
    made = options.rows * NEW
    found = table.rows(
        f"{options.shape}: new tokens per second, {options.rows} rows",
        "tokens/s",
        {name: made / value for name, value in medians.items()},
    )
    table.finish(f"generate_{options.shape}.py", found, {"transformers": version("transformers")})


if __name__ == "__main__":
    main()
