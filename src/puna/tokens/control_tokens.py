"""Control tokens that a chat format needs and a tokenizer has not: put behind its last token.

extended = for_format(tokenizer, FORMATS["chatml"])
ids = range(tokenizer.vocab_size, extended.vocab_size)      # rows that the model must get

Padding rows of a model, behind its tokenizer's last token, are taken first by that.
"""

from collections.abc import Iterable, Sequence

from puna.errors import UserError
from puna.tokens import pieces
from puna.tokens.byte_bpe import ByteBPE, backend_of
from puna.tokens.chat import Format, missing_controls, stop_ids
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tokens.tokenizer import Tokenizer


def for_format(tokenizer: TextTokenizer, form: Format) -> TextTokenizer:
    """The tokenizer with all control tokens of a format, whose ends are among those that end a text. Raises
    UserError for a tokenizer without an end token where the format needs one."""
    missing = missing_controls(form, tokenizer)
    if "</s>" in missing:
        raise UserError(f"the format {form.name} needs the tokenizer's end token, and it has none")
    extended = extend(tokenizer, missing)
    return extend(tokenizer, missing, stop_ids(form, extended))


def extend(tokenizer: TextTokenizer, names: Sequence[str], stops: Iterable[int] = ()) -> TextTokenizer:
    """A tokenizer with control tokens of these names behind its last one. stops: more ids that end a text.

    Ids of texts stay what they were. Raises UserError for a name that a token of another kind has.
    """
    ends = [*tokenizer.stops, *stops]
    if isinstance(tokenizer, Tokenizer):
        _refuse([name for name in names if name in pieces.of_model(tokenizer.model).texts])
        model = pieces.with_controls(tokenizer.model, names)
        return Tokenizer(model, adds_bos=tokenizer.adds_bos, stops=ends)
    if isinstance(tokenizer, ByteBPE):
        from tokenizers import AddedToken

        backend = backend_of(tokenizer.backend.to_str(), "the tokenizer")
        _refuse([name for name in names if backend.token_to_id(name) is not None])
        backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
        ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id}
        return ByteBPE(backend, **ids, adds_bos=tokenizer.adds_bos, stops=ends)
    raise UserError(f"a tokenizer of the kind {type(tokenizer).__name__} takes no new tokens")


def _refuse(known: Sequence[str]) -> None:
    if known:
        raise UserError(f"the tokenizer has a token {known[0]!r:.100} already")
