"""The public summary asks all that the European Commission's template asks, and nothing else."""

import re
from typing import Any

import pytest

from puna.corpus.cards import public_summary as cards
from puna.corpus.cards.data_card import data_card
from puna.corpus.funnel import SourceStats, counts_of
from puna.corpus.record import Record
from puna.corpus.settings import CorpusSettings, SourceSettings

# Sections and questions of the template (24 July 2025; C(2025) 8311), by how each begins.
TEMPLATE = """
# Public Summary of Training Content
Version of the Summary
Last update
## 1. General information
### 1.1. Provider identification
Provider name and contact details
Authorised representative name
### 1.2. Model identification
Versioned model name(s)
Model dependencies
Date of placement
### 1.3. Modalities, overall training data size and other characteristics
Latest date of data acquisition/collection
Description of the linguistic characteristics
Other relevant characteristics
Additional comments (optional)
## 2. List of data sources
### 2.1. Publicly available datasets
Have you used publicly available datasets
If yes, specify the modality(ies)
List of large publicly available datasets
General description of other publicly available datasets
Additional comments (optional)
### 2.2. Private non-publicly available datasets obtained from third parties
#### 2.2.1. Datasets commercially licensed
Have you concluded transactional commercial licensing
If yes, specify the modality(ies)
Additional comments (optional)
#### 2.2.2. Private datasets obtained from other third parties
Have you obtained private datasets
If yes, specify the modality(ies)
List of publicly known private datasets
Additional comments (optional)
### 2.3. Data crawled and scraped from online sources
Were crawlers used
If yes, specify crawler name(s)
Purposes of the crawler(s)
General description of crawler behaviour
Period of data collection
Comprehensive description of the type of content
Type of modality covered
Summary of the most relevant domain names
Additional comments (optional)
### 2.4. User data
Was data from user interactions with the AI model
Was data collected from user interactions with the provider's other
If yes, provide a general description
Type of modality covered
Additional comments (optional)
### 2.5. Synthetic data
Was synthetic AI-generated data
If yes, specify the modality(ies)
General-purpose AI model(s) used
Information about other AI models
Additional comments (optional)
### 2.6. Other sources of data
Have data sources other than
If yes, provide a narrative description
## 3. Data processing aspects
### 3.1. Respect of reservation of rights
Are you a Signatory
Describe the measures implemented
Additional comments (optional)
### 3.2. Removal of illegal content
General description of measures taken
### 3.3. Other information (optional)
Other relevant information
""".strip().splitlines()


def settings(*sources: dict[str, Any], **keys: Any) -> CorpusSettings:
    rows = [{"name": f"s{number}", "uris": ["a"], **own} for number, own in enumerate(sources)]
    return CorpusSettings.model_validate({"sources": rows, **keys})


def summary(made: CorpusSettings, *records: tuple[str, dict[str, Any]]) -> str:
    stats = {source.name: SourceStats() for source in made.sources}
    for name, values in records:
        stats[name].add(Record(**{"id": "1", "size": 100, "language": "en", **values}))
    counts = {**counts_of(stats), "learnt": {"perplexity": {}}, "lines": {}}
    assert data_card(made, counts).count("$") == 0
    return cards.public_summary(made, counts)


def answers(text: str) -> dict[str, str]:
    """What stands behind each question, by the number of its section and how it begins."""
    found, section = {}, ""
    for part in re.split(r"\n(?=#+ |\*\*[A-Z][^*]*(?:\*\*$|:\*\*|\?\*\*))", text):
        if part.startswith("#"):
            section = part.split(" ")[1]
        question, _, answer = part.removeprefix("**").partition("**")
        found[f"{section} {question[:20]}"] = answer.strip()
    return found


EVERY = [
    {"reader": "wikipedia"},
    {"reader": "lines", "origin": "licensed"},
    {"reader": "lines", "origin": "private"},
    {"reader": "warc"},
    {"reader": "lines", "origin": "user"},
    {"reader": "lines", "origin": "synthetic"},
    {"reader": "lines"},
]


@pytest.mark.parametrize("sources", [EVERY, EVERY[:1], EVERY[-1:]])
def test_every_section_of_the_template_stands_there_and_no_other(sources: list[dict[str, Any]]) -> None:
    text = summary(settings(*sources))
    asked = re.findall(r"^(#+ .*|\*\*[^*]+(?::|\?)\*\*)", text, re.MULTILINE)
    asked = [question.strip("*") for question in asked]
    assert len(asked) == len(TEMPLATE)
    assert all(own.startswith(begins) for own, begins in zip(asked, TEMPLATE, strict=True))
    assert "$" not in text and "C(2025) 8311" in text and "24 July 2025" in text


def test_what_the_run_does_not_know_is_marked_by_name() -> None:
    found = answers(summary(settings(*EVERY)))
    for question in (
        *(" Version of the Summa", "1.1. Provider name and co", "1.2. Versioned model name"),
        *("2.3. If yes, specify craw", "2.3. Purposes of the craw", "3.1. Are you a Signatory "),
    ):
        (answer,) = (found[key] for key in found if key.endswith(question[:25]) or question in key)
        assert answer.startswith(cards.OPEN) and answer.endswith("*"), question


@pytest.mark.parametrize(("number", "origin"), list(enumerate(cards.ORIGINS)))
def test_a_source_stands_where_its_origin_says_and_nowhere_else(number: int, origin: str) -> None:
    sections = ("2.1.", "2.2.1.", "2.2.2.", "2.3.", "2.4.", "2.5.", "2.6.")
    text = summary(settings(EVERY[(0, 1, 2, 3, 4, 5, 6)[number]] | {"name": "mine"}))
    parts = re.split(r"^#+ (?=[123]\.)", text, flags=re.MULTILINE)
    named = [part.split(" ")[0] for part in parts if re.search(r"^\| mine ", part, re.MULTILINE)]
    assert named == [sections[cards.ORIGINS.index(origin)]]
    yes = [part.split(" ")[0] for part in parts if "?** Yes" in part]
    assert yes == [sections[cards.ORIGINS.index(origin)]]


def test_data_of_users_leave_open_which_of_both_kinds_they_are() -> None:
    text = summary(settings({"reader": "lines", "origin": "user"}))
    told = f"Yes, to this or the other of these two questions; {cards.OPEN}: to which*"
    assert text.count(told) == 2 and told not in summary(settings({"reader": "warc"}))


def test_dates_sizes_and_hosts_come_from_the_run() -> None:
    made = settings({"reader": "warc"}, {"reader": "wikipedia"}, {"reader": "wikipedia"})
    pages = [
        ("s0", {"url": f"https://h{n}.example/", "size": n, "date": f"2023-0{n % 9 + 1}-11"})
        for n in range(20)
    ]
    others = [("s1", {"date": "2024-03-01", "size": 97_000}), ("s2", {"size": 2_900, "date": "2001-01-01"})]
    text = summary(made, *pages, *others)
    assert "| Text | less than 1 billion tokens (100,090 bytes, 22 documents) |" in text
    assert "03/2024 (latest capture or change), of s0, s1, s2" in text
    assert "**Period of data collection:** 01/2023 to 09/2023\n" in text
    assert "| h19.example | 19 |\n| h18.example | 18 |\n\n" in text and "h17.example" not in text
    large, small = (
        text.split("**General description of other publicly")[0],
        text.split("not listed above:**")[1],
    )
    assert "| s1 |" in large and "| s2 |" not in large and "| s2 |" in small.partition("###")[0]
    assert "2001-01" in small


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (999_999_999, "less than 1 billion tokens"),
        (3_999_999_999, "less than 1 billion tokens, at about 4 bytes a token"),
        (4_000_000_000, "1 billion to 10 trillion tokens, at about 4 bytes a token"),
        (40_000_000_000_001, "more than 10 trillion tokens, at about 4 bytes a token"),
    ],
)
def test_sizes_are_the_templates_ranges(size: int, told: str) -> None:
    assert cards._size_range(size) == told


def test_where_a_source_stands_without_a_word_of_its_recipe() -> None:
    near, far = "page.html", f"https://example.org/page.html#sha256={'0' * 64}"
    cases = [
        ("html", near, ""),
        ("html", far, "crawled"),
        ("warc", "a.warc", "crawled"),
        ("warc", "dumps/CC-MAIN-20240101.warc.gz", "public"),
        ("lines", near, ""),
        ("lines", far, "public"),
        ("wikipedia", "dump.xml", "public"),
    ]
    for reader, uri, origin in cases:
        source = SourceSettings.model_validate({"name": "a", "reader": reader, "uris": [uri]})
        assert cards._origin(source) == origin
