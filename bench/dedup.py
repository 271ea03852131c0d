"""Duplicates: lines, near-duplicate documents and books against plain Python, datasketch and rensa, on real
text.

Needs PUNA_DATA (raw/gutenberg); peers that are not installed are left out. Every measurement is a process of
its own, so that its peak memory is its own too; CPU seconds are those of the work alone.
"""

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import table

from puna.corpus.dedup import books, index, lines, near
from puna.text import hashing

MEGABYTES = 200
DELETED = re.compile("[«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．：；？～\\x00-\\x1f\\x7f-\\x9f]")
DIGIT = re.compile(r"\d")


def library() -> list[str]:
    folder = Path(os.environ["PUNA_DATA"]) / "raw" / "gutenberg"
    return [path.read_text(errors="replace") for path in sorted(folder.glob("*.txt"))]


def documents(size: int = 4000) -> list[str]:
    return [text[at : at + size] for text in library() for at in range(0, len(text), size)]


def many_lines() -> list[str]:
    """Copies of the books until there are MEGABYTES; every second copy has lines of its own."""
    texts, made, copy = library(), [], 0
    while sum(map(len, made)) < MEGABYTES * 10**6:
        mark = "".join(chr(97 + int(digit)) for digit in str(copy // 2 * 2))
        made += [text.replace("\n", f" {mark}\n") for text in texts]
        copy += 1
    return made


def python_lines(texts: list[str]) -> list[bytes]:
    found = []
    for text in texts:
        for line in text.split("\n"):
            plain = DELETED.sub("", DIGIT.sub("0", line.strip().lower()))
            found.append(hashlib.sha1(plain.encode("utf-8", "surrogatepass")).digest()[:8])
    return found


def python_shingles(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[at : at + 5]) for at in range(len(words) - 4)]


def dedup_lines(texts: list[str]) -> None:
    seen = lines.HashSet(512 << 20)
    for text in texts:
        lines.keep_lines(text, seen.mark_new(lines.line_hashes([text])[0]))


def dedup_lines_python(texts: list[str]) -> None:
    seen: set[bytes] = set()
    for text in texts:
        kept = []
        for line, key in zip(text.split("\n"), python_lines([text]), strict=True):
            if key not in seen:
                kept.append(line)
            seen.add(key)
        "\n".join(kept)


def signatures_datasketch(texts: list[str]) -> None:
    from datasketch import MinHash

    for text in texts:
        MinHash(128).update_batch([shingle.encode() for shingle in python_shingles(text)])


def signatures_rensa(texts: list[str]) -> None:
    signatures_rensa_alone([python_shingles(text) for text in texts])


def signatures_rensa_alone(shingled: list[list[str]]) -> None:
    from rensa import RMinHash

    RMinHash.digest_matrix_from_token_sets(shingled, 128, 42)


def made_signatures(count: int = 100_000) -> np.ndarray:
    """Signatures of documents of which one in four repeats an earlier one, up to a tenth of its places."""
    rng = np.random.default_rng(0)
    made = rng.integers(0, 2**32 - 1, (count, 128), np.uint32)
    again = np.flatnonzero(rng.random(count) < 0.25)[1:]
    made[again] = np.where(rng.random((len(again), 128)) < 0.1, made[again], made[rng.integers(0, again)])
    return made


def index_puna(signatures: np.ndarray) -> None:
    folder = Path(tempfile.mkdtemp())
    ours = index.Index(folder)
    for start in range(0, len(signatures), 10_000):
        part = signatures[start : start + 10_000]
        ours.add([f"{start + at:032d}" for at in range(len(part))], part)
        ours.commit()
    shutil.rmtree(folder)


def index_datasketch(signatures: np.ndarray) -> None:
    from datasketch import MinHash, MinHashLSH

    ours, scheme = MinHashLSH(params=near.bands(), num_perm=128), MinHash(1).scheme
    for at, row in enumerate(signatures):
        minhash = MinHash(128, hashvalues=row, scheme=scheme)
        if not ours.query(minhash):
            ours.insert(at, minhash)


def add_books(texts: list[str]) -> None:
    ours = books.Books()
    for text in texts:
        ours.add("", text)


Work = Callable[..., None]
# What is measured, its unit, how many units a made input holds, how it is made, and who does it.
CASES: dict[str, tuple[str, Callable[[object], float], Callable[[], object], dict[str, Work]]] = {
    "normalise and hash lines": (
        "million lines / CPU second",
        lambda texts: sum(text.count("\n") + 1 for text in texts) / 1e6,
        library,
        {
            "puna": lines.line_hashes,
            "puna without a compiler": lines.line_hashes,
            "python, SHA-1": python_lines,
        },
    ),
    f"deduplicate the lines of {MEGABYTES} MB": (
        "MB / CPU second",
        lambda texts: sum(map(len, texts)) / 1e6,
        many_lines,
        {"puna": dedup_lines, "python, SHA-1": dedup_lines_python},
    ),
    "MinHash signatures": (
        "MB / CPU second",
        lambda texts: sum(map(len, texts)) / 1e6,
        documents,
        {
            "puna": near.signatures,
            "puna without a compiler": near.signatures,
            "datasketch": signatures_datasketch,
            "rensa": signatures_rensa,
        },
    ),
    "MinHash signatures, shingles made before": (
        "MB / CPU second",
        lambda shingled: sum(map(len, library())) / 1e6,
        lambda: [python_shingles(text) for text in documents()],
        {"rensa": signatures_rensa_alone},
    ),
    "find and add signatures": (
        "documents / CPU second",
        len,
        made_signatures,
        {"puna, on disk": index_puna, "datasketch, in memory": index_datasketch},
    ),
    "books": ("MB / CPU second", lambda texts: sum(map(len, texts)) / 1e6, library, {"puna": add_books}),
}


def one(name: str, peer: str) -> None:
    """Measure one case in this process: units a CPU second, and how much the peak of resident memory grew
    over the input's."""
    _, size, make, peers = CASES[name]
    made = make()
    hashing.line_table(), hashing.letter_table(), hashing.library()  # made once a process
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = table.cpu_seconds(lambda: peers[peer](made))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"rate": size(made) / seconds, "grown": (peak - before) / 1024, "peak": peak / 1024}))


def main() -> None:
    versions = {}
    for package in ("datasketch", "rensa"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            print(f"{package} is not installed: left out")
    found = []
    for name, (unit, _, _, peers) in CASES.items():
        taken = [
            peer
            for peer in peers
            if not peer.startswith(("datasketch", "rensa")) or peer.split(",")[0] in versions
        ]
        if not taken:
            continue
        results: dict[str, dict[str, float]] = {}

        def measure(peer: str, name: str = name, results: dict[str, dict[str, float]] = results) -> float:
            switched = {**os.environ, "PUNA_KERNELS": "off"} if "without" in peer else None
            text = subprocess.run(
                [sys.executable, __file__, name, peer],
                env=switched,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            results[peer] = json.loads(text)
            return results[peer]["rate"]

        medians = table.alternate(
            {peer: (lambda peer=peer, measure=measure: measure(peer)) for peer in taken}, 3
        )
        found += table.rows(name, unit, medians, taken[0] if taken[0].startswith("puna") else "")
        found += table.rows(
            f"{name}: memory over the input", "MB", {peer: results[peer]["grown"] for peer in taken}, ""
        )
        found += table.rows(f"{name}: peak", "MB", {peer: results[peer]["peak"] for peer in taken}, "")
    table.finish(__file__, found, versions)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(*sys.argv[1:])
    else:
        main()
