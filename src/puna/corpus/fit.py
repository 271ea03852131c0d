"""What the quality filters learn from the corpus at hand: an n-gram model, a classifier, and their limits."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus.filters import perplexity, reference
from puna.corpus.groups import Group
from puna.corpus.readers.wiki.references import Citations, cited
from puna.corpus.settings import CorpusSettings, PerplexitySettings, ReferenceSettings
from puna.corpus.tables import link_or_copy, rows_of
from puna.errors import UserError


@dataclass(frozen=True)
class Thresholds:
    """Limits of the quality filters, learnt from the corpus at hand.

    perplexity: of each source that is filtered by it and has documents to filter, the perplexities at the two
    percentiles. reference: scores below it are dropped.
    """

    perplexity: dict[str, tuple[float, float]]
    reference: float = 0.0

    def describe(self) -> dict[str, Any]:
        """Return the limits as they are written in `learnt.json`."""
        limits: dict[str, Any] = {"perplexity": {name: list(two) for name, two in self.perplexity.items()}}
        return limits | ({"reference": self.reference} if self.reference else {})


def train_models(
    settings: CorpusSettings, groups: list[Group], folder: Path, progress: Callable[[str, int, int], None]
) -> None:
    """Train the models that sources ask for, into `folder/perplexity` and `folder/reference`, where missing.

    Raises UserError where there is too little text to learn from.
    """
    perplexity_folder, reference_folder = folder / "perplexity", folder / "reference"
    wants_perplexity = any(source.perplexity for source in settings.sources)
    if settings.perplexity and wants_perplexity and not perplexity_folder.is_dir():
        progress("learning the n-gram model", 0, 1)
        exact = any(source.perplexity and source.ccnet == "exact" for source in settings.sources)
        _train_perplexity(settings.perplexity, groups, exact, perplexity_folder)
    wants_reference = any(source.reference for source in settings.sources)
    if settings.reference and wants_reference and not reference_folder.is_dir():
        progress("learning which pages are cited", 0, 1)
        _train_reference(settings.reference, groups, reference_folder)


def _train_perplexity(settings: PerplexitySettings, groups: list[Group], exact: bool, folder: Path) -> None:
    good = [group for group in groups if group.source.name in settings.train_on]
    texts = _Texts(good, settings.training_bytes)
    if next(iter(texts), None) is None:
        raise UserError(
            f"corpus.perplexity.train_on: no document of {', '.join(settings.train_on)} came through the "
            "filters, so there is nothing to learn from; name another source, loosen the filters, or leave "
            "perplexity out of the sources"
        )
    model = perplexity.train(texts, vocab_size=settings.vocab_size, order=settings.order, ccnet=exact)
    model.save(folder)


@dataclass(frozen=True)
class _Texts:
    """The first texts of some groups that are still in, up to `most_bytes`; can be read several times."""

    groups: list[Group]
    most_bytes: int

    def __iter__(self) -> Iterator[str]:
        room = self.most_bytes
        for group in self.groups:
            for row in rows_of(group.path("filtered"), ["text", "reason", "size"]):
                if not row["reason"]:
                    room -= row["size"]
                    if room < 0:
                        return
                    yield row["text"]


def _train_reference(settings: ReferenceSettings, groups: list[Group], folder: Path) -> None:
    citations = Citations(_cited_addresses(settings, groups))
    asking = [group for group in groups if group.source.reference]

    def pages(are_cited: bool) -> Iterator[tuple[str, str]]:
        for group in asking:
            for row in rows_of(group.path("filtered"), ["url", "text", "reason"]):
                if not row["reason"] and (row["url"] in citations) == are_cited:
                    yield row["url"], row["text"]

    try:
        model = reference.train(
            pages(True), pages(False), recall=settings.recall, most_negatives=settings.negatives
        )
    except UserError as error:
        raise UserError(f"corpus.reference: {error}; or leave reference out of the sources") from error
    unfinished = folder.with_name(f"{folder.name}-new")
    model.save(unfinished)
    (unfinished / "model_card.md").write_text(model.card())
    os.replace(unfinished, folder)


def _cited_addresses(settings: ReferenceSettings, groups: list[Group]) -> Iterator[str]:
    """URLs that articles of the sources named cite."""
    for group in groups:
        if group.source.name in settings.citations_from:
            for file in group.files:
                with contextlib.suppress(UserError, OSError):  # damage, which was reported when it was read
                    yield from (url for _, url in cited(file.path))


def thresholds(settings: CorpusSettings, scored: list[Group], folder: Path) -> Thresholds:
    """Return the percentiles of the perplexities of each source, and the classifier's threshold.

    scored: groups whose source asks for a score. folder: where `train_models` left the models.
    """
    by_source: dict[str, tuple[float, float]] = {}
    if settings.perplexity:
        for source in dict.fromkeys(group.source for group in scored if group.source.perplexity):
            values = np.concatenate([_perplexities(group) for group in scored if group.source == source])
            if len(values):
                by_source[source.name] = perplexity.thresholds(values, settings.perplexity.percentiles)
    classified = any(group.source.reference for group in scored)
    return Thresholds(by_source, reference.model_in(folder / "reference").threshold if classified else 0.0)


def _perplexities(group: Group) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(group.path("scores"), columns=["perplexity"])["perplexity"].drop_null().to_numpy()


def copy_models(folder: Path, out: Path) -> None:
    """Copy or link what `train_models` left in `folder` to `out`."""
    for name in ("perplexity", "reference"):
        if (folder / name).is_dir():
            shutil.copytree(folder / name, out / name, copy_function=link_or_copy)
