"""A folder of one's own documents and chats -> sets of conversations, and the recipe that tunes on them.

found = find(Path("letters"))
sets, told = collect(found, "Ann", tokenizer)
write(sets, Path("out/letters"), base, "letters")
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from puna.corpus.record import SkippedRecord, digest
from puna.errors import UserError
from puna.run import files
from puna.run.artifact import MANIFEST
from puna.tokens.conversations import Conversation, Turn
from puna.tune import passages
from puna.tune.passages import Document

if TYPE_CHECKING:
    from puna.tokens.text_tokenizer import TextTokenizer

RECIPE, DATA, HELD_OUT = "personalize.toml", "data", "held_out.json"
MAX_TOKENS = 512
Row = dict[str, Any]


class Found(NamedTuple):
    """What is in a folder. documents: (reader of the corpus, path). unread: path and why."""

    folder: Path
    chats: list[Path]
    documents: list[tuple[str, Path]]
    unread: list[str]


class Collected(NamedTuple):
    """What a model learns from. sets: rows of each set by its name. held_out: {question, text} of passages
    that are asked afterwards only. counts: of files, documents, conversations, windows, passages."""

    sets: dict[str, list[Row]]
    held_out: list[dict[str, str]]
    counts: dict[str, int]


def find(folder: Path) -> Found:
    """Sort the files of a folder into chats and documents; hidden files, and results of Puna's, are left
    alone. Raises UserError where nothing can be read."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one with documents, chats or both")
    found = Found(folder, [], [], [])
    for path in _files(folder):
        if _is_chat(path):
            found.chats.append(path)
            continue
        try:
            reader, why = _reader(path), "no reader takes it, or it is packed: unpack it"
        except UserError as error:
            reader, why = "", str(error)
        if reader:
            found.documents.append((reader, path))
        else:
            found.unread.append(f"{path}: {why}")
    if not found.chats and not found.documents:
        raise UserError(
            f"{folder}: nothing that can be read; documents are texts, Markdown, HTML and the like, chats "
            "are JSON or lines of 'Name: text'"
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path / MANIFEST).exists() or (path / RECIPE).exists():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _is_chat(path: Path) -> bool:
    """Whether a file holds conversations: its first row that can be read has an answer."""
    from puna.tune import chat_log, readers

    try:
        if not readers.plain_suffix(path):
            return False
        if readers.plain_suffix(path) == ".txt":
            return bool(chat_log.senders(readers.text_of(path)))
        first = next((each for each in readers.read(path, chat_log.SECOND)), None)
    except UserError:
        return False
    turns = first.turns if isinstance(first, Conversation) else ()
    return any(turn.role == "assistant" for turn in turns)


def _reader(path: Path) -> str:
    """The reader of a file; "" for lists of addresses and archives. Raises UserError where there is none."""
    from puna.corpus.sources import discover

    (reader, uris), *_ = discover.sources([str(path)])[0].items()
    outside = any(discover.URL.fullmatch(uri) or "!" in uri for uri in uris)
    return "" if outside or reader in ("code", "none") else reader


def collect(found: Found, as_name: str, tokenizer: "TextTokenizer") -> Collected:
    """Read everything: chats in which `as_name`'s turns are learned, documents as windows of text and as
    questions. Raises UserError for chats between people where `as_name` is nobody."""
    documents = list(_documents(found))
    made = passages.passages(documents)
    learned = [turns for passage in made if not passage.held_out for turns in passages.as_turns(passage)]
    chats = list(_chats(found, as_name))
    windows = [text for document in documents for text in passages.windows(document, tokenizer)]
    sets = {
        "chats": [_row(each.turns) for each in chats],
        "questions": [_row(turns) for turns in learned],
        "texts": [_row([Turn("assistant", text)]) for text in windows],
    }
    held_out = [
        {"question": passage.questions[0], "text": passage.text} for passage in made if passage.held_out
    ]
    counts = {
        "chat files": len(found.chats),
        "conversations": len(chats),
        "documents": len(documents),
        "windows of text": len(windows),
        "passages": len(made),
        "passages held out": len(held_out),
    }
    if not any(sets.values()):
        raise UserError(f"{found.folder}: nothing to learn from: {'; '.join(found.unread[:3]) or 'no text'}")
    return Collected({name: rows for name, rows in sets.items() if rows}, held_out, counts)


def _documents(found: Found) -> Iterator[Document]:
    """The documents of all files, each text once; files that cannot be read go to `found.unread`."""
    from puna.corpus.extract import ASKS_FIRST
    from puna.corpus.readers import reader

    seen: set[str] = set()
    for name, path in found.documents:
        try:
            for raw in reader(name)(path, *([None] if name in ASKS_FIRST else [])):
                if isinstance(raw, SkippedRecord):
                    found.unread.append(f"{path}: {raw.reason}")
                elif digest(raw.text) not in seen:
                    seen.add(digest(raw.text))
                    title = " ".join((raw.title or path.stem).split())
                    yield Document(str(path.relative_to(found.folder)), title, raw.text)
        except (UserError, OSError, EOFError) as error:
            found.unread.append(f"{path}: {error}")


def _chats(found: Found, as_name: str) -> Iterator[Conversation]:
    from puna.tune import readers

    for path in found.chats:
        for each in readers.read(path, as_name):
            if isinstance(each, Conversation):
                yield each
            else:
                found.unread.append(f"{path}, row {each.row}: {each.message}")


def _row(turns: Sequence[Turn]) -> Row:
    return {"messages": [
        {"role": turn.role, "content": turn.text} | ({} if turn.train else {"train": False}) for turn in turns
    ]}  # fmt: skip


def write(collected: Collected, out: Path, recipe: str) -> None:
    """Write the sets, the held-out questions and the recipe into a folder, each where it has changed. Raises
    UserError where the recipe there was edited."""
    for name, rows in collected.sets.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _write(out / DATA / f"{name}.jsonl", lines)
    _write(out / DATA / HELD_OUT, json.dumps(collected.held_out, ensure_ascii=False, indent=1) + "\n")
    _write(out / RECIPE, recipe)


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, text)
