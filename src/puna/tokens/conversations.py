"""Conversations as every room knows them: turns of roles, and where they come from."""

from dataclasses import dataclass

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Turn:
    """What one side says. role: of ROLES. train: whether an assistant's turn is learned, its end with it; the
    turns of others never are. instruction: of a user's turn that has Alpaca's two parts, whose text is
    `instruction + "\\n\\n" + input`, the first of them; else empty."""

    role: str
    text: str
    train: bool = True
    instruction: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns in their order. source: the file that it comes from; row: its line, or its place in a list, from
    1. rejected: the last answer that people liked less than the last turn, of data that compare two."""

    turns: tuple[Turn, ...]
    source: str = ""
    row: int = 0
    rejected: Turn | None = None
