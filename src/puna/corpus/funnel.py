"""How many documents, and bytes of their text, came through each step, and why the others did not."""

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from puna.corpus.record import DAMAGED

DUPLICATE, NEAR, BOOK = "exact duplicate", "near duplicate", "overlaps with an earlier book"
TAIL, UNLIKE = "perplexity outside the parts kept", "unlike cited pages"
# The steps in order, and the reasons that end a document there; any other reason of a document is its
# heuristics'.
STEPS: dict[str, tuple[str, ...]] = {
    "read": (DAMAGED,),
    "heuristics": (),
    "language": ("other language", "language unsure"),
    "quality": (TAIL, UNLIKE),
    "kept": (DUPLICATE, NEAR, BOOK),
}
FUNNEL = ("found", *STEPS)
MOST_HOSTS = 200_000  # counted; those that come later are counted together, so that memory has a bound


class Tally:
    """Counts of one source."""

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.buckets: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()

    def add(self, row: dict[str, Any], reason: str) -> None:
        """Count one record: its id, size, licence, language, url and bucket. A record without id never became
        a text."""
        stopped_at = "read"
        if row["id"]:
            stopped_at = (
                next((step for step, reasons in STEPS.items() if reason in reasons), "heuristics")
                if reason
                else ""
            )
        for step in FUNNEL:
            if step == stopped_at:
                break
            self.documents[step] += 1
            self.bytes[step] += row["size"] or 0
        if reason:
            self.dropped[reason] += 1
            return
        self.licences[row["licence"] or "unknown"] += 1
        self.languages[row["language"] or "unknown"] += 1
        if row["bucket"]:
            self.buckets[row["bucket"]] += 1
        host = urlsplit(row["url"]).hostname if row["url"].startswith(("http://", "https://")) else None
        if host:
            self.hosts[host if host in self.hosts or len(self.hosts) < MOST_HOSTS else "others"] += (
                row["size"] or 0
            )

    def funnel(self) -> dict[str, dict[str, int]]:
        return {step: {"documents": self.documents[step], "bytes": self.bytes[step]} for step in FUNNEL}

    def top_hosts(self, share: float = 0.1, most: int = 1000) -> dict[str, int]:
        """The hosts with most bytes kept: a share of all, at least one, at most `most`; ties by name."""
        ordered = sorted(self.hosts.items(), key=lambda item: (-item[1], item[0]))
        return dict(ordered[: min(most, max(1, round(share * len(ordered))))] if ordered else [])
