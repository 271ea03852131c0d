"""The perplexity filter: training and scoring of n-gram models, and the whole path from text to perplexity.

    python bench/kneser_ney.py FOLDER [--megabytes 100] [--vocab-size 65536] [--lmplz PATH]

The text is every UTF-8 file under FOLDER in order of its path, cut into documents of 8,000 characters, up to
a size. Times are CPU seconds, over all threads, of one thread unless said; memory is the peak of a process
that does nothing else, its tokens included. Peers: kenlm (of the test extra) scores with the ARPA file of the
same model, as CCNet does: pieces as words in a string; lmplz, where its path is given, estimates from the
same pieces. For peers that start from files the text is the first tenth.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import arpa
import numpy as np
import table

from puna.corpus.filters import perplexity
from puna.text import ngram
from puna.text.bpe import Encoder

DOCUMENT_CHARACTERS = 8_000
SCORED_BYTES = 20_000_000


def documents(folder: Path, size: int) -> list[str]:
    """The text of the files under a folder, up to `size` bytes."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
        except (UnicodeDecodeError, OSError):
            continue
        for start in range(0, len(text), DOCUMENT_CHARACTERS):
            found.append(text[start : start + DOCUMENT_CHARACTERS])
            size -= len(found[-1].encode())
            if size <= 0:
                return found
    return found


def estimate(tokens: Path, vocab_size: int, begin: int) -> None:
    """The part of the bench that runs in a process of its own: estimate, save beside the tokens, and tell
    what it took."""
    ids = np.load(tokens)
    started, wall = time.process_time(), time.perf_counter()
    model = ngram.estimate([ids], vocab_size=vocab_size, begin=begin)
    told = {"cpu": time.process_time() - started, "wall": time.perf_counter() - wall}
    told["bytes"] = peak_bytes("self")
    model.save(tokens.with_suffix(".bin"))
    print(json.dumps({**told, "ngrams": [len(order.last_tokens) for order in model.orders]}))


def estimated(tokens: np.ndarray, path: Path, vocab_size: int, begin: int) -> dict:
    np.save(path, tokens)
    command = [sys.executable, __file__, str(path), "--estimate", str(vocab_size), str(begin)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_bytes(process: int | str) -> int:
    """Most memory that a process has held since it became this program (getrusage would count what its parent
    held); 0 once it ended."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return 1024 * int(found[1]) if found else 0


def peer_estimate(lmplz: str, sentences: Path, scratch: Path) -> tuple[float, float]:
    """CPU seconds and peak bytes of lmplz."""
    command = [lmplz, "-o", "5", "-S", "1G", "-T", f"{scratch}/", "--discount_fallback", "--skip_symbols"]
    command += ["--text", str(sentences), "--arpa", str(scratch / "peer.arpa")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = 0
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.02)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def best(work: Callable[[], object]) -> float:
    """The least CPU seconds of three runs."""
    return min(table.cpu_seconds(work) for _ in range(3))


def measure(arguments: argparse.Namespace, scratch: Path) -> Iterator[table.Row]:
    texts = documents(Path(arguments.folder), int(arguments.megabytes * 1e6))
    size = sum(len(text.encode()) for text in texts)
    normalised = [perplexity.normalise(text) for text in texts]
    started = time.process_time()
    pieces = perplexity._train_pieces(
        perplexity._lines(texts, False, 10_000_000), arguments.vocab_size, "bpe", False
    )
    yield table.Row("pieces trained on 10 million characters", "puna", time.process_time() - started, "CPU s")
    encoder = Encoder(pieces)
    processor = encoder.processor
    begin, vocab_size = processor.bos_id(), processor.vocab_size()
    tokens, starts = perplexity._encoded(encoder, normalised, 2)

    scored = texts[
        : int(np.searchsorted(np.cumsum([len(text.encode()) for text in texts]), SCORED_BYTES)) + 1
    ]
    scored_size = sum(len(text.encode()) for text in scored)
    told = estimated(tokens, scratch / "all.npy", vocab_size, begin)
    yield table.Row("text", "puna", size / 1e6, "MB")
    yield table.Row("tokens", "puna", len(tokens) / 1e6, "millions")
    yield table.Row("n-grams", "puna", sum(told["ngrams"]) / 1e6, "millions")
    yield table.Row("estimation", "puna", told["cpu"], "CPU s")
    yield table.Row("estimation, wall", "puna", told["wall"], "s")
    yield table.Row("estimation", "puna", len(tokens) / told["cpu"] / 1e6, "million tokens/CPU s")
    yield table.Row("peak memory of estimation", "puna", told["bytes"] / 1e9, "GB")
    yield table.Row("model file", "puna", (scratch / "all.bin").stat().st_size / 1e9, "GB")

    model = perplexity.PerplexityModel(pieces, encoder, ngram.load(scratch / "all.bin"), False)
    part = tokens[: starts[len(scored)]] if len(scored) < len(starts) else tokens
    seconds = best(lambda: [perplexity.normalise(text) for text in scored])
    yield table.Row("normalisation", "puna", scored_size / seconds / 1e6, "MB/CPU s")
    seconds = best(lambda: encoder.encode_flat(normalised[: len(scored)]))
    yield table.Row("pieces", "puna", scored_size / seconds / 1e6, "MB/CPU s")
    seconds = best(lambda: model.ngrams.scores(part))
    yield table.Row("scoring", "puna", len(part) / seconds / 1e6, "million tokens/CPU s")
    seconds = best(lambda: model.perplexities(scored))
    yield table.Row("text to perplexity", "puna", len(scored) / seconds, "documents/CPU s")
    yield table.Row("text to perplexity", "puna", scored_size / seconds / 1e6, "MB/CPU s")

    count = max(1, len(starts) // 10)
    tenth = tokens[: starts[count]] if count < len(starts) else tokens
    told = estimated(tenth, scratch / "tenth.npy", vocab_size, begin)
    small = ngram.load(scratch / "tenth.bin")
    names = [processor.id_to_piece(number) for number in range(vocab_size)]
    sentences = [
        " ".join(names[token] for token in document[1:-1]) for document in np.split(tenth, starts[1:count])
    ]
    if arguments.lmplz:
        (scratch / "sentences.txt").write_text("\n".join(sentences) + "\n")
        seconds, memory = peer_estimate(arguments.lmplz, scratch / "sentences.txt", scratch)
        # lmplz writes an ARPA file; so that both end there, ours writes one too.
        writing = table.cpu_seconds(lambda: arpa.write(small, scratch / "ours.arpa", names))
        yield from table.rows("a tenth: estimation", "CPU s", {"puna": told["cpu"], "lmplz": seconds})
        yield from table.rows(
            "a tenth: estimation and ARPA file", "CPU s", {"puna": told["cpu"] + writing, "lmplz": seconds}
        )
        yield from table.rows(
            "a tenth: peak memory", "GB", {"puna": told["bytes"] / 1e9, "lmplz": memory / 1e9}
        )
    try:
        import kenlm
    except ImportError:
        return
    arpa.write(small, scratch / "ours.arpa", names)
    peer = kenlm.Model(str(scratch / "ours.arpa"))
    speeds = {"puna": len(tenth) / best(lambda: small.scores(tenth)) / 1e6}
    speeds["kenlm"] = len(tenth) / best(lambda: [peer.score(sentence) for sentence in sentences]) / 1e6
    yield from table.rows("a tenth: scoring", "million tokens/CPU s", speeds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--vocab-size", type=int, default=65_536)
    parser.add_argument("--lmplz")
    parser.add_argument("--estimate", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.estimate:
        estimate(Path(arguments.folder), *arguments.estimate)
        return
    with tempfile.TemporaryDirectory() as scratch:
        table.finish(__file__, list(measure(arguments, Path(scratch))))


if __name__ == "__main__":
    main()
