"""Prediction with a quantised fastText model: in C++ where there is a compiler, else in numpy, equal results.

Joulin et al. 2016 (the model), Joulin et al. 2016b (its product quantisation), for models of 16 dimensions
with 2- to 4-grams of characters and a hierarchical softmax, such as lid.176.ftz. Rows are unpacked once into
integer multiples of 2^-24, so their sum does not depend on its order; fastText adds 32-bit floats, and its
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
    "dim", "ws", "epoch", "minCount", "neg", "wordNgrams", "loss", "model", "bucket", "minn", "maxn",
    "lrUpdateRate",
)  # fmt: skip
# loss 1: hierarchical softmax; model 3: supervised.
SUPPORTED = {"dim": 16, "wordNgrams": 1, "loss": 1, "model": 3, "minn": 2, "maxn": 4}
CENTROIDS, SCALE, LABEL, END = 256, 1 << 24, "__label__", b"</s>"
OFFSET, PRIME = np.uint32(2166136261), np.uint32(16777619)  # of FNV-1a
SPACES = bytes.maketrans(b"\t\n\v\f\r\0", b"      ")
CHUNK = 50_000  # bytes whose n-grams are in memory at once, in numpy


class Model:
    """The model in a file. Raises UserError where there is none, or one of another kind."""

    def __init__(self, path: Path) -> None:
        try:
            self._read(_File(path.read_bytes()))
        except (struct.error, ValueError, IndexError) as error:
            raise UserError(
                f"{path}: not a quantised fastText model of the kind of lid.176.ftz ({error})"
            ) from error
        self._native = compiled.load(SOURCE, SIGNATURES)
        tables = (self._names, self._ends, self._bits, self._ranks)
        pointers = (table.ctypes.data for table in tables)
        slots = self._slots.ctypes.data, len(self._slots) - 1
        sizes = self.bucket_count, len(self.words)
        self._native_tables = (*slots, *pointers, *sizes, self.rows.ctypes.data)

    def _read(self, file: "_File") -> None:
        settings = _read_settings(file)
        words, labels, counts, buckets = _read_dictionary(file, settings["bucket"])
        rows = _read_matrix(file, len(words) + len(buckets), settings["dim"])
        shape = len(labels), settings["dim"]
        if file.take("?") != (False,) or file.take("2q") != shape:
            raise ValueError("its output is quantised")
        self.output = file.array("<f4", shape[0] * shape[1]).reshape(shape)[:-1].astype(np.float64)
        self.labels = tuple(label.decode().removeprefix(LABEL) for label in labels)
        self._tables(words, np.round(rows * SCALE).astype(np.int32), buckets, settings["bucket"])
        self._paths(counts)

    def _tables(self, names: list[bytes], rows: Any, buckets: Any, bucket_count: int) -> None:
        """Make tables to find the row of a word or n-gram: rows of words, then of buckets in order."""
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
        """Build the Huffman tree over the labels as fastText does, and list the choices on the way to each.

        Of equal counts the earlier node comes first.
        """
        parents, right = {}, set()
        leaves = [(count, -number) for number, count in enumerate(counts)]  # fastText starts at the last leaf
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
        """Predict the probability of each of `labels`, float64."""
        raw = text.encode("utf-8", "ignore").translate(SPACES)
        if b"</s>" in raw or b"__label__" in raw:  # mostly inside of words, where they mean nothing
            raw = _plain_words(raw)
        total, count = self._row_sum(raw)
        hidden = (total + self.rows[self.words[END]]) / (SCALE * (count + 1))
        chance = 1 / (1 + np.exp(np.minimum(-(self.output @ hidden), 700)))
        choices = np.log(np.concatenate([1 - chance, chance]) + 1e-5)
        return np.exp(np.add.reduceat(choices[self._choices], self._starts))

    def _row_sum(self, raw: bytes) -> tuple[Any, int]:
        total = np.zeros(self.rows.shape[1], np.int64)
        if self._native is None:
            count = sum(self._add(chunk, total) for chunk in _chunks(raw))
            return total, count
        return total, self._native.row_sum(raw, len(raw), *self._native_tables, total.ctypes.data)

    def _add(self, raw: bytes, total: Any) -> int:
        """Add the rows of a text's words and n-grams to `total`; return how many there were."""
        tokens = raw.split()
        rows = [np.array([self.words[token] for token in tokens if token in self.words], np.int64)]
        marked = np.frombuffer(b"".join(b"<%b>" % token for token in tokens), np.uint8)
        word = np.repeat(np.arange(len(tokens)), [len(token) + 2 for token in tokens])
        starts = np.flatnonzero((marked & 0xC0) != 0x80)
        ends, padded = np.append(starts[1:], len(marked)), np.append(marked, np.zeros(16, np.uint8))
        for n in range(SUPPORTED["minn"], SUPPORTED["maxn"] + 1):
            first, last = starts[: max(len(starts) - n + 1, 0)], ends[n - 1 :]
            in_one_word = word[first] == word[last - 1]
            first, last = first[in_one_word], last[in_one_word]
            hashes = _hashes(padded[first[:, None] + np.arange(4 * n)], last - first)
            buckets = hashes % np.uint32(self.bucket_count)
            at = np.minimum(np.searchsorted(self.buckets, buckets), len(self.buckets) - 1)
            rows.append(len(self.words) + at[self.buckets[at] == buckets])
        every_row = np.concatenate(rows)
        total += self.rows[every_row].sum(0, dtype=np.int64)
        return len(every_row)


class _File:
    """The content of a model file, read from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def take(self, form: str) -> tuple[Any, ...]:
        """Read values of a form of the struct module."""
        values = struct.unpack_from(f"<{form}", self._content, self._at)
        self._at += struct.calcsize(f"<{form}")
        return values

    def array(self, kind: str, size: int) -> Any:
        values = np.frombuffer(self._content, kind, size, self._at)
        self._at += values.nbytes
        return values

    def entry(self) -> tuple[bytes, int]:
        """Read an entry of the dictionary: its name, ended by a NUL, and its count."""
        end = self._content.index(0, self._at)
        name, count = self._content[self._at : end], self._content[end + 1 : end + 9]
        self._at = end + 10  # behind the count stands whether it is a label
        return name, int.from_bytes(count, "little")

    def centroids(self) -> Any:
        """Read the centroids of a product quantiser, float32 [parts, 256, values of a part]."""
        dimensions, _, part, last = self.take("4i")
        if part != last:
            raise ValueError("parts of unequal size")
        return self.array("<f4", dimensions * CENTROIDS).reshape(-1, CENTROIDS, part)


def _read_settings(file: _File) -> dict[str, int]:
    if file.take("2i") != (MAGIC, VERSION):
        raise ValueError("another format")
    settings = dict(zip(SETTINGS, file.take("12i"), strict=True))
    if other := {key: settings[key] for key, value in SUPPORTED.items() if settings[key] != value}:
        raise ValueError(f"it has {other}")
    file.take("d")
    return settings


def _read_dictionary(file: _File, bucket_count: int) -> tuple[list[bytes], list[bytes], list[int], Any]:
    """Read words, labels, counts of labels; and bucket and row of n-grams with a row, int32 [pruned, 2]."""
    size, words, labels, _, pruned = file.take("3i2q")
    if size != words + labels or min(words, labels - 1, pruned) < 1:
        raise ValueError(f"{words} words, {labels} labels and {pruned} n-grams of a dictionary of {size}")
    entries = [file.entry() for _ in range(size)]
    names, counts = [name for name, _ in entries], [count for _, count in entries]
    if END not in names[:words]:
        raise ValueError("its dictionary has no end of text")
    buckets = file.array("<i4", 2 * pruned).reshape(-1, 2)
    one_row_each = (np.sort(buckets[:, 1]) == np.arange(pruned)).all()
    if not one_row_each or not 0 <= buckets[:, 0].min() <= buckets[:, 0].max() < bucket_count:
        raise ValueError("its n-grams have no rows of their own")
    return names[:words], names[words:], counts[words:], buckets


def _read_matrix(file: _File, rows: int, dimensions: int) -> Any:
    """Read and unpack the quantised input matrix, float64 [rows, dimensions]."""
    if file.take("2?") != (True, True):
        raise ValueError("it is not quantised with norms")
    *shape, code_bytes = file.take("qqi")
    if shape != [rows, dimensions]:
        raise ValueError(f"a matrix of {shape[0]} rows of {shape[1]}")
    codes = file.array("u1", code_bytes).reshape(rows, -1)
    centroids = file.centroids()
    norms = file.array("u1", rows)
    norm_centroids = file.centroids().reshape(-1)
    vectors = centroids[np.arange(len(centroids)), codes].reshape(rows, -1)
    return (vectors * norm_centroids[norms][:, None]).astype(np.float64)


def _hashes(strings: Any, sizes: Any) -> Any:
    """FNV-1a of the first `sizes` bytes of each row, taken as signed, as in fastText; uint32."""
    hashes = np.full(len(strings), OFFSET)
    for position in range(strings.shape[1]):
        signed = strings[:, position].astype(np.int8).astype(np.int32).astype(np.uint32)
        hashes = np.where(position < sizes, (hashes ^ signed) * PRIME, hashes)
    return hashes


def _plain_words(raw: bytes) -> bytes:
    """The words before one that ends the text, without labels."""
    tokens = raw.split()
    tokens = tokens[: tokens.index(END)] if END in tokens else tokens
    return b" ".join(token for token in tokens if not token.startswith(LABEL.encode()))


def _chunks(raw: bytes) -> list[bytes]:
    """Split a text at spaces into chunks of about `CHUNK` bytes."""
    chunks, start = [], 0
    while start < len(raw):
        end = raw.find(b" ", start + CHUNK)
        end = len(raw) if end < 0 else end
        chunks.append(raw[start:end])
        start = end
    return chunks
