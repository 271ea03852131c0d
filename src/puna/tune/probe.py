"""What tuning teaches and what it forgets: a model is asked before and after.

    before = probe(model, tokenizer, form)
    ...
    after = probe(model, tokenizer, form)
    print(*warnings(before, after), sep="\\n")

Twenty plain questions, some prompts whose answers are shown side by side, bits per byte of plain text; all
of `probe.json`, which no model is tuned on. Results are plain JSON.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from puna.tokens.conversations import Turn

if TYPE_CHECKING:
    from puna.model.llama import Llama
    from puna.tokens.chat import Format
    from puna.tokens.text_tokenizer import TextTokenizer

NEW_TOKENS = 128  # of an answer; one that is longer has not ended by itself
WINDOW = 512  # tokens that are read at once for bits per byte
ENDING = 0.9  # share of answers that end by themselves; a smaller one is told
BITS_RISE = 0.02  # of bits per byte; more is told
LOST = 2  # questions answered before and not after; more are told
MEMORY_BYTES = 1 << 29  # of keys and values, at most
PLAIN = "Question: {}\nAnswer:"  # for a model without a chat format; its line is the answer


class Answer(NamedTuple):
    """What a model wrote. ended: by a token that ends; None for a model that is only continued."""

    answer: str
    ended: bool | None


@functools.cache
def shipped() -> dict[str, Any]:
    """The questions, prompts and texts of `probe.json`."""
    return json.loads(Path(__file__).with_name("probe.json").read_bytes())


def ask(
    model: "Llama",
    tokenizer: "TextTokenizer",
    form: "Format | None",
    prompts: Sequence[str],
    max_new_tokens: int = NEW_TOKENS,
) -> list[Answer]:
    """The likeliest answer to each prompt, all asked together.

    form: None for a model that only continues text: it is asked by PLAIN, and its first line is the answer.
    Raises UserError for a prompt that leaves no room for an answer.
    """
    from puna.generate.decoder import BLOCK, block_bytes
    from puna.generate.engine import Engine, Request, Sampling
    from puna.tokens import chat

    if form is None:
        encoded = [[*tokenizer.bos, *tokenizer.encode(PLAIN.format(prompt))] for prompt in prompts]
    else:
        turns = [(Turn("user", prompt),) for prompt in prompts]
        encoded = [chat.encode(each, form, tokenizer, open=True).ids for each in turns]
    ends = chat.stop_ids(form, tokenizer) | tokenizer.stops if form else None
    blocks = sum(-(-(len(ids) + max_new_tokens) // BLOCK) for ids in encoded)
    engine = Engine(model, tokenizer, memory_bytes=min(blocks * block_bytes(model), MEMORY_BYTES))
    how = (max_new_tokens, Sampling(temperature=0), () if form else ("\n",), ends)
    writings = [engine.submit(Request(ids, *how)) for ids in encoded]
    while engine.step():
        pass
    return [Answer(each.text.strip(), each.finish == "stop" if form else None) for each in writings]


def loaded(path: Path) -> "tuple[Llama, TextTokenizer, Format | None]":
    """A model with its tokenizer and the format of its chat template."""
    from puna.generate import load
    from puna.tokens import chat

    model, tokenizer, template, *_ = load.load(path)
    return model, tokenizer, chat.recognise(template) if template else None


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether one of the accepted strings stands in an answer as words of their own, whatever their case."""
    found = "|".join(map(re.escape, accepted))
    return re.search(rf"(?<!\w)(?:{found})(?!\w)", answer, re.IGNORECASE) is not None


def bits_per_byte(model: "Llama", tokenizer: "TextTokenizer", texts: Sequence[str]) -> float:
    """Bits that a model needs for texts, over their bytes in UTF-8. Where a tokenizer puts no begin token
    the first token of each is given, and its bytes are not counted."""
    from puna.evaluate.bits_per_byte import model_bits
    from puna.tokens.shards import Shard

    bits, size = 0.0, sum(len(text.encode()) for text in texts)
    for text in texts:  # one after the other, since logits take memory
        ids = np.array([*tokenizer.bos, *tokenizer.encode(text)])
        size -= 0 if tokenizer.bos else len(tokenizer.decode(ids[:1].tolist()).encode())
        shard = Shard("text", ids, np.array([0, len(ids)]), np.arange(1))
        bits += float(model_bits(model, shard, min(WINDOW, model.config.max_seq_len, len(ids))).sum())
    return bits / size


def probe(model: "Llama", tokenizer: "TextTokenizer", form: "Format | None") -> dict[str, Any]:
    """Ask a model everything: {format, questions, right, samples, ended, bits_per_byte}. ended: the share of
    all answers that end by themselves, None without a format."""
    asked = shipped()
    questions, prompts = [entry["question"] for entry in asked["questions"]], asked["prompts"]
    found = ask(model, tokenizer, form, [*questions, *prompts])
    told = [
        {"question": entry["question"], "right": is_right(each.answer, entry["accepted"]), **each._asdict()}
        for entry, each in zip(asked["questions"], found, strict=False)
    ]
    samples = zip(prompts, found[len(questions) :], strict=True)
    return {
        "format": form.name if form else None,
        "questions": told,
        "right": sum(entry["right"] for entry in told),
        "samples": [{"prompt": prompt, **each._asdict()} for prompt, each in samples],
        "ended": sum(bool(each.ended) for each in found) / len(found) if form else None,
        "bits_per_byte": bits_per_byte(model, tokenizer, asked["texts"]),
    }


def lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Questions that were answered right before and are not after."""
    pairs = zip(before["questions"], after["questions"], strict=True)
    return [old["question"] for old, new in pairs if old["right"] and not new["right"]]


def warnings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a person should know of a tuned model, in plain words; nothing where all is well."""
    told = []
    forgotten, rise = lost(before, after), after["bits_per_byte"] / before["bits_per_byte"] - 1
    if len(forgotten) > LOST:
        told.append(
            f"{len(forgotten)} of {before['right']} plain questions that were answered right before are "
            f"wrong now: {forgotten[0]} A lower learning rate, fewer epochs or more replay keep them."
        )
    if after["ended"] is not None and after["ended"] < ENDING:
        told.append(
            f"only {after['ended']:.0%} of the answers end by themselves: longer training, or data "
            "whose answers all end, would teach it"
        )
    if rise > BITS_RISE:
        told.append(
            f"plain text takes {rise:.1%} more bits than before: the model has drifted from its language"
        )
    return told
