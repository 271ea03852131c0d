"""Predicts with a quantised model of fastText: in C++ where there is a compiler, else in numpy, with the same
result.

Joulin et al. 2016 (the model), Joulin et al. 2016b (its product quantisation), for models of 16 dimensions
with 2- to 4-grams of characters and a hierarchical softmax, which lid.176.ftz is. Rows are unpacked once into
whole numbers of 2^-24, so their sum does not depend on its order; fastText adds 32-bit floats, and its
probabilities agree within 3e-6.

The file, all little-endian: magic and version, 12 settings, the dictionary (words, then labels, each with its
count; n-gram buckets that have a row, and which), the input matrix as codes of a product quantiser and a norm
for each row, the output matrix.
"""

import heapq
import struct
from pathlib import Path
from typing import Any

import numpy as np

from puna.errors import UserError
from puna.run import compiled

SOURCE = Path(__file__).with_suffix(".cpp")
SIGNATURES = {"row_sum": "pnpnppppnnpp->n"}
MAGIC, VERSION = 793712314, 12
SETTINGS = (
    "dim",
    "ws",
    "epoch",
    "minCount",
    "neg",
    "wordNgrams",
    "loss",
    "model",
    "bucket",
    "minn",
    "maxn",
    "lrUpdateRate",
)
SUPPORTED = {
    "dim": 16,
    "wordNgrams": 1,
    "loss": 1,
    "model": 3,
    "minn": 2,
    "maxn": 4,
}  # loss 1: hierarchical softmax; model 3: supervised
CENTROIDS, SCALE, LABEL, END = 256, 1 << 24, "__label__", b"</s>"
OFFSET, PRIME = np.uint32(2166136261), np.uint32(16777619)  # of FNV-1a
SPACES = bytes.maketrans(b"\t\n\v\f\r\0", b"      ")
PIECE = 50_000  # bytes whose n-grams are in memory at once, in numpy


class Model:
    """The model in a file. Raises UserError where there is none, or one of another kind."""

    def __init__(self, path: Path) -> None:
        try:
            self._read(path.read_bytes())
        except (struct.error, ValueError, IndexError) as error:
            raise UserError(
                f"{path}: not a quantised fastText model of the kind of lid.176.ftz ({error})"
            ) from error
        self._native = compiled.load(SOURCE, SIGNATURES)
        tables = (self._names, self._ends, self._bits, self._ranks)
        places = tuple(table.ctypes.data for table in tables)
        self._native_tables = (
            self._slots.ctypes.data, len(self._slots) - 1, *places, self.bucket_count, len(self.words), self.rows.ctypes.data
        )  # fmt: skip

    def _read(self, raw: bytes) -> None:
        at = 0

        def take(form: str) -> tuple[Any, ...]:
            nonlocal at
            values = struct.unpack_from(f"<{form}", raw, at)
            at += struct.calcsize(f"<{form}")
            return values

        def array(kind: str, size: int) -> Any:
            nonlocal at
            values = np.frombuffer(raw, kind, size, at)
            at += values.nbytes
            return values

        def centroids() -> Any:
            dimensions, _, part, last = take("4i")
            if part != last:
                raise ValueError("parts of unequal size")
            return array("<f4", dimensions * CENTROIDS).reshape(-1, CENTROIDS, part)

        if take("2i") != (MAGIC, VERSION):
            raise ValueError("another format")
        settings = dict(zip(SETTINGS, take("12i"), strict=True))
        if other := {key: settings[key] for key, value in SUPPORTED.items() if settings[key] != value}:
            raise ValueError(f"it has {other}")
        take("d")
        size, words, labels, _, pruned = take("3i2q")
        if size != words + labels or min(words, labels - 1, pruned) < 1:
            raise ValueError(f"{words} words, {labels} labels and {pruned} n-grams of a dictionary of {size}")
        names, counts = [], []
        for _ in range(size):
            end = raw.index(0, at)
            names.append(raw[at:end])
            at = end + 1
            counts.append(int.from_bytes(raw[at : at + 8], "little"))
            at += 9  # the count, and whether it is a label
        if END not in names[:words]:
            raise ValueError("its dictionary has no end of text")
        buckets = array("<i4", 2 * pruned).reshape(-1, 2)
        if (
            not (np.sort(buckets[:, 1]) == np.arange(pruned)).all()
            or not 0 <= buckets[:, 0].min() <= buckets[:, 0].max() < settings["bucket"]
        ):
            raise ValueError("its n-grams have no rows of their own")
        if take("2?") != (True, True):
            raise ValueError("it is not quantised with norms")
        rows, dimensions, code_bytes = take("qqi")
        if (rows, dimensions) != (words + pruned, settings["dim"]):
            raise ValueError(f"a matrix of {rows} rows of {dimensions}")
        codes = array("u1", code_bytes).reshape(rows, -1)
        parts = centroids()
        norms = array("u1", rows)
        norm_centroids = centroids().reshape(-1)
        if take("?") != (False,) or take("2q") != (labels, dimensions):
            raise ValueError("its output is quantised")
        self.output = array("<f4", labels * dimensions).reshape(labels, -1)[:-1].astype(np.float64)
        self.labels = tuple(name.decode().removeprefix(LABEL) for name in names[words:])
        unpacked = parts[np.arange(len(parts)), codes].reshape(rows, -1) * norm_centroids[norms][:, None]
        self._tables(
            names[:words],
            np.round(unpacked.astype(np.float64) * SCALE).astype(np.int32),
            buckets,
            settings["bucket"],
        )
        self._paths(counts[words:])

    def _tables(self, names: list[bytes], rows: Any, buckets: Any, bucket_count: int) -> None:
        """Where a word's or an n-gram's row is: rows of words, then those of buckets in their order."""
        buckets = buckets[np.argsort(buckets[:, 0])]
        self.bucket_count, self.buckets = bucket_count, np.ascontiguousarray(buckets[:, 0])
        self.rows = np.concatenate([rows[: len(names)], rows[len(names) + buckets[:, 1]]])
        self.words = {name: number for number, name in enumerate(names)}
        self._names = np.frombuffer(b"".join(names), np.uint8)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        longest = max(len(name) for name in names)
        padded = np.frombuffer(b"".join(name.ljust(longest) for name in names), np.uint8).reshape(-1, longest)
        slots = [-1] * (1 << (2 * len(names)).bit_length())
        for number, slot in enumerate(_hashes(padded, np.diff(self._ends, prepend=0)).tolist()):
            while slots[slot % len(slots)] >= 0:
                slot += 1
            slots[slot % len(slots)] = number
        self._slots = np.array(slots, np.int32)
        bits = np.zeros(-(-bucket_count // 64) * 64, bool)
        bits[self.buckets] = True
        self._bits = np.packbits(bits, bitorder="little").view(np.uint64)
        self._ranks = np.searchsorted(self.buckets, np.arange(len(self._bits)) * 64).astype(np.int32)

    def _paths(self, counts: list[int]) -> None:
        """Huffman's tree over the labels as fastText builds it (of equal counts the earlier node first): the
        choices on each way."""
        parents, right = {}, set()
        leaves = [
            (count, -number) for number, count in enumerate(counts)
        ]  # fastText takes leaves from the last one on
        inner: list[tuple[int, int]] = []
        heapq.heapify(leaves)
        for node in range(len(counts), 2 * len(counts) - 1):
            pair = []
            for _ in range(2):
                own = not inner or (bool(leaves) and leaves[0][0] < inner[0][0])
                count, number = heapq.heappop(leaves) if own else inner.pop(0)
                pair.append((count, -number if own else number))
            for _, child in pair:
                parents[child] = node
            right.add(pair[1][1])
            inner.append((pair[0][0] + pair[1][0], node))
        choices: list[int] = []
        starts = []
        for label in range(len(counts)):
            starts.append(len(choices))
            node = label
            while node in parents:
                choices.append(parents[node] - len(counts) + (len(counts) - 1) * (node in right))
                node = parents[node]
        self._choices, self._starts = np.array(choices), np.array(starts)

    def predict(self, text: str) -> Any:
        """The probability of each of `labels`, float64."""
        raw = text.encode("utf-8", "ignore").translate(SPACES)
        if (
            b"</s>" in raw or b"__label__" in raw
        ):  # the end of a text and a label, where they are words by themselves
            raw = _words(raw)
        total, count = self._row_sum(raw)
        hidden = (total + self.rows[self.words[END]]) / (SCALE * (count + 1))
        chance = 1 / (1 + np.exp(np.minimum(-(self.output @ hidden), 700)))
        choices = np.log(np.concatenate([1 - chance, chance]) + 1e-5)
        return np.exp(np.add.reduceat(choices[self._choices], self._starts))

    def _row_sum(self, raw: bytes) -> tuple[Any, int]:
        total = np.zeros(self.rows.shape[1], np.int64)
        if self._native is None:
            count = sum(self._add(piece, total) for piece in _pieces(raw))
            return total, count
        return total, self._native.row_sum(raw, len(raw), *self._native_tables, total.ctypes.data)

    def _add(self, raw: bytes, total: Any) -> int:
        """Add the rows of a text's words and n-grams to `total`; give how many there were."""
        tokens = raw.split()
        found = [np.array([self.words[token] for token in tokens if token in self.words], np.int64)]
        marked = np.frombuffer(b"".join(b"<%b>" % token for token in tokens), np.uint8)
        word = np.repeat(np.arange(len(tokens)), [len(token) + 2 for token in tokens])
        starts = np.flatnonzero((marked & 0xC0) != 0x80)
        ends, padded = np.append(starts[1:], len(marked)), np.append(marked, np.zeros(16, np.uint8))
        for n in range(SUPPORTED["minn"], SUPPORTED["maxn"] + 1):
            first, last = starts[: max(len(starts) - n + 1, 0)], ends[n - 1 :]
            one = word[first] == word[last - 1]
            first, last = first[one], last[one]
            hashes = _hashes(padded[first[:, None] + np.arange(4 * n)], last - first) % np.uint32(
                self.bucket_count
            )
            places = np.minimum(np.searchsorted(self.buckets, hashes), len(self.buckets) - 1)
            found.append(len(self.words) + places[self.buckets[places] == hashes])
        rows = np.concatenate(found)
        total += self.rows[rows].sum(0, dtype=np.int64)
        return len(rows)


def _hashes(strings: Any, sizes: Any) -> Any:
    """FNV-1a of the first `sizes` bytes of each row, which have a sign, as fastText takes them; uint32."""
    found = np.full(len(strings), OFFSET)
    for place in range(strings.shape[1]):
        signed = (
            strings[:, place].view(np.int8)
            if strings.strides[1] == 1
            else strings[:, place].astype(np.uint8).view(np.int8)
        )
        found = np.where(place < sizes, (found ^ signed.astype(np.int32).astype(np.uint32)) * PRIME, found)
    return found


def _words(raw: bytes) -> bytes:
    """The words before one that ends the text, without labels."""
    tokens = raw.split()
    tokens = tokens[: tokens.index(END)] if END in tokens else tokens
    return b" ".join(token for token in tokens if not token.startswith(LABEL.encode()))


def _pieces(raw: bytes) -> list[bytes]:
    """The text in pieces of about `PIECE` bytes, cut at spaces."""
    found, start = [], 0
    while start < len(raw):
        end = raw.find(b" ", start + PIECE)
        end = len(raw) if end < 0 else end
        found.append(raw[start:end])
        start = end
    return found
