"""What the quality filters learn from the corpus at hand: the n-gram model, the classifier, the
percentiles."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from puna.corpus import steps
from puna.corpus.settings import CorpusSettings
from puna.corpus.steps import Group
from puna.errors import UserError


@dataclass(frozen=True)
class Learnt:
    """thresholds: per source, the perplexities at the two percentiles; reference_threshold: scores below are
    dropped."""

    thresholds: dict[str, tuple[float, float]] = field(default_factory=dict)
    reference_threshold: float = 0.0

    def told_bounds(self, source: str) -> str:
        """Where head and tail of a source begin, in words."""
        head, tail = self.thresholds[source]
        return f"head below {head:.1f}, tail above {tail:.1f}"

    def bucket(self, source: str, perplexity: float) -> str:
        from puna.corpus.filters.perplexity import bucket

        return bucket(perplexity, self.thresholds[source])

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "perplexity": {name: list(values) for name, values in self.thresholds.items()}
        }
        return found | ({"reference": self.reference_threshold} if self.reference_threshold else {})


def models(settings: CorpusSettings, work: list[Group], parts: Path, progress: Any) -> None:
    """Train the models that sources ask for, into `parts/perplexity` and `parts/reference`, unless they are
    there."""
    if (
        settings.perplexity
        and any(source.perplexity for source in settings.sources)
        and not (parts / "perplexity").is_dir()
    ):
        from puna.corpus.filters import perplexity

        progress("learning the n-gram model", 0, 1)
        wanted = settings.perplexity
        own = [group for group in work if group.source.name in wanted.train_on]
        exact = any(source.perplexity and source.ccnet == "exact" for source in settings.sources)
        texts = _Texts(own, wanted.training_bytes)
        perplexity.train(texts, vocab_size=wanted.pieces, order=wanted.order, ccnet=exact).save(
            parts / "perplexity"
        )
    if (
        settings.reference
        and any(source.reference for source in settings.sources)
        and not (parts / "reference").is_dir()
    ):
        _reference(settings, work, parts, progress)


@dataclass(frozen=True)
class _Texts:
    """The first texts of some groups that are still in, as often as they are asked for."""

    own: list[Group]
    most_bytes: int

    def __iter__(self) -> Iterator[str]:
        room = self.most_bytes
        for group in self.own:
            for row in steps.rows_of(group.path("judged"), ["text", "reason", "size"]):
                if not row["reason"]:
                    room -= row["size"]
                    if room < 0:
                        return
                    yield row["text"]


def _reference(settings: CorpusSettings, work: list[Group], parts: Path, progress: Any) -> None:
    from puna.corpus.filters import reference
    from puna.corpus.readers.wiki.references import Citations, cited

    wanted = settings.reference
    assert wanted is not None
    progress("learning which pages are cited", 0, 1)

    def addresses() -> Iterator[str]:
        for file in (file for group in work if group.source.name in wanted.dumps for file in group.files):
            with contextlib.suppress(
                UserError, OSError
            ):  # of a damaged file, which was told when it was read
                yield from (url for _, url in cited(file.path))

    urls = Citations(addresses())
    asking = [group for group in work if group.source.reference]

    def pages(is_cited: bool) -> Iterator[tuple[str, str]]:
        for group in asking:
            for row in steps.rows_of(group.path("judged"), ["url", "text", "reason"]):
                if not row["reason"] and (row["url"] in urls) == is_cited:
                    yield row["url"], row["text"]

    try:
        model = reference.train(
            pages(True), pages(False), recall=wanted.recall, most_negatives=wanted.negatives
        )
    except UserError as error:
        raise UserError(f"corpus.reference: {error}; or leave reference out of the sources") from error
    made = parts / "reference-new"
    model.save(made)
    (made / "model_card.md").write_text(model.card())
    os.replace(made, parts / "reference")


def learnt(settings: CorpusSettings, asking: list[Group], parts: Path) -> Learnt:
    """The percentiles of the scores at hand, and the classifier's threshold."""
    thresholds: dict[str, tuple[float, float]] = {}
    if settings.perplexity:
        from puna.corpus.filters.perplexity import thresholds as at

        for source in dict.fromkeys(group.source for group in asking if group.source.perplexity):
            found = [_perplexities(group) for group in asking if group.source == source]
            thresholds[source.name] = at(np.concatenate(found), settings.perplexity.percentiles)
    threshold = (
        steps.reference_model(parts / "reference").threshold
        if any(group.source.reference for group in asking)
        else 0.0
    )
    return Learnt(thresholds, threshold)


def _perplexities(group: Group) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(group.path("scores"), columns=["perplexity"])["perplexity"].drop_null().to_numpy()
