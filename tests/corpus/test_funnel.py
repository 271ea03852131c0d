"""Counts of a source's documents by step, and by host for whatever stands as an address."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from puna.corpus import funnel
from puna.corpus.funnel import SourceStats
from puna.corpus.record import DAMAGED, Record


def made(url: str = "https://example.org/", **values: Any) -> Record:
    return Record(**{"id": "1", "size": 10, "language": "en", "url": url, **values})


def test_a_document_counts_up_to_the_step_that_drops_it() -> None:
    stats = SourceStats()
    for reason in ("", "too short", "other language", funnel.TAIL, funnel.DUPLICATE):
        stats.add(made(reason=reason))
    stats.add(made(id="", size=0, reason=DAMAGED))
    documents = {step: counts["documents"] for step, counts in stats.funnel().items()}
    assert documents == {"found": 6, "read": 5, "heuristics": 4, "language": 3, "quality": 2, "kept": 1}
    assert stats.funnel()["found"]["bytes"] == 50 and sum(stats.dropped.values()) == 5
    assert (stats.licences, stats.languages) == ({"unknown": 1}, {"en": 1})


def test_what_was_left_out_is_counted_of_documents_that_are_kept() -> None:
    stats = SourceStats()
    for before, reason in ((30, ""), (12, ""), (0, ""), (99, "too short")):
        record = made(text="ten words.", reason=reason)
        record.leave_out("boilerplate", before)
        stats.add(record)
    expected = {"kept": 30, "left out": 42, "documents that lost over half": 2}
    assert stats.characters == expected
    assert funnel.counts_of({"a": stats})["characters"] == {"a": dict(sorted(expected.items()))}


ODD = st.text("htps:/[]@.#?%\\ :０。／℀ａéx\t\n\ud800", max_size=20)


@given(ODD.map("http://".__add__) | ODD | st.text() | st.text().map("https://".__add__))
@example("http://[broken/path")
@example("https://example.org]/")
@example("http://a@b@[::1")
@example("http://℀.example/")
def test_no_address_ends_the_count(url: str) -> None:
    stats = SourceStats()
    stats.add(made(url))
    assert stats.documents["kept"] == 1 and sum(stats.hosts.values()) in (0, 10)


@pytest.mark.parametrize("url", ["http://[broken/path", "pypi:flask==3/app.py", "file.txt", "http://", ""])
def test_an_address_without_a_host_counts_under_none(url: str) -> None:
    stats = SourceStats()
    stats.add(made(url))
    assert not stats.hosts and stats.top_hosts() == {}


def test_the_hosts_with_most_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = SourceStats()
    for number in range(20):
        stats.add(made(f"https://Host{number % 10}.example:8080/{number}", size=number))
    assert len(stats.hosts) == 10 and stats.top_hosts() == {"host9.example": 28}
    assert len(stats.top_hosts(share=0.11)) == 2
    assert list(stats.top_hosts(share=0.3)) == ["host9.example", "host8.example", "host7.example"]
    monkeypatch.setattr(funnel, "MOST_HOSTS", 10)
    stats.add(made("https://late.example/", size=100))
    assert stats.hosts[funnel.POOLED] == 100 and "late.example" not in stats.hosts
    assert list(stats.top_hosts()) == ["host9.example"]
    hosts = funnel.counts_of({"a": stats})["hosts"]["a"]
    assert hosts == {"hosts": 10, "top": {"host9.example": 28}, "pooled": 100, "listed": 1}


def test_counts_go_on_from_what_json_holds() -> None:
    whole, first = SourceStats(), SourceStats()
    records = [made(reason=reason) for reason in ("", "too short", "", funnel.TAIL)]
    for number, record in enumerate(records):
        whole.add(record)
        if number < 2:
            first.add(record)
    again = SourceStats.of(json.loads(json.dumps(first.counters())))
    for record in records[2:]:
        again.add(record)
    assert vars(again) == vars(whole) and again.funnel() == whole.funnel()
