"""What every tokenizer can do, whatever its kind: text to ids and back, the id that begins, those that end.

Exactly one begin token stands before a text, or none, as the tokenizer's own flag says:

    [*tokenizer.bos, *tokenizer.encode(text)]

Text is only ever text: a control token that a text spells, such as `</s>`, becomes the ids of its letters.
"""

from typing import Protocol


class Stream(Protocol):
    """Ids to text, one after the other; only whole characters come out."""

    def add(self, token: int) -> str:
        """Return the text that a token completes; it may be empty."""

    def end(self) -> str:
        """Return the text of the bytes that still wait, U+FFFD for those that are no character."""


class TextTokenizer(Protocol):
    """vocab_size: ids are below it. bos_id, eos_id: -1 where there is none. adds_bos: whether a text begins
    with bos_id. stops: ids that end a text that a model writes."""

    vocab_size: int
    bos_id: int
    eos_id: int
    adds_bos: bool
    stops: frozenset[int]

    @property
    def bos(self) -> list[int]:
        """The ids before every text: bos_id, or none."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text alone. Raises UserError for a text that UTF-8 cannot represent."""

    def encode_after(self, text: str) -> list[int]:
        """Token ids of a text that goes on after another: no space mark is put before it, as `encode` does
        where the tokenizer has one before every text. Raises UserError as `encode` does."""

    def control_id(self, text: str) -> int | None:
        """The id of the control token of this name, which no text becomes; None where there is none."""

    def decode(self, ids: list[int]) -> str:
        """Text of ids; control tokens are dropped, bytes that are no character become U+FFFD."""

    def piece(self, token: int) -> str:
        """A token as people read it."""

    def stream(self) -> Stream:
        """Return a new stream, whose texts joined are `decode` of all ids."""


def split_option(tokenizer: TextTokenizer, context: str, option: str) -> tuple[list[int], list[int]]:
    """(ids that are given, ids that are scored) of context + option as one text, the begin token first.

    Given is what the ids of the context alone and those of the whole have in common at their beginnings, so
    that a model is asked about tokens as it has learned them: a word that the option completes is scored as
    one. At least one id is scored. Raises ValueError where there is none: both texts are empty.
    """
    whole = [*tokenizer.bos, *tokenizer.encode(context + option)]
    alone = [*tokenizer.bos, *tokenizer.encode(context)]
    if len(whole) == len(tokenizer.bos):
        raise ValueError("an empty context has no empty option: no token is there to be scored")
    pairs = zip(whole, alone, strict=False)
    common = next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(whole), len(alone)))
    common = min(common, len(whole) - 1)
    return whole[:common], whole[common:]
