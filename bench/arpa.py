"""Our n-gram models as ARPA files, which KenLM and SRILM read: for comparisons here and in tests."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from puna.errors import UserError
from puna.run.files import replacing
from puna.text.ngram import Array, KneserNey

LINES = 1 << 14  # n-grams that become text at once


def ngrams(model: KneserNey, n: int) -> Iterator[tuple[int, Array]]:
    """Yield the n-grams of order n in order, as (number of the first, token ids [at most LINES, n])."""
    size = len(model.orders[n - 1].last_tokens)
    for start in range(0, size, LINES):
        numbers = np.arange(start, min(start + LINES, size))
        columns = []
        for order in reversed(model.orders[:n]):
            columns.append(order.last_tokens[numbers])
            # In the list's own type, or the whole list would be converted every time.
            numbers = numbers.astype(order.first_child.dtype)
            numbers = np.searchsorted(order.first_child, numbers, side="right") - 1
        yield start, np.stack(columns[::-1], axis=1)


def write(model: KneserNey, path: Path, pieces: Sequence[str]) -> None:
    """Write a model as an ARPA file.

    pieces: the word for each token id; the begin token is <s> whatever its piece. Raises UserError for
    pieces that such a file cannot tell apart.
    """
    words = np.array([*pieces, "<unk>"], object)
    words[model.begin] = "<s>"
    unfit = any(not word or set(word) & set(" \t\r\n\0") for word in words)
    if unfit or len(pieces) != model.vocab_size or len(set(words[:-1])) < model.vocab_size:
        raise UserError(
            f"an ARPA file needs {model.vocab_size} different pieces without spaces and line ends, "
            "one for each token id"
        )
    unknown = "<unk>" not in pieces
    sizes = [len(order.last_tokens) for order in model.orders if len(order.last_tokens)]
    with replacing(path) as part, part.open("wb") as file:
        lines = "".join(f"ngram {n}={size + (unknown and n == 1)}\n" for n, size in enumerate(sizes, 1))
        file.write(f"\\data\\\n{lines}".encode())
        for n, order in enumerate(model.orders[: len(sizes)], 1):
            file.write(f"\n\\{n}-grams:\n".encode())
            if unknown and n == 1:
                file.write(f"{model.log10_unseen:.9g}\t<unk>\t0\n".encode())
            line = "%.9g\t" + " ".join(["%s"] * n) + ("\t%.9g\n" if n < len(sizes) else "\n")
            for start, grams in ngrams(model, n):
                here = slice(start, start + len(grams))
                columns = [order.log10_probabilities[here], *words[grams].T]
                if n < len(sizes):
                    columns.append(order.log10_backoffs[here])
                values = np.stack(columns, axis=1, dtype=object, casting="unsafe")
                file.write((line * len(grams) % tuple(values.ravel().tolist())).encode())
        file.write(b"\n\\end\\\n")
