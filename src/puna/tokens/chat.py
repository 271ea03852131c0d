"""Conversations to token ids and to which of them a model learns to write: one function a format.

    turns -> pieces (text, control, learn) -> ids and mask

The mask is known by construction: nothing is looked for in a text. The same functions serve training,
evaluation, generation and serving; `jinja` says the same to other programs.

- Control tokens are put by their ids; a text that spells one stays text.
- Texts between control tokens are encoded together, but cut where learning begins or ends: a model goes on
  from the same ids in training and when it answers. Text behind text gets no space mark that the string has
  not; behind a control token a text begins as every text of the tokenizer does (LLaMA's has a space mark
  there: so FastChat and Meta trained, and so transformers and llama.cpp encode).
- An answer's end is learned with it; `train=False` masks the turn and its end.
- Every format but chatml begins with the begin token, where the tokenizer's own flag says that texts have
  one; "</s>" is the tokenizer's own end token, whatever its name.

What the formats leave open, here:

- Without a system turn in front, a conversation gets the format's default: vicuna_v1.1, alpaca and coati have
  one. An empty system turn means none. One that stands later, and a tool's turn, are written as a user's
  where the format has no place for them; chatml and llama3 have (llama3 calls a tool "ipython").
- An empty turn is its head and end, without the space before a text. What breaks the order of roles is
  written as it comes: to refuse it is the audit's work.
- Formats whose code strips texts do so here: llama2, llama3, coati.
- chatml: the line feed behind an answer's end is not learned, since it is never written.
- alpaca: further rounds follow the end token at once, as FastChat has them; a system turn stands instead of
  the first sentences.
"""

import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from puna.errors import UserError
from puna.tokens.conversations import ROLES, Turn
from puna.tokens.text_tokenizer import TextTokenizer

BEGIN, END = "<s>", "</s>"  # the tokenizer's own begin and end token, whatever it calls them
_PAIRED = ", paired with an input that provides further context."  # Alpaca's, of a task with an input
# The system text that a template itself puts: ours, and where others have it in the string.
_DEFAULTS = (
    re.compile(r'set default = ("(?:[^"\\]|\\.)*")'),
    re.compile(r"<\|im_start\|>system(?:\\n|\n)([^{}'\"]+)<\|im_end\|>"),
)


class Piece(NamedTuple):
    """A part of a conversation as a format writes it. control: a control token's name, not text. learn:
    whether the model must learn to write it."""

    text: str
    control: bool = False
    learn: bool = False


class Encoded(NamedTuple):
    """A conversation as tokens. learned: of each, whether the model must learn to write it."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True)
class Format:
    """A chat format.

    source: where its strings come from. controls: the control tokens that it needs. ends: those that end an
    answer. marks: plain text that a user could imitate. system: what stands first where no turn says it.
    """

    name: str
    source: str
    controls: tuple[str, ...]
    ends: tuple[str, ...]
    marks: tuple[str, ...]
    write: Callable[[Sequence[Turn], str, bool], Iterator[Piece]]
    system: str = ""

    def pieces(self, turns: Sequence[Turn], open: bool = False) -> list[Piece]:
        """The pieces of a conversation; open: with the head of an assistant's turn behind it."""
        return list(self.write(turns, self.system, open))


def _split(turns: Sequence[Turn], default: str) -> tuple[str, Sequence[Turn]]:
    """(system text, the other turns)."""
    return (turns[0].text, turns[1:]) if turns and turns[0].role == "system" else (default, turns)


def _spaced(text: str) -> str:
    return f" {text}" if text else ""


def _marked(
    system: str,
    turns: Sequence[Turn],
    open: bool,
    gap: str,
    user: Callable[[Turn], str],
    head: str,
    answer: Callable[[str], str],
) -> Iterator[Piece]:
    """A format of plain marks: `gap` between all but behind an answer's end."""
    yield from (Piece(BEGIN, control=True), Piece(system))
    between = gap if system else ""
    for turn in turns:
        if turn.role == "assistant":
            yield Piece(between + head)
            yield from (Piece(answer(turn.text), learn=turn.train), Piece(END, True, turn.train))
        else:
            yield Piece(between + user(turn))
        between = "" if turn.role == "assistant" else gap
    if open:
        yield Piece(between + head)


def _vicuna(turns: Sequence[Turn], default: str, open: bool) -> Iterator[Piece]:
    """SYSTEM USER: x ASSISTANT: y</s>USER: ..."""
    system, rest = _split(turns, default)
    return _marked(system, rest, open, " ", lambda turn: "USER:" + _spaced(turn.text), "ASSISTANT:", _spaced)


def _koala(turns: Sequence[Turn], default: str, open: bool) -> Iterator[Piece]:
    """BEGINNING OF CONVERSATION: USER: x GPT:y</s>USER: ...; a system text goes behind the first words."""
    system, rest = _split(turns, default)
    system = "BEGINNING OF CONVERSATION:" + _spaced(system)
    return _marked(system, rest, open, " ", lambda turn: "USER:" + _spaced(turn.text), "GPT:", str)


def _alpaca(turns: Sequence[Turn], default: str, open: bool) -> Iterator[Piece]:
    """SENTENCES, ### Instruction:, perhaps ### Input:, ### Response:y</s>; see `Turn.instruction`."""
    system, rest = _split(turns, default)
    if len(rest) == len(turns) > 0 and turns[0].instruction:
        system = system.replace(_TASK, _TASK[:-1] + _PAIRED, 1)

    def user(turn: Turn) -> str:
        parted = f"{turn.instruction}\n\n"
        told = turn.text.replace(parted, f"{parted}### Input:\n", 1) if turn.instruction else turn.text
        return f"### Instruction:\n{told}"

    return _marked(system, rest, open, "\n\n", user, "### Response:", str)


def _coati(turns: Sequence[Turn], default: str, open: bool) -> Iterator[Piece]:
    """SYSTEM, Human: <s>x</s>Assistant: <s>y</s>Human: ..."""
    system, rest = _split(turns, default)
    begin = Piece(BEGIN, control=True)
    yield from (begin, Piece(f"{system.strip()}\n\n" if system.strip() else ""))
    for turn in rest:
        learn = turn.role == "assistant" and turn.train
        yield from (Piece("Assistant: " if turn.role == "assistant" else "Human: "), begin)
        yield from (Piece(turn.text.strip(), learn=learn), Piece(END, True, learn))
    if open:
        yield from (Piece("Assistant: "), begin)


def _llama2(turns: Sequence[Turn], default: str, open: bool) -> Iterator[Piece]:
    """<s>[INST] <<SYS>>\\nSYSTEM\\n<</SYS>>\\n\\nx [/INST] y </s><s>[INST] ..."""
    system, rest = _split(turns, default)
    head = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    if head and (not rest or rest[0].role == "assistant"):
        rest = [Turn("user", ""), *rest]
    ended = True
    for number, turn in enumerate(rest):
        if ended:
            yield Piece(BEGIN, control=True)
        text = turn.text.strip()
        if turn.role == "assistant":
            yield from (Piece(f"{_spaced(text)} ", learn=turn.train), Piece(END, True, turn.train))
        else:
            text = (head + text).strip() if number == 0 else text
            yield Piece(f"{'' if ended else ' '}[INST] {text} [/INST]")
        ended = turn.role == "assistant"
    if open and ended:
        yield Piece(BEGIN, control=True)


def _headed(
    turns: Sequence[Turn], default: str, open: bool, head: Callable[[str], list[Piece]], end: str, behind: str
) -> Iterator[Piece]:
    """A format of control tokens: every turn has a head with its role, and an end."""
    if default and not (turns and turns[0].role == "system"):
        turns = [Turn("system", default), *turns]
    for turn in turns:
        learn = turn.role == "assistant" and turn.train
        yield from (*head(turn.role), Piece(turn.text, learn=learn), Piece(end, True, learn), Piece(behind))
    if open:
        yield from head("assistant")


def _chatml(turns: Sequence[Turn], default: str, open: bool) -> Iterator[Piece]:
    """<|im_start|>user\\nx<|im_end|>\\n<|im_start|>assistant\\ny<|im_end|>\\n"""

    def head(role: str) -> list[Piece]:
        return [Piece("<|im_start|>", control=True), Piece(f"{role}\n")]

    return _headed(turns, default, open, head, "<|im_end|>", "\n")


def _llama3(turns: Sequence[Turn], default: str, open: bool) -> Iterator[Piece]:
    """<s>, then <|start_header_id|>user<|end_header_id|>\\n\\nx<|eot_id|> of each turn."""

    def head(role: str) -> list[Piece]:
        name = "ipython" if role == "tool" else role
        return [Piece("<|start_header_id|>", control=True), Piece(name),
                Piece("<|end_header_id|>", control=True), Piece("\n\n")]  # fmt: skip

    yield Piece(BEGIN, control=True)
    stripped = [replace(turn, text=turn.text.strip()) for turn in turns]
    yield from _headed(stripped, default.strip(), open, head, "<|eot_id|>", "")


_CURIOUS = (
    "A chat between a curious {0} and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the {0}'s questions."
)
_TASK = "Below is an instruction that describes a task."
_ALPACA = f"{_TASK} Write a response that appropriately completes the request."
_SOURCES = {
    "vicuna_v1.1": "LMSYS, FastChat (github.com/lm-sys/FastChat, fastchat/conversation.py, Apache-2.0)",
    "koala": "EasyLM (github.com/young-geng/EasyLM, docs/koala.md, Apache-2.0)",
    "alpaca": "Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca, train.py, Apache-2.0)",
    "coati": "ColossalChat (github.com/hpcaitech/ColossalAI, applications/ColossalChat/config, "
    "conversation_template/colossal-llama2.json, Apache-2.0)",
    "llama2": "Meta (github.com/meta-llama/llama, llama/generation.py, Llama 2 Community License)",
    "chatml": "OpenAI's chat markup, as SmolLM2 and Qwen have it (SmolLM2-135M-Instruct, Apache-2.0)",
    "llama3": "Meta (github.com/meta-llama/llama3, llama/tokenizer.py, Llama 3 Community License)",
}


def _format(
    name: str, write: Any, controls: Sequence[str], marks: Sequence[str], end: str = END, system: str = ""
) -> Format:
    return Format(name, _SOURCES[name], (*controls, end), (end,), tuple(marks), write, system)


_HEADER = ("<|start_header_id|>", "<|end_header_id|>")
FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        _format("vicuna_v1.1", _vicuna, (), ("USER:", "ASSISTANT:"), system=_CURIOUS.format("user")),
        _format("koala", _koala, (), ("BEGINNING OF CONVERSATION:", "USER:", "GPT:")),
        _format("alpaca", _alpaca, (), ("### Instruction:", "### Input:", "### Response:"), system=_ALPACA),
        _format("coati", _coati, (), ("Human:", "Assistant:"), system=_CURIOUS.format("human")),
        _format("llama2", _llama2, (), ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
        _format("chatml", _chatml, ("<|im_start|>",), (), "<|im_end|>"),
        _format("llama3", _llama3, _HEADER, (), "<|eot_id|>"),
    )
}


def encode(
    turns: Sequence[Turn],
    form: Format,
    tokenizer: TextTokenizer,
    *,
    open: bool = False,
    learn: Literal["all", "last"] = "all",
) -> Encoded:
    """Token ids of a conversation and which of them are learned.

    open: the head of an assistant's turn follows, for the model to go on from. learn: of "last", only the
    last of the assistant's turns. Raises UserError for an unknown role and for what the tokenizer lacks.
    """
    for number, turn in enumerate(turns, 1):
        if turn.role not in ROLES:
            raise UserError(f"turn {number}: the role {turn.role!r:.40} is none of {', '.join(ROLES)}")
    if learn == "last":
        last = max((number for number, turn in enumerate(turns) if turn.role == "assistant"), default=0)
        turns = [replace(turn, train=turn.train and number == last) for number, turn in enumerate(turns)]
    ids: list[int] = []
    learned: list[bool] = []
    text_before = False
    kept = [piece for piece in form.pieces(turns, open) if _ids(piece, form, tokenizer)]
    for (control, wanted), group in groupby(kept, key=lambda piece: (piece.control, piece.learn)):
        if control:
            new = [token for piece in group for token in _ids(piece, form, tokenizer)]
        else:
            text = "".join(piece.text for piece in group)
            new = tokenizer.encode_after(text) if text_before else tokenizer.encode(text)
        ids += new
        learned += [wanted] * len(new)
        text_before = not control
    return Encoded(ids, learned)


def _ids(piece: Piece, form: Format, tokenizer: TextTokenizer) -> Sequence[Any]:
    """The ids of a control token; of a text only whether there is one. Raises UserError where the tokenizer
    has no such token."""
    if not piece.control:
        return piece.text
    if piece.text == BEGIN:
        return tokenizer.bos
    found = _control_id(piece.text, tokenizer)
    if found is None:
        lacking = ", ".join(missing_controls(form, tokenizer))
        raise UserError(
            f"the format {form.name} needs control tokens that the tokenizer has not: {lacking}; add them, "
            "or take a format that needs an end token alone, such as vicuna_v1.1"
        )
    return [found]


def _control_id(name: str, tokenizer: TextTokenizer) -> int | None:
    if name == END:
        return tokenizer.eos_id if tokenizer.eos_id >= 0 else None
    return tokenizer.control_id(name)


def missing_controls(form: Format, tokenizer: TextTokenizer) -> list[str]:
    """The control tokens of a format that a tokenizer has not."""
    return [name for name in form.controls if _control_id(name, tokenizer) is None]


def stop_ids(form: Format, tokenizer: TextTokenizer) -> frozenset[int]:
    """The tokens that end an answer, of those that the tokenizer has."""
    found = (_control_id(name, tokenizer) for name in form.ends)
    return frozenset(token for token in found if token is not None)


def messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Turns as templates of other programs take them; `instruction` is there where a turn has one."""
    told = [{"role": turn.role, "content": turn.text, "instruction": turn.instruction} for turn in turns]
    return [{name: text for name, text in one.items() if text or name != "instruction"} for one in told]


@functools.cache
def _data() -> dict[str, Any]:
    """By format: its template, and what stands in other people's templates of it; Koala's markers."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


def jinja(form: Format, begins: bool = True) -> str:
    """A template with which transformers gives the ids of `encode`, but for texts that spell a control token,
    which become one there. begins: whether the tokenizer puts its begin token before a text (`adds_bos`)."""
    default = json.dumps(form.system, ensure_ascii=False)
    lines = (
        f"{{%- set begin = {'bos_token' if begins else repr('')} -%}}",
        f"{{%- set default = {default} -%}}",
        "{%- set has_system = messages and messages[0]['role'] == 'system' -%}",
        "{%- set system = messages[0]['content'] if has_system else default -%}",
        "{%- set rest = messages[1:] if has_system else messages -%}",
    )
    return "\n".join(lines) + _data()[form.name]["template"].rstrip("\n")


def recognise(template: str) -> Format | None:
    """The format of a model's template, with the system text that it puts by itself; None for an unknown one.

    By the marks in it: nothing of a model's files is run.
    """
    ours, others = (pattern.search(template) for pattern in _DEFAULTS)
    for form in FORMATS.values():
        told = _data()[form.name]
        if ours and template.rstrip().endswith(told["template"].rstrip()):
            return replace(form, system=json.loads(ours[1]))
        if all(mark in template for mark in told["known_by"]):
            if others and form.name == "chatml":
                return replace(form, system=others[1].replace("\\n", "\n"))
            return form
    return None


def conditioned(turns: Sequence[Turn], helpful: bool) -> tuple[Turn, ...]:
    """Turns with a marker that says whether people liked the answers, in front of what the system turn says.

    Koala learns from chosen and rejected answers alike, told apart by such markers, and is asked with the
    positive one (bair.berkeley.edu/blog/2023/04/03/koala). Its markers were not published; these are ours.
    """
    marker = _data()["feedback"]["helpful" if helpful else "unhelpful"]
    system, rest = _split(turns, "")
    return (Turn("system", f"{marker} {system}".rstrip()), *rest)
