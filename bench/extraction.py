"""Main text of web pages: how much of the gold text each extractor finds, how much else it takes along, and
pages per CPU second.

    python bench/extraction.py DATA [--side held-out|tuning] [--peers FOLDER] [--only puna,resiliparse]

DATA: the folder of real data, with raw/html_eval (pages as WARC, trafilatura's gold segments, readability's
gold pages). Two measures:

- segments: as trafilatura's own evaluation counts. A page's "with" segments found are true positives, missed
  are false negatives, its "without" segments found are false positives; summed over all pages.
- words: F1 of the words (with their counts) against the gold page's, averaged over readability's pages.

Whole sites belong to one side: the tuning pages, from which bench/train_main_text.py learns, or the held-out
pages.
"""

import argparse
import gzip
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

SIDES = ("held-out", "tuning")
SITE = re.compile(
    rb"""<(?:link[^>]*rel=["']?canonical["']?[^>]*href|meta[^>]*og:url["']?[^>]*content)=["']?(https?://[^"'\s>]+)""",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Page:
    """A page and its gold. present, absent: segments; main: the gold main content's text, None where the gold
    is segments."""

    name: str
    html: bytes
    site: str
    present: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    main: str | None = None

    @property
    def side(self) -> str:
        """Half of the sites each, by a hash of the site's name."""
        return SIDES[hashlib.sha256(self.site.encode()).digest()[0] % 2]


def site_of(url: str) -> str:
    """The name that a site goes by in any country: the label before the public suffix of the host,
    roughly."""
    labels = (urlsplit(url).hostname or "").split(".")[:-1]
    while len(labels) > 1 and labels[-1] in ("ac", "co", "com", "edu", "gov", "net", "or", "org"):
        labels.pop()
    return labels[-1] if labels else ""


def load(data: Path) -> list[Page]:
    """All pages that have gold, in the archives' order."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    folder = data / "raw" / "html_eval"
    segments = json.loads((folder / "trafilatura-evaldata.json").read_text())
    with gzip.open(folder / "readability-expected.json.gz") as file:
        expected = json.load(file)
    pages = []
    for path in sorted(folder.glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                url, html = record.headers["WARC-Target-URI"], record.reader.read()
                if gold := segments.get(url):
                    pages.append(
                        Page(url, html, site_of(url), gold["with"], gold["without"], gold.get("comments", []))
                    )
                elif (name := url.rpartition("/")[2]) in expected and "/readability/" in url:
                    mark = SITE.search(html)
                    site = site_of(mark[1].decode("latin-1")) if mark else re.sub(r"-?\d+$", "", name) or name
                    pages.append(Page(name, html, site, main=text_of(expected[name])))
    return pages


def text_of(html: str) -> str:
    """All text of a gold page."""
    from lxml.html import fromstring

    return " ".join(piece for piece in fromstring(f"<div>{html}</div>").itertext())


def f1(true_positives: float, false_positives: float, false_negatives: float) -> tuple[float, float, float]:
    """F1, precision, recall."""
    precision = true_positives / max(true_positives + false_positives, 1e-9)
    recall = true_positives / max(true_positives + false_negatives, 1e-9)
    return 2 * precision * recall / max(precision + recall, 1e-9), precision, recall


def segment_score(pages: list[Page], texts: list[str]) -> tuple[float, float, float]:
    """F1, precision, recall over the segments of all pages that have them."""
    right = wrong = missed = 0
    for page, text in zip(pages, texts, strict=True):
        right += (found := sum(segment in text for segment in page.present))
        missed += len(page.present) - found
        wrong += sum(segment in text for segment in page.absent)
    return f1(right, wrong, missed)


def word_score(pages: list[Page], texts: list[str]) -> tuple[float, float, float]:
    """F1, precision, recall of words, each averaged over the pages that have gold text."""
    found = []
    for page, text in zip(pages, texts, strict=True):
        if page.main is not None:
            gold, ours = Counter(re.findall(r"\w+", page.main)), Counter(re.findall(r"\w+", text))
            common = (gold & ours).total()
            found.append(f1(common, ours.total() - common, gold.total() - common))
    if not found:
        return 0.0, 0.0, 0.0
    score, precision, recall = (sum(column) / len(found) for column in zip(*found, strict=True))
    return score, precision, recall


def extractors() -> dict[str, Callable[[bytes], str]]:
    """Ours and the peers that are installed."""
    from puna.corpus.readers.web.page import decode, page_text

    found: dict[str, Callable[[bytes], str]] = {
        "puna": lambda html: page_text(html)[1],
        "resiliparse": resiliparse_text,
    }
    try:
        import trafilatura

        found["trafilatura"] = lambda html: trafilatura.extract(html, include_comments=False) or ""
        found["trafilatura fast"] = lambda html: (
            trafilatura.extract(html, include_comments=False, fast=True) or ""
        )
    except ImportError:
        print("trafilatura is not installed")
    try:
        import justext

        lists = frozenset.union(
            *[justext.get_stoplist(name) for name in ("English", "German", "French", "Spanish")]
        )
        found["justext"] = lambda html: "\n".join(
            block.text for block in justext.justext(html, lists) if not block.is_boilerplate
        )
    except ImportError:
        print("justext is not installed")
    try:
        from readability import Document

        found["readability-lxml"] = lambda html: text_of(Document(decode(html, "")).summary())
    except ImportError:
        print("readability-lxml is not installed")
    return found


def resiliparse_text(html: bytes) -> str:
    """Resiliparse's rules for main content."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    return extract_plain_text(
        bytes_to_str(html, detect_encoding(html)),
        main_content=True,
        alt_texts=False,
        preserve_formatting=True,
    )


def run(extract: Callable[[bytes], str], pages: list[Page]) -> tuple[list[str], float]:
    """The texts, and the CPU seconds they took; a page at which an extractor fails has none."""
    texts = []
    started = time.process_time()
    for page in pages:
        try:
            texts.append(extract(page.html))
        except Exception:
            texts.append("")
    return texts, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--side", choices=SIDES, default="held-out")
    parser.add_argument("--peers", type=Path, help="folder of further packages (pip install --target)")
    parser.add_argument("--only", default="", help="names of extractors, separated by commas")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    from table import Row, finish

    pages = [page for page in load(arguments.data) if page.side == arguments.side]
    by_segments, by_words = (
        [page for page in pages if page.main is None],
        [page for page in pages if page.main is not None],
    )
    print(f"{arguments.side}: {len(by_segments)} pages with segments, {len(by_words)} with gold text\n")
    chosen = {
        name: extract
        for name, extract in extractors().items()
        if not arguments.only or name in arguments.only.split(",")
    }
    rows: list[Row] = []
    rates: dict[str, float] = {}
    for name, extract in chosen.items():
        run(extract, pages[:5])
        texts, seconds = run(extract, by_segments)
        for what, value in zip(("F1", "precision", "recall"), segment_score(by_segments, texts), strict=True):
            rows.append(Row(f"segments {what}", name, value, ""))
        rates[name] = len(texts) / seconds
        texts, _ = run(extract, by_words)
        for what, value in zip(("F1", "precision", "recall"), word_score(by_words, texts), strict=True):
            rows.append(Row(f"words {what}", name, value, ""))
    rows += [
        Row("rate", name, rate, "pages/CPU s", rate / rates["puna"] if "puna" in rates else None)
        for name, rate in rates.items()
    ]
    peers = [
        name
        for name in ("resiliparse", "trafilatura", "justext", "readability-lxml")
        if {name, f"{name} fast"} & set(chosen)
    ]
    finish(__file__, sorted(rows, key=lambda row: row.name), {name: version(name) for name in peers})


if __name__ == "__main__":
    main()
