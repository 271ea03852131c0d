"""Text to token ids with LLaMA's tokenizer.model: bytes per second on real text of several kinds, two threads
each.

    PUNA_DATA=... python bench/tokenizer.py    # --cpu: by CPU seconds of all threads, for a busy machine

Peers: SentencePiece, and Hugging Face tokenizers with the same pieces and merges. Every document's ids are
compared with SentencePiece's.
"""

import bz2
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import table

from puna.text.bpe import SPACE_MARK, Encoder

THREADS = 2
KIND_BYTES = 4_000_000
DOCUMENT_CHARACTERS = 10_000
DATA = Path(os.environ.get("PUNA_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pages(languages: str) -> Iterator[str]:
    """Text of web pages."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from selectolax.lexbor import LexborHTMLParser

    for language in languages.split():
        with (DATA / "raw" / "html_multilingual" / f"debian-{language}-00.warc.gz").open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                body = LexborHTMLParser(record.reader.read().decode("utf-8", "replace")).body
                yield body.text(separator="\n") if body else ""


def files(folder: Path, pattern: str) -> Iterator[str]:
    for path in sorted(folder.rglob(pattern)):
        content = path.read_bytes()
        if path.suffix == ".bz2":
            content = bz2.BZ2Decompressor().decompress(content, KIND_BYTES // 2)
        yield content.decode("utf-8", "replace")


def kinds() -> dict[str, list[str]]:
    raw = DATA / "raw"
    sources = {
        "English books": files(raw / "gutenberg", "*.txt"),
        "English Wikipedia, wikitext": files(raw / "wikipedia", "*enwiki*.bz2"),
        "Wikipedia in 90 languages, wikitext": files(raw / "wikipedia", "minidump-*.bz2"),
        "Python's standard library": files(Path(os.__file__).parent, "[a-z]*.py"),
        "LaTeX": files(raw / "arxiv", "*.tex"),
        "pages, European languages": pages("de es fr it nl ru el ro ca da en"),
        "pages, Chinese, Japanese, Korean": pages("zh_CN ja ko"),
    }
    return {name: documents(texts) for name, texts in sources.items()}


def documents(texts: Iterator[str]) -> list[str]:
    """Texts in documents of DOCUMENT_CHARACTERS, about KIND_BYTES together."""
    found: list[str] = []
    size = 0
    for text in texts:
        for start in range(0, len(text), DOCUMENT_CHARACTERS):
            found.append(text[start : start + DOCUMENT_CHARACTERS])
            size += len(found[-1].encode())
            if size > KIND_BYTES:
                return found
    return found


def hugging_face(processor: Any) -> Any:
    """The same model for Hugging Face tokenizers: merges in the order of their pieces' scores, as
    transformers converts them."""
    from tokenizers import Tokenizer, models, normalizers

    mark = SPACE_MARK.decode()
    vocabulary = {processor.id_to_piece(token): token for token in range(processor.vocab_size())}
    merges = []
    for piece, token in vocabulary.items():
        if processor.is_control(token) or processor.is_byte(token) or processor.is_unknown(token):
            continue
        parts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        halves = sorted(
            (vocabulary[a], vocabulary[b], a, b) for a, b in parts if a in vocabulary and b in vocabulary
        )
        merges += [(-processor.get_score(token), left, right) for *_, left, right in halves]
    merges.sort(key=lambda merge: merge[0])
    pairs = [(left, right) for _, left, right in merges]
    peer = Tokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    peer.normalizer = normalizers.Sequence([normalizers.Prepend(mark), normalizers.Replace(" ", mark)])
    return peer


def main() -> None:
    os.environ |= {"RAYON_NUM_THREADS": str(THREADS), "TOKENIZERS_PARALLELISM": "true"}
    from importlib.metadata import version

    model = (DATA / "models" / "llama-tokenizer" / "tokenizer.model").read_bytes()
    encoder = Encoder(model)
    peer = hugging_face(encoder.processor)
    clock = time.process_time if "--cpu" in sys.argv else time.perf_counter
    unit = "MB per CPU second" if "--cpu" in sys.argv else "MB/s"
    found = []
    for name, texts in kinds().items():
        size = sum(len(text.encode()) for text in texts)
        expected = encoder.processor.encode(texts, num_threads=THREADS)
        ids, offsets = encoder.encode_flat(texts, THREADS)
        ours = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]
        theirs = [encoding.ids for encoding in peer.encode_batch_fast(texts)]
        for who, lists in {"puna": ours, "tokenizers": theirs}.items():
            equal = sum(a == b for a, b in zip(lists, expected, strict=True)) / len(texts)
            found.append(table.Row(f"{name}: documents with SentencePiece's ids", who, equal, "share"))

        def speed(prepare: Callable[[], Callable[[], Any]], size: int = size) -> float:
            call = prepare()
            started = clock()
            call()
            return size / 1e6 / (clock() - started)

        def forgetful(texts: list[str] = texts) -> Callable[[], Any]:
            fresh = Encoder(model)
            fresh.encode_flat([""])  # builds its tables; no word of the last round is remembered
            return lambda: fresh.encode_flat(texts, THREADS)

        prepared: dict[str, Callable[[], Callable[[], Any]]] = {
            "puna": forgetful,
            "sentencepiece": lambda texts=texts: lambda: encoder.processor.encode(texts, num_threads=THREADS),
            "tokenizers": lambda texts=texts: lambda: peer.encode_batch_fast(texts),
        }
        medians = table.alternate(
            {who: functools.partial(speed, prepare) for who, prepare in prepared.items()}, 5
        )
        found += table.rows(f"{name}, {size / 1e6:.1f} MB", unit, medians)
    table.finish(__file__, found, {package: version(package) for package in ("sentencepiece", "tokenizers")})


if __name__ == "__main__":
    main()
