"""What each stage of the corpus' paths is for Puna, datatrove and cc_net: `corpus_stages.py` measures it.

A function here takes the benchmark's folder, loads what the stage needs, and gives the work: documents and an
empty folder to write to -> what comes out, one by one. Puna's call what `puna.corpus.passes` and `merge`
call; peers' are their own steps.
"""

import dataclasses
import itertools
import pickle
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import corpus

MINIMUM_CHARACTERS, LANGUAGE_SCORE, LINE_MEMORY = 200, 0.5, 500_000_000  # defaults of Puna's settings
Work = Callable[["Documents", Path], Iterable[Any]]


class Documents:
    """What a stage gave: gone through as often as wanted, one in memory at a time. seconds: CPU time that
    takes, to be left out; given: how many were, the last time."""

    def __init__(self, path: Path, form: Callable[[Any], Any], most: int | None = None) -> None:
        self.path, self.form, self.most = path, form, most
        self.seconds, self.given = 0.0, 0

    def __iter__(self) -> Iterator[Any]:
        self.given = 0
        with self.path.open("rb") as file:
            while self.given != self.most:
                started = time.process_time()
                try:
                    document = self.form(pickle.load(file))
                except EOFError:
                    return
                self.seconds += time.process_time() - started
                self.given += 1
                yield document


def lots(documents: Iterable[dict[str, Any]], characters: int) -> Iterator[list[dict[str, Any]]]:
    """Documents in lots of so many characters or a little more, as the pipeline takes them."""
    lot, size = [], 0
    for document in documents:
        lot.append(document)
        size += len(document["text"])
        if size >= characters:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def count(found: Iterable[Any]) -> int:
    return sum(1 for _ in found)


def left_by(folder: Path, stage: str, side: str) -> Path:
    """The folder a stage writes to; it stays for the next stage."""
    return folder / "left" / stage / side


# Puna


def puna_reads(folder: Path) -> Work:
    from puna.corpus.filters.clean import clean
    from puna.corpus.readers.web import page, warc
    from puna.corpus.record import RawDocument

    # The reader without the extractor.
    warc.read_page = lambda html, content_type: page.Page("", page.decode(html, content_type))

    def work(files: Documents, scratch: Path) -> Iterator[Any]:
        for file in files:
            is_html = file.parent.name == "warc"  # a page's text is cleaned once it is extracted
            for document in warc.read(file):
                if isinstance(document, RawDocument):
                    yield {
                        "source": "crawl",
                        "file": file.name,
                        "url": document.url,
                        "offset": document.offset,
                        "title": document.title,
                        "raw_digest": document.raw_digest,
                        "id": document.raw_digest,
                        "text": document.text if is_html else clean(document.text),
                    }

    return work


def puna_extracts(folder: Path) -> Work:
    return lambda documents, scratch: (
        {**document, "text": text} for document in documents if (text := corpus.main_text(document["text"]))
    )


def puna_tells_language(folder: Path, glue_lines: bool = False) -> Work:
    from puna.corpus.filters import language

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        for document in documents:
            label, score = language.identify(document["text"], glue_lines)
            if label == "en" and score >= LANGUAGE_SCORE:
                yield {**document, "language": label, "language_score": score}

    return work


def puna_judges(folder: Path) -> Work:
    from puna.corpus.filters import heuristics
    from puna.corpus.record import digest

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        for document in documents:
            figures = heuristics.measure(document["text"])
            if not heuristics.refuse(document["text"], figures, MINIMUM_CHARACTERS):
                yield {**document, "id": digest(document["text"]), **dataclasses.asdict(figures)}

    return work


def puna_c4(folder: Path) -> Work:
    from puna.corpus.filters.c4 import c4_clean

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        for document in documents:
            text, reason = c4_clean(document["text"], None, every_script=False)
            if not reason:
                yield {**document, "text": text}

    return work


def puna_signs(folder: Path) -> Work:
    import numpy as np

    from puna.corpus import tables
    from puna.corpus.dedup import near

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        found = []
        for lot in lots(documents, tables.BATCH_CHARACTERS):
            found.append(near.signatures([document["text"] for document in lot]))
            yield from lot
        np.save(scratch / "near.npy", np.concatenate(found))

    return work


def puna_finds(folder: Path) -> Work:
    import numpy as np

    from puna.corpus import tables
    from puna.corpus.dedup.index import Index

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        signatures = np.load(left_by(folder, "warc signatures", "puna") / "near.npy", mmap_mode="r")
        index, done = Index(scratch / "near"), 0
        for lot in lots(documents, tables.BATCH_CHARACTERS):
            found = index.add([document["id"] for document in lot], signatures[done : done + len(lot)])
            done += len(lot)
            yield from itertools.compress(lot, (found < 0).tolist())
        index.close()

    return work


def puna_hands_on(folder: Path) -> Work:
    from puna.corpus import tables
    from puna.corpus.record import Record, record_schema

    def work(documents: Documents, scratch: Path) -> Iterable[Any]:
        with tables.writing_table(scratch / "records.parquet", record_schema(), "lz4") as writer:
            for document in documents:
                writer.add(Record(**document))
        return map(dataclasses.asdict, tables.read_records(scratch / "records.parquet"))

    return work


def puna_writes(folder: Path) -> Work:
    from puna.corpus import tables
    from puna.corpus.record import Record, document_schema

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        with tables.writing_table(scratch / "crawl.parquet", document_schema()) as writer:
            for document in documents:
                writer.add(Record(**document))
                yield document

    return work


def puna_removes_lines(folder: Path) -> Work:
    import numpy as np

    from puna.corpus.dedup import lines

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        hashes = np.concatenate([lines.line_hashes([document["text"]])[0] for document in documents])
        keep, done = lines.HashSet(LINE_MEMORY).mark_new(hashes), 0
        for document in documents:
            text = document["text"]
            kept = keep[done : done + text.count("\n") + 1]
            done += len(kept)
            if not kept.all():
                text = lines.keep_lines(text, kept).strip("\n")
                text = lines.BLANK_LINES.sub("\n\n", text)
            if text:
                yield {**document, "text": text}

    return work


def puna_cuts(folder: Path) -> Work:
    from puna.corpus.filters import perplexity

    model = perplexity.load(folder / "perplexity")

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        for lot in lots(documents, perplexity.BATCH_CHARACTERS):
            ids, starts = model.encoder.encode_flat(
                [perplexity.normalise(document["text"]) for document in lot]
            )
            for document, start, end in zip(lot, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                yield {**document, "ids": ids[start:end]}

    return work


def puna_scores(folder: Path) -> Work:
    import numpy as np

    from puna.corpus.filters import perplexity

    model = perplexity.load(folder / "perplexity")
    begin, end = [model.encoder.processor.bos_id()], [model.encoder.processor.eos_id()]

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        for lot in lots(documents, perplexity.BATCH_CHARACTERS):
            framed = np.concatenate(
                [part for document in lot for part in (begin, document["ids"], end)]
            ).astype(np.uint32)
            ends = np.cumsum([len(document["ids"]) + 2 for document in lot])
            starts = np.append(0, ends[:-1])
            found = 10.0 ** (-np.add.reduceat(model.ngrams.scores(framed, 1), starts) / (ends - starts - 1))
            for document, value in zip(lot, found.tolist(), strict=True):
                yield {**document, "perplexity": value, "bucket": perplexity.bucket(value, corpus.BUCKETS)}

    return work


# datatrove


def as_datatrove(document: dict[str, Any]) -> Any:
    from datatrove.data import Document

    known = {key: document[key] for key in ("language", "language_score") if key in document}
    return Document(
        document["text"],
        document["id"],
        metadata={"url": document["url"], "file_path": document["file"], **known},
    )


def datatrove_reads(folder: Path) -> Work:
    from datatrove.pipeline.readers import WarcReader

    reader = WarcReader(str(folder / "warc"))
    return lambda files, scratch: reader.read_files_shard([file.name for file in files])


def trafilatura(folder: Path) -> Work:
    from datatrove.pipeline.extractors import Trafilatura

    extractor = Trafilatura(favour_precision=True)
    extractor.extract("<p>Its child process need not load it again.</p>")
    return lambda documents, scratch: extractor.run(documents)


def datatrove_with_puna(folder: Path) -> Work:
    extractor = corpus.puna_extractor()
    extractor.extract("<p>Its child process need not load it again.</p>")
    return lambda documents, scratch: extractor.run(documents)


def datatrove_tells_language(folder: Path) -> Work:
    from datatrove.pipeline.filters import LanguageFilter
    from datatrove.utils import lid

    lid.cached_asset_path_or_download = lambda *_, **__: str(corpus.language_model())
    step = LanguageFilter("en", language_threshold=LANGUAGE_SCORE)
    return lambda documents, scratch: step.run(documents)


def gopher(folder: Path) -> Work:
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    repetition, quality = GopherRepetitionFilter(), GopherQualityFilter()
    return lambda documents, scratch: quality.run(repetition.run(documents))


def datatrove_c4(folder: Path) -> Work:
    from datatrove.pipeline.filters import C4QualityFilter

    from puna.corpus.filters import c4

    step = C4QualityFilter(min_num_sentences=c4.MINIMUM_SENTENCES, min_words_per_line=c4.MINIMUM_WORDS)
    return lambda documents, scratch: step.run(documents)


def datatrove_signs(folder: Path) -> Work:
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    def work(documents: Documents, scratch: Path) -> Iterable[Any]:
        MinhashDedupSignature(str(scratch), MinhashConfig(), language="eng").run(documents)
        return range(documents.given)

    return work


def datatrove_finds(folder: Path) -> Work:
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets

    signatures, config = str(left_by(folder, "warc signatures", "datatrove")), MinhashConfig()

    def work(documents: Documents, scratch: Path) -> Iterable[Any]:
        buckets, remove = str(scratch / "buckets"), str(scratch / "remove")
        for rank in range(config.num_buckets):
            MinhashDedupBuckets(signatures, buckets, config=config).run(None, rank, config.num_buckets)
        MinhashDedupCluster(buckets, remove, config=config).run()
        return MinhashDedupFilter(remove).run(documents)

    return work


def datatrove_hands_on(folder: Path) -> Work:
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    def work(documents: Documents, scratch: Path) -> Iterable[Any]:
        count(JsonlWriter(str(scratch)).run(documents))
        count(JsonlReader(str(scratch)).run())
        return JsonlReader(str(scratch)).run()

    return work


def datatrove_writes(folder: Path) -> Work:
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    return lambda documents, scratch: JsonlWriter(str(scratch)).run(documents)


# cc_net


def as_cc_net(document: dict[str, Any]) -> dict[str, Any]:
    text = document["text"]
    given = {
        "url": document["url"],
        "digest": document["raw_digest"],
        "length": len(text),
        "nlines": text.count("\n") + 1,
    }
    kept = {
        key: document[key]
        for key in ("language", "language_score", "tokenized", "perplexity", "bucket")
        if key in document
    }
    return {**given, "title": document["title"], "raw_content": text, **kept}


def cc_net_reads(folder: Path) -> Work:
    sys.path.insert(0, str(corpus.PEERS / "cc_net"))
    # Wanted by its list of dumps alone.
    sys.modules.setdefault("bs4", types.SimpleNamespace(BeautifulSoup=None))
    from cc_net import jsonql, process_wet_file

    return lambda files, scratch: (
        document
        for file in files
        for document in process_wet_file.parse_warc_file(jsonql.open_read(file), min_len=300)
    )


def cc_net_hands_on(folder: Path) -> Work:
    read = cc_net_reads(folder)
    return lambda documents, scratch: read(sorted((folder / "wet").iterdir()), scratch)


def cc_net_removes_lines(folder: Path) -> Work:
    sys.path.insert(0, str(corpus.PEERS / "cc_net"))
    from cc_net import dedup, flat_hash_set

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        hashes = scratch / "hashes.bin"
        with dedup.HashesCollector(
            field="raw_content", output=hashes, hashes=flat_hash_set.FlatHashSet()
        ) as collector:
            for document in documents:
                collector.do(document)
        with dedup.DuplicatesRemover(field="raw_content", hashes_files=[hashes]) as step:
            yield from filter(None, map(step, documents))

    return work


def cc_net_works(*steps: Any) -> Work:
    for step in steps:
        step.__enter__()

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        for document in documents:
            for step in steps:
                document = step(document)
            if document is not None:
                yield document

    return work


def cc_net_tells_language(folder: Path) -> Work:
    sys.path.insert(0, str(corpus.PEERS / "cc_net"))
    from cc_net import jsonql, split_by_lang

    model, is_english = (
        corpus.language_model(),
        jsonql.where([lambda document: document.get("language") == "en"]),
    )
    return cc_net_works(
        split_by_lang.Classifier(
            model=model, field="raw_content", out_field="language", top=1, threshold=LANGUAGE_SCORE
        ),
        is_english,
    )


def cc_net_cuts(folder: Path) -> Work:
    return cc_net_works(corpus.cc_net_models(folder / "perplexity")[0])


def cc_net_scores(folder: Path) -> Work:
    return cc_net_works(corpus.cc_net_models(folder / "perplexity")[1])


def cc_net_writes(folder: Path) -> Work:
    sys.path.insert(0, str(corpus.PEERS / "cc_net"))
    from cc_net import jsonql, perplexity

    def work(documents: Documents, scratch: Path) -> Iterator[Any]:
        with (
            perplexity.DropKeys("tokenized") as drop,
            jsonql.split(pattern=str(scratch / "{language}_{bucket}.json.gz")) as split,
        ):
            for document in documents:
                split(drop(document))
        return range(documents.given)

    return work
