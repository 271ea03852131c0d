"""How many documents, and bytes of their text, passed each step, and why the others did not."""

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from puna.corpus.record import DAMAGED

DUPLICATE, NEAR, BOOK = "exact duplicate", "near duplicate", "overlaps with an earlier book"
TAIL, UNLIKE = "perplexity outside the parts kept", "unlike cited pages"
# The steps in order, and the reasons that end a document there; all other reasons are the heuristics'.
STEPS: dict[str, tuple[str, ...]] = {
    "read": (DAMAGED,),
    "heuristics": (),
    "language": ("other language", "language unsure"),
    "quality": (TAIL, UNLIKE),
    "kept": (DUPLICATE, NEAR, BOOK),
}
FUNNEL = ("found", *STEPS)
MOST_HOSTS = 200_000  # counted one by one; later ones are counted together, so that memory is bounded


class SourceStats:
    """Counts of one source's documents."""

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.licences: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.buckets: Counter[str] = Counter()
        self.hosts: Counter[str] = Counter()

    def add(self, row: dict[str, Any], reason: str) -> None:
        """Count one record by its id, size, licence, language, url and bucket.

        A record without id never became a text. reason: why it was dropped, "" where it was kept.
        """
        size, stopped_at = row["size"] or 0, _stopped_at(row["id"], reason)
        for step in FUNNEL:
            if step == stopped_at:
                break
            self.documents[step] += 1
            self.bytes[step] += size
        if reason:
            self.dropped[reason] += 1
            return
        self.licences[row["licence"] or "unknown"] += 1
        self.languages[row["language"] or "unknown"] += 1
        if row["bucket"]:
            self.buckets[row["bucket"]] += 1
        if host := _host(row["url"]):
            known = host in self.hosts or len(self.hosts) < MOST_HOSTS
            self.hosts[host if known else "others"] += size

    def funnel(self) -> dict[str, dict[str, int]]:
        return {step: {"documents": self.documents[step], "bytes": self.bytes[step]} for step in FUNNEL}

    def top_hosts(self, share: float = 0.1, most: int = 1000) -> dict[str, int]:
        """Return the hosts with most bytes: a share of all, at least one, at most `most`; ties by name."""
        ordered = sorted(self.hosts.items(), key=lambda item: (-item[1], item[0]))
        return dict(ordered[: min(most, max(1, round(share * len(ordered))))])


def _stopped_at(identity: str, reason: str) -> str:
    """Return the step at which a record was dropped; "" where it was kept."""
    if not identity:
        return "read"
    if not reason:
        return ""
    return next((step for step, reasons in STEPS.items() if reason in reasons), "heuristics")


def _host(url: str) -> str:
    """Return the host of a web page; "" where the address names none, or is damaged."""
    if not url.startswith(("http://", "https://")):
        return ""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such as an opening bracket alone
        return ""
