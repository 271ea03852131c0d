"""HumanEval (Chen et al. 2021) and MBPP (Austin et al. 2021): programs that must pass tests, in the sandbox.

`humaneval` and `mbpp` estimate pass@1 from 20 samples at temperature 0.1, `humaneval_100` and `mbpp_80`
pass@100 and pass@80 from 200 at 0.8; lm-eval writes one greedily. The numbers of samples are not in
the paper. The examples of MBPP are its problems 2, 3, 4; its test, 11 to 510.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from puna.evaluate import sandbox
from puna.evaluate.answers import pass_at_k
from puna.evaluate.data import Data, Part, Row
from puna.evaluate.task import PROFILES, Generation, Options, Scores, Task


def check(text: str, before: str, after: str) -> float:
    """Whether a program, between what stands before and after it, runs to its end."""
    return float(sandbox.run(before + text + after).passed)


def passes(item: Any, texts: Sequence[str], k: int) -> Scores:
    """pass@1, and pass@k where there are as many samples. Equal programs run once."""
    programs = list(dict.fromkeys(texts))
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        verdicts = dict(zip(programs, workers.map(item.check, programs), strict=True))
    right = int(sum(verdicts[text] for text in texts))
    return {f"pass@{each}": pass_at_k(len(texts), right, each) for each in (1, k) if each <= len(texts)}


def drawn(options: Options, temperature: float, samples: int) -> dict[str, Any]:
    """Fields of an item whose programs are drawn; lm-eval writes one where pass@1 is asked."""
    if options.profile == "lm-eval" and temperature < 0.5:
        return {}
    return {"samples": options.samples or samples, "temperature": temperature, "top_p": 0.95}


def humaneval(data: Data, options: Options, how: tuple[float, int]) -> Iterator[Generation]:
    """Problems in the order of the file, without examples, the same prompt in both profiles."""
    for row in data.rows():
        after = f"\n{row['test']}\ncheck({row['entry_point']})"
        yield Generation(
            id=row["task_id"], question=row["prompt"],
            check=partial(check, before=row["prompt"], after=after),
            stops=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
            max_new_tokens=512 if options.profile == "paper" else 1024,
            **drawn(options, *how),
        )  # fmt: skip


def ask(row: Row) -> str:
    """A problem of MBPP, up to its program."""
    tests = "\n".join(row["test_list"][:3])
    task = f"You are an expert Python programmer, and here is your task: {row['text']}"
    return f"{task} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"


def mbpp(data: Data, options: Options, how: tuple[float, int]) -> Iterator[Generation]:
    """Problems of the test in the order of the file; `paper` has no carriage returns in its examples."""
    paper = options.profile == "paper"
    examples = {row["task_id"]: ask(row) + row["code"] + "\n[DONE]\n\n" for row in data.rows("shots")}
    shots = [examples[number].replace("\r\n", "\n" if paper else "\r\n") for number in (2, 3, 4)]
    for row in data.rows():
        if 11 <= row["task_id"] <= 510:
            after = "\n".join(["", row["test_setup_code"], *row["test_list"]])
            yield Generation(
                id=str(row["task_id"]), shots=tuple(shots[: options.shots]), question=ask(row),
                check=partial(check, before="", after=after), stops=("[DONE]",),
                max_new_tokens=512 if paper else 256, **drawn(options, *how),
            )  # fmt: skip


FILE = "test-00000-of-00001.parquet"
HUB = "openai/openai_humaneval@7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544:openai_humaneval/"
HUMANEVAL = {"items": Part(("HumanEval.jsonl*",), HUB + FILE)}
HUB = "google-research-datasets/mbpp@4bb6404fdc6cacfda99d4ac4205087b89d32030c:full/"
MBPP = {
    "items": Part(("mbpp.jsonl",), HUB + FILE),
    "shots": Part(("mbpp.jsonl",), HUB + FILE.replace("test", "prompt")),
}
FEW, MANY = (0.1, 20), (0.8, 200)  # temperature, samples
TASKS = tuple(
    Task(
        name, 1, size, parts, partial(items, how=how), dict.fromkeys(PROFILES, f"pass@{k}"), shots,
        partial(passes, k=k), ready=partial(sandbox.run, ""),
    )
    for name, size, parts, items, how, shots, k in (
        ("humaneval", 164, HUMANEVAL, humaneval, FEW, 0, 1),
        ("humaneval_100", 164, HUMANEVAL, humaneval, MANY, 0, 100),
        ("mbpp", 500, MBPP, mbpp, FEW, 3, 1),
        ("mbpp_80", 500, MBPP, mbpp, MANY, 3, 80),
    )
)  # fmt: skip
