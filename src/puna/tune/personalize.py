"""A folder of one's own documents and chats -> sets of conversations, and the recipe that tunes on them.

found = find(Path("letters"))
sets, told = collect(found, "Ann", tokenizer)
write(sets, Path("out/letters"), base, "letters")
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from puna.corpus.record import SkippedRecord, digest
from puna.errors import UserError
from puna.run import files
from puna.run.artifact import MANIFEST
from puna.text.lists import filled
from puna.tokens.conversations import Conversation, Turn
from puna.tune import passages
from puna.tune.passages import Document

if TYPE_CHECKING:
    from puna.tokens.chat import Format
    from puna.tokens.text_tokenizer import TextTokenizer
    from puna.tune.audit import Audit

RECIPE, DATA, HELD_OUT = "personalize.toml", "data", "held_out.json"
HEAD = "# by puna personalize; change it by hand, and run it with puna tune. Written as "
PERSONAL = "personal data"
MAX_TOKENS = 512
LONGEST_EPOCHS = 8
TOKENS = 14_000  # of the folder that are seen in all epochs, where it has fewer
Row = dict[str, Any]


class Found(NamedTuple):
    """What is in a folder. documents: (reader of the corpus, path). unread: path and why."""

    folder: Path
    chats: list[Path]
    documents: list[tuple[str, Path]]
    unread: list[str]


class Collected(NamedTuple):
    """What a model learns from. sets: rows of each set by its name. held_out: {question, text} of passages
    that are asked afterwards only. max_tokens: of a row; tokens: of all. counts: of files, documents and
    rows. personal: where personal data and secrets stand."""

    sets: dict[str, list[Row]]
    held_out: list[dict[str, str]]
    max_tokens: int
    tokens: int
    counts: dict[str, int]
    personal: list[str]


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
        raise UserError(f"{folder}: nothing that can be read, neither documents nor chats")
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path / MANIFEST).exists() or (path / RECIPE).exists():
            continue
        if path.is_dir():
            yield from _files(path) if not path.is_symlink() else ()  # a link may lead around in a circle
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


def collect(
    found: Found, as_name: str, form: "Format", tokenizer: "TextTokenizer", context: int = MAX_TOKENS
) -> Collected:
    """Read and audit everything: chats in which `as_name`'s turns are learned, documents as windows of text
    and as questions. context: tokens that the model reads. Raises UserError for chats between people where
    `as_name` is nobody."""
    from puna.tune.audit import Auditor, audit

    documents, most = list(_documents(found)), min(MAX_TOKENS, context)
    chats = list(without_repeats(_chats(found, as_name)))
    pages = (Conversation((Turn("assistant", each.text),), each.name) for each in documents)
    audited = audit([*pages, *chats], Auditor(form))
    made = passages.passages(documents)
    pairs = [(question, one.text) for one in made if not one.held_out for question in one.questions]
    texts = [text for each in documents for text in passages.windows(each, tokenizer, 3 * most // 4)]
    sets = {
        "chats": [_row(each.turns) for each in chats],
        "questions": [_row([Turn("user", asked), Turn("assistant", text)]) for asked, text in pairs],
        "texts": [_row([Turn("assistant", text)]) for text in texts],
    }
    sets = {name: rows for name, rows in sets.items() if rows}
    if not sets:
        raise UserError(f"{found.folder}: nothing to learn from: {'; '.join(found.unread[:3]) or 'no text'}")
    held_out = [{"question": each.questions[0], "text": each.text} for each in made if each.held_out]
    every = [turn["content"] for rows in sets.values() for row in rows for turn in row["messages"]]
    counts = {"documents": len(documents), "chat files": len(found.chats)}
    counts |= {name: len(rows) for name, rows in sets.items()} | {"questions held out": len(held_out)}
    tokens = sum(len(tokenizer.encode(text)) for text in every)
    return Collected(sets, held_out, most, tokens, counts, list(_personal(audited)))


def _personal(audited: "Audit") -> Iterator[str]:
    for verdict in audited.verdicts:
        place = verdict.row.source + (f", row {verdict.row.row}" if verdict.row.row else "")
        told = (finding.told for finding in verdict.findings if finding.kind == PERSONAL)
        yield from (f"{place}: {each}" for each in told)


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
    """All conversations; rows that are none go to `found.unread`."""
    from puna.tune import readers

    for path in found.chats:
        for each in readers.read(path, as_name):
            if isinstance(each, Conversation):
                yield each
            else:
                found.unread.append(f"{path}, row {each.row}: {each.message}")


def without_repeats(conversations: Iterable[Conversation]) -> Iterator[Conversation]:
    """Leave out most rounds whose answer others gave word by word: of n equal ones √n stay, the 1st, 2nd,
    5th, 10th, ... So neither greetings nor one sentence for many questions drown what is said seldom."""
    seen: Counter[tuple[str, ...]] = Counter()
    for each in conversations:
        starts = [place for place, turn in enumerate(each.turns) if turn.role == "user"] + [len(each.turns)]
        kept = list(each.turns[: starts[0]])
        for start, end in itertools.pairwise(starts):
            answer = tuple(turn.text for turn in each.turns[start:end] if turn.role == "assistant")
            kept += each.turns[start:end] if math.isqrt(seen[answer]) ** 2 == seen[answer] else ()
            seen[answer] += bool(answer)  # what nobody answers is left to the audit
        if len(kept) > starts[0] or len(starts) == 1:  # without a question, which the audit tells
            yield replace(each, turns=tuple(kept))


def _row(turns: Sequence[Turn]) -> Row:
    return {"messages": [
        {"role": turn.role, "content": turn.text} | ({} if turn.train else {"train": False}) for turn in turns
    ]}  # fmt: skip


def recipe(name: str, base: Path, collected: Collected) -> str:
    """The TOML of a tuning recipe; its first line says the digest of the others."""
    data, passes = "", TOKENS / collected.tokens
    epochs = min(LONGEST_EPOCHS, max(1, round(passes)))
    for each in collected.sets:
        data += f'\n[data.{each}]\nfiles = ["{DATA}/{each}.jsonl"]\nlicence = "your own"\n'
        data += f"weight = {passes / epochs:.2f}\n" if 1 < passes / epochs < 2 else ""
        data += 'template = "text"\n' if each == "texts" else 'defects = "drop"\n'
    text = filled(
        __file__,
        RECIPE,
        title=json.dumps(name),
        weights=json.dumps(str(base), ensure_ascii=False),  # TOML takes no halves of characters
        data=data,
        max_tokens=str(collected.max_tokens),
        epochs=str(epochs),
        passages=json.dumps(f"{DATA}/{HELD_OUT}" if collected.held_out else ""),
    )
    return f"{HEAD}{digest(text)}\n{text}"


def write(collected: Collected, out: Path, text: str) -> None:
    """Write the sets, the held-out questions and the recipe into a folder, each where it has changed. Raises
    UserError where the recipe there was edited."""
    path = out / RECIPE
    head, _, rest = path.read_text("utf-8").partition("\n") if path.is_file() else ("", "", "")
    if rest and head != HEAD + digest(rest):
        raise UserError(
            f"{path} was edited, and would be written anew: run `puna tune {path}`, remove it, or give this "
            "model another folder with --name"
        )
    for name, rows in collected.sets.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _write(out / DATA / f"{name}.jsonl", lines)
    _write(out / DATA / HELD_OUT, json.dumps(collected.held_out, ensure_ascii=False, indent=1) + "\n")
    _write(path, text)


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, text)
