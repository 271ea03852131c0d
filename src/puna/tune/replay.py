"""The base's own answers to prompts that ship with Puna: rows that keep what it knows, made once."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from puna.run.artifact import Artifact
from puna.run.settings import not_hashed
from puna.run.stage import Context, Metrics
from puna.tune.encode import base_path
from puna.tune.settings import REPLAY

PROMPTS = Path(__file__).with_name("replay.json")


class ReplayStageSettings(BaseModel):
    """What the base's answers depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    base: Path | None = not_hashed()
    prompts: int
    answer_tokens: int
    temperature: float
    kernels: str


def prompts(answers: bool, count: int) -> tuple[list[str], list[str]]:
    """(short questions of fact, other prompts), `count` in all; answers: of a model that answers, which is
    asked as many of the first as of the others; else beginnings of texts alone. The others are each form with
    each topic once, neighbours of both differing."""
    known = json.loads(PROMPTS.read_text("utf-8"))
    facts = known["facts"][: count // 2] if answers else []
    forms, topics = known["questions" if answers else "beginnings"], known["topics"]
    every = [forms[(number + turn) % len(forms)].format(topics[number])
             for turn in range(len(forms)) for number in range(len(topics))]  # fmt: skip
    return facts, every[: count - len(facts)]


def replay(
    settings: ReplayStageSettings,
    inputs: Mapping[str, Artifact],
    context: Context,
    check: Callable[[Mapping[str, Artifact]], None],
) -> Metrics:
    """Let the base answer: in its own chat format where it has one that is known, else it continues the
    beginnings of texts. An answer that did not end by itself ends with its last whole sentence. Before that
    `check` is called, which finds faults of the data that come next.

    Short facts are what a small model forgets first: of these the likeliest answer is kept.
    """
    from puna.generate import load
    from puna.generate.engine import Engine, Request, Sampling
    from puna.tokens import chat
    from puna.tokens.conversations import Turn

    check(inputs)
    base = load.load(base_path(settings.base, inputs))
    form = chat.recognise(base.chat_template) if base.chat_template else None
    facts, others = prompts(form is not None, settings.prompts)
    asked = [*facts, *others]
    engine = Engine(base.model, base.tokenizer)
    drawn, likeliest = Sampling(temperature=settings.temperature, top_p=0.95), Sampling(temperature=0)
    writings = []
    for number, prompt in enumerate(asked):
        if form:
            ids = chat.encode([Turn("user", prompt)], form, base.tokenizer, open=True).ids
        else:
            ids = [*base.tokenizer.bos, *base.tokenizer.encode(prompt)]
        room = min(settings.answer_tokens, base.model.config.max_seq_len - len(ids))
        how = likeliest if number < len(facts) else drawn
        writings.append(engine.submit(Request(ids, room, how, seed=settings.seed + number)))
    while engine.step():
        context.reporter.progress(REPLAY, sum(bool(one.finish) for one in writings), len(writings))
    rows = []
    for prompt, writing in zip(asked, writings, strict=True):
        answer = writing.text if writing.finish == "stop" or not form else whole(writing.text)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        rows += [json.dumps({"messages": turns}, ensure_ascii=False) + "\n"] if answer.strip() else []
    (context.work / "replay.jsonl").write_text("".join(rows), "utf-8")
    return {"template": "chat" if form else "text", "asked": len(asked), "kept": len(rows)}


def whole(text: str) -> str:
    """A text up to the end of its last sentence; "" where none ends."""
    return text[: max(text.rfind(mark) for mark in ".!?") + 1]
