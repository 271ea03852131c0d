"""Files that people have -> conversations: the form of a row is known by its own keys.

    for each in read(Path("sharegpt.json")):
        if isinstance(each, BadRow): ...

FORMS lists the forms in the order in which they are tried: add one there. Chat logs are in `chat_log.py`.
"""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.text import markdown
from puna.tokens.conversations import Conversation, Turn
from puna.tune import chat_log

UNREADABLE, UNKNOWN_ROLE = "unreadable row", "unknown role"
DIFFERENT_PROMPTS, NO_CHOICE = "different prompts", "chosen = rejected"
UNREAD = (".csv", ".tsv", ".pdf", ".xlsx", ".docx", ".parquet", ".arrow")
SUFFIXES = (".json", ".jsonl", ".ndjson", ".txt")  # each also .gz
_SPEAK = {"user": "user human prompter", "assistant": "assistant gpt chatgpt bot model bing bard ai"}
_HELP = {"system": "system developer", "tool": "tool function observation ipython"}
ROLES = {name: role for role, names in (_SPEAK | _HELP).items() for name in names.split()}
# Keys that mean one thing, the first that a row has counts.
MESSAGES = "messages|conversations|conversation|dialogue|dialog|items"
PROMPTS = "instruction|prompt|question|context|query|user|user_input|human|inputs"
ANSWERS = "output|completion|response|answer|bot|assistant|gpt|targets"
_SYSTEMS, _LISTS, _PARTS = "system|system_prompt", "data|rows|examples", "content|value|text"
_ROLE, _SENDER = "role|from", "sender|from|author|speaker|name"
_HH, _OIG = re.compile(r"\n\n(Human|Assistant):"), re.compile(r"(?:\A|\n)\s*<(human|bot)>:")
_VALUE, _HALF = re.compile(r"[^\s,]"), re.compile("[\ud800-\udfff]")
Row = dict[str, Any]
# For people; keys that a row of this form has, "a|b" where one of them is enough; (row, its keys in lower
# case, whose turns are the assistant's) to its conversations, where it is no Unfit one.
Form = tuple[str, tuple[str, ...], Callable[[Row, str], Sequence[Conversation]]]


@dataclass(frozen=True)
class BadRow:
    """A row that is no conversation that one can learn from.

    kind: of `audit.KINDS`. message: what is wrong, and what would be right. conversation: what could be read
    of it, if anything. raw: how the row begins, where nothing could be.
    """

    source: str
    row: int
    kind: str
    message: str
    conversation: Conversation | None = None
    raw: str = ""


class Unfit(Exception):
    """A row is no conversation: kind, message, and conversation if any, of a BadRow."""


def read(path: Path, as_name: str = "") -> Iterator[Conversation | BadRow]:
    """Yield the conversations of a file, or of all files of a folder, with their places.

    as_name: in chats between people, whose turns are the assistant's; `chat_log.SECOND`: whoever answers the
    first message. Raises UserError for a file that cannot be read, and for chats where nobody is named.
    """
    if path.is_dir():
        for each in files_in(path):
            yield from read(each, as_name)
        return
    if path.suffix.lower() in UNREAD:
        raise UserError(f"{path}: {path.suffix} is not read; write its rows into {', '.join(SUFFIXES)}")
    try:
        if plain_suffix(path) == ".txt":
            made = chat_log.conversations(text_of(path), as_name)
            yield from (Conversation(turns, str(path), row) for row, turns in made)
            return
        for number, content in rows(path):
            yield from read_row(content, str(path), number, as_name)
    except chat_log.Nameless as error:
        raise UserError(f"{path}: {error}") from error


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of those in it that are read. Raises UserError where there are none."""
    files = [each for each in sorted(folder.rglob("*")) if each.is_file() and plain_suffix(each)]
    if not files:
        raise UserError(f"{folder}: no data in it; data is in files *{', *'.join(SUFFIXES)}, or these .gz")
    return files


def plain_suffix(path: Path) -> str:
    """The suffix of SUFFIXES that a file has before any .gz; "" for files that are not read."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def text_of(path: Path) -> str:
    """Return the text of a file, unpacked. Raises UserError."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path}: cannot be read, as text in UTF-8, with .gz packed by gzip: {error}"
        ) from error


def rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, or place in a list from 1; content) of a file of JSON or JSON lines; a ValueError as the
    content of a line that is no JSON. Raises UserError for a file that is none at all."""
    text = text_of(path)
    if plain_suffix(path) == ".json":
        try:
            yield from enumerate(_listed(json.loads(text)), 1)
            return
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":  # which JSON lines have, whatever their file is called
                raise UserError(f"{path}: no JSON: {error}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: no JSON that is read here: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, error
            except (ValueError, RecursionError) as error:  # too long a number, lists too deep in each other
                yield number, json.JSONDecodeError(str(error), line, 0)


def _listed(content: Any) -> Sequence[Any]:
    """The rows of a JSON file: a list, a list under one key, or an object of rows by their names."""
    rows = _first(content, _LISTS) or list(content.values()) if isinstance(content, dict) else content
    named = isinstance(rows, list) and all(isinstance(row, dict) for row in rows) and rows
    return rows if named or isinstance(content, list) else [content]


def lines(path: Path) -> list[int]:
    """Return the line on which each row of a JSON list begins; [] for files whose rows are lines."""
    text, found, line, counted = text_of(path), list[int](), 1, 0
    if plain_suffix(path) != ".json" or text.lstrip()[:1] != "[":
        return found
    end = text.find("[") + 1
    while (value := _VALUE.search(text, end)) and value[0] != "]":
        line += text.count("\n", counted, value.start())
        counted = value.start()
        found.append(line)
        _, end = json.JSONDecoder().raw_decode(text, counted)
    return found


def form_of(row: Row) -> Form | None:
    """Return the form that a row has; None for a row of no known form."""
    keys = {str(key).lower() for key in row}
    return next((form for form in FORMS if all(keys.intersection(key.split("|")) for key in form[1])), None)


def read_row(content: Any, source: str, number: int, as_name: str = "") -> Iterator[Conversation | BadRow]:
    """Yield the conversations of one row, or why there are none. Raises UserError where nobody is named."""
    try:
        if isinstance(content, ValueError):
            raise Unfit(UNREADABLE, f"no JSON: {content}")
        row = content if isinstance(content, dict) else {"messages": content}
        form = form_of(row)
        if form is None:
            known = "; ".join(name for name, *_ in FORMS)
            raise Unfit(UNREADABLE, f"no known form: {', '.join(map(str, row))}; known are {known}")
        for each in form[2]({str(key).lower(): value for key, value in row.items()}, as_name):
            "".join(turn.text for turn in said(each)).encode()  # halves of characters cannot be
            yield replace(each, source=source, row=number)
    except Unfit as error:
        kind, told, seen = (*error.args, None)[:3]
        seen = replace(seen, source=source, row=number) if seen and _is_text(seen) else None
        yield BadRow(source, number, kind, told, seen, "" if seen else _excerpt(content))
    except (TypeError, KeyError, AttributeError, IndexError, ValueError, RecursionError) as error:
        told = f"a value that its form does not have: {type(error).__name__} {error}"
        yield BadRow(source, number, UNREADABLE, told, None, _excerpt(content))


def _is_text(conversation: Conversation) -> bool:
    """Whether all turns are texts that UTF-8 can represent."""
    return all(isinstance(turn.text, str) and not _HALF.search(turn.text) for turn in said(conversation))


def _excerpt(content: Any) -> str:
    text = getattr(content, "doc", "") or json.dumps(content, ensure_ascii=False)
    return text[:2_000].encode("utf-8", "replace").decode()


def said(conversation: Conversation) -> list[Turn]:
    """All turns, the rejected answer behind the last."""
    return [*conversation.turns, *([conversation.rejected] if conversation.rejected else ())]


def _first(row: Row, keys: str) -> Any:
    """The value of the first of some keys that a row has; "" where it has none."""
    return next((row[key] for key in keys.split("|") if row.get(key) is not None), "")


def _messages(said: Any, as_name: str = "", alone: str = "user") -> list[Turn]:
    """Turns of a text, of a text with marks of HH or OIG, of a list of messages, or of a list of such lists.

    alone: role of a text without marks. Raises Unfit for what is none of these.
    """
    if isinstance(said, str):
        return _cut(said) or [Turn(alone, said)]
    listed: Sequence[Any] = [said] if isinstance(said, dict) else said
    flat = [each for item in listed for each in (item if isinstance(item, list) else [item])]
    if flat and isinstance(flat[0], str):
        return [Turn(("user", "assistant")[place % 2], text) for place, text in enumerate(flat)]
    senders = [str(_first(message, _SENDER)) for message in flat]
    between_people = all(senders) and not {sender.lower() for sender in senders} <= ROLES.keys()
    if flat and between_people and (as_name or not _first(flat[0], _ROLE)):
        texts = [_text(_first(message, _PARTS)) for message in flat]
        return chat_log.turns(list(zip(senders, texts, strict=True)), as_name)
    return [turn for message in flat for turn in _turns_of(message)]


def _cut(text: str) -> list[Turn]:
    """Turns of a text that begins with a mark of HH or OIG; [] for other texts."""
    mark = next((mark for mark in (_HH, _OIG) if mark.match(text)), None)
    _, *parts = mark.split(text) if mark else ("",)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [Turn(ROLES[role.lower()], said.strip()) for role, said in pairs]


def _turns_of(message: Row) -> list[Turn]:
    """The turn of a message, or both of {"user": ..., "bot": ...}. Raises Unfit for an unknown role."""
    role = _first(message, _ROLE)
    if not role:
        return list(_pair(message, "")[0].turns)
    if (known := ROLES.get(str(role).lower())) is None:
        why = f"unknown role {role!r}; known are {', '.join(ROLES)}; where it is a person, say --as NAME"
        raise Unfit(UNKNOWN_ROLE, why)
    content = _first(message, _PARTS)
    if not content and message.get("tool_calls"):
        raise Unfit(UNREADABLE, "calls of tools (tool_calls) are not read; write them out as content")
    text = _text(content)
    if known == "assistant" and "value" in message and markdown.is_html(text):
        text = markdown.from_html(text)
    learned = message.get("train", message.get("weight", 1)) not in (False, 0)
    instruction = message.get("instruction")
    return [Turn(known, text, learned, instruction if isinstance(instruction, str) else "")]


def _text(content: Any) -> str:
    """A message's text: a string, or the parts of one. Raises Unfit for other parts, such as images."""
    parts: Any = [content] if isinstance(content, str | dict) else content
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Unfit(UNREADABLE, f"only text is read, and not the part {_excerpt(parts)[:80]}")
    return "".join(texts)


def _prompt(row: Row) -> list[Turn]:
    """The turns before the answer: system, then a text, an instruction with its input, or messages."""
    asked, given = _first(row, PROMPTS), row.get("input") or row.get("context") or ""
    turns = _messages(asked or given) if asked or given else []
    if asked and given and given is not asked and isinstance(asked, str):
        turns = [Turn("user", f"{asked}\n\n{_text(given)}", instruction=asked)]
    if turns and turns[-1] == Turn("assistant", ""):  # "\n\nAssistant:" ends the prompts of some sets
        turns.pop()
    return _with_system(row, turns)


def _with_system(row: Row, turns: list[Turn]) -> list[Turn]:
    system = _first(row, _SYSTEMS)
    return [Turn("system", system), *turns] if system and "system" not in [t.role for t in turns] else turns


def _list(row: Row, as_name: str) -> Sequence[Conversation]:
    turns = tuple(_with_system(row, _messages(_first(row, MESSAGES), as_name)))
    rejected = row.get("rejected")
    return [Conversation(turns, rejected=Turn("assistant", rejected) if rejected is not None else None)]


def _pair(row: Row, as_name: str) -> Sequence[Conversation]:
    if not (answer := _first(row, ANSWERS)) and not _prompt(row):
        raise Unfit(UNREADABLE, f"a message without a role ({', '.join(row)})")
    return [Conversation((*_prompt(row), *_messages(answer, alone="assistant")))]


def _marked(row: Row, as_name: str) -> Sequence[Conversation]:
    if not (turns := _cut(row["text"])):
        alone = Conversation((Turn("assistant", row["text"]),))
        raise Unfit(UNREADABLE, "a text alone; a conversation in it begins with <human>:", alone)
    return [Conversation(tuple(turns))]


def _instances(row: Row, as_name: str) -> Sequence[Conversation]:
    return [_pair({"instruction": row["instruction"], **each}, "")[0] for each in row["instances"]]


def _hc3(row: Row, as_name: str) -> Sequence[Conversation]:
    """HC3's answers of people and of ChatGPT are a conversation each, as Koala takes them."""
    answers = [*row["human_answers"], *row["chatgpt_answers"]]
    return [Conversation((Turn("user", row["question"]), Turn("assistant", each))) for each in answers]


# Pairs of answers, of which people liked one more.


def _preference(row: Row, as_name: str) -> Sequence[Conversation]:
    """Answers, or whole conversations, under `chosen` and `rejected`; the prompt may stand beside them."""
    before = _prompt(row)
    sides = [_messages(row[side], alone="assistant") for side in ("chosen", "rejected")]
    chosen, rejected = (side if side[: len(before)] == before else [*before, *side] for side in sides)
    conversation = Conversation(tuple(chosen), rejected=rejected[-1] if rejected else None)
    if not chosen or chosen[:-1] != rejected[:-1]:
        raise Unfit(DIFFERENT_PROMPTS, "chosen and rejected differ before the last answer", conversation)
    return [conversation]


def _two_outputs(row: Row, as_name: str) -> Sequence[Conversation]:
    """AlpacaFarm's and AlpacaEval's: preference is 1 or 2; 0 or none: neither is liked more."""
    liked = row.get("preference")
    choice = int(liked) - 1 if liked in (1, 2) else None
    return _choose(_prompt(row), (row["output_1"], row["output_2"]), choice)


def _webgpt(row: Row, as_name: str) -> Sequence[Conversation]:
    question, scores = row["question"], (row["score_0"], row["score_1"])
    asked = question["full_text"] if isinstance(question, dict) else question
    choice = None if scores[0] == scores[1] else int(scores[1] > scores[0])
    return _choose([Turn("user", asked)], (row["answer_0"], row["answer_1"]), choice)


def _summaries(row: Row, as_name: str) -> Sequence[Conversation]:
    """OpenAI's comparisons of summaries, asked for as Stiennon et al. 2020 do (appendix B.5)."""
    info = row["info"]
    asked = "".join(f"{key.upper()}: {info[key]}\n" for key in ("subreddit", "title") if info.get(key))
    asked += f"POST: {_first(info, 'post|article')}\nTL;DR:"
    answers = [summary["text"].strip() for summary in row["summaries"]]
    return _choose([Turn("user", asked)], answers, row["choice"])


def _choose(prompt: list[Turn], answers: Sequence[str], choice: int | None) -> Sequence[Conversation]:
    turns = [Turn("assistant", answer) for answer in answers]
    conversation = Conversation((*prompt, turns[choice or 0]), rejected=turns[1 - (choice or 0)])
    if choice is None:
        raise Unfit(NO_CHOICE, "neither answer is liked more", conversation)
    return [conversation]


# Trees, of which one path is taken.


def _oasst(row: Row, as_name: str) -> Sequence[Conversation]:
    """OpenAssistant's trees: the path of the replies that people ranked first, up to its last answer."""
    node, turns = row if "replies" in row else row["prompt"], list[Turn]()
    while node:
        turns += _turns_of({"role": node["role"], "text": node["text"]})
        replies = [reply for reply in node["replies"] if not reply.get("deleted")]
        node = min(replies, key=lambda reply: (reply.get("rank") is None, reply.get("rank")), default=None)
    return [Conversation(tuple(turns[:-1] if len(turns) > 1 and turns[-1].role == "user" else turns))]


def _chatgpt(row: Row, as_name: str) -> Sequence[Conversation]:
    """ChatGPT's export: the path to the current node; hidden messages, tools and what is no text are left
    out, and messages in a row of one side joined."""
    nodes, at, path = row["mapping"], row["current_node"], list[Row]()
    while at in nodes and len(path) <= len(nodes):
        path.insert(0, nodes[at].get("message") or {})
        at = nodes[at].get("parent")
    said = [(ROLES[each["author"]["role"]], text) for each in path if (text := _shown(each))]
    return [Conversation(tuple(chat_log.merged(said, "\n\n")))]


def _shown(message: Row) -> str:
    content, meta = message.get("content") or {}, message.get("metadata") or {}
    hidden = meta.get("is_visually_hidden_from_conversation") or message.get("recipient") not in ("all", None)
    if hidden or content.get("content_type") not in ("text", "multimodal_text"):
        return ""
    parts = content["parts"] if message["author"]["role"] != "tool" else ()
    return "\n".join(part for part in parts if isinstance(part, str)).strip()


FORMS: tuple[Form, ...] = (
    ("ChatGPT export (mapping, current_node)", ("mapping", "current_node"), _chatgpt),
    ("pairs (chosen, rejected)", ("chosen", "rejected"), _preference),
    ("two outputs (output_1, output_2)", ("output_1", "output_2"), _two_outputs),
    ("two answers (answer_0, answer_1, scores)", ("answer_0", "answer_1", "score_0"), _webgpt),
    ("two summaries (info, summaries, choice)", ("info", "summaries", "choice"), _summaries),
    ("messages (role/content, from/value, sender/text)", (MESSAGES,), _list),
    ("OpenAssistant tree (message_tree_id, prompt)", ("message_tree_id", "prompt"), _oasst),
    ("OpenAssistant message (text, replies)", ("text", "role", "replies"), _oasst),
    ("instruction, instances", ("instruction", "instances"), _instances),
    ("HC3 (human_answers, chatgpt_answers)", ("question", "human_answers", "chatgpt_answers"), _hc3),
    (f"prompt ({PROMPTS}) and answer ({ANSWERS})", (f"{PROMPTS}|input", ANSWERS), _pair),
    ("prompt alone", ("instruction|prompt",), lambda row, _: [Conversation(tuple(_prompt(row)))]),
    ("text with <human>: and <bot>:", ("text",), _marked),
)
