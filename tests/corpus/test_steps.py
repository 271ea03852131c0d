"""Steps get what is still in; a record that is dropped says why, and what it repeats."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from puna.corpus import steps
from puna.corpus.filters.heuristics import Heuristics
from puna.corpus.fit import Thresholds
from puna.corpus.record import EXCERPT, Record, digest, record_schema
from puna.corpus.settings import CorpusSettings


@dataclass
class Drops:
    """Drops texts that begin with a letter, and remembers what it got."""

    letter: str
    got: list[str] = field(default_factory=list)

    def apply(self, records: list[Record]) -> None:
        for record in records:
            self.got.append(record.text)
            if record.text.startswith(self.letter):
                record.drop(self.letter, "detail")


def test_what_is_dropped_goes_no_further() -> None:
    records = [Record(text=text) for text in ("a1", "b1", "c1", "a2")]
    records[1].reason = "dropped before"
    first, second, third = Drops("a"), Drops("c"), Drops("x")
    steps.run([first, second, third], records)
    assert (first.got, second.got, third.got) == (["a1", "c1", "a2"], ["c1"], [])
    assert [record.reason for record in records] == ["a", "dropped before", "c", "a"]


def test_a_dropped_record_has_an_identity_and_an_excerpt() -> None:
    text = "é" * 2 * EXCERPT
    record = Record(text=text, detail="1 email")
    record.drop("why")
    assert (record.id, record.size, record.text) == (digest(text), 4 * EXCERPT, text[:EXCERPT])
    assert (record.reason, record.detail, record.repeats) == ("why", "1 email", "")
    kept = Record(text="text", id="known", size=1)
    kept.drop("repeats", "of other", "other")
    assert (kept.id, kept.size, kept.detail, kept.repeats) == ("known", 1, "of other", "other")


def test_a_changed_text_is_measured_anew_and_others_are_not() -> None:
    one, other = Record(text="words " * 9), Record(text="words " * 9)
    measure = Heuristics(minimum_characters=20)
    measure.apply([one, other])
    one.change("no more than this much", "words")
    other.mean_line_length = 7.0
    measure.apply([one, other])
    assert (one.id, one.size, one.mean_line_length) == (digest(one.text), 22, 22.0)
    assert (other.id, other.mean_line_length, other.reason) == (digest(other.text), 7.0, "")
    one.change("too little", "more words")
    measure.apply([one])
    assert (one.reason, one.id) == ("too short", digest("too little"))
    assert (one.left_out, one.left_out_characters) == ("words 32, more words 12", 44)
    assert (other.left_out, other.left_out_characters) == ("", 0)


def test_a_record_is_read_as_its_file_has_the_columns() -> None:
    names = [attribute.name for attribute in fields(Record)]
    assert names[: len(record_schema())] == record_schema().names


def test_the_lists_have_the_steps_that_the_settings_ask_for() -> None:
    def names(**keys: object) -> list[str]:
        asked = {"name": "a", "reader": "warc", "uris": ["*"], **keys}
        settings = CorpusSettings.model_validate(
            {
                "sources": [asked],
                "privacy": ["email"],
                "perplexity": {"train_on": ["a"]},
                "reference": {"citations_from": ["a"]},
            }
        )
        (source,) = settings.sources
        seen = steps.Memory(steps.Spans(1 << 20), steps.HashSet(1 << 20), None, steps.Books())
        found = [
            *steps.cleaning(source, settings),
            *steps.filtering(source, settings, Path()),
            *steps.scoring(source, Path()),
            *steps.merging(source, settings, Thresholds({"a": (1.0, 2.0)}), seen),
        ]
        return [type(step).__name__ for step in found]

    assert names() == [
        *("CleanText", "PrivateData", "Heuristics", "Languages", "Signatures"),
        *("Heuristics", "ExactDuplicates"),
    ]
    assert names(ccnet="exact", c4=True, perplexity=True, reference=True, books=True) == [
        *("CleanText", "PrivateData", "MinimumLength", "LineHashes"),
        *("RepeatedLines", "C4Heuristics", "Heuristics", "Languages", "Signatures"),
        *("Perplexity", "ReferenceScore"),
        *("Buckets", "LikeCitedPages", "RepeatedSentences", "Heuristics", "ExactDuplicates", "RepeatedBooks"),
    ]
