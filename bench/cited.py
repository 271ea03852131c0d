"""How well the classifier of cited pages tells real ones from others, on sites that it has not seen.

    PUNA_DATA=... python bench/cited.py [--against REVISION]

Cited: pages that English Wikipedia cites (`raw/cited`). Others: the English web pages of `html_eval`, `warc`
and `html_multilingual`, at most 20 of a site. What would tell the two sets apart without being about citation
is made equal: of each page only lines of prose are read, at most 1,500 characters, and the shares of lengths
are the same on both sides. Five folds by site: every page is scored by a model trained on the others' sites.
Intervals of 95% are from sites drawn again, since pages of one site are alike. --against: the same folds and
texts for the code of another revision of this repository, and the difference over the same drawn sites.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import table

from puna.corpus.filters import binary, language, reference
from puna.corpus.readers.web import warc
from puna.corpus.record import RawDocument
from puna.errors import UserError

HERE = Path(__file__).parents[1]
RAW = Path(os.environ.get("PUNA_DATA", HERE / "shared" / "data")) / "raw"
OTHERS = ("html_eval/*.warc.gz", "warc/*arc*", "html_multilingual/debian-en-*")
FOLDS, OF_A_SITE, DRAWS = 5, 20, 1_000
LONGEST, SHORTEST, PROSE_LINE = 1_500, 400, 80  # characters
PROSE = re.compile(r"[.!?…][\"”’')\]]*$")
Page = tuple[bool, str, str, str]  # cited, site, address, text


def prose(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if len(line) >= PROSE_LINE and PROSE.search(line))[:LONGEST]


def site(url: str) -> str:
    """The site; of copies in archives and of pages under made-up addresses, what they stand for."""
    if archived := re.search(r"archive\.org/.*?/(?:https?:/+)?(.*)", url):
        return reference.site("http://" + archived[1])
    parts = url.split("/")
    if "fixture.invalid" in url:
        return parts[3] if parts[3] != "readability" else parts[-1]
    return reference.site(url)


def pages() -> list[Page]:
    found: dict[str, Page] = {}
    for cited, pattern in ((True, "cited/*.warc.gz"), *((False, pattern) for pattern in OTHERS)):
        for path in sorted(RAW.glob(pattern)):
            if path.suffixes and {".wet", ".wat"} & set(path.suffixes):
                continue
            with contextlib.suppress(UserError):  # of a damaged archive what can be read
                for item in warc.read(path):
                    text = prose(item.text) if isinstance(item, RawDocument) else ""
                    if len(text) >= SHORTEST and language.identify(text)[0] == "en":
                        found.setdefault(text[:200], (cited, site(item.url), item.url, text))
    kept, of_site = [], Counter[str]()
    for page in sorted(found.values(), key=lambda page: digest(page[2])):
        of_site[page[1]] += 1
        if of_site[page[1]] <= OF_A_SITE:
            kept.append(page)
    return of_equal_lengths(kept)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def of_equal_lengths(given: list[Page]) -> list[Page]:
    """Cut texts so that both classes have the same quantiles of length: the lower ones of both."""
    classes = [
        sorted((page for page in given if page[0] == cited), key=lambda p: len(p[3])) for cited in (0, 1)
    ]
    places = np.linspace(0, 1, 201)
    lengths = np.min([np.quantile([len(page[3]) for page in own], places) for own in classes], axis=0)
    cut = []
    for own in classes:
        for rank, (cited, name, url, text) in enumerate(own):
            cut.append((cited, name, url, text[: int(np.interp(rank / (len(own) - 1), places, lengths))]))
    return sorted(cut, key=lambda page: digest(page[2]))


def folds(given: list[Page]) -> np.ndarray:
    """A fold for each page: whole sites, the largest first, each to the fold that has fewest of its class."""
    own: dict[str, list[int]] = {}
    for number, page in enumerate(given):
        own.setdefault(page[1], []).append(number)
    found, filled = np.zeros(len(given), np.int64), np.zeros((FOLDS, 2))
    for name in sorted(own, key=lambda name: (-len(own[name]), digest(name))):
        kind = int(given[own[name][0]][0])
        fold = int(np.argmin(filled[:, kind]))
        found[own[name]] = fold
        filled[fold, kind] += len(own[name])
    return found


def scores(given: list[Page], fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each page its score by the model that has not seen its site, and that model's threshold."""
    found, limits = np.zeros(len(given)), np.zeros(len(given))
    for number in range(FOLDS):
        training = [page for page, own in zip(given, fold, strict=True) if own != number]
        model = reference.train(
            *([page[2:] for page in training if page[0] == cited] for cited in (True, False))
        )
        held_out = np.flatnonzero(fold == number)
        found[held_out] = model.score([given[i][3] for i in held_out])
        limits[held_out] = model.threshold
    return found, limits


def of_revision(revision: str, given: list[Page]) -> np.ndarray:
    """Scores by the code of a revision of this repository, of the same texts."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", revision, "src"], cwd=HERE, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        texts = Path(folder) / "pages.json"
        texts.write_text(json.dumps(given))
        environment = {**os.environ, "PYTHONPATH": f"{folder}/src"}
        command = [sys.executable, __file__, "--score", str(texts)]
        run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return np.array(json.loads(run.stdout))


def measures(found: np.ndarray, kept: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> dict[str, float]:
    areas = [binary.area_under_curve(found[fold == own], labels[fold == own]) for own in range(FOLDS)]
    return {
        "area under the curve, mean of folds": float(np.mean(areas)),
        "area under the curve, pooled": binary.area_under_curve(found, labels),
        "precision": float(labels[kept].mean()),
        "recall": float(kept[labels].mean()),
        "others kept": float(kept[~labels].mean()),
    }


def drawn(given: list[Page]) -> list[np.ndarray]:
    """Pages of sites drawn with replacement, as numbers, DRAWS times; cited ones and others apart."""
    own: dict[tuple[bool, str], list[int]] = {}
    for number, page in enumerate(given):
        own.setdefault(page[:2], []).append(number)
    random = np.random.default_rng(0)
    classes = [[numbers for (cited, _), numbers in own.items() if cited == kind] for kind in (True, False)]
    return [
        np.concatenate([sites[i] for sites in classes for i in random.integers(0, len(sites), len(sites))])
        for _ in range(DRAWS)
    ]


def interval(values: list[float]) -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"({low:.3f} to {high:.3f})"


def report(given: list[Page], revision: str | None) -> list[table.Row]:
    fold, labels = folds(given), np.array([page[0] for page in given])
    found, limits = scores(given, fold)
    kept = found >= limits
    draws = drawn(given)
    again = [measures(found[i], kept[i], labels[i], fold[i]) for i in draws]
    rows = []
    for name, value in measures(found, kept, labels, fold).items():
        span = interval([own[name] for own in again])
        print(f"{name}: {value:.4f} {span}")
        rows += table.rows(f"{name} {span}", "share", {"puna": value})
    if revision:
        before = of_revision(revision, given)
        was = measures(before, kept, labels, fold)
        earlier = [measures(before[i], kept[i], labels[i], fold[i]) for i in draws]
        for name in list(was)[:2]:
            span = interval([new[name] - old[name] for new, old in zip(again, earlier, strict=True)])
            gain = measures(found, kept, labels, fold)[name] - was[name]
            print(f"{name}: {was[name]:.4f} at {revision}; gain {gain:.4f} {span}")
            rows += table.rows(f"gain over {revision}, {name} {span}", "share", {"puna": gain})
    for cited, kind in ((True, "cited pages"), (False, "other pages")):
        sites = {page[1] for page in given if page[0] == cited}
        rows += table.rows(kind, f"of {len(sites)} sites", {"puna": float((labels == cited).sum())})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="REVISION")
    parser.add_argument("--score", metavar="FILE", help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.score:
        given = [tuple(page) for page in json.loads(Path(arguments.score).read_text())]
        print(json.dumps(scores(given, folds(given))[0].tolist()))
        return
    table.finish(__file__, report(pages(), arguments.against))


if __name__ == "__main__":
    main()
