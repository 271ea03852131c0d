"""Main text of web pages: how much of the gold text each extractor finds, how much else it takes along, and
pages per CPU second.

    python bench/extraction.py DATA --folds FILE [--peers FOLDER] [--only puna,resiliparse]

DATA: the folder of real data, with raw/html_eval (pages as WARC, trafilatura's gold segments, readability's
gold pages). Two measures:

- segments: as trafilatura's own evaluation counts. A page's "with" segments found are true positives, missed
  are false negatives, its "without" segments found are false positives; summed over all pages.
- words: F1 of the words (with their counts) against the gold page's, averaged over readability's pages.

Puna reads each page by trees that have not learned from its site: FILE holds those of five folds of whole
sites, as bench/train_main_text.py writes them. Its rate is that of the trees it ships, which learned from all
pages; the median of five rounds by turns. Intervals of 95% are from sites drawn again, since pages of one
site are alike.
"""

import argparse
import gzip
import hashlib
import json
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

FOLDS, DRAWS = 5, 1000
ROUNDS = 5
MOODS = {"": {}, " fast": {"fast": True}, " precision": {"favor_precision": True}}  # of trafilatura
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
    def fold(self) -> int:
        """A fifth of the sites each, by a hash of the site's name."""
        return hashlib.sha256(self.site.encode()).digest()[1] % FOLDS


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


def segment_counts(page: Page, text: str) -> tuple[float, float, float]:
    """Segments found, wrongly found and missed."""
    found = sum(segment in text for segment in page.present)
    return found, sum(segment in text for segment in page.absent), len(page.present) - found


def segment_score(counts: np.ndarray) -> np.ndarray:
    """F1, precision, recall over the segments of all pages. counts: of `segment_counts`, [pages, 3]."""
    return np.array(f1(*counts.sum(0)))


def page_words(page: Page, text: str) -> tuple[float, float, float]:
    """F1, precision, recall of a text's words against the gold text's."""
    gold, ours = Counter(re.findall(r"\w+", page.main or "")), Counter(re.findall(r"\w+", text))
    common = (gold & ours).total()
    return f1(common, ours.total() - common, gold.total() - common)


def word_score(of_pages: np.ndarray) -> np.ndarray:
    """F1, precision, recall, each averaged over the pages. of_pages: of `page_words`, [pages, 3]."""
    return of_pages.mean(0)


def draws(pages: list[Page]) -> list[np.ndarray]:
    """The numbers of the pages of as many sites as there are, drawn with replacement, DRAWS times."""
    random = np.random.default_rng(0)
    of_site: dict[str, list[int]] = {}
    for number, page in enumerate(pages):
        of_site.setdefault(page.site, []).append(number)
    sites = list(of_site.values())
    return [
        np.concatenate([sites[drawn] for drawn in random.integers(0, len(sites), len(sites))])
        for _ in range(DRAWS)
    ]


def extractors() -> dict[str, Callable[[bytes], str]]:
    """Ours and the peers that are installed."""
    from puna.corpus.readers.web.page import decode, read_page

    found: dict[str, Callable[[bytes], str]] = {
        "puna": lambda html: read_page(html).text,
        "resiliparse": resiliparse_text,
    }
    try:
        import trafilatura

        for mood, settings in MOODS.items():
            found[f"trafilatura{mood}"] = lambda html, settings=settings: (
                trafilatura.extract(html, include_comments=False, **settings) or ""
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


def held_out(pages: list[Page], models: list[list[dict[str, list[float]]]]) -> list[str]:
    """Puna's texts, each by the trees of the fold that its site is in."""
    from puna.corpus.readers.web import main_text, page

    texts = [""] * len(pages)
    for fold, rounds in enumerate(models):
        main_text.model = lambda rounds=rounds: main_text.arrays(rounds)
        for number, item in enumerate(pages):
            if item.fold == fold:
                texts[number] = page.read_page(item.html).text
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", type=Path, required=True, help="trees by fold, of train_main_text.py")
    parser.add_argument("--peers", type=Path, help="folder of further packages (pip install --target)")
    parser.add_argument("--only", default="", help="names of extractors, separated by commas")
    arguments = parser.parse_args()
    if arguments.peers:
        sys.path.append(str(arguments.peers))
    from table import Row, finish

    pages = load(arguments.data)
    kinds = {
        "segments": ([page for page in pages if page.main is None], segment_counts, segment_score),
        "words": ([page for page in pages if page.main is not None], page_words, word_score),
    }
    for name, (chosen_pages, _, _) in kinds.items():
        print(f"{name}: {len(chosen_pages)} pages of {len({page.site for page in chosen_pages})} sites")
    wanted = arguments.only.split(",") if arguments.only else None
    chosen = {name: extract for name, extract in extractors().items() if not wanted or name in wanted}
    rows: list[Row] = []
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    texts = {}
    for _ in range(ROUNDS):  # by turns, since a shared machine is quicker one minute than the next
        for name, extract in chosen.items():
            run(extract, pages[:5])
            texts[name], spent = run(extract, pages)
            seconds[name].append(spent)
    rates = {name: len(pages) / statistics.median(spent) for name, spent in seconds.items()}
    if "puna" in chosen:
        texts["puna"] = held_out(pages, json.loads(arguments.folds.read_text()))
    for kind, (of_kind, measure, score) in kinds.items():
        drawn = draws(of_kind)
        spread = {}
        for name, found in texts.items():
            own = np.array(
                [
                    measure(page, text)
                    for page, text in zip(pages, found, strict=True)
                    if (page.main is None) == (kind == "segments")
                ]
            )
            spread[name] = np.array([score(own[numbers])[0] for numbers in drawn])
            for what, value in zip(("F1", "precision", "recall"), score(own), strict=True):
                rows.append(Row(f"{kind} {what}", name, float(value), ""))
            rows += span(f"{kind} F1", name, spread[name])
            if name != "puna" and "puna" in spread:
                rows += span(f"{kind} F1 of puna less the peer's", name, spread["puna"] - spread[name])
    rows += [
        Row("rate", name, rate, "pages/CPU s", rate / rates["puna"] if "puna" in rates else None)
        for name, rate in rates.items()
    ]
    peers = {name.split()[0] for name in chosen} - {"puna"}
    finish(__file__, sorted(rows, key=lambda row: row.name), {name: version(name) for name in sorted(peers)})


def span(name: str, peer: str, values: np.ndarray) -> list[Any]:
    """Rows of the ends of an interval of 95%."""
    from table import Row

    low, high = np.quantile(values, (0.025, 0.975))
    return [Row(f"{name}, low", peer, float(low), ""), Row(f"{name}, high", peer, float(high), "")]


if __name__ == "__main__":
    main()
