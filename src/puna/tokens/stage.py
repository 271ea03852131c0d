"""Clean documents -> tokenizer; documents and tokenizer -> token shards: two stages of a run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from puna.errors import UserError
from puna.run.artifact import Artifact
from puna.run.settings import Settings, not_hashed
from puna.run.stage import Context, Metrics
from puna.tokens.settings import TokenizerSettings, TokensSettings

DOCUMENT_TOKENS = 3  # beside those of its bytes: begin, end, SentencePiece's space before a text
VERSIONS = {"tokenizer": 5, "tokens": 3}


class SplitSettings(Settings):
    """Which documents train: sources in the recipe's order, and how many of each are held out."""

    sources: tuple[str, ...]
    held_out_fraction: float
    held_out_bytes: int = 0
    small_sources: str = not_hashed()


class TokenizerStageSettings(Settings):
    """What a tokenizer depends on."""

    split: SplitSettings
    tokenizer: TokenizerSettings


def split_settings(sources: tuple[str, ...], tokens: TokensSettings) -> SplitSettings:
    kept = {name: getattr(tokens, name) for name in SplitSettings.model_fields if name != "sources"}
    return SplitSettings(sources=sources, **kept)


def documents_of(documents: Artifact, source: str) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of a source, in the order of its file."""
    for group in _row_groups(documents, source):
        yield from zip(group["id"].to_pylist(), group["text"].to_pylist(), strict=True)


def _row_groups(documents: Artifact, source: str) -> Iterator[Any]:
    """Ids and texts of a source's documents, one Arrow table after the other."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(documents.path(f"{source}.parquet")) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, ["id", "text"])


def _trained_on(split: SplitSettings, documents: Artifact) -> list[str]:
    """The sources that a model is trained on. Raises UserError for those that are too small, unless they are
    to be left out."""
    metrics = documents.metrics
    counts = {name: metrics["sources"][name]["kept"]["documents"] for name in split.sources}
    enough = [name for name in split.sources if counts[name] > 1]
    if enough and split.small_sources == "leave out":
        return enough
    if empty := [name for name in split.sources if not counts[name]]:
        raise UserError("\n".join(metrics["empty"][name] for name in empty))
    if small := [name for name in split.sources if counts[name] == 1]:
        raise UserError(
            f"source {small[0]} has 1 document: at least two are needed, since one is held out for scores; "
            'give more files, or set tokens.small_sources to "leave out"'
        )
    return enough


def train_tokenizer(
    settings: TokenizerStageSettings,
    inputs: Mapping[str, Artifact],
    context: Context,
    check: Callable[[int], None] = lambda size: None,
) -> Metrics:
    """Train the tokenizer on training documents of every source, drawn from all over it.

    check: of the bytes of all texts, which are as many tokens at most; raises where these are too few.
    """
    from puna.tokens import tokenizer

    documents, split = inputs["documents"], settings.split
    sources = sorted(_trained_on(split, documents))
    if left := sorted(set(split.sources) - set(sources)):
        context.reporter.note(f"left out, with fewer than two documents: {', '.join(left)}")
    sizes = {name: documents.metrics["sources"][name]["kept"]["bytes"] for name in sources}
    documents_in_all = sum(documents.metrics["sources"][name]["kept"]["documents"] for name in sources)
    check(sum(sizes.values()) + DOCUMENT_TOKENS * documents_in_all)
    shares = _fair_shares(sizes, settings.tokenizer.training_bytes)
    used = {}

    def all_texts() -> Iterator[str]:
        for number, name in enumerate(sizes):
            context.reporter.progress(name, number, len(sizes))
            drawn = training_texts(documents, split, name, shares[name])
            used[name] = drawn.bytes
            yield from drawn.texts
        context.reporter.progress("merging", len(sizes), len(sizes))

    model = tokenizer.train(all_texts(), settings.tokenizer)
    (context.work / "tokenizer.model").write_bytes(model)
    trained = tokenizer.Tokenizer(model)
    pieces = [trained.piece(token) for token in range(trained.vocab_size)]
    longest = sorted(pieces, key=lambda piece: (-len(piece), piece))
    return {"vocab_size": trained.vocab_size, "training_bytes": used, "longest_pieces": longest[:24]}


@dataclass(frozen=True)
class TrainingTexts:
    """Training documents of a source, drawn from all over it.

    texts: theirs, read as they are taken; bytes: of these.
    """

    texts: Iterator[str]
    bytes: int


def training_texts(documents: Artifact, split: SplitSettings, source: str, budget: int) -> TrainingTexts:
    """Draw training documents of a source. budget: bytes of text, at most."""
    import numpy as np

    from puna.tokens import shards, splits

    hashes, lengths = _hashes_and_bytes(documents, source)
    held_out = splits.choose_held_out(hashes, lengths, split.held_out_fraction, split.held_out_bytes)
    training = np.flatnonzero(~held_out)
    drawn = training[shards.choose_sample(hashes[training], lengths[training], budget)]
    chosen = np.zeros(len(hashes), bool)
    chosen[drawn] = True
    texts = (text for row, (_, text) in enumerate(documents_of(documents, source)) if chosen[row])
    return TrainingTexts(texts, int(lengths[drawn].sum()))


def _hashes_and_bytes(documents: Artifact, source: str) -> tuple[Any, Any]:
    """Hash of the id and bytes of the text of every document of a source, float64 and int64 [documents]."""
    import numpy as np
    import pyarrow.compute as pc

    from puna.tokens.splits import hashes_of

    hashes, lengths = [], []
    for group in _row_groups(documents, source):
        hashes.append(hashes_of(group["id"].to_pylist()))
        lengths.append(pc.binary_length(group["text"]).to_numpy().astype(np.int64))
    return np.concatenate(hashes), np.concatenate(lengths)


def _fair_shares(sizes: dict[str, int], budget: int) -> dict[str, int]:
    """The same budget for every source; what small sources leave is shared among the rest."""
    shares: dict[str, int] = {}
    for number, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(size, (budget - sum(shares.values())) // (len(sizes) - number))
    return shares


def write_shards(settings: SplitSettings, inputs: Mapping[str, Artifact], context: Context) -> Metrics:
    """Documents -> token shards, split into training and held-out documents."""
    from puna.run import machine
    from puna.tokens import splits, tokenizer

    model = tokenizer.load(inputs["tokenizer"].path("tokenizer.model"))
    documents = inputs["documents"]
    sources = _trained_on(settings, documents)
    threads = context.execution.threads or machine.cores()
    counts = {}
    for number, name in enumerate(sources):
        context.reporter.progress(name, number, len(sources))
        texts = documents_of(documents, name)
        share, least = settings.held_out_fraction, settings.held_out_bytes
        counts[name] = splits.write(name, texts, model, share, threads, context.work, least)
    return counts
