"""The steps that a document goes through, in order.

Before the first one, a reader has asked the opt-outs and taken the text out of the raw file (extract.py). A
step is an object with one method, `apply(records)`: it changes records, or drops them with a reason
(`Record.drop`). It gets those that are still in, in order, about a megabyte of text at a time. There are four
lists, since between them something has to see all of the corpus; pipeline.py shows what, passes.py and
merge.py run them.

To add a filter, write a class into a file of filters/, and a line into `filtering`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from puna.corpus.dedup.books import Books, RepeatedBooks
from puna.corpus.dedup.exact import ExactDuplicates
from puna.corpus.dedup.index import Index, NearDuplicates
from puna.corpus.dedup.lines import HashSet, LineHashes, RepeatedLines
from puna.corpus.dedup.near import Signatures
from puna.corpus.dedup.sentences import RepeatedSentences, Spans
from puna.corpus.filters.c4 import MINIMUM_SENTENCES, C4Heuristics
from puna.corpus.filters.clean import CleanText
from puna.corpus.filters.heuristics import Heuristics, MinimumLength
from puna.corpus.filters.language import Languages
from puna.corpus.filters.perplexity import Buckets, Perplexity
from puna.corpus.filters.privacy import PrivateData
from puna.corpus.filters.reference import LikeCitedPages, ReferenceScore
from puna.corpus.fit import Thresholds
from puna.corpus.record import Record
from puna.corpus.settings import CorpusSettings, SourceSettings

CCNET_CHARACTERS = 300  # CCNet drops shorter documents before anything else


class Step(Protocol):
    """One step: changes records, or drops them."""

    def apply(self, records: list[Record]) -> None: ...


def cleaning(source: SourceSettings, settings: CorpusSettings) -> list[Step]:
    """Of each group of raw files by itself, as they are read."""
    return _on(
        CleanText(),
        PrivateData(settings.privacy) if settings.privacy else None,
        MinimumLength(CCNET_CHARACTERS) if source.ccnet == "exact" else None,
        LineHashes() if source.ccnet != "off" else None,
    )


# Here, where a source has ccnet: which lines came before is found out over all groups (Wenzek et al. 2020).


def filtering(source: SourceSettings, settings: CorpusSettings, root: Path) -> list[Step]:
    """Of each group by itself; where a source has no ccnet, as it is read. root: see `Group`."""
    languages = settings.languages if source.languages is None else source.languages
    bad_words = root / settings.bad_words if settings.bad_words else None
    return _on(
        RepeatedLines(join=source.ccnet == "on") if source.ccnet != "off" else None,
        C4Heuristics(bad_words, every_script=languages != ("en",)) if source.c4 else None,
        Heuristics(settings.minimum_characters),
        Languages(languages, settings.language_score, glue_lines=source.ccnet == "exact"),
        Signatures() if settings.uses_minhash else None,
    )


# Here quality filters learn from what is left: an n-gram model, and a classifier of pages that are cited.


def scoring(source: SourceSettings, models: Path) -> list[Step]:
    """Of each group by itself. models: folder of what was learnt."""
    return _on(
        Perplexity(models / "perplexity") if source.perplexity else None,
        ReferenceScore(models / "reference") if source.reference else None,
    )


# Here the limits of these scores are taken from all that was scored.


@dataclass(frozen=True)
class Memory:
    """What is remembered of all documents before, of all sources; None where nothing asks for it."""

    sentences: Spans | None
    texts: HashSet
    near: Index | None
    books: Books


def merging(
    source: SourceSettings, settings: CorpusSettings, thresholds: Thresholds, seen: Memory
) -> list[Step]:
    """Of all groups, one after the other: a document is compared with all that came before."""
    kept = settings.perplexity.keep if settings.perplexity else ()
    # None, too, where no document of the source is left to filter.
    bounds = thresholds.perplexity.get(source.name) if source.perplexity else None
    return _on(
        Buckets(bounds, kept) if bounds else None,
        LikeCitedPages(thresholds.reference) if source.reference else None,
        RepeatedSentences(seen.sentences, MINIMUM_SENTENCES) if source.c4 and seen.sentences else None,
        Heuristics(settings.minimum_characters),  # of what has lost sentences
        Signatures() if seen.near else None,  # of that, too
        ExactDuplicates(seen.texts),
        NearDuplicates(seen.near) if seen.near else None,
        RepeatedBooks(seen.books) if source.books else None,
    )


def _on(*steps: Step | None) -> list[Step]:
    """The steps that the settings ask for."""
    return [step for step in steps if step is not None]


def run(steps: list[Step], records: list[Record]) -> None:
    """Have records go through some steps, those that are dropped no further."""
    for step in steps:
        if still_in := [record for record in records if not record.reason]:
            step.apply(still_in)
