"""Files of conversations -> tokens, with what is learned and what is held out: the stage *rows*."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from puna.errors import UserError
from puna.model.weights import content as weights
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

Tokens = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # ids, uint32; which are learned, bool
_Sets = dict[str, tuple[DataSettings, list[Path]]]
FALLBACK = "vicuna_v1.1"  # the format for bases that have none: it needs no control token but the end


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
        name: [(path.name, cached_digest(path)) for path in files_of(one, settings.root)]
        for name, one in settings.data.items()
    }
    return {"data": found, **weights.content(settings.base)}


def base_path(base: Path | None, inputs: Mapping[str, Artifact]) -> Path:
    """Where the weights that a stage begins with lie: a place of the settings, or an input."""
    return base or inputs["base"].folder


def files_of(data: DataSettings, root: Path) -> list[Path]:
    """The files of a set. Raises UserError for one that is not there."""
    from puna.tune import readers

    found = []
    for name in data.files:
        path = root / Path(name).expanduser()
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        found += readers.files_in(path) if path.is_dir() else [path]
    return found


def chosen_format(chat: ChatSettings, template: str | None) -> "Format":
    """The format of conversations. Raises UserError for an unknown one."""
    from puna.tokens import chat as formats

    form = formats.recognise(template) if template and not chat.format else None
    form = form or formats.FORMATS.get(chat.format or FALLBACK)
    if form is None:
        raise UserError(f"chat.format: no format {chat.format}; there are {', '.join(formats.FORMATS)}")
    return dataclasses.replace(form, system=chat.system) if chat.system else form


def rows(settings: RowsStageSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Audit and encode every set, and hold a part of it out. Raises UserError for rows that are not to be
    learned from."""
    from puna.tokens import chat
    from puna.tune.rows import encoded

    tokenizer, form, sets, most = _opened(settings, inputs)
    if REPLAY in inputs:
        own = DataSettings(files=(REPLAY,), template=inputs[REPLAY].metrics["template"])
        sets[REPLAY] = (own, [inputs[REPLAY].path("replay.jsonl")])
    told: dict[str, Any] = {}
    made: dict[str, list[Tokens]] = {}
    asked: dict[str, list[str]] = {}
    for number, (name, (one, files)) in enumerate(sets.items()):
        context.reporter.progress(name, number, len(sets))
        kept, told[name] = _kept(name, one, files, form, tokenizer, most)
        pairs = [(first, _encode(each, one, form, tokenizer)) for first, each in kept]
        pairs = [(first, found) for first, found in pairs if len(found[0]) <= most + 1 and found[1][1:].any()]
        made[name] = [found for _, found in pairs]
        asked[name] = [first for first, _ in pairs]
        told[name] |= {"dropped": len(kept) - len(pairs), "licence": one.licence}
    for name, held in all_held_out(asked, settings.validation).items():
        for split, part in (("train", ~held), ("held_out", held)):
            found = encoded(name, [made[name][place] for place in np.flatnonzero(part)])
            found.save(context.work / split)
            told[name][split] = found.counts()
    if any(one.condition for one in settings.data.values()):  # it is asked with the mark of helpful answers
        form = dataclasses.replace(form, system=chat.conditioned([Turn("system", form.system)], True)[0].text)
    return {"format": form.name, "system": form.system, "sets": told}


def check(settings: RowsStageSettings, inputs: Mapping[str, Artifact]) -> None:
    """Audit all sets. Raises UserError as `rows` would, before anything is made that takes long."""
    tokenizer, form, sets, most = _opened(settings, inputs)
    for name, (one, files) in sets.items():
        _kept(name, one, files, form, tokenizer, most)


def _opened(settings: RowsStageSettings, inputs: Mapping[str, Artifact]) -> tuple[Any, "Format", _Sets, int]:
    """(the base's tokenizer with what the format needs, the format, the sets with their files, tokens of a
    conversation at most)."""
    from puna.generate import load
    from puna.tokens.control_tokens import for_format

    base = load.open_model(load.open_source(base_path(settings.base, inputs)))
    form, most = chosen_format(settings.chat, base.chat_template), settings.chat.max_tokens
    if most > (reads := base.source.config.max_seq_len):
        raise UserError(f"chat.max_tokens {most:,} is more than the base reads: {reads:,}")
    sets = {name: (one, files_of(one, settings.root)) for name, one in settings.data.items()}
    return for_format(base.tokenizer, form), form, sets, most


def all_held_out(first_turns: Mapping[str, Sequence[str]], validation: ValidationSettings) -> dict[str, Any]:
    """`held_out` of each set, by its name, and with it what another set holds out, unless that is more than
    half of the set: so no question is held out of one set and learned in another."""
    own = {name: held_out(texts, validation) for name, texts in first_turns.items()}
    known = {text for name, held in own.items() for text in itertools.compress(first_turns[name], held)}
    found = {name: np.array([text in known for text in texts], bool) for name, texts in first_turns.items()}
    return {name: held if held.sum() <= len(held) / 2 else own[name] for name, held in found.items()}


def held_out(first_turns: Sequence[str], validation: ValidationSettings) -> Any:
    """Which conversations are held out, bool: those whose first turn has one of the lowest hashes, so that
    equal questions are on one side. Those that are too many for it, such as pieces of one long chat, are
    learned."""
    hashes = np.array([key_of("held out", text) for text in first_turns], np.uint64)
    least = min(validation.rows, len(hashes) // 5) if validation.fraction else 0
    count = max(least, int((hashes < int(validation.fraction * 2**64)).sum()))
    _, places, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    most = int(len(hashes) * min(0.5, max(0.2, 2 * validation.fraction)))
    ends = np.cumsum(np.where(sizes <= most, sizes, 0))
    return ((sizes <= most) & (ends - sizes < count) & (ends <= most))[places]


def _kept(
    name: str, data: DataSettings, files: Sequence[Path], form: "Format", tokenizer: Any, most: int
) -> tuple[list[tuple[str, Conversation]], dict[str, Any]]:
    """(what is trained on of a set, each of at most `most` tokens, behind the first turn of the whole that it
    is a piece of; what the audit found)."""
    from puna.tune import readers
    from puna.tune.audit import Auditor, audit
    from puna.tune.clean import Cleaner

    every: Iterable[Any] = itertools.islice(
        (each for path in files for each in readers.read(path, data.speaker)), data.limit
    )
    if data.template == "text":
        read = [(row, row if isinstance(row, Conversation) else _alone(row)) for row in every]
        bad = [row for row, each in read if each is None]
        if bad and data.defects == "refuse":
            where = f"{bad[0].source}, row {bad[0].row}: {bad[0].message}"
            raise UserError(f'data.{name}: {where}; data.{name}.defects = "drop" leaves such rows out')
        kept = [(_first(each), each) for _, each in read if each is not None]
        return kept, {"read": len(read), "findings": {"unreadable row": len(bad)}}
    cleaner = Cleaner(data.languages)
    if data.clean:
        every = cleaner.clean(every)
    # The last token of a conversation is only ever a target.
    found = audit(every, Auditor(form, tokenizer, most + 1, learn=data.learn))
    if data.defects == "refuse":
        try:
            found.refuse()
        except UserError as error:
            raise UserError(f'data.{name}: {error}, and so does data.{name}.defects = "drop"') from error
    kept = [(_first(verdict.kept[0]), piece) for verdict in found.verdicts for piece in verdict.kept]
    if data.condition == "feedback":
        kept = [(first, turned) for first, each in kept for turned in _conditioned(each, form.system)]
    findings = {kind: count for kind, count in found.counts().items() if count} | dict(+cleaner.dropped)
    lost = sum(len(verdict.lost) for verdict in found.verdicts)
    return kept, {"read": len(found.verdicts), "findings": findings, "lost_rounds": lost}


def _first(each: Conversation) -> str:
    """The first turn that is no system text."""
    return next((turn.text for turn in each.turns if turn.role != "system"), "")


def _alone(row: "BadRow") -> Conversation | None:
    """A text alone, which is no conversation, but can be learned as it stands."""
    found = row.conversation if row.kind == "unreadable row" else None
    return found if found and len(found.turns) == 1 else None


def _conditioned(each: Conversation, system: str) -> Iterator[Conversation]:
    """A conversation whose last answer is learned as one that people liked; and, with one that they liked
    less, a second, whose last answer is learned as that. system: what stands first where no turn says it."""
    from puna.tokens import chat

    *before, last = each.turns
    asked = [dataclasses.replace(turn, train=False) for turn in before]
    if system and asked and asked[0].role != "system":
        asked.insert(0, Turn("system", system))
    for answer, helpful in ((last, True), (each.rejected, False)):
        if answer is not None:
            turns = chat.conditioned((*asked, answer), helpful)
            yield dataclasses.replace(each, turns=turns, rejected=None)


def _encode(each: Conversation, data: DataSettings, form: "Format", tokenizer: "TextTokenizer") -> Tokens:
    """(ids, which are learned) of a conversation, or of a text behind others."""
    from puna.tokens import chat
    from puna.tokens.text_tokenizer import split_option

    if data.template == "chat":
        made = chat.encode(each.turns, form, tokenizer, learn=data.learn)
        return np.array(made.ids, np.uint32), np.array(made.learned, bool)
    before = "".join(turn.text for turn in each.turns[:-1])
    given, learned = split_option(tokenizer, before, each.turns[-1].text)
    ids = np.array([*given, *learned], np.uint32)
    return ids, np.arange(len(ids)) >= len(given)
