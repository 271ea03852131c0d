"""How many documents, and bytes of their text, passed each step, and why the others did not."""

import math
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from puna.corpus.record import DAMAGED, Record

DUPLICATE, NEAR, BOOK = "exact duplicate", "near duplicate", "overlaps with an earlier book"
TAIL, UNLIKE = "perplexity outside the parts kept", "unlike cited pages"
OTHER_LANGUAGE, UNSURE = "other language", "language unsure"
# The steps in order, and the reasons that end a document there; all other reasons are the heuristics'.
STEPS: dict[str, tuple[str, ...]] = {
    "read": (DAMAGED,),
    "heuristics": (),
    "language": (OTHER_LANGUAGE, UNSURE),
    "quality": (TAIL, UNLIKE),
    "kept": (DUPLICATE, NEAR, BOOK),
}
FUNNEL = ("found", *STEPS)
POOLED = " others"  # no host has a space
MOST_HOSTS = 200_000  # counted one by one; later ones are counted together, so that memory is bounded


class SourceStats:
    """Counts of one source's documents."""

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.months: Counter[str] = Counter()
        self.buckets: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()  # of documents that are kept

    def add(self, record: Record) -> None:
        """Count one record."""
        stopped_at = _stopped_at(record)
        for step in FUNNEL:
            if step == stopped_at:
                break
            self.documents[step] += 1
            self.bytes[step] += record.size
        if record.reason:
            self.dropped[record.reason] += 1
            return
        self.licences[record.licence or "unknown"] += 1
        self.languages[record.language or "unknown"] += 1
        self.characters["kept"] += len(record.text)
        self.characters["left out"] += record.left_out_characters
        self.characters["documents that lost over half"] += record.left_out_characters > len(record.text)
        if record.date:
            self.months[record.date[:7]] += 1
        if record.bucket:
            self.buckets[record.bucket] += 1
        if host := _host(record.url):
            known = host in self.hosts or len(self.hosts) < MOST_HOSTS
            self.hosts[host if known else POOLED] += record.size

    def counters(self) -> dict[str, dict[str, int]]:
        """Return all counts, as JSON can hold them."""
        return {name: dict(counter) for name, counter in vars(self).items()}

    @classmethod
    def of(cls, counters: dict[str, dict[str, int]]) -> "SourceStats":
        """Go on from what `counters` returned."""
        stats = cls()
        for name, counts in counters.items():
            getattr(stats, name).update(counts)
        return stats

    def funnel(self) -> dict[str, dict[str, int]]:
        return {step: {"documents": self.documents[step], "bytes": self.bytes[step]} for step in FUNNEL}

    def top_hosts(self, share: float = 0.1) -> dict[str, int]:
        """Return the hosts with most bytes: a share of those counted singly, at least one; ties by name."""
        named = [item for item in self.hosts.items() if item[0] != POOLED]
        ordered = sorted(named, key=lambda item: (-item[1], item[0]))
        return dict(ordered[: max(1, math.ceil(share * len(ordered)))])


def counts_of(stats: dict[str, SourceStats]) -> dict[str, Any]:
    """Return the counts of all sources, by what is counted and source."""
    counts: dict[str, Any] = {"sources": {name: own.funnel() for name, own in stats.items()}}
    for key in ("dropped", "licences", "languages", "months", "characters"):
        counts[key] = {name: dict(sorted(getattr(own, key).items())) for name, own in stats.items()}
    counts["buckets"] = {
        name: dict(sorted(own.buckets.items())) for name, own in stats.items() if own.buckets
    }
    counts["hosts"] = {}
    for name, own in stats.items():
        if own.hosts:
            pooled, top = own.hosts[POOLED], own.top_hosts()
            hosts = len(own.hosts) - (pooled > 0)
            counts["hosts"][name] = {"hosts": hosts, "top": top, "pooled": pooled, "listed": len(top)}
    return counts


def _stopped_at(record: Record) -> str:
    """Return the step at which a record was dropped; "" where it was kept."""
    if not record.id:  # it never became a text
        return "read"
    if not record.reason:
        return ""
    return next((step for step, reasons in STEPS.items() if record.reason in reasons), "heuristics")


def _host(url: str) -> str:
    """Return the host of a web page; "" where the address names none, or is damaged."""
    if not url.startswith(("http://", "https://")):
        return ""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such as an opening bracket alone
        return ""
