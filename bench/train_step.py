"""One training step against other codebases on identical work: the same shape, tokens, AdamW and clipping,
taking turns in one run.

    python bench/train_step.py [--shape S|M|1B|all] [--precision float32|bfloat16] [--rounds 7]
        [--without-compiled] [--without-memory]

Peers: transformers (of the test extra), litgpt and llama2.c's model.py, which are taken where `peers/` has
them:

    pip install --target peers --no-deps litgpt lightning lightning-utilities torchmetrics psutil \\
        jsonargparse typeshed_client
    and llama2.c's model.py as peers/llama2c_model.py

Each is measured eager and under torch.compile. Tokens per second are medians of wall time. The peak is that
of the step's own matrix products through torch.mm, at their shapes and in their order, alone in the same run;
beside it that of one large product. A share counts the products' operations alone, or with attention's own
(of causal scores, each once). The peak memory of the whole process and the bytes held between forward and
backward are measured in processes of their own. On a machine with CUDA everyone runs there, in bfloat16 with
weights in float32, and a step has 16,384 tokens in place of 4,096; 1B is for such a machine alone, and no
part of all.

--precision bfloat16 is for processors that have units for it: ours with that precision, peers under
torch.autocast, and ours in float32 beside them. There is one file of results a shape, precision and
processor.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import table
import torch
import torch.nn.functional as F

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.model.loss import chunk_bytes
from puna.run import machine
from puna.tokens.batches import Batch
from puna.train.metrics import peak_memory_bytes
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.pretraining import precision
from puna.train.settings import TrainSettings
from puna.train.trainer import keep_freed_memory

PEERS = Path(__file__).parents[1] / "peers"
SHAPES = {
    "S": {"dim": 288, "n_layers": 6, "n_heads": 6, "ffn_dim": 768, "vocab_size": 4096, "max_seq_len": 256},
    "M": {"dim": 512, "n_layers": 8, "n_heads": 8, "ffn_dim": 1376, "vocab_size": 32000, "max_seq_len": 512},
    "1B": {
        "dim": 2048, "n_layers": 16, "n_heads": 16, "ffn_dim": 5632, "vocab_size": 32000, "max_seq_len": 2048
    },
}  # fmt: skip
ALL = ("S", "M")
OURS = ("puna", "puna none", "puna full", "puna compiled", "puna float32")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS = 16_384 if DEVICE == "cuda" else 4096
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32  # of activations and products
Step = Callable[[], float]


def batch_of(config: LlamaConfig) -> Batch:
    """The same random tokens for everyone, one document a row."""
    tokens = torch.randint(
        0,
        config.vocab_size,
        (TOKENS // config.max_seq_len, config.max_seq_len + 1),
        generator=torch.Generator().manual_seed(1),
    )
    ids = tokens[:, :-1].numpy()
    return Batch(ids.copy(), tokens[:, 1:].contiguous().numpy(), ids * 0)


def ours(config: LlamaConfig, policy: str) -> Step:
    """Our step: a policy, "compiled", or "float32" for `llama` in that whatever the others compute in."""
    model, batch = Llama.empty(config, DEVICE), batch_of(config)
    model.init_weights(1)
    rows, length = batch.tokens.shape
    rounds = torch.bfloat16 == DTYPE and policy != "float32"
    settings = TrainSettings(
        steps=10_000,
        batch_sequences=rows,
        sequence_length=length,
        warmup_steps=0,
        precision="bfloat16" if rounds else "float32",
    )
    optimizer = build(model, settings)
    remat = "llama" if policy in ("compiled", "float32") else policy
    objective = NextToken(remat, dtype=precision(settings))
    if policy == "compiled":
        for layer in model.layers:
            layer.compile(dynamic=False)

    def step() -> float:
        loss = loss_and_gradients(model, batch, rows, objective)
        update(model, optimizer, 0, settings)
        return loss

    return step


def theirs(
    model: torch.nn.Module,
    loss_of: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor],
    config: LlamaConfig,
    compiled: bool,
) -> Step:
    """A peer's step: its model, its loss, torch's fused AdamW."""
    batch = batch_of(config)
    model.to(DEVICE)
    tokens, targets = (torch.from_numpy(array).to(DEVICE) for array in (batch.tokens, batch.targets))
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)
    run = torch.compile(model) if compiled else model

    def step() -> float:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=torch.bfloat16 == DTYPE):
            loss = loss_of(run, tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def transformers_model(config: LlamaConfig, use_cache: bool) -> Any:
    """A model of transformers' of a shape of ours."""
    from transformers import LlamaConfig as Config
    from transformers import LlamaForCausalLM

    shape = Config(
        hidden_size=config.dim,
        intermediate_size=config.ffn_dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_seq_len,
        attn_implementation="sdpa",
        use_cache=use_cache,
        tie_word_embeddings=config.tie_embeddings,
    )
    return LlamaForCausalLM(shape)


def transformers(config: LlamaConfig, compiled: bool) -> Step:
    return theirs(
        transformers_model(config, use_cache=False),
        lambda run, x, y: F.cross_entropy(run(x).logits.flatten(0, 1), y.flatten()),
        config,
        compiled,
    )


def litgpt(config: LlamaConfig, compiled: bool) -> Step:
    from litgpt.config import Config
    from litgpt.model import GPT

    shape = Config(
        block_size=config.max_seq_len,
        padded_vocab_size=config.vocab_size,
        vocab_size=config.vocab_size,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        n_embd=config.dim,
        intermediate_size=config.ffn_dim,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    return theirs(
        GPT(shape), lambda run, x, y: F.cross_entropy(run(x).flatten(0, 1), y.flatten()), config, compiled
    )


def llama2c(config: LlamaConfig, compiled: bool) -> Step:
    from llama2c_model import ModelArgs, Transformer

    shape = ModelArgs(
        dim=config.dim,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        vocab_size=config.vocab_size,
        hidden_dim=config.ffn_dim,
        multiple_of=32,
        max_seq_len=config.max_seq_len,
        dropout=0.0,
    )

    def loss(run: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        run(x, y)
        return model.last_loss

    model = Transformer(shape)
    # It ties them; nobody else here does.
    model.output.weight = torch.nn.Parameter(torch.randn(config.vocab_size, config.dim) * 0.02)
    return theirs(model, loss, config, compiled)


BUILDERS: dict[str, Callable[[LlamaConfig], Step]] = {
    **{name: (lambda config, name=name: ours(config, name.partition(" ")[2] or "llama")) for name in OURS},
    **{
        name + (" compiled" if compiled else ""): (
            lambda config, build=build, compiled=compiled: build(config, compiled)
        )
        for name, build in (("transformers", transformers), ("litgpt", litgpt), ("llama2.c", llama2c))
        for compiled in (False, True)
    },
}


def products(config: LlamaConfig) -> Step:
    """All matrix products of a step, forward and backward, without anything between them."""
    d, f, v = config.dim, config.ffn_dim, config.vocab_size
    rows = min(TOKENS, chunk_bytes(DEVICE) // (v * DTYPE.itemsize))
    shapes = ((TOKENS, d), (TOKENS, f), (d, d), (f, d), (d, f), (v, d), (rows, v), (v, d))
    x, wide, square, up, down, head, logits, slope = (
        torch.randn(shape, device=DEVICE, dtype=DTYPE) for shape in shapes
    )

    def step() -> float:
        for _ in range(config.n_layers):
            for _ in range(4):
                torch.mm(x, square.t()), torch.mm(x, square), torch.mm(x.t(), x)
            for _ in range(2):
                torch.mm(x, up.t()), torch.mm(wide, up), torch.mm(wide.t(), x)
            torch.mm(wide, down.t()), torch.mm(x, down), torch.mm(x.t(), wide)
        for start in range(0, TOKENS, rows):
            part = x[start : start + rows]
            room = torch.mm(part, head.t(), out=logits[: len(part)])
            torch.mm(room, head)
            if torch.float32 == DTYPE:
                slope.addmm_(room.t(), part)
            else:  # torch adds none to a sum in float32
                torch.mm(room.t(), part, out=slope)
        return 0.0

    return step


def product_flops(config: LlamaConfig) -> float:
    """Of a step's matrix products: two a multiply-add, three times for forward and both gradients."""
    layer = 4 * config.dim**2 + 3 * config.dim * config.ffn_dim
    return 6.0 * TOKENS * (config.n_layers * layer + config.vocab_size * config.dim)


def wall(step: Step) -> float:
    started = time.perf_counter()
    step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def speed(shape: str, names: list[str], rounds: int) -> list[table.Row]:
    config = LlamaConfig(**SHAPES[shape])
    steps = {name: BUILDERS[name](config) for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}

    def measure(name: str) -> float:
        before = time.process_time()
        seconds = wall(steps[name])
        cpu[name].append(time.process_time() - before)
        return seconds

    alone = products(config)
    cases: dict[str, Callable[[], float]] = {name: (lambda name=name: measure(name)) for name in names}
    cases |= {"products": lambda: wall(alone), "large": lambda: machine.matmul_peak(DEVICE, DTYPE)}
    for name in names:  # compilers work at the first call
        steps[name]()
    medians = table.alternate(cases, rounds)
    peak, flops = medians.pop("products"), product_flops(config)
    large = medians.pop("large")
    found = table.rows(
        f"{shape}: tokens per second", "tokens/s", {name: TOKENS / value for name, value in medians.items()}
    )
    usage = {name: TOKENS / sorted(values[1:])[len(values[1:]) // 2] for name, values in cpu.items()}
    found += table.rows(f"{shape}: tokens per CPU second", "tokens/CPU s", usage)
    found += table.rows(
        f"{shape}: share of its products alone",
        "of 1",
        {name: peak / value for name, value in medians.items()},
    )
    whole = TOKENS * config.flops_per_token(config.max_seq_len) / flops
    found += table.rows(
        f"{shape}: the same with attention",
        "of 1",
        {name: whole * peak / value for name, value in medians.items()},
    )
    found += table.rows(
        f"{shape}: share of one large product",
        "of 1",
        {name: flops / value / large for name, value in medians.items()},
    )
    found.append(table.Row(f"{shape}: products alone", "torch.mm", flops / peak / 1e9, "GFLOP/s"))
    found.append(table.Row(f"{shape}: large product", "torch.mm", large / 1e9, "GFLOP/s"))
    return found


def precision_name() -> str:
    return str(DTYPE).removeprefix("torch.")


def memory(shape: str, names: list[str]) -> list[table.Row]:
    """Peak bytes of a peer's process over three steps, and the bytes that its forward pass keeps for the
    backward."""
    peaks, kept = {}, {}
    for name in names:
        command = [sys.executable, __file__, "--one", name, "--shape", shape, "--precision", precision_name()]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[name], kept[name] = map(float, result.stdout.split()[-2:])
    found = table.rows(f"{shape}: peak memory of the process", "bytes", peaks)
    return found + table.rows(f"{shape}: held after the forward pass", "bytes", kept)


def one(name: str, shape: str) -> None:
    if name in OURS:  # as the training loop does
        keep_freed_memory()
    step = BUILDERS[name](LlamaConfig(**SHAPES[shape]))
    for _ in range(3):
        step()
    peak = peak_memory_bytes()
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        """Each storage once, parameters and what a recomputation in the backward keeps left out."""
        parameter = isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter)
        if not parameter and torch._C._current_graph_task_id() == -1:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    print(peak, sum(held.values()))


def machine_tag() -> str:
    """The GPU's or the processor's kind as part of a file's name."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else machine.generation() or machine.processor()
    return re.sub("[^a-z0-9]+", "-" if DEVICE == "cuda" else "", name.lower())


def there(name: str) -> bool:
    sys.path[:0] = [] if str(PEERS) in sys.path else [str(PEERS)]
    package = {"transformers": "transformers", "litgpt": "litgpt.model", "llama2.c": "llama2c_model"}.get(
        name.partition(" ")[0]
    )
    try:
        __import__(package or "puna")
    except ImportError as error:
        print(f"left out {name}: {error}")
        return False
    return True


def main() -> None:
    global DTYPE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default=precision_name())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--without-compiled", action="store_true")
    parser.add_argument("--without-memory", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    DTYPE = getattr(torch, options.precision)
    if DEVICE == "cpu" and torch.bfloat16 == DTYPE and not machine.multiplies_bfloat16():
        print(f"{machine.processor()} has no units for bfloat16: nothing to measure")
        return
    if options.one:
        there(options.one)
        one(options.one, options.shape)
        return
    keep_freed_memory()  # for everyone alike
    names = [
        name
        for name in BUILDERS
        if there(name)
        and not (options.without_compiled and name.endswith("compiled"))
        and (name != "puna float32" or torch.bfloat16 == DTYPE)
    ]
    versions = {"llama2.c": "model.py of its public repository"}
    for package in ("transformers", "litgpt"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    kind = "" if torch.float32 == DTYPE else f"_{precision_name()}"
    for shape in ALL if options.shape == "all" else [options.shape]:
        found = speed(shape, names, options.rounds)
        if not options.without_memory:
            found += memory(shape, [name for name in names if not name.endswith("compiled")])
        table.finish(f"train_step_{shape}{kind}.{machine_tag()}.py", found, versions)


if __name__ == "__main__":
    main()
