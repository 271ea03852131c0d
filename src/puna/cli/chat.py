"""puna chat: a conversation with a model in the terminal, or by lines of a pipe."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from puna.cli.arguments import ModelArgument, ModeOption
from puna.cli.model import opened
from puna.errors import UserError
from puna.tokens.conversations import Turn

if TYPE_CHECKING:
    from puna.generate.engine import Engine, Piece, Sampling
    from puna.generate.sequences import Writing
    from puna.tokens.chat import Format

HELP = """/retry  another answer        /undo   take the last message back
/new    begin anew            /quit   end, as Ctrl-D does
Ctrl-C stops an answer. A line that ends with \\ goes on in the next one;
one that begins with a space is said, whatever it is."""
CONTEXT_TOKENS = 4_096  # of a longer context, keys and values of so many are held at once
# What a model writes moves no cursor: control characters but tab and line feed are shown as U+FFFD.
UNSEEN = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")


def chat(
    model: ModelArgument,
    system: Annotated[str | None, typer.Option(help="what the model is told before the conversation")] = None,
    form: Annotated[str | None, typer.Option("--format", help="chat format of a model without")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="most tokens of an answer")] = 1000,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="as of puna generate")] = 0.95,
    top_k: Annotated[int, typer.Option(min=0, help="as of puna generate; 0: all")] = 0,
    seed: Annotated[int, typer.Option(help="the same seed gives the same answers")] = 0,
    mode: ModeOption = "float32",
) -> None:
    """Talk with a model in its chat format; a base model goes on from what is typed."""
    from puna.generate.decoder import BLOCK, block_bytes
    from puna.generate.engine import MEMORY_BYTES, Engine, Sampling
    from puna.generate.load import built

    found = opened(model)
    known, told = _format(found.chat_template, form)
    if known is None and system is not None:
        raise UserError(f"--system is for a chat format, and {told}: name one with --format")
    loaded = built(found)
    context = loaded.model.config.max_seq_len
    held = (min(context, CONTEXT_TOKENS) // BLOCK + 2) * block_bytes(loaded.model)
    engine = Engine(loaded.model, loaded.tokenizer, mode=mode, memory_bytes=max(held, MEMORY_BYTES))
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
    talk = Conversation(engine, known, system, tokens, sampling, seed)
    talk.prompt([""])  # what the tokenizer lacks is told before anything is said
    _tell(f"{model}: {told}; it reads {context:,} tokens. /help lists commands")
    for line in _lines():
        try:
            if talk.take(line):
                return
        except UserError as error:
            if not sys.stdin.isatty():
                raise
            _tell(str(error))


def _format(template: str | None, named: str | None) -> "tuple[Format | None, str]":
    """(format, what is said of it); none: the model is continued. Raises UserError for an unknown name."""
    from puna.tokens.chat import FORMATS, recognise

    if named is not None and named not in FORMATS:
        raise UserError(f"--format {named}: no such chat format; there are {', '.join(FORMATS)}")
    found = recognise(template) if template is not None else None
    if named is not None and (found is None or found.name != named):
        return FORMATS[named], f"chat format {named}, as you say"
    if found is not None:
        return found, f"chat format {found.name}, by the model's template"
    why = "has no chat template" if template is None else "has a chat template that is not known here"
    return None, f"the model {why}, so it goes on from what you type and nothing is put around it"


@dataclass
class Conversation:
    """A model and what was said so far. form: None for a model that is continued. tokens: most of an answer.
    said: messages and answers in turn. tries: how often the last message was answered anew."""

    engine: "Engine"
    form: "Format | None"
    system: str | None
    tokens: int
    sampling: "Sampling"
    seed: int
    said: list[str] = field(default_factory=list)
    tries: int = 0

    def prompt(self, said: list[str]) -> list[int]:
        """The ids that an answer to the last message follows."""
        from puna.tokens import chat

        tokenizer = self.engine.tokenizer
        if self.form is None:
            pairs = zip(said[::2], [*said[1::2], ""], strict=True)
            text = "\n".join(message + answer for message, answer in pairs)
            return [*tokenizer.bos, *tokenizer.encode(text)]
        roles = ("user", "assistant")
        turns = [Turn(roles[number % 2], text) for number, text in enumerate(said)]
        if self.system is not None:
            turns.insert(0, Turn("system", self.system))
        return chat.encode(turns, self.form, tokenizer, open=True).ids

    def take(self, line: str) -> bool:
        """Do what a line says; True where it ends the conversation."""
        if line == "/new":
            self.said, self.tries = [], 0
            _tell("begun anew")
        elif line in ("/retry", "/undo") and not self.said:
            _tell("nothing is said yet")
        elif line == "/undo":
            _tell(f"taken back: {self.said[-2][:80]}")
            self.said, self.tries = self.said[:-2], 0
        elif line == "/retry":
            self.answer(self.said[:-1], self.tries + 1)
        elif line.startswith("/") and line != "/quit":
            _tell(HELP if line == "/help" else f"no command {line.split()[0]}; /help lists commands")
        elif line.strip() and line != "/quit":
            self.answer([*self.said, line], 0)
        return line == "/quit"

    def answer(self, said: list[str], tries: int) -> None:
        """Write an answer to the last message. Raises UserError where the context has no room for one."""
        from puna.generate.engine import Request
        from puna.tokens import chat

        ids, context, tokenizer = self.prompt(said), self.engine.context, self.engine.tokenizer
        room = min(self.tokens, context - len(ids))
        if room < 1:
            raise UserError(
                f"the conversation has {len(ids):,} tokens, and the model reads {context:,}: begin anew with "
                "/new, take the last message back with /undo, or say it shorter"
            )
        stops = tokenizer.stops | (chat.stop_ids(self.form, tokenizer) if self.form else frozenset())
        show = _shown(strip=self.form is not None)
        writing = self.engine.submit(Request(ids, room, self.sampling, (), stops, self.seed, tries, show))
        self._write(writing)
        print(flush=True)
        self.said, self.tries = [*said, writing.text.strip() if self.form else writing.text], tries
        used = len(ids) + len(writing.new_tokens)
        why = {"length": f" cut after --tokens {room:,}", "cancelled": " stopped"}.get(writing.finish, "")
        if writing.finish == "length" and used >= context:
            why = " cut: the context is full; /new begins anew"
        _tell(f"[{used:,} of {context:,} tokens]{why}")

    def _write(self, writing: "Writing") -> None:
        """Let an answer grow to its end, or to Ctrl-C: between two tokens, so that the engine stays whole."""
        asked: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
        try:
            while not asked and self.engine.step():
                pass
        finally:
            signal.signal(signal.SIGINT, before)
        self.engine.cancel(writing)


def _shown(strip: bool) -> "Callable[[Piece], None]":
    """What prints the pieces of an answer as they come, with strip without the white space before it."""
    begun = not strip

    def show(piece: "Piece") -> None:
        nonlocal begun
        text = piece.text if begun else piece.text.lstrip()
        begun = begun or bool(text)
        print(text.translate(UNSEEN), end="", flush=True)

    return show


def _lines() -> Iterator[str]:
    """Messages as they are typed, or the lines of a pipe."""
    asked = sys.stdin.isatty() and sys.stdout.isatty()
    if asked:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (lines can be edited, and come back)
    parts: list[str] = []
    while True:
        try:
            line = input(("> " if not parts else ". ") if asked else "")
        except KeyboardInterrupt:
            if not asked:
                return
            _tell("\n/quit or Ctrl-D ends")
            parts = []
            continue
        except UnicodeDecodeError as error:
            raise UserError(f"what is said is no UTF-8: {error}") from error
        except EOFError:
            print(end="\n" if asked else "")
            if parts:
                yield "\n".join(parts)
            return
        parts.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield "\n".join(parts)
            parts = []


def _tell(text: str) -> None:
    """Say something that is no part of the conversation."""
    print(f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
