"""Ask a model the items of a task: what fits, what it will cost, answers into the log, scores out of it.

    result = run(task, loaded, engine, Options("paper"), folder, identify(loaded), data=Path("data"))

Files in `folder`: TASK.PROFILE.log.jsonl, what the model answered, from which a stopped run goes on;
TASK.PROFILE.items.jsonl, each item with its scores; TASK.PROFILE.json, the scores.
"""

import json
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.evaluate import overlap
from puna.evaluate.data import Data
from puna.evaluate.log import Key, Log, digest
from puna.evaluate.scoring import Branches, Request, Scored, ask, choose, gather, mean_and_error
from puna.evaluate.task import Choice, Generation, Options, Scores, Task, mean_check
from puna.generate.decoder import block_bytes
from puna.generate.engine import Engine, Sampling, Tree
from puna.generate.load import Loaded
from puna.run.files import write_atomically

TIMED_TOKENS, TIMED_SAMPLES = 256, 8
TOLD_SECONDS = 10.0


@dataclass(frozen=True)
class Asked:
    """An item as it is asked: with how many examples, as ids. prompt: a digest of its text."""

    item: Any
    shots: int
    request: Request
    prompt: str

    @cached_property
    def repeats(self) -> int:
        return self.item.samples if isinstance(self.item, Generation) else 1

    def key(self, repeat: int = 0) -> Key:
        return self.item.id, repeat, self.prompt


def prepare(loaded: Loaded, item: Any, shots: int) -> Asked:
    """An item with its first `shots` examples."""
    if isinstance(item, Choice):
        pairs = item.pairs(shots)
        return Asked(item, shots, ask(loaded.tokenizer, pairs), digest(pairs))
    text = item.text(shots)
    ids = array("i", [*loaded.tokenizer.bos, *loaded.tokenizer.encode(text)])
    told = digest(text, item.stops, item.max_new_tokens, item.temperature, item.top_p)
    return Asked(item, shots, Request((Branches(ids, ()),), ()), told)


def fit(loaded: Loaded, item: Any, on_too_long: str) -> Asked | None:
    """An item with as many examples as the model's context holds; None where it does not fit.

    on_too_long: "drop-shots" leaves examples out, the last ones first; "skip"; "fail" raises UserError.
    """
    limit = loaded.model.config.max_seq_len
    for shots in range(len(item.shots), -1, -1):
        asked = prepare(loaded, item, shots)
        longest = asked.request.longest(getattr(item, "max_new_tokens", 0))
        if longest <= limit:
            return asked
        if on_too_long == "fail":
            problem = f"item {item.id} has {longest:,} tokens; the model reads {limit:,}"
            raise UserError(f"{problem}: choose fewer --shots, or --on-too-long drop-shots or skip")
        if on_too_long == "skip":
            break
    return None


def tokens_read(requests: Sequence[Request]) -> int:
    """Tokens that a model reads for these requests if it reads what contexts have in common once."""
    branches = [branch for request in requests for branch in request.branches]
    total, before = 0, b""
    for context in sorted(branch.context.tobytes() for branch in branches):
        low, high = 0, min(len(before), len(context))
        while low < high:  # the longest common prefix, by halves
            middle = (low + high + 1) // 2
            low, high = (middle, high) if before[:middle] == context[:middle] else (low, middle - 1)
        total, before = total + (len(context) - low) // array("i").itemsize, context
    return total + sum(len(option) - 1 for branch in branches for option in branch.options)


@lru_cache(maxsize=2)
def seconds_per_token(engine: Engine, written: bool) -> float:
    """Time the engine on a few tokens that it reads in a row, or writes in several texts at once."""
    size = min(engine.tokenizer.vocab_size, engine.context - TIMED_SAMPLES, TIMED_TOKENS)
    begun = time.perf_counter()
    if written:
        list(engine.sample([[0]], n=TIMED_SAMPLES, max_new_tokens=TIMED_SAMPLES))
        return (time.perf_counter() - begun) / TIMED_SAMPLES**2
    list(engine.score([Tree(list(range(size)), [[0]])]))
    return (time.perf_counter() - begun) / size


def cost(loaded: Loaded, engine: Engine, waiting: Sequence[Asked]) -> str:
    """Say what it takes to ask these items: tokens, minutes, memory."""
    if getattr(engine, "mode", "") == "endpoint":
        return f"{len(waiting):,} items, for an endpoint"
    read = tokens_read([asked.request for asked in waiting])
    written = sum(a.repeats * a.item.max_new_tokens for a in waiting if isinstance(a.item, Generation))
    seconds = read * seconds_per_token(engine, False)
    seconds += written * seconds_per_token(engine, True) if written else 0
    weights = sum(weight.numel() * weight.element_size() for weight in loaded.model.parameters())
    memory = (weights + engine.blocks.count * block_bytes(loaded.model)) / 1e6
    told = f"{len(waiting):,} items, {read:,} tokens to read"
    told += f", {written:,} to write at most" if written else ""
    return f"{told}, about {seconds / 60:,.1f} min, at most {memory:,.0f} MB for weights, keys and values"


def score_choices(engine: Engine, log: Log, waiting: Sequence[Asked]) -> Iterator[None]:
    """Ask items with options; yields whenever one more stands in the log."""
    every = [(asked, number) for asked in waiting for number in range(len(asked.request.branches))]
    branches = (asked.request.branches[number] for asked, number in every)
    trees = (Tree(list(each.context), [list(option) for option in each.options]) for each in branches)
    got_of: dict[Key, dict[int, list[list[float]]]] = defaultdict(dict)
    for tree, options in engine.score(trees):
        asked, number = every[tree]
        got, request = got_of[asked.key()], asked.request
        got[number] = [option.log_probs for option in options]
        if len(got) == len(request.branches):
            del got_of[asked.key()]
            scores = gather(request, len(asked.item.options), [got[n] for n in range(len(got))])
            given = [len(request.branches[branch].context) for branch, _ in request.places]
            log.add(asked.key(), shots=asked.shots, given=given, options=scores)
            yield


def sample_answers(engine: Engine, log: Log, waiting: Sequence[Asked], seed: int) -> Iterator[None]:
    """Have the answers written that the log lacks; yields whenever one more stands there."""
    calls = defaultdict(list)
    for asked in waiting:
        item, missing = asked.item, [n for n in range(asked.repeats) if asked.key(n) not in log.known]
        for _, span in groupby(enumerate(missing), lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in span]
            how = (item.temperature, item.top_p, item.stops, item.max_new_tokens)
            calls[(*how, numbers[0], len(numbers))].append(asked)
    for (temperature, top_p, stops, most, first, count), members in calls.items():
        prompts = [list(asked.request.branches[0].context) for asked in members]
        sampling = Sampling(temperature=temperature, top_p=top_p)
        limits: Any = {"n": count, "first_sample": first, "max_new_tokens": most, "stops": stops}
        for number, repeat, sample in engine.sample(prompts, sampling=sampling, seed=seed, **limits):
            told = {"text": sample.text, "tokens": len(sample.tokens), "finish": sample.finish}
            asked = members[number]
            log.add(asked.key(repeat), shots=asked.shots, log_prob=sum(sample.log_probs), **told)
            yield


def answers(engine: Engine, log: Log, waiting: Sequence[Asked], seed: int) -> Iterator[None]:
    """Ask items of both kinds; yields whenever one more answer stands in the log."""
    yield from score_choices(engine, log, [each for each in waiting if isinstance(each.item, Choice)])
    yield from sample_answers(
        engine, log, [each for each in waiting if isinstance(each.item, Generation)], seed
    )


def judge(task: Task, asked: Asked, log: Log) -> dict[str, Any]:
    """An item with its scores, from the log."""
    item, lines = asked.item, [log.known[asked.key(repeat)] for repeat in range(asked.repeats)]
    told = {"item": item.id, "prompt": asked.prompt, "shots": asked.shots, "groups": item.groups}
    if isinstance(item, Generation):
        texts = [line["text"] for line in lines]
        return told | {"texts": texts, "scores": (task.score or mean_check)(item, texts)}
    options = [Scored(*each) for each in lines[0]["options"]]
    chosen = choose(item.options, options)
    right = {name: float(number in item.right) for name, number in chosen.items()}
    scores = task.score(item, options) if task.score else right
    given = {"given": lines[0]["given"], "options": options, "right": item.right}
    return told | {"scores": scores, "chosen": chosen} | given


def average(rows: Sequence[Scores]) -> dict[str, dict[str, float | None]]:
    """value, standard error and n of each score."""
    columns = defaultdict(list)
    for row in rows:
        for name, score in row.items():
            columns[name].append(score)
    told = {name: (*mean_and_error(column), len(column)) for name, column in columns.items()}
    return {name: dict(zip(("value", "stderr", "n"), each, strict=True)) for name, each in told.items()}


def run(
    task: Task, loaded: Loaded, engine: Engine, options: Options, folder: Path,
    identity: Mapping[str, str], *, data: Path | None = None, limit: int = 0, seed: int = 0,
    on_too_long: str = "drop-shots", documents: Callable[[], Iterable[str]] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure a model on a task; what the log in `folder` has already is not asked again.

    identity: of the model, by `log.identify`. limit: so many items from the beginning; 0: all. documents: the
    texts that it was trained on, where they are at hand; items that stand in them are marked. tell: told the
    cost before anything is asked, and from time to time how far it is. Returns what TASK.PROFILE.json has.
    Raises UserError for data that is missing or another one, and as `fit`.
    """
    if task.ready:
        task.ready()
    options = options._replace(shots=task.shots if options.shots is None else options.shots)
    items = list(islice(task.items(Data(task.name, task.parts, data), options), limit or None))
    fitting = [fit(loaded, item, on_too_long) for item in items]
    asked = [each for each in fitting if each]
    what = {**identity, "task": task.name, "version": task.version, "profile": options.profile, "seed": seed}
    path = folder / f"{task.name}.{options.profile}.json"
    log = Log(path.with_suffix(".log.jsonl"), what)
    lacking = [sum(each.key(n) not in log.known for n in range(each.repeats)) for each in asked]
    waiting = [each for each, count in zip(asked, lacking, strict=True) if count]
    if waiting:
        tell(f"{task.name}: {cost(loaded, engine, waiting)}")
        last = time.monotonic()
        for number, _ in enumerate(answers(engine, log, waiting, seed), 1):
            if time.monotonic() - last > TOLD_SECONDS:
                last = time.monotonic()
                tell(f"{task.name}: {number:,} of {sum(lacking):,}")
    rows = [judge(task, each, log) for each in asked]
    groups = dict.fromkeys(group for row in rows for group in row["groups"])
    size = task.sizes.get(options.profile, task.size)
    result = what | {"shots": options.shots, "main": task.main[options.profile]}
    result |= {"n": len(rows), "of": size, "partial": len(rows) < size}
    result["scores"] = average([row["scores"] for row in rows])
    result["groups"] = {g: average([row["scores"] for row in rows if g in row["groups"]]) for g in groups}
    if documents is not None:
        known = overlap.found([each.item for each in asked], documents())
        rows = [row | {"in_corpus": row["item"] in known} for row in rows]
        rest = average([row["scores"] for row in rows if not row["in_corpus"]])
        result["in_corpus"] = {"items": sorted(known), "scores_without": rest}
    fewer = [each for each in asked if each.shots < len(each.item.shots)]
    result["dropped_shots"] = {each.item.id: each.shots for each in fewer}
    result["skipped"] = [item.id for item, each in zip(items, fitting, strict=True) if each is None]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path.with_suffix(".items.jsonl"), lines)
    write_atomically(path, json.dumps(result, indent=1))
    return result
