"""Documents per CPU second and peak memory of every stage of the corpus' two long paths, beside the same
stage of datatrove and cc_net.

    python bench/corpus_stages.py WARC... [--dump WIKIPEDIA_DUMP] [--rounds 3] [--only STAGE...]

Files, models, parameters and peers as `corpus.py` has them; what a stage is for each stands in
`corpus_works.py`. A stage works by itself on what the stage before, Puna's, gave: the same documents for
everyone, read from disk one by one off the clock. It runs on one processor in a process of its own, after a
first run on a few documents that loads models, and again and again until it has taken a CPU second. Documents
per CPU second are of those that came in (of reading: the pages that Puna finds), so their ratio is one of CPU
time; "documents" are those that came out. Peak memory is that of the process, or of its largest child, with
all that it imports and loads; what of it was there after the first run, "of it loaded", stands below it.

What a stage does for Puna, and for its peer where that is other work:

- warc read: records, pages decoded; digests / WarcReader: no digests, any HTTP status, no XHTML that libmagic
  calls XML
- warc extract: block classifier / Trafilatura, or Puna's code, in a child process that pages go to through a
  pipe
- warc language: four pieces of 400 characters / LanguageFilter: the whole text, the scores of all 176
  languages
- warc heuristics: length and alphanumeric share; digests / Gopher's repetition and quality filters, a dozen
  rules over spaCy's words
- warc c4 (no part of the path): C4's rules, without its spans of sentences / C4QualityFilter with the same
  limits, spaCy's sentences
- warc signatures: 128 functions, words of its own / MinhashDedupSignature: 112, spaCy's words; files sorted
  and read again
- warc near-duplicates: index on disk, pairs checked against 0.8 / Buckets, Cluster, Filter: one of 14 equal
  buckets is enough
- warc handing on: Parquet (lz4) written, read once / JSON lines (gzip) written, read twice, as its example
  does
- warc writing: Parquet (zstd) / JSON lines (gzip)
- wet read: any WARC and ARC; digests / lines of text, headers by their position; under 300 characters dropped
- wet handing on: Parquet (lz4) written, read once / reads its WET file again instead
- wet lines: the first copy stays; 64-bit sums / no copy stays; SHA-1 in both passes; a dict where getpy is
  not installed
- wet language: four pieces of 400 characters; the whole text as cc_net / the whole text, lines glued
- wet pieces: normalised, white space kept; ids / normalised, line ends deleted; SentencePiece with the same
  model; strings
- wet perplexity: its own n-gram model / the same model in KenLM
- wet writing: Parquet (zstd) / JSON lines (gzip), a flush after each
"""

import argparse
import functools
import json
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import corpus_works as works
import table
from corpus_works import Documents, Work, count, left_by

LEAST_SECONDS = 1.0
WARM_UP = 8  # documents; of archives, one

# name: (whose documents come in, how everyone works on them)
STAGES: dict[str, tuple[str, dict[str, Callable[[Path], Work]]]] = {
    "warc read": ("warc", {"puna": works.puna_reads, "datatrove": works.datatrove_reads}),
    "warc extract": (
        "warc read",
        {
            "puna": works.puna_extracts,
            "datatrove": works.trafilatura,
            "datatrove, Puna's extractor": works.datatrove_with_puna,
        },
    ),
    "warc language": (
        "warc extract",
        {"puna": works.puna_tells_language, "datatrove": works.datatrove_tells_language},
    ),
    "warc heuristics": ("warc language", {"puna": works.puna_judges, "datatrove": works.gopher}),
    "warc c4": ("warc heuristics", {"puna": works.puna_c4, "datatrove": works.datatrove_c4}),
    "warc signatures": ("warc heuristics", {"puna": works.puna_signs, "datatrove": works.datatrove_signs}),
    "warc near-duplicates": (
        "warc signatures",
        {"puna": works.puna_finds, "datatrove": works.datatrove_finds},
    ),
    "warc handing on": (
        "warc heuristics",
        {"puna": works.puna_hands_on, "datatrove": works.datatrove_hands_on},
    ),
    "warc writing": (
        "warc near-duplicates",
        {"puna": works.puna_writes, "datatrove": works.datatrove_writes},
    ),
    "wet read": ("wet", {"puna": works.puna_reads, "cc_net": works.cc_net_reads}),
    "wet handing on": ("wet read", {"puna": works.puna_hands_on, "cc_net": works.cc_net_hands_on}),
    "wet lines": ("wet read", {"puna": works.puna_removes_lines, "cc_net": works.cc_net_removes_lines}),
    "wet language": (
        "wet lines",
        {
            "puna": works.puna_tells_language,
            "puna, whole text": functools.partial(works.puna_tells_language, glue_lines=True),
            "cc_net": works.cc_net_tells_language,
        },
    ),
    "wet pieces": ("wet language", {"puna": works.puna_cuts, "cc_net": works.cc_net_cuts}),
    "wet perplexity": ("wet pieces", {"puna": works.puna_scores, "cc_net": works.cc_net_scores}),
    "wet writing": ("wet perplexity", {"puna": works.puna_writes, "cc_net": works.cc_net_writes}),
}
ARCHIVES = ("warc", "wet")
FORMS: dict[str, Callable[[Any], Any]] = {
    "puna": dict,
    "datatrove": works.as_datatrove,
    "cc_net": works.as_cc_net,
}


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def one(stage: str, side: str, given: str) -> None:
    folder = Path(given)
    takes, sides = STAGES[stage]
    path, scratch = folder / f"{takes}.pickle", left_by(folder, stage, side)
    form = Path if takes in ARCHIVES else FORMS[side.partition(",")[0]]
    work = sides[side](folder)
    count(work(Documents(path, form, 1 if takes in ARCHIVES else WARM_UP), fresh(scratch)))
    loaded, peak, used, times, found = corpus.peak(), 0, 0.0, 0, 0
    while used < LEAST_SECONDS:
        documents = Documents(path, form)
        fresh(scratch)
        before = corpus.cpu()
        found = count(work(documents, scratch))
        used += corpus.cpu() - before - documents.seconds
        times += 1
        peak = peak or corpus.peak()  # of one pass over the documents
    print(
        corpus.RESULT + json.dumps({"documents": found, "cpu": used / times, "peak": peak, "loaded": loaded})
    )


def prepare(stages: list[str], folder: Path) -> dict[str, int]:
    """What every stage of Puna gives, which is what comes into the next, as a file; how many documents each
    holds."""
    counts = {}
    for archives in ARCHIVES:
        with (folder / f"{archives}.pickle").open("wb") as file:
            for path in sorted((folder / archives).iterdir()):
                pickle.dump(str(path), file)
    for stage in stages:
        takes, sides = STAGES[stage]
        documents = Documents(folder / f"{takes}.pickle", Path if takes in ARCHIVES else dict)
        counts[stage] = 0
        with (folder / f"{stage}.pickle").open("wb") as file:
            for document in sides["puna"](folder)(documents, fresh(left_by(folder, stage, "puna"))):
                if "ids" in document and "tokenized" not in document:  # what KenLM is given
                    document["tokenized"] = " ".join(
                        piece_names(folder)[number] for number in document["ids"].tolist()
                    )
                pickle.dump(document, file)
                counts[stage] += 1
    return counts


@functools.cache
def piece_names(folder: Path) -> list[str]:
    from puna.corpus.filters import perplexity

    processor = perplexity.load(folder / "perplexity").encoder.processor
    return [processor.id_to_piece(number) for number in range(processor.vocab_size())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dump", type=Path, help="without it, the WARC path alone")
    parser.add_argument("--only", nargs="*", default=list(STAGES), choices=list(STAGES))
    options = parser.parse_args()
    stages = [stage for stage in STAGES if options.dump or stage.startswith("warc")]
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        corpus.prepare(options.files, options.dump, folder)
        counts = prepare(stages, folder)
        results: dict[str, dict[str, list[dict[str, float]]]] = {
            stage: {side: [] for side in STAGES[stage][1]} for stage in stages if stage in options.only
        }
        for _ in range(options.rounds):
            for stage, sides in results.items():
                for side, found in sides.items():
                    found.append(corpus.run(__file__, [stage, side, made], not side.startswith("puna")))
    for stage, sides in results.items():
        middle = {
            side: sorted(found, key=lambda entry: entry["cpu"])[len(found) // 2]
            for side, found in sides.items()
        }
        came_in = counts[stage if STAGES[stage][0] in ARCHIVES else STAGES[stage][0]]
        rows += table.rows(
            f"{stage}: documents", "documents", {side: entry["documents"] for side, entry in middle.items()}
        )
        speeds = {side: came_in / entry["cpu"] for side, entry in middle.items()}
        rows += table.rows(f"{stage}: documents per CPU second", "documents/s", speeds)
        rows += table.rows(
            f"{stage}: peak memory", "bytes", {side: entry["peak"] for side, entry in middle.items()}
        )
        rows += table.rows(
            f"{stage}: of it loaded", "bytes", {side: entry["loaded"] for side, entry in middle.items()}
        )
    table.finish(__file__, rows, {"datatrove": "0.10", "cc_net": "its public repository"})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        main()
