"""Files of conversations -> tokens, with what is learned and what is held out: the stage *rows*."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from puna.errors import UserError
from puna.run.artifact import Artifact
from puna.run.digests import cached_digest
from puna.run.settings import not_hashed
from puna.run.stage import Context, Metrics
from puna.tokens.conversations import Conversation, Turn
from puna.tokens.permutation import key_of
from puna.tune.settings import REPLAY, ChatSettings, DataSettings, ValidationSettings

if TYPE_CHECKING:
    from puna.tokens.chat import Format
    from puna.tokens.text_tokenizer import TextTokenizer
    from puna.tune.readers import BadRow

FALLBACK = "vicuna_v1.1"  # the format for bases that have none: it needs no control token but the end
Rows = list[tuple[list[int], list[bool]]]


class RowsStageSettings(BaseModel):
    """What encoded conversations depend on. base, root: where the tokenizer and the files lie; their content
    is hashed beside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path | None = not_hashed()
    root: Path = not_hashed()
    chat: ChatSettings
    data: dict[str, DataSettings]
    validation: ValidationSettings


def content(settings: RowsStageSettings) -> dict[str, Any]:
    """Digests of all files that the settings name. Raises UserError where there are none."""
    found = {
        name: {path.name: cached_digest(path) for path in files_of(one, settings.root)}
        for name, one in settings.data.items()
    }
    return found | ({"base": base_content(settings.base)} if settings.base else {})


def base_content(path: Path) -> dict[str, str]:
    """Digests of a file of weights, or of the files of a folder of them."""
    files = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.is_file())
    return {one.name: cached_digest(one) for one in files if not one.name.startswith(".")}


def base_path(base: Path | None, inputs: Mapping[str, Artifact]) -> Path:
    """Where the weights that a stage begins with lie: a place of the settings, or an input."""
    return base or inputs["base"].folder


def files_of(data: DataSettings, root: Path) -> list[Path]:
    """The files of a set. Raises UserError for one that is not there."""
    found = []
    for name in data.files:
        path = root / Path(name).expanduser()
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        found += sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return found


def chosen_format(chat: ChatSettings, template: str | None, tokenizer: "TextTokenizer") -> "Format":
    """The format of conversations. Raises UserError for one that the tokenizer has no tokens for."""
    from puna.tokens import chat as formats

    form = formats.recognise(template) if template and not chat.format else None
    form = form or formats.FORMATS.get(chat.format or FALLBACK)
    if form is None:
        raise UserError(f"chat.format: no format {chat.format}; there are {', '.join(formats.FORMATS)}")
    if missing := formats.missing_controls(form, tokenizer):
        fit = [name for name, one in formats.FORMATS.items() if not formats.missing_controls(one, tokenizer)]
        raise UserError(
            f"chat.format: the base's tokenizer has no token {missing[0]}, which {form.name} needs; "
            f"formats that it has all tokens for: {', '.join(fit) or 'none'}"
        )
    return dataclasses.replace(form, system=chat.system) if chat.system else form


def rows(settings: RowsStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Encode every set and hold a part of it out."""
    from puna.generate import load
    from puna.tune.rows import encoded

    base = load.open_model(load.open_source(base_path(settings.base, inputs)))
    form = chosen_format(settings.chat, base.chat_template, base.tokenizer)
    if settings.chat.max_tokens > base.source.config.max_seq_len:
        raise UserError(
            f"chat.max_tokens {settings.chat.max_tokens:,} is more than the base reads: "
            f"{base.source.config.max_seq_len:,}"
        )
    sets = {name: (one, files_of(one, settings.root)) for name, one in settings.data.items()}
    if REPLAY in inputs:
        own = DataSettings(files=(REPLAY,), template=inputs[REPLAY].metrics["template"])
        sets[REPLAY] = (own, [inputs[REPLAY].path("replay.jsonl")])
    told: dict[str, Any] = {}
    for number, (name, (one, files)) in enumerate(sets.items()):
        context.reporter.progress(name, number, len(sets))
        whole, first, dropped = _encoded(one, files, form, base.tokenizer, settings.chat.max_tokens)
        held = held_out(first, settings.validation)
        told[name] = {"dropped": dropped, "licence": one.licence}
        for split, part in (("train", ~held), ("held_out", held)):
            made = encoded(name, [whole[place] for place in np.flatnonzero(part)])
            folder = context.work / split
            folder.mkdir(exist_ok=True)
            made.save(folder)
            told[name][split] = {
                "conversations": len(made),
                "tokens": int(made.sizes.sum()),
                "learned_tokens": int(made.targets.sum()),
            }
    conditioned = any(one.condition for one in settings.data.values())
    return {"format": form.name, "system": _asked_with(form, conditioned), "sets": told}


def _asked_with(form: "Format", conditioned: bool) -> str:
    """What the tuned model's system turn says by itself: with the mark of helpful answers, where it learned
    such marks."""
    from puna.tokens import chat

    if not conditioned:
        return form.system
    return chat.conditioned([Turn("system", form.system)], helpful=True)[0].text


def _encoded(
    data: DataSettings, files: Sequence[Path], form: "Format", tokenizer: "TextTokenizer", most: int
) -> tuple[Rows, list[str], dict[str, int]]:
    """(conversations of a set of at most `most` tokens, their first turns, how many were dropped and why)."""
    from puna.tune.readers import BadRow

    whole: Rows = []
    first: list[str] = []
    dropped = dict.fromkeys(("unreadable", "over_long", "nothing_learned"), 0)
    for each in _read(data, files):
        if isinstance(each, BadRow):
            dropped["unreadable"] += 1
            continue
        ids, learned = _encode(each, data, form, tokenizer)
        if len(ids) - 1 > most:
            dropped["over_long"] += 1
        elif not any(learned[1:]):
            dropped["nothing_learned"] += 1
        else:
            whole.append((ids, learned))
            first.append(next((turn.text for turn in each.turns if turn.role != "system"), ""))
    return whole, first, dropped


def held_out(first_turns: Sequence[str], validation: ValidationSettings) -> Any:
    """Which conversations are held out, bool: those whose first turn has one of the lowest hashes, so that
    equal questions are on one side."""
    hashes = np.array([key_of("held out", text) for text in first_turns], np.uint64)
    least = min(validation.rows, len(hashes) // 5) if validation.fraction else 0
    below = int((hashes < int(validation.fraction * 2**64)).sum())
    count = max(least, below)
    if not count or len(np.unique(hashes)) < 2:
        return np.zeros(len(hashes), bool)
    # Of the sorted hashes; where all that follow are equal, those go to training.
    bound = np.sort(hashes)[count - 1]
    return hashes <= bound if (hashes <= bound).mean() <= 0.5 else hashes < bound


def _read(data: DataSettings, files: Sequence[Path]) -> "Iterator[Conversation | BadRow]":
    """The conversations of a set, as they are trained on, and rows that are none."""
    from puna.tune import readers

    found = 0
    for path in files:
        for each in readers.read(path):
            found += 1
            if data.limit is not None and found > data.limit:
                return
            if isinstance(each, readers.BadRow):
                yield each
            elif data.condition == "feedback":
                yield from _conditioned(each)
            else:
                yield each


def _conditioned(each: Conversation) -> Iterator[Conversation]:
    """A conversation whose last answer is learned as one that people liked; and, with one that they liked
    less, a second, whose last answer is learned as that."""
    from puna.tokens import chat

    *before, last = each.turns
    asked = [dataclasses.replace(turn, train=False) for turn in before]
    for answer, helpful in ((last, True), (each.rejected, False)):
        if answer is not None:
            turns = chat.conditioned((*asked, answer), helpful)
            yield dataclasses.replace(each, turns=turns, rejected=None)


def _encode(
    each: Conversation, data: DataSettings, form: "Format", tokenizer: "TextTokenizer"
) -> tuple[list[int], list[bool]]:
    """(ids, which are learned) of a conversation, or of a text behind others."""
    from puna.tokens import chat
    from puna.tokens.text_tokenizer import split_option

    if data.template == "text":
        before = "".join(turn.text for turn in each.turns[:-1])
        given, learned = split_option(tokenizer, before, each.turns[-1].text)
        if not given:
            given, learned = learned[:1], learned[1:]
        return [*given, *learned], [False] * len(given) + [True] * len(learned)
    made = chat.encode(each.turns, form, tokenizer, learn=data.learn)
    return made.ids, made.learned
